import math

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from oracles import BACKEND, MODES, USUAL
from sklearn.datasets import load_digits

from keras_initlab import callbacks, recommend
from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    GradientNormLogger,
)
from keras_initlab.callbacks._alerts import Alerts
from keras_initlab.diagnosis import (
    KINDS,
    Finding,
    Observation,
    Rules,
    Signal,
    SignalRules,
)

pytestmark = pytest.mark.slow_on_jax

# What starts fastest; the mode is nothing to the rules.
QUICK = MODES["jit" if BACKEND == "jax" else "eager"]


def alert(path="model/first", rule="dead units", step=3):
    return Finding(rule, path, 0.5, (0.0, 1.0), "has no units", "Get some.", step=step)


def test_a_line_names_rule_step_layer_finding_and_cure():
    line = "dead units, step 3: model/first has no units. Get some."
    assert alert().line() == line
    assert alert().line(1) == line.replace("units. ", "units (and 1 more layer). ")
    assert alert().line(2) == line.replace("units. ", "units (and 2 more layers). ")


def test_a_rule_speaks_once_of_a_layer_in_a_fit():
    lines = []
    alerts = Alerts(lines.append)
    for path in ("a", "a", "b", "a"):
        alerts.note(alert(path))
        alerts.send()
    assert [line.split()[4] for line in lines] == ["a", "b"]
    assert [one.path for one in alerts.found] == ["a", "b"]
    alerts.begin()
    alerts.note(alert("a"))
    alerts.send()
    assert [line.split()[4] for line in lines] == ["a", "b", "a"]


def test_a_rule_speaks_in_one_line_at_a_time_and_five_in_a_fit():
    lines = []
    alerts = Alerts(lines.append)
    for epoch in range(8):
        for path in ("a", "b", "c"):
            alerts.note(alert(f"{path}{epoch}"))
        alerts.send()
    alerts.note(alert(rule="saturated units"))
    alerts.send()
    assert len(alerts.found) == 25
    assert [line[:29] for line in lines] == [
        *(f"dead units, step 3: a{epoch} has no"[:29] for epoch in range(5)),
        "saturated units, step 3: mode",
    ]
    assert all("(and 2 more layers)" in line for line in lines[:5])


@pytest.mark.parametrize("silent", [False, 0, np.False_], ids=repr)
def test_false_keeps_what_is_found_and_says_nothing(silent, capsys):
    alerts = Alerts(silent)
    alerts.note(alert())
    alerts.send()
    assert capsys.readouterr() == ("", "")
    assert alerts.found == [alert()]


def test_true_prints_one_line_to_the_error_output(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    path = "model/[red]stage 3[/red]/:smile:/a long name"
    alerts = Alerts(True)
    alerts.note(alert(path))
    alerts.send()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"dead units, step 3: {path} has no units. Get some.\n"


@pytest.mark.parametrize("bad", [None, "yes", 2, []], ids=repr)
@pytest.mark.parametrize(
    "kind", [Alerts, ActivationStatsLogger, DeadReLULogger, GradientNormLogger]
)
def test_alerts_of_the_wrong_kind(kind, bad):
    with pytest.raises(ValueError, match=r"`alerts` must be True.*alerts=") as error:
        kind(bad) if kind is Alerts else kind(alerts=bad)
    assert repr(bad) in str(error.value)


# --- The rules of gradients ----------------------------------------------------------

PATHS = [f"layer{i}" for i in range(9)]


def observation(norms=(), step=0, totals=None, ratios=None, kernels=None, **others):
    """Norms of layers by depth, the first one nearest to the input."""
    given = dict(zip(PATHS, norms, strict=False))
    outputs = dict.fromkeys(given, 1.0) | (totals or {})
    return Observation(
        step,
        given,
        {path: np.float32(value) for path, value in outputs.items()},
        set(given) if kernels is None else set(kernels),
        ratios or {},
        **others,
    )


def judged(*seen):
    rules = Rules()
    found = [a for one in seen for a in rules.judge(one)]
    assert all(map(is_beyond, found))
    return [(a.kind, a.path, a.step) for a in found]


def is_beyond(one):
    """Whether what was measured is not what was expected; NaN never is."""
    low, high = one.expected
    return one.kind in KINDS and not low <= one.measured <= high


# 99 and 101 times larger before layer 4 than after it; 9e4 and 1.1e5 over all.
DEPTH = {
    "flat": ([1.0] * 9, None),
    "no leap": ([99.0] * 4 + [1.0] * 5, None),
    "leap": ([101.0] * 4 + [1.0] * 5, ("exploding gradient", "layer3")),
    "leap at the first": ([101.0] + [1.0] * 8, ("exploding gradient", "layer0")),
    "too few": ([101.0] * 2 + [1.0] * 3, None),
    "zeros do not count": ([101.0] * 2 + [1.0] * 3 + [0.0] * 4, None),
    "slow rise": ([7.0**i for i in range(9)][::-1], ("exploding gradient", "layer0")),
    "slow fall": ([7.0**i for i in range(9)], ("vanishing gradient", "layer0")),
    "slow rise within": ([6.5**i for i in range(9)][::-1], None),
    "slow fall within": ([6.5**i for i in range(9)], None),
    # As where layer scales close the branches: the head stands as high as the stem.
    "closed branches": ([2.0] + [1e-6] * 7 + [1.0], None),
    "closed branches, two stems": ([2.0, 2.0] + [1e-6] * 6 + [1.0], None),
}


@pytest.mark.parametrize(("norms", "found"), DEPTH.values(), ids=DEPTH)
def test_gradients_by_depth(norms, found):
    assert judged(observation(norms)) == ([] if found is None else [(*found, 0)])


def test_depth_is_judged_by_kernels_in_the_order_of_execution():
    norms = [101.0] * 4 + [1.0] * 5
    few = observation(norms, kernels=PATHS[:2] + PATHS[5:8])
    assert judged(few) == []
    swapped = Observation(
        0,
        dict(zip(PATHS, norms, strict=True)),
        {path: np.float32(1) for path in reversed(PATHS)},
        set(PATHS),
        {},
    )  # now the first layers have the small gradients
    assert judged(swapped) == []


@pytest.mark.parametrize(
    ("zeros", "found"), [(2, []), (3, [("no gradient", "layer1", 2)])]
)
def test_no_gradient(zeros, found):
    seen = [observation([1.0, 0.0, 1.0], step) for step in range(zeros)]
    assert judged(*seen, observation([1.0] * 3), *seen[:2]) == found


def test_no_gradient_anywhere_is_a_converged_model():
    assert judged(*[observation([0.0] * 3, step) for step in range(9)]) == []


@pytest.mark.parametrize(
    ("usual", "norm", "found"),
    [
        (10, 99.0, []),
        (10, 101.0, [("gradient leaps", "layer1", 10)]),
        (9, 101.0, []),  # too few to know what is usual
    ],
)
def test_leap_in_time(usual, norm, found):
    seen = [observation([0.0, 0.6, 0.8], step) for step in range(usual)]
    last = observation([0.0, 0.99 * norm, 0.15 * norm], usual)
    assert [one for one in judged(*seen, last) if one[0] != "no gradient"] == found


def test_a_leap_back_to_what_the_start_showed_is_none():
    start = [observation([50.0])] + [observation([0.1])] * 20
    assert judged(*start, observation([45.0])) == []
    assert len(judged(*start, observation([55.0]))) == 1


@pytest.mark.parametrize(("ratio", "count"), [(0.099, 0), (0.101, 1), (math.nan, 0)])
def test_large_updates(ratio, count):
    seen = observation([1.0], ratios={"layer0": ratio})
    assert judged(seen) == [("large updates", "layer0", 0)] * count


def test_weights_that_start_at_0_may_leave_it():
    ratios = [math.nan, *(1 / n for n in range(1, 12)), 0.2]
    seen = [observation([1.0], i, ratios={"layer0": r}) for i, r in enumerate(ratios)]
    assert judged(*seen) == [("large updates", "layer0", 12)]
    scale = observation([1.0], ratios={"layer0": 1000.0}, kernels=[])
    assert judged(scale) == []  # of no matrix, as a layer scale of 1e-6


BROKEN = {
    "output": ({"layer1": math.nan, "layer2": math.nan}, [math.nan] * 3, "layer1"),
    "infinite output": ({"layer1": math.inf}, [1.0, math.nan, 1.0], "layer1"),
    "infinite mask": ({"layer1": -math.inf}, [1.0] * 3, None),
    "NaN that is not used": ({"layer1": math.nan}, [1.0] * 3, "layer1"),
    "gradient": ({}, [math.nan, math.inf, 1.0], "layer1"),
    "all gradients": ({}, [math.nan] * 3, "layer2"),
}


@pytest.mark.parametrize(("totals", "norms", "path"), BROKEN.values(), ids=BROKEN)
def test_not_finite(totals, norms, path):
    found = judged(observation(norms, 7, totals))
    assert found == ([] if path is None else [("not finite", path, 7)])


def test_what_follows_from_numbers_that_are_not_finite_is_not_said_again():
    nan = math.nan
    first = observation([nan] * 3, 1, {"layer1": nan})
    after = observation([nan] * 3, 2, {"layer0": nan})
    well = observation([1.0] * 3, 3)
    found = [("not finite", "layer1", 1), ("not finite", "layer0", 2)]
    assert judged(first, after) == found[:1]
    assert judged(first, well, after) == found
    good, bad = signals([1.0] * 3), signals([1.0] * 3, mean=nan)
    seen = [good | {path: bad[path]} for path in PATHS[1::-1]]
    assert judged_signals(*seen) == [("not finite", "layer1")]
    assert len(judged_signals(seen[0], good, seen[1])) == 2


def test_gradients_may_overflow_where_the_loss_is_scaled():
    norms = [math.inf, math.nan, 1.0]
    assert judged(observation(norms, is_scaled=True)) == []
    broken = observation(norms, totals={"layer0": math.nan}, is_scaled=True)
    assert judged(broken) == [("not finite", "layer0", 0)]


# --- The rules of activations --------------------------------------------------------


def signals(sizes, given=None, **figures):
    """Layers by depth, each given what the one before it returns."""
    given = [sizes[0], *sizes[:-1]] if given is None else given
    usual = {"count": 100.0, "mean": 0.0, "std": 1.0, "largest": 3.0} | figures
    each = zip(PATHS, given, sizes, strict=False)
    return {path: Signal(**usual, given=g, size=s) for path, g, s in each}


def judged_signals(*seen):
    rules = SignalRules()
    found = [alert for i, one in enumerate(seen) for alert in rules.judge(i, one)]
    assert all(map(is_beyond, found))
    return [(alert.kind, alert.path) for alert in found]


LEAPS = {
    "flat": ([1.0] * 9, None, None),
    "up within": ([1.0] * 4 + [99.0] * 5, None, None),
    "up": ([1.0] * 4 + [101.0] * 5, None, ("exploding signal", "layer4")),
    "down within": ([1.0] * 4 + [1 / 99] * 5, None, None),
    "down": ([1.0] * 4 + [1 / 101] * 5, None, ("vanishing signal", "layer4")),
    "first": ([101.0] * 3, [1.0, 101, 101], ("exploding signal", "layer0")),
    "last, whose scale is free": ([1.0, 1.0, 1e6], None, None),
    "closed branch": ([1.0] * 4 + [1e-6] + [1.0] * 4, [1.0] * 9, None),
    "zeros": ([1.0] * 4 + [0.0] + [1.0] * 4, [1.0] * 9, None),
    "token numbers": ([0.01] * 3, [math.nan, 0.01, 0.01], None),
    "slow rise": ([4.7**i for i in range(9)], None, ("exploding signal", "layer8")),
    "slow rise within": ([4.6**i for i in range(9)], None, None),
    "slow fall": ([4.7**-i for i in range(9)], None, ("vanishing signal", "layer8")),
    "slow fall within": ([4.6**-i for i in range(9)], None, None),
    "too few to fall slowly": ([60.0**-i for i in range(5)], None, None),
}


@pytest.mark.parametrize(("sizes", "given", "found"), LEAPS.values(), ids=LEAPS)
def test_signal_by_depth(sizes, given, found):
    assert judged_signals(signals(sizes, given)) == ([found] if found else [])


@pytest.mark.parametrize(
    ("figures", "rule"),
    [
        ({"mean": math.nan, "std": math.nan}, "not finite"),
        ({"mean": math.inf, "std": math.nan}, "not finite"),
        ({"largest": math.inf, "std": math.nan}, "not finite"),
        ({"largest": 1e25, "std": math.inf}, "exploding signal"),
    ],
)
def test_signal_that_is_not_finite(figures, rule):
    good, bad = signals([1.0] * 3), signals([1.0] * 3, **figures)
    seen = good | {path: bad[path] for path in PATHS[1:3]}
    assert judged_signals(seen) == [(rule, "layer1")]


@pytest.mark.parametrize(
    ("steps", "count", "found"), [(2, 1e6, 0), (3, 33.0, 0), (3, 34.0, 1)]
)
def test_constant_signal(steps, count, found):
    resting = signals([1.0], std=0.0, count=count)
    seen = [resting] * steps + [signals([1.0])] + [resting] * 2
    assert judged_signals(*seen) == [("constant outputs", "layer0")] * found


# --- Ordinary training ---------------------------------------------------------------


def digits():
    x, y = load_digits(return_X_y=True)
    return (x[:320] / 8 - 1).astype("float32"), y[:320]


def images():
    x, y = digits()
    return x.reshape(-1, 8, 8, 1), y


def rows():
    x, y = digits()
    return x.reshape(-1, 8, 8), y


def sentences():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 500, (160, 12))
    tokens[np.arange(12) >= rng.integers(3, 13, (160, 1))] = 0
    return tokens, (tokens[:, 0] < 250).astype("int32")


def mlp():
    hidden = [layers.Dense(64, "relu") for _ in range(3)]
    return [keras.Input((64,)), *hidden, layers.Dense(10)]


def cnn():
    parts = [keras.Input((8, 8, 1))]
    for width in (16, 32):
        parts += [layers.Conv2D(width, 3, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
    return [*parts, layers.Flatten(), layers.Dropout(0.3), layers.Dense(10)]


def resnet():
    """The last normalization of every block starts from 0."""
    x = keras.Input((8, 8, 1))
    z = layers.Conv2D(16, 3, padding="same")(x)
    for _ in range(4):
        branch = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(z))
        branch = layers.Conv2D(16, 3, padding="same")(layers.ReLU()(branch))
        branch = layers.BatchNormalization(gamma_initializer="zeros")(branch)
        z = layers.ReLU()(layers.Add()([z, branch]))
    z = layers.GlobalAveragePooling2D()(z)
    return keras.Model(x, layers.Dense(10)(z))


def fixup():
    """The last kernel of every block starts from 0."""
    x = keras.Input((64,))
    z = layers.Dense(32)(x)
    for _ in range(6):
        branch = layers.Dense(32, "relu")(z)
        branch = layers.Dense(32, kernel_initializer="zeros")(branch)
        z = layers.Add()([z, branch])
    return keras.Model(x, layers.Dense(10)(z))


def lstm():
    return [
        keras.Input((12,), dtype="int32"),
        layers.Embedding(500, 16, mask_zero=True),
        layers.LSTM(16, return_sequences=True),
        layers.Bidirectional(layers.GRU(8)),
        layers.Dense(1, "sigmoid"),
    ]


def transformer():
    x = keras.Input((8, 8))
    z = layers.Dense(16)(x)
    for _ in range(2):
        normal = layers.LayerNormalization()(z)
        z = layers.Add()([z, layers.MultiHeadAttention(2, 8)(normal, normal)])
        hidden = layers.Dense(32, "gelu")(layers.LayerNormalization()(z))
        z = layers.Add()([z, layers.Dense(16)(hidden)])
    z = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(z))
    return keras.Model(x, layers.Dense(10)(z))


class LayerScale(layers.Layer):
    def build(self, shape):
        start = keras.initializers.Constant(1e-6)
        self.gamma = self.add_weight(shape=shape[-1:], initializer=start)

    def call(self, x):
        return x * self.gamma


def convnext():
    x = keras.Input((8, 8, 1))
    z = layers.LayerNormalization()(layers.Conv2D(16, 2, strides=2)(x))
    for _ in range(4):
        branch = layers.DepthwiseConv2D(3, padding="same")(z)
        branch = layers.Dense(64, "gelu")(layers.LayerNormalization()(branch))
        z = layers.Add()([z, LayerScale()(layers.Dense(16)(branch))])
    z = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(z))
    return keras.Model(x, layers.Dense(10)(z))


def autoencoder():
    widths = (32, 16, 4, 16, 32)
    hidden = [layers.Dense(width, "elu") for width in widths]
    return [keras.Input((64,)), *hidden, layers.Dense(64, "tanh")]


def deep():
    hidden = [layers.Dense(32, "relu") for _ in range(50)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
    recommend(model).apply(seed=0)
    return model


CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HEALTHY = {
    "mlp": (mlp, digits, CROSS),
    "cnn": (cnn, images, CROSS),
    "resnet": (resnet, images, CROSS),
    "fixup": (fixup, digits, CROSS),
    "lstm": (lstm, sentences, "binary_crossentropy"),
    "transformer": (transformer, rows, CROSS),
    "convnext": (convnext, images, CROSS),
    "autoencoder": (autoencoder, lambda: (digits()[0],) * 2, "mse"),
    "deep": (deep, digits, CROSS),
}


def loggers(every, alerts):
    return [
        GradientNormLogger(every, alerts=alerts, updates=True),
        DeadReLULogger(every, alerts=alerts, threshold=0.01),
        ActivationStatsLogger(every, alerts=alerts),
    ]


USUAL_ONES = {"mlp"}  # the others take long to build


@pytest.mark.seconds
@pytest.mark.parametrize("batch", [32, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n not in USUAL_ONES))
        for n in HEALTHY
    ],
)
def test_ordinary_training_raises_no_alert(name, batch):
    build, data, loss = HEALTHY[name]
    x, y = data()
    found = build()
    model = keras.Sequential(found) if isinstance(found, list) else found
    rate = 1e-3 if name != "deep" else 1e-4
    model.compile(optimizers.Adam(rate), loss, **QUICK)
    lines = []
    watching = loggers(1, lines.append)
    result = model.fit(
        x, y, batch_size=batch, epochs=2, verbose=0, callbacks=watching
    ).history
    assert lines == []
    assert result["loss"][1] < result["loss"][0]


def test_an_overflow_of_the_scaled_loss_is_no_alert():
    model = keras.Sequential(mlp())
    scaling = optimizers.LossScaleOptimizer(
        optimizers.Adam(1e-3), initial_scale=2.0**127
    )
    model.compile(scaling, CROSS, **QUICK)
    lines = []
    norms = GradientNormLogger(1, alerts=lines.append)
    x, y = digits()
    model.fit(100 * x, y, batch_size=64, verbose=0, callbacks=[norms])
    assert not np.all(np.isfinite(norms.history["global_norm"]))
    assert lines == []


def test_an_alert_of_each_logger_reaches_the_error_output_and_no_other(capsys):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            *[layers.Dense(8, "relu") for _ in range(2)],
            layers.Dense(8),
        ]
    )
    first, dead, _ = model.layers
    dead.bias.assign([-1e3] * 8)
    model.compile("sgd", "mse", **MODES[USUAL])
    watching = [GradientNormLogger(1), DeadReLULogger(1), ActivationStatsLogger(1)]
    x, y = digits()[0], np.ones((320, 8), "float32")
    model.fit(x, y, batch_size=64, verbose=0, callbacks=watching)
    out, err = capsys.readouterr()
    assert out == ""
    found = {line.split(",")[0]: line for line in err.splitlines() if ", step " in line}
    assert f"{first.path} got a gradient of exactly 0" in found["no gradient"]
    assert f"{dead.path} has 8 of 8 units dead (100%)" in found["dead units"]
    assert f"{dead.path} has returned 0 for every" in found["constant outputs"]
    assert [len(logger.alerts) > 0 for logger in watching] == [True] * 3


def test_a_function_receives_the_lines_and_false_only_keeps_what_is_found(capsys):
    lines, found = [], []
    for alerts in (lines.append, False):
        model = keras.Sequential([keras.Input((64,)), layers.Dense(8, "relu")])
        model.layers[0].bias.assign([-1e3] * 8)
        model.compile("sgd", "mse", **QUICK)
        logger = DeadReLULogger(1, alerts=alerts)
        x, y = digits()[0], np.ones((320, 8), "float32")
        model.fit(x, y, epochs=3, verbose=0, callbacks=[logger])
        found.append([(one.kind, one.measured) for one in logger.alerts])
    assert len(lines) == 1
    assert found == [[("dead units", 1.0)]] * 2
    assert capsys.readouterr() == ("", "")


def test_old_names_work_and_warn():
    one = alert("rule", "path", 3)
    with pytest.warns(DeprecationWarning, match=r"It is called `\.kind` now"):
        assert one.rule == one.kind
    with pytest.warns(DeprecationWarning, match=r"It is called `\.measured` now"):
        assert one.value == one.measured
    with pytest.warns(DeprecationWarning, match=r"it is `keras_initlab\.Finding` now"):
        assert callbacks.Alert is Finding
    with pytest.raises(AttributeError, match="has no attribute 'Alarm'"):
        callbacks.Alarm  # noqa: B018
