"""What the probe leaves as it was, what it accepts, and what it says."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initlab as initlab
from keras_initlab import initializers as ours
from keras_initlab.probing import _figures

RNG = np.random.default_rng(0)
IS_EAGER = keras.backend.backend() != "jax"  # a graph takes longer to make than to run
SLOW_ON_JAX = [pytest.mark.slow] if keras.backend.backend() == "jax" else []
slow_on_jax = pytest.mark.slow if SLOW_ON_JAX else lambda test: test


def data(examples=64, features=16):
    return RNG.normal(size=(examples, features)).astype("float32")


def stack(count=6, activation="relu", width=16, initializer="he_normal", **others):
    hidden = [
        layers.Dense(
            width, activation, kernel_initializer=initializer, name=f"h{i}", **others
        )
        for i in range(count)
    ]
    return keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(4, name="out")])


def normal(std):
    return keras.initializers.RandomNormal(stddev=std)


# ---- the model stays as it was --------------------------------------------------


def state_of(model):
    metrics = [v for metric in model.metrics for v in metric.variables]
    optimizer = model.optimizer.variables if model.optimizer else []
    return [ops.convert_to_numpy(v) for v in (*model.variables, *metrics, *optimizer)]


def trained():
    inputs = keras.Input((16,))
    h = layers.BatchNormalization()(layers.Dense(8, "relu")(inputs))
    h = layers.Dropout(0.5, seed=1)(h)
    outputs = {"a": layers.Dense(2, name="a")(h), "b": layers.Dense(1, name="b")(h)}
    model = keras.Model(inputs, outputs)
    model.compile(
        "adam", {"a": "mse", "b": "mae"}, metrics={"a": ["mae"]}, run_eagerly=IS_EAGER
    )
    return model, {"a": data(64, 2), "b": data(64, 1)}


@slow_on_jax
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_model_changes(fails, monkeypatch):
    model, y = trained()
    x = data()
    model.fit(x, y, verbose=0, epochs=1)
    before, flags = state_of(model), [v.trainable for v in model.variables]
    held = [dict(vars(layer)) for layer in model._flatten_layers()]
    if fails:

        def fail(*args, **kwargs):
            raise RuntimeError("in the middle")

        monkeypatch.setattr(model, "_compute_loss", fail)
        with pytest.raises(RuntimeError, match="in the middle") as caught:
            initlab.probe(model, x, y)
        assert "x of shape (64, 16)" in caught.value.__notes__[-1]
        monkeypatch.undo()
    else:
        initlab.probe(model, x, y)
    after = state_of(model)
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [v.trainable for v in model.variables] == flags
    for layer, kept in zip(model._flatten_layers(), held, strict=True):
        assert ("call" in vars(layer)) == ("call" in kept)
        assert vars(layer).get("activation") is kept.get("activation")


@pytest.mark.slow
def test_a_compiled_model_trains_the_same_after_a_probe():
    histories = []
    for is_probed in (False, True):
        keras.utils.set_random_seed(3)
        model, y = trained()
        x = np.linspace(-1, 1, 64 * 16).reshape(64, 16).astype("float32")
        y = {key: np.ones_like(value) for key, value in y.items()}
        if is_probed:
            initlab.probe(model, x, y)
        histories.append(model.fit(x, y, verbose=0, epochs=2, shuffle=False).history)
    assert histories[0].keys() == histories[1].keys()
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=1e-6)


@slow_on_jax
def test_the_same_figures_twice_and_dropout_is_on():
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dropout(0.5, seed=0), layers.Dense(4)]
    )
    x = data()
    one, other = initlab.probe(model, x), initlab.probe(model, x)
    assert one.to_dict() == other.to_dict()
    assert 0.4 < one[0].input.zero_share < 0.6
    assert initlab.probe(model, x, training=False)[0].input.zero_share == 0


# ---- forms of data --------------------------------------------------------------


class Pairs(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.pair = x, y

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.pair


def test_batches_of_every_form_are_one():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(2)])
    model.compile(loss="mse")
    x, y = data(), data(64, 2)
    expected = initlab.probe(model, x, y)
    assert expected.loss_name == "compiled"
    tensor = ops.convert_to_tensor(x)
    for form in (Pairs(x, y), iter([(x, y)]), [(x, y)].__iter__()):
        assert initlab.probe(model, form).loss == expected.loss
    assert initlab.probe(model, tensor, y).loss == expected.loss
    weighted = initlab.probe(model, iter([(x, y, 2 * np.ones(64, "float32"))]))
    np.testing.assert_allclose(weighted.loss, 2 * expected.loss, rtol=1e-6)


@pytest.mark.tensorflow
def test_a_tensorflow_dataset_gives_its_first_batch():
    import tensorflow as tf

    model = stack(1)
    x, y = data(64), data(64, 4)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    found = initlab.probe(model, batches, loss="mse")
    assert found.examples == 32
    assert found.loss == initlab.probe(model, x[:32], y[:32], "mse").loss


# ---- errors ---------------------------------------------------------------------


def nan_in(array):
    array = array.copy()
    array[0, 0] = np.nan
    return array


ERRORS = {
    "no model": (lambda m: initlab.probe(3, data()), TypeError, "model=3"),
    "unbuilt": (
        lambda m: initlab.probe(keras.Sequential([layers.Dense(3, name="d")]), data()),
        initlab.UnbuiltModelError,
        "not built",
    ),
    "nan": (
        lambda m: initlab.probe(m, nan_in(data())),
        ValueError,
        "1 NaN or Inf in x",
    ),
    "empty": (lambda m: initlab.probe(m, data()[:0]), ValueError, r"\(0, 16\)"),
    "no array": (lambda m: initlab.probe(m, "x"), TypeError, "'x'"),
    "no batches": (lambda m: initlab.probe(m, iter([])), ValueError, "no batch"),
    "shape": (lambda m: initlab.probe(m, data(8, 5)), ValueError, r"\(8, 5\)"),
    "labels short": (
        lambda m: initlab.probe(m, data(8), data(7, 4), "mse"),
        ValueError,
        r"y of shape \(7, 4\) for 8 examples",
    ),
    "labels nan": (
        lambda m: initlab.probe(m, data(8), nan_in(data(8, 4)), "mse"),
        ValueError,
        r"1 NaN or Inf in y of shape \(8, 4\)",
    ),
    "no loss": (
        lambda m: initlab.probe(m, data(8), data(8, 4)),
        ValueError,
        "y and no loss for model='sequential",
    ),
    "no labels": (
        lambda m: initlab.probe(m, data(8), loss="mse"),
        ValueError,
        "loss='mse' and no labels",
    ),
    "weights alone": (
        lambda m: initlab.probe(m, data(8), sample_weight=np.ones(8)),
        ValueError,
        "sample_weight of type ndarray and no labels",
    ),
    "weights alone in batches": (
        lambda m: initlab.probe(m, iter([(data(8), None, np.ones(8))])),
        ValueError,
        "`sample_weight` must come with labels.*ndarray and no labels",
    ),
    "two sources": (
        lambda m: initlab.probe(m, iter([(data(8), data(8, 4))]), data(8, 4)),
        ValueError,
        "y beside x of type list_iterator",
    ),
    "training": (
        lambda m: initlab.probe(m, data(8), training=1),
        ValueError,
        "training=1",
    ),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_bad_input_is_said_clearly(case):
    call, kind, text = case
    with pytest.raises(kind, match=text):
        call(stack(1))


def test_outputs_of_integers_need_a_loss():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ops.argmax(layers.Dense(3)(inputs), axis=-1))
    with pytest.raises(ValueError, match=r"floating point. Received: int\d+"):
        initlab.probe(model, data(8, 4))


# ---- the diagnosis --------------------------------------------------------------


def kinds(model, x=None, **others):
    report = initlab.probe(model, data() if x is None else x, **others)
    return {symptom.kind: symptom.path for symptom in report.findings}


def with_nan():
    model = stack(3)
    kernel = ops.convert_to_numpy(model.layers[1].kernel).copy()
    kernel[0, 0] = np.nan
    model.layers[1].kernel.assign(kernel)
    return model


def dead():
    model = stack(2)
    model.layers[1].bias.assign(-1e3 * np.ones(16))
    return model


class Root(keras.layers.Layer):
    def call(self, x):
        return ops.sqrt(ops.abs(x))


def infinite_gradient():
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(4, kernel_initializer="zeros"), Root()]
    )


SYMPTOMS = {
    "healthy": (lambda: stack(6), {}),
    "tanh": (lambda: stack(6, "tanh", initializer="glorot_normal"), {}),
    "vanishing": (
        lambda: stack(6, initializer=normal(0.02)),
        {"vanishing signal": "h2", "vanishing gradient": "h2"},
    ),
    "exploding": (
        lambda: stack(6, initializer=normal(20)),
        {"exploding signal": "h1", "exploding gradient": "h3"},
    ),
    "zeros": (
        lambda: stack(3, initializer="zeros"),
        {
            "constant outputs": "h0",
            "no gradient": "h0",
            "symmetric units": "h0",
            "dead units": "h0",
        },
    ),
    "equal weights": (
        lambda: keras.Sequential(
            [
                keras.Input((16,)),
                layers.Dense(8, "tanh", kernel_initializer=normal(0.1), name="h0"),
                layers.Dense(8, "tanh", kernel_initializer="ones", name="h1"),
                layers.Dense(1, kernel_initializer="ones", name="out"),
            ]
        ),
        {"symmetric units": "h1"},
    ),
    "saturated": (
        lambda: stack(2, "tanh", initializer=normal(5)),
        {"saturated units": "h0"},
    ),
    "dead": (dead, {"dead units": "h1", "constant outputs": "h1", "no gradient": "h0"}),
    "nan": (with_nan, {"not finite": "h1"}),
}
MANY = {"tanh", "exploding", "equal weights", "saturated", "zeros"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=SLOW_ON_JAX if n in MANY else []) for n in SYMPTOMS],
)
def test_the_diagnosis_names_what_is_wrong_and_where(name):
    build, expected = SYMPTOMS[name]
    found = {kind: path.split("/")[-1] for kind, path in kinds(build()).items()}
    first = {}
    for symptom in initlab.probe(build(), data()).findings if not expected else ():
        first.setdefault(symptom.kind, symptom.path)
    assert not first
    assert set(found) == set(expected)
    report = initlab.probe(build(), data())
    for kind, path in expected.items():
        one = next(s for s in report.findings if s.kind == kind)
        assert one.path.split("/")[-1] == path
        text = next(t for t in report.diagnosis if one.text in t)
        assert one.path in text
        assert one.cure in text
        low, high = one.expected
        assert not low <= one.measured <= high


@slow_on_jax
def test_equal_weights_with_different_gradients_are_no_trap():
    hidden = layers.Dense(8, "tanh", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((16,)), hidden, layers.Dense(3)])
    report = initlab.probe(model, data())
    assert "symmetric units" not in {s.kind for s in report.findings}


@slow_on_jax
def test_a_single_pair_of_twins_is_found():
    model = stack(1)
    kernel = ops.convert_to_numpy(model.layers[0].kernel).copy()
    kernel[:, 3] = kernel[:, 5]
    model.layers[0].kernel.assign(kernel)
    readers = ops.convert_to_numpy(model.layers[1].kernel).copy()
    readers[3] = readers[5]
    model.layers[1].kernel.assign(readers)
    weight = initlab.probe(model, data())[0].kernel
    assert (weight.symmetric_units, weight.units) == (2, 16)


def test_an_infinite_gradient_is_named():
    (symptom,) = initlab.probe(infinite_gradient(), data()).findings
    assert symptom.kind == "not finite"
    assert "first backward" in symptom.text


def test_large_inputs_are_named():
    found = kinds(stack(1), 255 * data())
    assert list(found) == ["input scale"]


@slow_on_jax
def test_what_normalization_makes_up_for_is_no_symptom():
    hidden = [
        [layers.Dense(16, kernel_initializer=normal(0.01)), layers.BatchNormalization()]
        for _ in range(3)
    ]
    blocks = [layer for pair in hidden for layer in pair]
    model = keras.Sequential([keras.Input((16,)), *blocks, layers.Dense(4)])
    assert "vanishing signal" not in kinds(model)


# ---- theory against sample ------------------------------------------------------


def attention_kernel():
    layer = layers.MultiHeadAttention(4, 16, kernel_initializer="glorot_uniform")
    inputs = keras.Input((3, 24))
    return keras.Model(inputs, layer(inputs, inputs))


CUT = 0.8796256610
THEORY = {
    "glorot_uniform": np.sqrt(2 / (64 + 48)),
    "he_normal": np.sqrt(2 / 64),
    "lecun_uniform": np.sqrt(1 / 64),
    "orthogonal": np.sqrt(1 / 64),
    keras.initializers.RandomNormal(stddev=0.3): 0.3,
    keras.initializers.RandomUniform(-0.3, 0.3): 0.3 / np.sqrt(3),
    keras.initializers.TruncatedNormal(stddev=0.3): 0.3 * CUT,
    keras.initializers.VarianceScaling(3, "fan_out", "untruncated_normal"): np.sqrt(
        3 / 48
    ),
    "ones": 0.0,
    ours.AdaptiveHe(depth=2): np.sqrt(2 / 64 / 1.2),
    ours.WidthAware(): np.sqrt(48 / 112 / 64),
    ours.LayerSequential(index=3): np.sqrt(2 / 64) * 0.95**2,
    ours.ResidualAware(branches=4): np.sqrt(2 / 64 / 4),
    ours.ScaledNoise(scale=2.0, noise_std=0.1): np.sqrt(2 / 112 / 2 + 0.01),
    ours.Orthogonal(gain=2.0): 2 * np.sqrt(1 / 64),
    ours.MatchPretrained(std=0.7): 0.7,
    ours.SpectralNorm(): None,
    ours.MirroredOrthogonal(): None,
}


def named_initializer(initializer):
    """Its name; Keras's own instances print their address."""
    return initializer if isinstance(initializer, str) else type(initializer).__name__


@pytest.mark.tensorflow
@pytest.mark.parametrize("initializer", THEORY, ids=named_initializer)
def test_theory_is_the_papers_formula_and_the_sample_agrees(initializer):
    expected = THEORY[initializer]
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(48, kernel_initializer=initializer)]
    )
    kernel = initlab.probe(model, data(8, 64))[0].kernel
    if expected is None:
        assert kernel.theory_std is None
        assert not kernel.is_off_theory
        return
    np.testing.assert_allclose(kernel.theory_std, expected, rtol=1e-6)
    assert not kernel.is_off_theory
    layer = model.layers[0]
    layer.kernel.assign(1.15 * layer.kernel + 0.01 * ops.sin(layer.kernel * 1e3))
    if expected:  # its initializer has not drawn that
        assert initlab.probe(model, data(8, 64))[0].kernel.theory_std is None


@pytest.mark.tensorflow
def test_theory_of_layers_with_other_axes():
    cases = {
        layers.DepthwiseConv2D(3): np.sqrt(2 / (9 * 8 + 9)),  # as Keras counts
        layers.Conv2D(6, 3, groups=2): np.sqrt(2 / (9 * 4 + 9 * 6)),
        layers.DepthwiseConv2D(3, depthwise_initializer=ours.AdaptiveHe(0)): np.sqrt(
            2 / 9
        ),
    }
    for layer, expected in cases.items():
        model = keras.Sequential([keras.Input((6, 6, 8)), layer])
        kernel = initlab.probe(model, RNG.normal(size=(2, 6, 6, 8)))[0].kernel
        np.testing.assert_allclose(kernel.theory_std, expected, rtol=1e-6)
    model = keras.Sequential([keras.Input((5, 8)), layers.LSTM(6)])
    weights = initlab.probe(model, RNG.normal(size=(2, 5, 8)))[0].weights
    theory = {one.name: one.theory_std for one in weights if one.is_kernel}
    np.testing.assert_allclose(theory["kernel"], np.sqrt(2 / (8 + 24)))
    np.testing.assert_allclose(theory["recurrent_kernel"], np.sqrt(1 / 24))


@pytest.mark.tensorflow
def test_theory_of_attention_is_what_keras_draws():
    model = attention_kernel()
    for row in initlab.probe(model, RNG.normal(size=(2, 3, 24))):
        if row.kernel is not None:
            sample = ops.convert_to_numpy(
                next(v for v in model.variables if v.path == row.kernel.path)
            ).std()
            assert row.kernel.theory_std == pytest.approx(sample, rel=0.06)
            assert not row.kernel.is_off_theory


# ---- figures of one tensor ------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e20, 1e37])
def test_squares_neither_over_nor_underflow(scale):
    values = RNG.normal(size=(50, 40, 60))  # several parts
    parts = [(scale * values[i::2]).astype("float32") for i in (0, 1)]
    found = _figures.spread([_figures.measured(part) for part in parts])
    both = np.concatenate(parts).astype("float64")
    expected = [both.mean(), both.std(), both.min(), both.max()]
    got = [found.mean, found.std, found.min, found.max]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    between = np.sqrt(np.mean([part.astype("float64").var(axis=0) for part in parts]))
    assert found.example_std == pytest.approx(between, rel=1e-5)


def test_a_large_mean_does_not_drown_the_std():
    values = (1e4 + RNG.normal(size=(200, 400))).astype("float32")
    found = _figures.spread([_figures.measured(values)])
    np.testing.assert_allclose(found.std, values.astype("float64").std(), rtol=1e-6)


def test_what_is_not_finite_is_counted():
    values = np.array([[1.0, np.nan], [np.inf, 0.0]], "float32")
    found = _figures.spread([_figures.measured(values)])
    assert found.not_finite == 2
    assert np.isnan(found.std)
    assert found.zero_share == 0.25


# ---- table, JSON, picture -------------------------------------------------------


@slow_on_jax
def test_the_table_fits_and_shows_the_diagnosis():
    report = initlab.probe(stack(6, initializer=normal(0.01)), data())
    text = report.table(80)
    assert max(map(len, text.splitlines())) <= 80
    assert "lets the signal vanish" in " ".join(text.split())
    assert "h3" in text
    assert repr(report) == report.table()
    assert "nothing unusual" in repr(initlab.probe(stack(2), data()))


@slow_on_jax
def test_a_long_table_leaves_repetitions_out():
    report = initlab.probe(stack(30), data())
    text = report.table(80)
    assert "… 28 × such layers" in text
    assert len(text.splitlines()) < 40


def test_json_holds_everything_and_is_json():
    report = initlab.probe(with_nan(), data())
    found = json.loads(report.to_json())
    assert found["layers"][1]["output"]["std"] == "nan"
    assert found["findings"][0]["kind"] == "not finite"
    assert [layer["path"] for layer in found["layers"]] == [r.path for r in report]
    assert found["layers"][0]["weights"][0]["theory_std"] > 0


def test_a_report_is_a_sequence():
    report = initlab.probe(stack(2), data())
    assert len(report) == 3
    assert [row.path for row in report[1:]] == [report[1].path, report[2].path]
    assert report.trained is None
    assert report.examples == 64


def test_a_trained_model_says_so():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4)])
    model.compile("adam", "mse", run_eagerly=IS_EAGER)
    model.fit(data(), data(64, 4), verbose=0)
    assert "2 steps" in str(initlab.probe(model, data()).trained)


# ---- large models ---------------------------------------------------------------


class Deep(keras.Model):
    def __init__(self, depth):
        super().__init__()
        self.hidden = [
            layers.Dense(8, "relu", kernel_initializer=normal(0.4), name=f"h{i}")
            for i in range(depth)
        ]

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return x


@pytest.mark.slow
def test_a_thousand_layers():
    model = Deep(1000)
    model(data(1, 8))
    report = initlab.probe(model, data(8, 8))
    assert len(report) == 1000
    assert report.findings
    assert "998 × such layers" in report.table(80)


@pytest.mark.slow
def test_resnet50_and_its_batch_normalization():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    x = RNG.normal(size=(4, 64, 64, 3)).astype("float32")
    report = initlab.probe(model, x)
    assert sum(row.has_kernel for row in report) == 54
    kinds = {symptom.kind for symptom in report.findings}
    assert not any(word in kind for kind in kinds for word in ("signal", "finite"))
    assert report[0].calls == 1


def test_units_of_a_shared_activation_at_several_widths_follow_one_another():
    shared = keras.layers.ReLU()
    given = x = keras.Input((4,))
    for units, dead in ((5, [1]), (3, [0, 2])):
        dense = keras.layers.Dense(units, bias_initializer="ones")
        x = shared(dense(x))
        kernel, bias = dense.get_weights()
        bias[dead] = -100.0
        dense.set_weights([kernel * 0.01, bias])
    report = initlab.probe(keras.Model(given, x), np.ones((8, 4), "float32"))
    (found,) = (layer for layer in report if layer.kind == "ReLU")
    assert found.units == 8
    assert found.dead_units == (1, 5, 7)


def test_symptoms_are_called_findings():
    report = initlab.probe(stack(2), data())
    with pytest.warns(DeprecationWarning, match=r"It is called `\.findings` now"):
        assert report.symptoms == report.findings
