"""What constraints and spectral normalization leave, drawn so and promised so."""

import keras
import numpy as np
import pytest

import keras_initlab as initlab
from keras_initlab.initializers import MirroredOrthogonal, Orthogonal

pytestmark = [pytest.mark.once_a_day, pytest.mark.slow_on_jax]

layers, constraints = keras.layers, keras.constraints


class Clipped(constraints.Constraint):
    """A user's own."""

    def __call__(self, w):
        return keras.ops.clip(w, -0.05, 0.05)


def numbers(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def norms(values, axis):
    return np.sqrt(np.sum(values**2, axis=axis))


# By what a kernel must be, without asking Keras.
OBEYS = {
    "max": (
        lambda axis: constraints.MaxNorm(0.5, axis=axis),
        lambda w, axis: norms(w, axis).max() < 0.5 + 1e-5,
    ),
    "loose": (
        lambda axis: constraints.MaxNorm(30.0, axis=axis),
        lambda w, axis: norms(w, axis).max() < 30,
    ),
    "non negative": (lambda axis: constraints.NonNeg(), lambda w, axis: w.min() >= 0),
    "unit": (
        lambda axis: constraints.UnitNorm(axis=axis),
        lambda w, axis: np.allclose(norms(w, axis), 1, atol=1e-5),
    ),
    "min and max": (
        lambda axis: constraints.MinMaxNorm(0.7, 0.8, axis=axis),
        lambda w, axis: np.allclose(norms(w, axis), 0.75, atol=0.05 + 1e-5),
    ),
    "slowly": (
        lambda axis: constraints.MinMaxNorm(0.7, 0.8, rate=0.1, axis=axis),
        lambda w, axis: np.allclose(norms(w, axis), 0.75, atol=0.05 + 1e-4),
    ),
    "own": (lambda axis: Clipped(), lambda w, axis: np.abs(w).max() < 0.05 + 1e-6),
}


def dense(constraint):
    given = [layers.Dense(48, "relu", kernel_constraint=constraint) for _ in range(2)]
    return [keras.Input((16,)), *given, layers.Dense(5)]


def convolution(constraint):
    first = layers.Conv2D(12, 3, activation="relu", kernel_constraint=constraint)
    return [keras.Input((8, 8, 4)), first, layers.Flatten(), layers.Dense(5)]


def depthwise(constraint):
    first = layers.DepthwiseConv2D(3, depthwise_constraint=constraint)
    return [keras.Input((8, 8, 16)), first, layers.Flatten(), layers.Dense(5)]


def lstm(constraint):
    first = layers.LSTM(
        16, kernel_constraint=constraint, recurrent_constraint=constraint
    )
    return [keras.Input((6, 8)), first, layers.Dense(5)]


def embedding(constraint):
    first = layers.Embedding(200, 16, embeddings_constraint=constraint)
    inputs = keras.Input((12,), dtype="int32")
    return [inputs, first, layers.Flatten(), layers.Dense(5)]


def deep(constraint):
    given = [layers.Dense(48, "relu", kernel_constraint=constraint) for _ in range(5)]
    return [keras.Input((48,)), *given, layers.Dense(5)]


# With the axes on which norms are taken.
MODELS = {
    "dense": (dense, 0),
    "convolution": (convolution, (0, 1, 2)),
    "depthwise": (depthwise, (0, 1)),
    "lstm": (lstm, 0),
    "embedding": (embedding, 1),
    "deep": (deep, 0),
}


def built(model, constraint):
    make, axis = MODELS[model]
    return keras.Sequential(make(OBEYS[constraint][0](axis))), axis


def batch_for(model, rng):
    shape = (64, *model.input_shape[1:])
    if "int" in model.inputs[0].dtype:
        return rng.integers(0, 200, shape)
    return rng.standard_normal(shape).astype("float32")


def constrained(model):
    return [one for one in model.trainable_variables if one.constraint is not None]


def start(how, model, x):
    if how == "apply":
        return initlab.recommend(model).apply(seed=0)
    if how == "reinitialize":
        return initlab.reinitialize(model, seed=0)
    if how == "calibrate":
        return initlab.calibrate(model, x)
    return initlab.recommend(model, "calibrated", data=x).apply(seed=0)


STARTS = ("apply", "reinitialize", "calibrate", "calibrated")
CASES = [(model, one) for one in OBEYS for model in MODELS]


@pytest.mark.parametrize(("name", "constraint"), CASES)
def test_what_is_drawn_obeys(name, constraint, rng):
    model, axis = built(name, constraint)
    x = batch_for(model, rng)
    for how in ("apply", "reinitialize"):
        start(how, model, x)
        kernels = constrained(model)
        assert kernels
        for one in kernels:
            assert OBEYS[constraint][1](numbers(one), axis), how


def test_the_oracles_can_fail(rng):
    values = rng.standard_normal((16, 48))
    for name, (_, obeys) in OBEYS.items():
        assert obeys(values, 0) == (name == "loose")


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize(
    ("name", "constraint"), [("dense", "max"), ("lstm", "slowly"), ("deep", "unit")]
)
def test_the_first_step_changes_nothing_and_undo_brings_all_back(
    name, constraint, how, rng
):
    """A step of rate 0 is what the constraint alone does."""
    model, _ = built(name, constraint)
    x = batch_for(model, rng)
    before = [numbers(one) for one in model.variables]
    applied = start(how, model, x)
    drawn = [numbers(one) for one in model.variables]
    gradients = [keras.ops.zeros(one.shape) for one in model.trainable_variables]
    keras.optimizers.SGD(0.0).apply(gradients, model.trainable_variables)
    for one, values in zip(model.variables, drawn, strict=True):
        np.testing.assert_allclose(numbers(one), values, rtol=0, atol=1e-6)
    applied.undo()
    for one, values in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numbers(one), values)


def given(layer, x):
    """What a layer's kernel gives, in NumPy."""
    w = numbers(layer.trainable_variables[0])
    if isinstance(layer, layers.Embedding):
        return w[x]
    if isinstance(layer, layers.Dense | layers.LSTM):
        return x @ w
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    term = "bxychw,hwcm->bxycm" if w.shape[-1] == 1 else "bxychw,hwco->bxyo"
    return np.einsum(term, windows, w, optimize=True)


@pytest.mark.parametrize(("name", "constraint"), CASES)
def test_the_std_is_what_the_model_then_does(name, constraint, rng):
    model, _ = built(name, constraint)
    x = np.concatenate([batch_for(model, rng) for _ in range(4)])
    advice = initlab.recommend(model)
    advice.apply(seed=1)
    row_of = {id(row.kernel.variable): row for row in advice}
    for layer in model.layers:
        row = row_of.get(id(layer.trainable_variables[0]))
        if row is None or row.kernel.variable.constraint is None:
            break
        assert row.std == pytest.approx(given(layer, x).std(), rel=0.25)
        if not isinstance(layer, layers.Dense):
            break
        x = np.maximum(given(layer, x) + numbers(layer.bias), 0)


MEANT = {"embedding": 0.03}


@pytest.mark.parametrize(("name", "constraint"), CASES)
def test_what_cannot_be_had_is_told(name, constraint):
    """Another std than the one meant is never without a word, with both numbers."""
    model, _ = built(name, constraint)
    row = initlab.recommend(model)[0]
    meant = MEANT.get(name, 1.0)
    kind = type(constrained(model)[0].constraint).__name__
    if not 0.9 < row.std / meant < 1.1:
        assert f"{kind}(" in row.reason
        assert f"leaves a std of {row.std:.3g}, not {meant:g}" in row.reason
    elif constraint == "loose":
        assert kind not in row.reason


CONSTRUCTIONS = {
    "kept where it obeys": ("loose", 5),
    "kept where all is scaled alike": ("unit", 4),
    "given up where it would be destroyed": ("non negative", 0),
    "given up for what clips": ("own", 0),
}


def normalized(units=(48, 48), **arguments):
    given = [layers.Dense(n, "relu", **arguments) for n in units]
    wrapped = [layers.SpectralNormalization(one) for one in given]
    return keras.Sequential([keras.Input((16,)), *wrapped, layers.Dense(5)])


@pytest.mark.parametrize("how", STARTS)
def test_spectral_normalization_leaves_its_kernels_alone(how, rng):
    model = normalized()
    x = batch_for(model, rng)
    before = [numbers(one) for one in model.variables]
    applied = start(how, model, x)
    drawn = [numbers(one) for one in model.variables]
    for layer in model.layers[:2]:
        kernel = numbers(layer.layer.kernel)
        assert np.linalg.norm(kernel, 2) == pytest.approx(1, abs=1e-4)
    model(x, training=True)
    for one, values in zip(model.variables, drawn, strict=True):
        np.testing.assert_allclose(numbers(one), values, rtol=0, atol=1e-4)
    applied.undo()
    for one, values in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numbers(one), values)


def test_spectral_normalization_is_in_the_promise(rng):
    model = normalized()
    advice = initlab.recommend(model)
    advice.apply(seed=0)
    x = rng.standard_normal((2048, 16))
    for row, layer in zip(advice, model.layers[:2], strict=False):
        assert isinstance(row.initializer, Orthogonal)
        out = x @ numbers(layer.layer.kernel)
        assert out.std() == pytest.approx(row.std, rel=0.1)
        assert f"leaves a std of {row.std:.3g}, not 1" in row.reason
        x = np.maximum(out, 0)


def test_calibrate_scales_as_far_as_a_constraint_allows(rng):
    model, _ = built("dense", "max")
    x = batch_for(model, rng)
    rows = initlab.calibrate(model, x)
    held = x.astype("float64")
    for row, layer in zip(rows, model.layers, strict=True):
        out = given(layer, held)
        assert row.std_after == pytest.approx(out.std(), rel=1e-3)
        is_bound = layer.kernel.constraint is not None
        assert (f"allows a std of {row.std_after:.3g}, not 1" in row.note) == is_bound
        held = np.maximum(out, 0)
    assert rows[2].std_after == pytest.approx(1)


def test_calibrate_scales_what_its_constraint_leaves_alone(rng):
    model, _ = built("dense", "non negative")
    rows = initlab.calibrate(model, batch_for(model, rng))
    assert [row.std_after for row in rows] == [pytest.approx(1)] * 3
    assert not any("NonNeg" in row.note for row in rows)


@pytest.mark.parametrize("constraint", OBEYS)
def test_audit_finds_nothing_in_what_was_drawn(constraint):
    for name in ("dense", "deep"):
        model, _ = built(name, constraint)
        initlab.recommend(model).apply(seed=0)
        assert not list(initlab.audit(model))


def test_biases_obey_too():
    hidden = layers.Dense(8, bias_initializer="ones", bias_constraint="unit_norm")
    model = keras.Sequential([keras.Input((4,)), hidden])
    for how in ("apply", "reinitialize"):
        start(how, model, None)
        assert np.linalg.norm(numbers(hidden.bias)) == pytest.approx(1, abs=1e-5)


def test_a_constraint_that_makes_no_number_leaves_the_values():
    """A direction of zero is none."""

    class Direction(constraints.Constraint):
        def __call__(self, w):
            return w / keras.ops.sqrt(keras.ops.sum(w * w))

    hidden = layers.Dense(8, bias_constraint=Direction())
    model = keras.Sequential([keras.Input((4,)), hidden])
    initlab.reinitialize(model, seed=0)
    assert not np.any(numbers(hidden.bias))


def test_constructions_give_way_to_constraints():
    """Pairs and orthogonal kernels are what they promise only as they are drawn."""

    def net(constraint):
        dense = [
            layers.Dense(32, "relu", kernel_constraint=constraint) for _ in "12345"
        ]
        return keras.Sequential([keras.Input((16,)), *dense, layers.Dense(3)])

    free, bound = (
        [type(row.initializer) for row in initlab.recommend(net(one))]
        for one in (None, constraints.MaxNorm(0.5))
    )
    assert MirroredOrthogonal in free
    assert not {MirroredOrthogonal, Orthogonal} & set(bound)
