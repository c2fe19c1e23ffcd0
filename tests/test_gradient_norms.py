import csv
import gc
import math

import keras
import numpy as np
import pytest
from custom_training import Gan
from keras import layers, ops, optimizers
from oracles import (
    BACKEND,
    MODES,
    USUAL,
    backpropagated,
    gradient_norms,
    needs_steps_per_execution,
    replay,
    weights_of,
)

from keras_initlab.callbacks import CSVLog, GradientNormLogger

# Keras says so where a variable does not take part in the loss.
pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")

EXAMPLES, BATCH, STEPS = 24, 8, 3
SHAPES = {"vectors": (6,), "sequences": (4, 3), "images": (6, 6, 2)}


def inputs(kind="vectors"):
    rng = np.random.default_rng(1)
    if kind == "tokens":
        return rng.integers(0, 4, (EXAMPLES, 5))  # of 7: some repeat, some never come
    return rng.normal(size=(EXAMPLES, *SHAPES[kind])).astype("float32")


def targets():
    return np.random.default_rng(2).normal(size=(EXAMPLES, 2)).astype("float32")


def batches(*arrays, epochs=1):
    for _ in range(epochs):
        for start in range(0, EXAMPLES, BATCH):
            yield tuple(array[start : start + BATCH] for array in arrays)


def dense():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(2)]
    )


def convolution():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def embedding():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 3),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def lstm():
    return keras.Sequential(
        [keras.Input((4, 3)), layers.LSTM(3, name="memory"), layers.Dense(2)]
    )


def shared():
    x = keras.Input((6,))
    layer = layers.Dense(6, "tanh")
    return keras.Model(x, layers.Dense(2)(layer(layer(x))))


def nested():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh")])
    middle = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), inner])
    return keras.Sequential([keras.Input((6,)), middle, layers.Dense(2)])


def equal_names():
    def part(name):
        return keras.Sequential(
            [keras.Input((6,)), layers.Dense(3, "tanh", name="same")], name=name
        )

    x = keras.Input((6,))
    joined = layers.Concatenate()([part("left")(x), part("right")(x)])
    return keras.Model(x, layers.Dense(2)(joined))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(5, "tanh"), layers.Dense(2)]
        self.factor = self.add_weight(shape=(2,), initializer="ones", name="factor")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x * self.factor


def subclassed():
    model = Subclassed()
    model(inputs())
    return model


def frozen():
    model = dense()
    model.layers[0].trainable = False
    return model


class Idle(layers.Layer):
    def build(self, shape):
        self.unused = self.add_weight(shape=(3,), name="unused")

    def call(self, x):
        return x


def unused_variable():
    return keras.Sequential([keras.Input((6,)), Idle(), layers.Dense(2)])


MODELS = {
    dense: "vectors",
    convolution: "images",
    embedding: "tokens",
    lstm: "sequences",
    shared: "vectors",
    nested: "vectors",
    equal_names: "vectors",
    subclassed: "vectors",
    frozen: "vectors",
    unused_variable: "vectors",
}


def twins(build):
    """Two models with equal weights."""
    model, twin = build(), build()
    twin.set_weights(model.get_weights())
    return model, twin


def observe(model, *data, every=1, epochs=1, logger=None, **arguments):
    """A fit with a logger, which it returns."""
    logger = logger or GradientNormLogger(every)
    arguments.setdefault("callbacks", [logger])
    arguments.setdefault("batch_size", BATCH)
    model.fit(*data, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return logger


def compiled(build=dense, optimizer="sgd", **arguments):
    model = build()
    arguments.setdefault("run_eagerly", True)
    model.compile(optimizer, "mse", **arguments)
    return model


def joined(columns):
    return np.sqrt(np.sum(np.square(columns), axis=0))


def check(history, rows, rtol=1e-5):
    """Compares all of a history with norms `(steps, variables)`."""
    paths = list(history["variables"])
    columns = np.reshape(list(history["variables"].values()), (len(paths), -1))
    np.testing.assert_allclose(columns.T, rows, rtol)
    np.testing.assert_allclose(history["global_norm"], joined(rows.T), rtol)
    owners = {}
    for path, column in zip(paths, rows.T, strict=True):
        owners.setdefault(path.rsplit("/", 1)[0], []).append(column)
    assert set(history["layers"]) == set(owners)
    for path, own in owners.items():
        np.testing.assert_allclose(history["layers"][path], joined(own), rtol)


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        *((build, USUAL) for build in MODELS),
        *(
            pytest.param(build, mode, marks=[pytest.mark.slow] * (build is not dense))
            for build in (dense, convolution, embedding, subclassed)
            for mode in sorted({*MODES} - {USUAL})
        ),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_norms_are_those_of_training_by_hand(build, mode):
    model, twin = twins(build)
    model.compile(optimizers.Adam(0.01), "mse", **MODES[mode])
    twin.compile(optimizers.Adam(0.01))
    x, y = inputs(MODELS[build]), targets()
    logger = observe(model, x, y, epochs=2)
    check(logger.history, replay(twin, batches(x, y, epochs=2)))
    assert logger.history["step"].tolist() == list(range(2 * STEPS))
    assert logger.history["epoch"].tolist() == [0] * STEPS + [1] * STEPS


def test_the_check_can_fail():
    model, twin = twins(dense)
    model.compile("sgd", "mse", run_eagerly=True)
    twin.compile("sgd")
    logger = observe(model, inputs(), targets())
    rows = replay(twin, batches(inputs(), targets()))
    with pytest.raises(AssertionError):
        check(logger.history, rows * (1 + 3e-5))


OPTIMIZERS = {
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.01),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.01),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "weight_decay": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "loss_scale_factor": lambda: optimizers.SGD(0.1, loss_scale_factor=1024.0),
    "moving average of the weights": lambda: optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "growing loss scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01), initial_scale=1024.0, dynamic_growth_steps=2
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_are_unscaled_and_before_clipping(name):
    model, twin = twins(dense)
    model.compile(OPTIMIZERS[name](), "mse", **MODES[USUAL])
    twin.compile(OPTIMIZERS[name]())
    logger = observe(model, inputs(), targets(), epochs=2)
    check(logger.history, replay(twin, batches(inputs(), targets(), epochs=2)))


@pytest.mark.parametrize(
    ("policy", "scale"),
    [("mixed_float16", 2.0**10), ("mixed_bfloat16", None), ("float16", None)],
)
def test_low_precision(policy, scale):
    def build():
        return keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(5, "tanh", dtype=policy),
                layers.Dense(2, dtype=policy),
            ]
        )

    def optimizer():
        inner = optimizers.SGD(0.01)
        return optimizers.LossScaleOptimizer(inner, scale) if scale else inner

    model, twin = twins(build)
    model.compile(optimizer(), "mse", **MODES[USUAL])
    twin.compile(optimizer())
    logger = observe(model, inputs(), targets())
    rtol = 0.1 if "bfloat16" in policy else 0.02
    check(logger.history, replay(twin, batches(inputs(), targets())), rtol)


def test_a_variable_that_the_loss_ignores_has_norm_0():
    model = compiled(unused_variable)
    (idle,) = (layer for layer in model.layers if isinstance(layer, Idle))
    history = observe(model, inputs(), targets()).history
    assert history["variables"][idle.unused.path].tolist() == [0] * STEPS
    assert np.all(history["global_norm"] > 0)


def test_frozen_layers_are_left_out():
    model = compiled(frozen)
    history = observe(model, inputs(), targets()).history
    assert list(history["layers"]) == [model.layers[1].path]
    assert len(history["variables"]) == 2


def test_equal_inner_names_get_paths_of_their_own():
    history = observe(compiled(equal_names), inputs(), targets()).history
    assert {"left/same", "right/same"} <= set(history["layers"])
    assert len(history["variables"]) == 6


def test_a_model_that_the_fit_builds():
    model = keras.Sequential([layers.Dense(5, "tanh"), layers.Dense(2)])
    twin = dense()
    model.compile("sgd", "mse", run_eagerly=True)
    twin.compile("sgd")

    class Copy(keras.callbacks.Callback):
        """Gives the twin the weights that the first step has made, trained or not."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                twin.set_weights(weights_of(model))

    logger = GradientNormLogger(1)
    observe(model, inputs(), targets(), callbacks=[logger, Copy()], logger=logger)
    _, *rest = batches(inputs(), targets())
    rows = replay(twin, rest)
    assert list(logger.history["variables"]) == [v.path for v in model.variables]
    np.testing.assert_allclose(logger.history["global_norm"][1:], joined(rows.T), 1e-5)


def test_sample_weight():
    weights = np.linspace(0, 3, EXAMPLES, dtype="float32")
    model, twin = twins(dense)
    model.compile("sgd", "mse", run_eagerly=True)
    twin.compile("sgd")
    logger = observe(model, inputs(), targets(), sample_weight=weights)
    check(logger.history, replay(twin, batches(inputs(), targets(), weights)))


def test_class_weight():
    def loss(y, logits, weights):
        chances = keras.ops.log_softmax(logits)
        each = -keras.ops.sum(keras.ops.one_hot(y, 2) * chances, axis=-1)
        return keras.ops.mean(keras.ops.multiply(weights, each))

    classes = np.arange(EXAMPLES) % 2
    weights = np.where(classes == 0, 0.5, 4.0).astype("float32")
    model, twin = twins(dense)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", crossentropy, run_eagerly=True)
    twin.compile("sgd")
    logger = observe(model, inputs(), classes, class_weight={0: 0.5, 1: 4.0})
    check(logger.history, replay(twin, batches(inputs(), classes, weights), loss))


def scaled_output(factor):
    """A loss whose gradient is `factor` times that of the mean output."""
    return lambda y, prediction: factor * keras.ops.mean(prediction, axis=-1)


@pytest.mark.parametrize(
    ("factor", "mode"),
    [
        *((factor, "eager") for factor in (1e-30, 1e-25, 1e-12, 1, 1e18, 1e25, 1e30)),
        *((factor, mode) for factor in (1e-25, 1e25) for mode in MODES),
    ],
)
def test_norms_neither_underflow_nor_overflow(factor, mode):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.0), scaled_output(factor), **MODES[mode])
    x = inputs()[:BATCH]
    history = observe(model, x, np.zeros((BATCH, 1))).history
    kernel = factor * np.linalg.norm(x.mean(axis=0, dtype="float64"))
    rows = np.array([[kernel, factor]])
    check(history, rows)


@pytest.mark.skipif(BACKEND != "torch", reason="for a device of PyTorch's")
def test_norms_on_a_device_without_float64():
    import torch

    from keras_initlab.observing._observe_torch import _scaled_norm

    values = np.array([3.0, -4.0])
    for factor in (0.0, 1e-30, 1.0, 1e30, math.inf):
        scaled = torch.tensor(values * factor).float()
        assert float(_scaled_norm(scaled)) == pytest.approx(5 * factor)
    assert math.isnan(_scaled_norm(torch.tensor([1.0, math.nan])))


@pytest.mark.parametrize("mode", MODES)
def test_nan_shows_as_nan(mode):
    model = compiled(dense, **{"run_eagerly": False, **MODES[mode]})
    y = targets()
    y[BATCH] = np.nan
    history = observe(model, inputs(), y).history
    for norms in [history["global_norm"], *history["variables"].values()]:
        assert np.isnan(norms).tolist() == [False, True, True]


def test_infinite_shows_as_infinite():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(0.0), scaled_output(1e38), **MODES[USUAL])
    x = 1e3 * np.ones((BATCH, 6), dtype="float32")
    history = observe(model, x, np.zeros((BATCH, 1))).history
    assert history["global_norm"].tolist() == [math.inf]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return inputs()[rows], targets()[rows]


def endless():
    while True:
        yield from batches(inputs(), targets())


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((inputs(), targets())).batch(BATCH)


def dataset_of_unknown_size():
    return dataset().filter(lambda x, y: True)


def loader():
    import torch

    data = torch.utils.data.TensorDataset(*map(torch.tensor, (inputs(), targets())))
    return torch.utils.data.DataLoader(data, batch_size=BATCH)


@pytest.mark.parametrize(
    ("source", "arguments", "mode"),
    [
        (dataset, {}, USUAL),
        (dataset_of_unknown_size, {}, USUAL),
        (dataset_of_unknown_size, {}, "eager"),
        (lambda: dataset().repeat(), {"steps_per_epoch": STEPS}, "eager"),
        (endless, {"steps_per_epoch": STEPS}, "eager"),
        (Batches, {}, USUAL),
        *([(loader, {}, USUAL)] if BACKEND == "torch" else []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
# Keras says this at the end of every dataset whose size it does not know. (In a graph
# it also counts one optimizer step more, which Adam would show.)
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_inputs(source, arguments, mode):
    model, twin = twins(dense)
    model.compile("sgd", "mse", **MODES[mode])
    twin.compile("sgd")
    arguments = {**arguments, "batch_size": None}
    logger = observe(model, source(), epochs=2, **arguments)
    check(logger.history, replay(twin, batches(inputs(), targets(), epochs=2)))
    assert logger.history["epoch"].tolist() == [0] * STEPS + [1] * STEPS


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (1, range(10)),
        (3, [0, 3, 5, 6, 9]),
        (3.0, [0, 3, 5, 6, 9]),
        (100, [0, 5]),
        (lambda step: step in (2, 9), [0, 2, 5, 9]),
        (lambda step: False, [0, 5]),
    ],
)
def test_every(every, steps):
    x, y = inputs()[:20], targets()[:20]
    history = observe(compiled(), x, y, every=every, epochs=2, batch_size=4).history
    assert history["step"].tolist() == list(steps)
    assert history["epoch"].tolist() == [step // 5 for step in steps]


def test_observed_steps_have_the_norms_of_an_every_step_log():
    x, y = inputs(), targets()
    sparse, full = twins(dense)
    norms = []
    for model, every in [(sparse, 2), (full, 1)]:
        model.compile("sgd", "mse", run_eagerly=True)
        norms.append(observe(model, x, y, every=every, epochs=2).history)
    steps = norms[0]["step"]
    assert steps.tolist() == [0, 2, 3, 4]
    np.testing.assert_array_equal(
        norms[0]["global_norm"], norms[1]["global_norm"][steps]
    )


@pytest.mark.once_a_day
@needs_steps_per_execution
@pytest.mark.parametrize("mode", MODES)
def test_steps_per_execution(mode):
    model, twin = twins(dense)
    model.compile("adam", "mse", steps_per_execution=4, **MODES[mode])
    twin.compile("adam")
    logger = observe(model, inputs(), targets(), epochs=2, batch_size=3)
    rows = replay(
        twin,
        (
            (inputs()[start : start + 3], targets()[start : start + 3])
            for _ in range(2)
            for start in range(0, EXAMPLES, 3)
        ),
    )
    assert logger.history["step"].tolist() == [3, 7, 11, 15]
    check(logger.history, rows[3::4])


@needs_steps_per_execution
def test_steps_per_execution_that_does_not_divide_the_epoch():
    # Epochs of 6 steps, run as 4 and 2.
    model = compiled(steps_per_execution=4)
    history = observe(model, inputs(), targets(), epochs=2, batch_size=4).history
    assert history["step"].tolist() == [3, 5, 9, 11]


def test_two_fits_append():
    model = compiled()
    logger = observe(model, inputs(), targets(), epochs=2)
    observe(model, inputs(), targets(), epochs=1, logger=logger)
    assert logger.history["step"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert logger.history["epoch"].tolist() == [0] * 3 + [1] * 3 + [0] * 3
    observe(model, inputs(), targets(), epochs=2, initial_epoch=1, logger=logger)
    assert logger.history["step"][-3:].tolist() == [3, 4, 5]
    assert logger.history["epoch"][-3:].tolist() == [1] * 3
    lengths = {len(norms) for norms in logger.history["layers"].values()}
    assert lengths == {12}


def test_initial_epoch_continues_with_another_logger():
    model = compiled()
    observe(model, inputs(), targets(), epochs=2)
    gc.collect()  # the first logger is gone
    later = observe(model, inputs(), targets(), epochs=3, initial_epoch=2)
    assert later.history["step"].tolist() == [6, 7, 8]
    assert later.history["epoch"].tolist() == [2] * 3


@pytest.mark.parametrize("pick", ["name", "path", "object", "all by name"])
def test_layers(pick):
    model = compiled(nested)
    chosen = model.layers[0].layers[0]
    asked = {
        "name": [chosen.name],
        "path": [chosen.path],
        "object": [chosen],
        "all by name": chosen.name,
    }[pick]
    logger = GradientNormLogger(every=1, layers=asked)
    history = observe(model, inputs(), targets(), logger=logger).history
    assert list(history["layers"]) == [chosen.path]
    own = [history["variables"][variable.path] for variable in chosen.variables]
    np.testing.assert_allclose(history["layers"][chosen.path], joined(own))
    assert len(history["variables"]) == 6
    everything = joined(list(history["variables"].values()))
    np.testing.assert_allclose(history["global_norm"], everything)


@pytest.mark.parametrize(
    ("build", "kind", "find"),
    [
        (lstm, "sequences", lambda model: model.layers[0].name),
        (lstm, "sequences", lambda model: model.layers[0]),
        (nested, "vectors", lambda model: model.layers[0].name),
        (nested, "vectors", lambda model: model.layers[0]),
    ],
    ids=["LSTM by name", "LSTM", "inner model by name", "inner model"],
)
def test_a_layer_can_be_asked_for_whose_variables_lie_deeper(build, kind, find):
    model = compiled(build)
    logger = GradientNormLogger(every=1, layers=[find(model)])
    history = observe(model, inputs(kind), targets(), logger=logger).history
    own = [history["variables"][v.path] for v in model.layers[0].trainable_variables]
    chosen = joined(list(history["layers"].values()))
    np.testing.assert_allclose(chosen, joined(own), 1e-6)


@pytest.mark.parametrize(
    ("unknown", "received"),
    [("no such layer", "no such layer"), (7, "7"), (layers.Dense(1, name="x"), "x")],
)
def test_unknown_layers_are_named(unknown, received):
    model = compiled()
    before = model.get_weights()
    logger = GradientNormLogger(layers=[model.layers[0], unknown])
    with pytest.raises(ValueError, match=rf"`layers` must.*{received}"):
        observe(model, inputs(), targets(), logger=logger)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_unknown_layers_are_named_at_once():
    logger = GradientNormLogger(layers=["first", "second"])
    with pytest.raises(ValueError, match=r"\['first', 'second'\]"):
        observe(compiled(), inputs(), targets(), logger=logger)


def test_validation_data_does_not_disturb():
    plain, validated = twins(dense)
    histories = []
    for model, arguments in [
        (plain, {}),
        (validated, {"validation_data": (inputs()[::2], targets()[::2])}),
    ]:
        model.compile("sgd", "mse", run_eagerly=True)
        logger = observe(model, inputs(), targets(), epochs=2, **arguments)
        histories.append(logger.history)
    assert histories[0]["step"].tolist() == histories[1]["step"].tolist()
    np.testing.assert_array_equal(*(h["global_norm"] for h in histories))


def means(history, epochs):
    return [
        np.mean(history["global_norm"][history["epoch"] == epoch])
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize("every", [1, 2])
def test_keras_logs_hold_the_mean_of_the_epoch(every, tmp_path):
    logger = GradientNormLogger(every)
    path = tmp_path / "log.csv"
    model = compiled()
    observed = observe(
        model,
        inputs(),
        targets(),
        epochs=3,
        logger=logger,
        callbacks=[keras.callbacks.CSVLogger(path), logger],
    )
    expected = means(observed.history, 3)
    assert model.history.history["grad_norm"] == pytest.approx(expected, rel=1e-6)
    with path.open() as file:
        written = [float(row["grad_norm"]) for row in csv.DictReader(file)]
    assert written == pytest.approx(expected, rel=1e-6)


def test_the_mean_leaves_out_earlier_fits():
    model = compiled()
    logger = observe(model, inputs(), targets())
    observe(model, inputs(), targets(), logger=logger)
    expected = np.mean(logger.history["global_norm"][STEPS:])
    assert model.history.history["grad_norm"] == pytest.approx([expected], rel=1e-6)


def test_early_stopping_before_the_logger_sees_the_norm():
    model = compiled(dense, optimizers.SGD(0.0))
    stopping = keras.callbacks.EarlyStopping("grad_norm", mode="min", patience=2)
    logger = GradientNormLogger()
    observe(
        model,
        inputs(),
        targets(),
        epochs=9,
        logger=logger,
        callbacks=[stopping, logger],
    )
    assert logger.history["epoch"].tolist() == [0, 1, 2]
    assert stopping.best == pytest.approx(logger.history["global_norm"][0])


def test_log_to_receives_every_figure():
    calls = []
    model = compiled(nested)
    logger = GradientNormLogger(2, log_to=lambda *call: calls.append(call))
    history = observe(model, inputs(), targets(), epochs=2, logger=logger).history
    assert [step for _, step in calls] == history["step"].tolist() == [0, 2, 3, 4]
    for row, (metrics, _) in enumerate(calls):
        expected = {"grad_norm": history["global_norm"][row]}
        for path, norms in history["layers"].items():
            expected[f"grad_norm/{path}"] = norms[row]
        assert metrics == pytest.approx(expected)
        assert {type(value) for value in metrics.values()} == {float}


def test_several_logs_and_chosen_layers(tmp_path):
    calls = []
    model = compiled()
    log = CSVLog(tmp_path / "norms.csv")
    logger = GradientNormLogger(
        1, [model.layers[0]], log_to=[log, lambda *call: calls.append(call)]
    )
    observe(model, inputs(), targets(), logger=logger)
    with log.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "grad_norm", f"grad_norm/{model.layers[0].path}"]
    for row, (metrics, step) in zip(rows, calls, strict=True):
        assert int(row.pop("step")) == step
        assert {name: float(value) for name, value in row.items()} == metrics


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_verbose_prints_a_line_an_epoch(verbose, capsys):
    model = compiled()
    logger = GradientNormLogger(verbose=verbose)
    history = observe(model, inputs(), targets(), epochs=2, logger=logger).history
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        f"epoch 2: gradient norm {history['global_norm'][1]:.3g}"
    )
    assert all(layer.path in lines[0] for layer in model.layers)


def test_silent_by_default(capsys):
    observe(compiled(), inputs(), targets())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"every": 0}, "every=0"),
        ({"every": -1}, "every=-1"),
        ({"every": 1.5}, "every=1.5"),
        ({"every": "x"}, "every='x'"),
        ({"every": None}, "every=None"),
        ({"every": True}, "every=True"),
        ({"every": math.nan}, "every=nan"),
        ({"verbose": 7}, "verbose='?7"),
        ({"verbose": -1}, "verbose='?-1"),
        ({"log_to": [3]}, r"log_to=\[3\]"),
        ({"log_to": 3}, "log_to=3"),
        ({"log_to": "norms.csv"}, "log_to='norms.csv'"),
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments, received):
    with pytest.raises(ValueError, match=rf"`{next(iter(arguments))}`.*{received}"):
        GradientNormLogger(**arguments)


def test_history_before_training_is_empty():
    history = GradientNormLogger().history
    assert [len(history[key]) for key in ("step", "epoch", "global_norm")] == [0] * 3
    assert history["layers"] == history["variables"] == {}


@pytest.mark.tensorflow
def test_logging_is_possible_where_one_device_is_distributed():
    import tensorflow as tf

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        model = dense()
        model.compile("sgd", "mse", **MODES[USUAL])
    twin = dense()
    twin.set_weights(model.get_weights())
    twin.compile("sgd")
    logger = observe(model, inputs(), targets())
    check(logger.history, replay(twin, batches(inputs(), targets())))


@pytest.mark.once_a_day
@pytest.mark.parametrize("mode", MODES)
def test_two_optimizers_in_a_custom_train_step(mode):
    model = Gan()
    x = [inputs()[:, :3], inputs()]
    model(x)
    names = [variable.path for variable in model.trainable_variables]
    judged = gradient_norms(model, x, model.critic_loss)
    fooled = gradient_norms(model, x, model.generator_loss)
    model.compile(optimizers.SGD(0.05), **MODES[mode])
    history = observe(model, x, epochs=2, batch_size=EXAMPLES).history
    norms = [column[0] for column in history["variables"].values()]
    assert list(history["variables"]) == names
    np.testing.assert_allclose(norms, [*fooled[:4], *judged[4:]], 1e-5)
    assert history["global_norm"][1] != history["global_norm"][0]


class Snapshots(keras.callbacks.Callback):
    """Keeps the trained weights before and after every step."""

    def on_train_begin(self, logs=None):
        self.before, self.after = [], []

    def trained(self):
        weights_of(self.model)  # brought back, so that the variables have theirs
        return [np.array(v, "float64") for v in self.model.trainable_variables]

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self.trained())

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self.trained())


def rectified():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(2)]
    )


def snapshot(model, logger, epochs=2):
    """The weights of every step of a fit with a logger."""
    snapshots = Snapshots()
    observe(
        model,
        inputs(),
        targets(),
        epochs=epochs,
        logger=logger,
        callbacks=[logger, snapshots],
    )
    return snapshots


def norms_of(tensors):
    return np.array([[np.linalg.norm(each) for each in row] for row in tensors])


def by_value(gradients):
    return [np.clip(gradient, -0.05, 0.05) for gradient in gradients]


def by_norm(gradients):
    return [g * min(1, 0.5 / np.linalg.norm(g)) for g in gradients]


def by_global_norm(gradients):
    whole = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))
    return [g * min(1, 0.5 / whole) for g in gradients]


CLIPPINGS = {
    "clipvalue": (0.05, by_value),
    "clipnorm": (0.5, by_norm),
    "global_clipnorm": (0.5, by_global_norm),
}
# How the loss may be scaled, which clipping must not see.
SCALINGS = {
    "as it is": optimizers.SGD,
    "loss scale factor": lambda *args, **kwargs: optimizers.SGD(
        *args, loss_scale_factor=1024.0, **kwargs
    ),
    "scaled": lambda *args, **kwargs: optimizers.LossScaleOptimizer(
        optimizers.SGD(*args, **kwargs), 1024.0
    ),
}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", CLIPPINGS)
def test_clipped_norms_are_those_of_clipping_by_hand(name, scaling):
    limit, clip = CLIPPINGS[name]
    model = rectified()
    model.compile(SCALINGS[scaling](0.1, **{name: limit}), "mse", **MODES[USUAL])
    logger = GradientNormLogger(1, alerts=False, clipped=True)
    steps = snapshot(model, logger).before
    data = batches(inputs(), targets(), epochs=2)
    raw = [
        backpropagated(weights, *batch)
        for weights, batch in zip(steps, data, strict=True)
    ]
    clipped = norms_of(map(clip, raw))
    assert np.any(clipped < 0.9 * norms_of(raw))
    assert np.any(clipped / limit != np.round(clipped / limit))
    history = logger.history
    check(history, norms_of(raw))
    check(the_clipped(history), clipped)


def the_clipped(history):
    keys = ("variables", "layers", "global_norm")
    return {key: history[f"clipped_{key}"] for key in keys}


def test_clipped_norms_without_clipping_are_those_of_the_gradients():
    logger = GradientNormLogger(1, alerts=False, clipped=True)
    history = observe(compiled(), inputs(), targets(), logger=logger).history
    np.testing.assert_array_equal(
        history["clipped_global_norm"], history["global_norm"]
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_clipped_norms_are_nan_while_gradients_accumulate(scaled):
    optimizer = optimizers.SGD(0.1, clipnorm=0.5, gradient_accumulation_steps=2)
    if scaled:
        optimizer = optimizers.LossScaleOptimizer(optimizer, 1024.0)
    logger = GradientNormLogger(1, alerts=False, clipped=True)
    model = compiled(dense, optimizer)
    history = observe(model, inputs(), targets(), logger=logger).history
    assert np.isnan(history["clipped_global_norm"]).all()
    assert np.isnan(list(history["clipped_variables"].values())).all()
    assert np.all(history["global_norm"] > 0)
    assert np.isnan(model.history.history["clipped_grad_norm"]).all()


def ratios(steps):
    """‖Δw‖/‖w‖ by step and layer, and by step of the whole, from snapshots."""
    weight = norms_of(steps.before)
    change = norms_of(
        [
            [after - before for before, after in zip(*pair, strict=True)]
            for pair in zip(steps.before, steps.after, strict=True)
        ]
    )
    pairs = [slice(i, i + 2) for i in range(0, weight.shape[1], 2)]
    return [
        np.array([joined(change.T[own]) / joined(weight.T[own]) for own in pairs]),
        joined(change.T) / joined(weight.T),
    ]


def mixed(policy="mixed_float16"):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "relu", dtype=policy),
            layers.Dense(2, dtype=policy),
        ]
    )


def scaled_adam():
    return optimizers.LossScaleOptimizer(optimizers.Adam(0.01), 1024.0)


UPDATES = {
    "SGD": (rectified, lambda: optimizers.SGD(0.1)),
    "Adam": (rectified, lambda: optimizers.Adam(0.01)),
    "weight decay": (rectified, lambda: optimizers.AdamW(0.01, weight_decay=0.1)),
    "accumulation": (
        rectified,
        lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    ),
    "frozen layer": (frozen, lambda: optimizers.Adam(0.01)),
    "mixed precision": (mixed, scaled_adam),
    "float16": (lambda: mixed("float16"), lambda: optimizers.SGD(0.1)),
}


@pytest.mark.parametrize("name", UPDATES)
def test_update_ratios_are_those_of_snapshots(name):
    build, optimizer = UPDATES[name]
    model = build()
    model.compile(optimizer(), "mse", **MODES[USUAL])
    logger = GradientNormLogger(1, alerts=False, updates=True)
    by_layer, whole = ratios(snapshot(model, logger))
    history = logger.history
    np.testing.assert_allclose(history["update_ratio"], whole, 1e-5)
    found = list(history["update_ratios"].values())
    np.testing.assert_allclose(found, by_layer, 1e-5)
    assert list(history["update_ratios"]) == list(history["layers"])
    is_still = np.arange(len(whole)) % 2 == 0 if name == "accumulation" else False
    np.testing.assert_array_equal(whole == 0, np.broadcast_to(is_still, whole.shape))


def test_a_step_that_a_loss_scale_leaves_out_changes_nothing():
    model = mixed()
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1), 1024.0)
    model.compile(optimizer, "mse", **MODES[USUAL])
    x = inputs()
    x[BATCH] = 6e4  # beyond float16 in the first layer
    logger = GradientNormLogger(1, alerts=False, clipped=True, updates=True)
    history = observe(model, x, targets(), logger=logger).history
    assert np.isfinite(history["global_norm"]).tolist() == [True, False, True]
    assert np.isfinite(history["clipped_global_norm"]).tolist() == [True, False, True]
    assert (history["update_ratio"] == 0).tolist() == [False, True, False]


def test_update_ratios_of_weights_that_are_0_are_nan():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(2, kernel_initializer="zeros")]
    )
    model.compile(optimizers.SGD(0.1), "mse", run_eagerly=True)
    logger = GradientNormLogger(1, alerts=False, updates=True)
    ratio = observe(model, inputs(), targets(), logger=logger).history["update_ratio"]
    assert np.isnan(ratio).tolist() == [True, False, False]


@pytest.mark.once_a_day
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(
            pytest.param("Adam", mode, marks=[pytest.mark.slow] * (mode == "xla"))
            for mode in MODES
        ),
        ("mixed precision", USUAL),
    ],
)
def test_clipped_and_updates_leave_training_as_it_is(name, mode):
    build, optimizer = UPDATES[name]
    models = twins(build)
    logger = GradientNormLogger(1, alerts=False, clipped=True, updates=True)
    for model, callbacks in zip(models, ([], [logger]), strict=True):
        model.compile(optimizer(), "mse", **MODES[mode])
        observe(model, inputs(), targets(), epochs=6, callbacks=callbacks)
    assert len(logger.history["step"]) == 18
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        if mode in ("graph", "eager"):
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, 1e-5, 1e-6)


def test_clipped_and_updates_reach_the_logs():
    calls = []
    logger = GradientNormLogger(
        1,
        log_to=lambda *call: calls.append(call),
        alerts=False,
        clipped=True,
        updates=True,
    )
    model = compiled()
    history = observe(model, inputs(), targets(), logger=logger).history
    kinds = {"grad_norm": "", "clipped_grad_norm": "clipped_"}
    for row, (metrics, _) in enumerate(calls):
        expected = {"update_ratio": history["update_ratio"][row]}
        for path, each in history["update_ratios"].items():
            expected[f"update_ratio/{path}"] = each[row]
        for name, prefix in kinds.items():
            expected[name] = history[f"{prefix}global_norm"][row]
            for path, each in history[f"{prefix}layers"].items():
                expected[f"{name}/{path}"] = each[row]
        assert metrics == pytest.approx(expected)
    for name in ("clipped_grad_norm", "update_ratio"):
        mean = np.mean([metrics[name] for metrics, _ in calls])
        assert model.history.history[name] == pytest.approx([mean], rel=1e-6)


@pytest.mark.parametrize("argument", ["clipped", "updates"])
def test_flags_out_of_range(argument):
    with pytest.raises(ValueError, match=rf"`{argument}`.*{argument}='?yes"):
        GradientNormLogger(**{argument: "yes"})


# --- Precisions ----------------------------------------------------------------------


class Complex(layers.Layer):
    """A kernel of complex numbers."""

    def build(self, shape):
        def ones(shape, dtype=None):
            return ops.cast(ops.ones(shape), dtype)

        shape = (shape[-1], 3)
        self.kernel = self.add_weight(shape=shape, dtype="complex64", initializer=ones)

    def call(self, x):
        z = ops.matmul(ops.cast(x, "complex64"), self.kernel)
        return ops.real(z * ops.cast(1 + 2j, "complex64"))


class WithNone(layers.Layer):
    """A variable without any entries."""

    def build(self, shape):
        self.none = self.add_weight(shape=(0, shape[-1]))
        self.shift = self.add_weight(shape=shape[-1:])

    def call(self, x):
        return x + self.shift + ops.sum(self.none, axis=0)


def dense_of(*policies, units=3):
    return [layers.Dense(units, "relu", dtype=policy) for policy in policies]


PRECISIONS = {
    "float64": lambda: dense_of("float64", "float64"),
    "float64, more than one sum holds": lambda: dense_of("float64", units=2**16),
    "several": lambda: dense_of("float64", "float16", "bfloat16", "float32"),
    "half": lambda: dense_of("float16", "mixed_float16"),
    "complex": lambda: [Complex(), *dense_of("float32")],
    "empty": lambda: [WithNone(), *dense_of("float32")],
}


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.filterwarnings("ignore:You are casting an input of type complex64")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
def test_every_precision_trains_as_unobserved(name):
    x, y = np.eye(4)[:, :3], np.ones((4, 1))
    runs = []
    for every in (0, 1):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), *PRECISIONS[name]()])
        model.add(layers.Dense(1))
        model.compile(optimizers.SGD(0.01), "mse", run_eagerly=True)
        start = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
        norms = GradientNormLogger(1, clipped=True, updates=True, alerts=False)
        model.fit(x, y, verbose=0, callbacks=[norms] if every else [])
        runs.append([keras.ops.convert_to_numpy(v) for v in model.trainable_variables])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)
    found = np.ravel([*norms.history["variables"].values()])
    moved = [
        np.linalg.norm(np.ravel(after).astype("complex128") - np.ravel(before))
        for before, after in zip(start, runs[1], strict=True)
    ]
    if name not in ("half", "several"):  # a weight of float16 moves by whole steps
        np.testing.assert_allclose(found * 0.01, moved, 1e-2, 1e-6)
    whole = np.sqrt(np.sum(found**2))
    np.testing.assert_allclose(norms.history["global_norm"], whole, 1e-5)
    np.testing.assert_allclose(norms.history["clipped_global_norm"], whole, 1e-2)
    assert np.isfinite(norms.history["update_ratio"]).all()
