"""`recommend(model, "calibrated", data=...)`: the signal policy's kernels, scaled by
what they give on the data."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from zoo import ZOO

from keras_initlab import TrainedWeightsError, calibrate, recommend
from keras_initlab.calibration import Calibrated

pytestmark = pytest.mark.slow_on_jax


def slow_on_jax(test):
    """Leaves a test to the slow ones there: each operation compiles for each shape."""
    return pytest.mark.slow(test) if keras.backend.backend() == "jax" else test


def to_numpy(value):
    return np.array(ops.convert_to_numpy(ops.cast(value, "float32")), "float64")


def weights(model):
    return [to_numpy(variable) for variable in model.variables]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def data(*shape, examples=64):
    """Far from standardized: theory's scales do not fit."""
    rng = np.random.default_rng(0)
    return rng.exponential(3, size=(examples, *shape)).astype("float32")


def residual():
    """Two residual branches, and logits that start small."""
    given = Input((8,))
    x = layers.Dense(16, name="stem")(given)
    for number in range(2):
        y = layers.Dense(16, "relu", name=f"in{number}")(x)
        x = x + layers.Dense(16, name=f"out{number}")(y)
    head = layers.Dense(3, "softmax", name="head")(x)
    return keras.Model(given, head, name="net")


def products(model, x):
    """What the kernels of `residual` give, without biases, in NumPy."""
    kernel = {
        layer.name: to_numpy(layer.kernel)
        for layer in model.layers[1:]
        if layer.weights
    }
    found = {"stem": x @ kernel["stem"]}
    signal = found["stem"]
    for number in range(2):
        found[f"in{number}"] = signal @ kernel[f"in{number}"]
        inner = np.maximum(found[f"in{number}"], 0)
        found[f"out{number}"] = inner @ kernel[f"out{number}"]
        signal = signal + found[f"out{number}"]
    return {**found, "head": signal @ kernel["head"]}


def test_every_kernel_gets_the_std_that_theory_gives_it():
    model, x = residual(), data(8)
    advice = recommend(model, "calibrated", data=x)
    signal = recommend(model, data=x)
    applied = advice.apply(seed=0)
    found = products(model, x)
    for row in advice:
        std = found[row.path.split("/")[-2]].std()
        assert std == pytest.approx(row.std, rel=1e-3), row.path
        assert f"scaled to a std of {row.std:.3g} on the data" in row.reason
        assert "1511.06422" in row.reference
    stds = [row.std for row in advice]
    assert stds[2] == stds[4] < 1  # a branch each
    assert stds[5] < 1  # the logits
    assert [type(a.initializer) for a in advice] == [
        type(b.initializer) for b in signal
    ]
    signal.apply(seed=0, overwrite=True)
    uncalibrated = products(model, x)
    off = [uncalibrated[row.path.split("/")[-2]].std() / row.std for row in advice]
    assert max(np.abs(np.log(off))) > 0.2
    assert isinstance(applied, Calibrated)
    assert [k.std_after for k in applied] == [row.std for row in advice]


def test_only_the_scale_is_measured():
    """A kernel is a multiple of what the signal policy draws from the same seed."""
    model, x = residual(), data(8)
    recommend(model, data=x).apply(seed=0)
    before = weights(model)
    recommend(model, "calibrated", data=x).apply(seed=0)
    for drawn, scaled in zip(before, weights(model), strict=True):
        if drawn.ndim > 1:
            ratio = scaled / drawn
            np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)


def test_a_seed_undo_and_a_dry_run():
    models, x = [residual(), residual()], data(8)
    before = weights(models[0])
    advice = recommend(models[0], "calibrated", data=x)
    planned = advice.apply(seed=5, dry_run=True)
    assert planned.is_dry_run
    assert same(weights(models[0]), before)
    assert "6 of 6 kernels would be calibrated" in repr(planned)
    applied = advice.apply(seed=5)
    assert planned.changed == applied.changed
    recommend(models[1], "calibrated", data=x).apply(seed=5)
    assert same(*map(weights, models))
    applied.undo()
    assert same(weights(models[0]), before)


@slow_on_jax
def test_only_some_kernels():
    model, x = residual(), data(8)
    before = weights(model)
    applied = recommend(model, "calibrated", data=x).apply(seed=0, only=["in0"])
    assert [path.split("/")[-2:] for path in applied.changed] == [
        ["in0", "kernel"],
        ["in0", "bias"],
    ]
    pairs = zip(before, weights(model), strict=True)
    assert sum(not np.array_equal(*pair) for pair in pairs) == 1
    found = products(model, x)["in0"].std()
    assert found == pytest.approx(1, rel=1e-3)


@slow_on_jax
def test_a_bias_that_centers_is_scaled_with_its_kernel():
    stack = [layers.Dense(32, "sigmoid") for _ in range(5)]
    model = keras.Sequential([Input((16,)), *stack, layers.Dense(4)])
    x = data(16)
    advice = recommend(model, "calibrated", data=x)
    advice.apply(seed=0)
    signal = x.astype("float64")
    for row, layer in zip(advice, model.layers, strict=True):
        kernel, bias = map(to_numpy, layer.get_weights())
        mean = row.centered_mean or 0
        np.testing.assert_allclose(bias, -mean * kernel.sum(axis=0), atol=1e-5)
        z = signal @ kernel + bias
        assert z.std() == pytest.approx(row.std, rel=1e-3)
        signal = 1 / (1 + np.exp(-z))
    assert sum(row.centered_mean is not None for row in advice) >= 4


@slow_on_jax
def test_class_priors_stay():
    model, x = residual(), data(8)
    priors = [0.7, 0.2, 0.1]
    advice = recommend(model, "calibrated", data=x, class_priors=priors)
    advice.apply(seed=0)
    bias = to_numpy(model.get_layer("head").bias)
    np.testing.assert_allclose(np.diff(bias), np.diff(np.log(priors)), rtol=1e-5)
    assert products(model, x)["head"].std() == pytest.approx(advice[5].std, rel=1e-3)


def test_normalization_goes_by_the_batch_and_dropout_does_nothing():
    norm = layers.BatchNormalization()
    stack = [
        layers.Dense(16),
        norm,
        layers.ReLU(),
        layers.Dropout(0.5),
        layers.Dense(9),
    ]
    model, x = keras.Sequential([Input((8,)), *stack]), data(8)
    advice = recommend(model, "calibrated", data=x)
    advice.apply(seed=0)
    z = x @ to_numpy(model.layers[0].kernel)
    normal = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + norm.epsilon)
    out = np.maximum(normal, 0) @ to_numpy(model.layers[-1].kernel)
    assert out.std() == pytest.approx(advice[1].std, rel=1e-3)
    assert not np.any(to_numpy(norm.moving_mean))


@slow_on_jax
def test_recurrent_kernels_and_embeddings():
    model = keras.Sequential(
        [
            Input((6,), dtype="int32"),
            layers.Embedding(20, 8),
            layers.LSTM(8),
            layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).integers(0, 20, (64, 6)).astype("int32")
    signal = recommend(model, data=x).apply(seed=0)
    recurrent = to_numpy(model.layers[1].cell.recurrent_kernel)
    advice = recommend(model, "calibrated", data=x)
    applied = advice.apply(seed=0, overwrite=True)
    assert set(applied.changed) == set(signal.changed)
    np.testing.assert_array_equal(
        to_numpy(model.layers[1].cell.recurrent_kernel), recurrent
    )
    assert "on the data" not in next(r for r in advice if r.role == "recurrent").reason
    words = to_numpy(model.layers[0].embeddings)[x]
    projection = words @ to_numpy(model.layers[1].cell.kernel)
    std = {row.path.split("/")[-1]: row.std for row in [*advice][::-1]}
    assert words.std() == pytest.approx(std["embeddings"], rel=1e-3)
    assert projection.std() == pytest.approx(std["kernel"], rel=1e-3)


class Mixing(layers.Layer):
    """Multiplies by a kernel of its own, made to length 1."""

    def build(self, input_shape):
        shape = (input_shape[-1], 8)
        self.mixing = self.add_weight(shape, "glorot_uniform", name="mixing")

    def call(self, inputs):
        return ops.matmul(inputs, ops.normalize(self.mixing, axis=0))


def test_what_is_not_calibrated_has_its_reason():
    model = keras.Sequential([Input((8,)), Mixing(), layers.Dense(8), layers.Dense(3)])
    model.layers[2].trainable = False
    advice = recommend(model, "calibrated", data=data(8))
    reason = "what a Mixing computes with it is not known"
    assert advice[0].reason.count(f"not calibrated: {reason}") == 1
    assert advice[2].initializer is None
    applied = advice.apply(seed=0)
    assert isinstance(applied, Calibrated)
    assert [kernel.note for kernel in applied] == [reason, ""]
    assert len(applied.changed) == 3


def test_long_arrays_are_thinned():
    model, x = residual(), data(8, examples=1000)
    advice = recommend(model, "calibrated", data=x)
    advice.apply(seed=0)
    part = x[::4]
    assert len(part) == 250
    assert products(model, part)["head"].std() == pytest.approx(advice[5].std, rel=1e-4)


def test_a_data_set():
    def batches():
        yield data(8), np.zeros(64)

    model = residual()
    recommend(model, "calibrated", data=batches()).apply(seed=0)
    assert products(model, data(8))["stem"].std() == pytest.approx(1, rel=1e-3)


BAD = {
    "none": (None, ValueError, "'calibrated' must have `data`.*Received: data=None"),
    "empty": (np.zeros((0, 8), "float32"), ValueError, "data"),
    "width": (data(7), ValueError, r"`data` must be what 'net' takes.*\(64, 7\)"),
    "text": ("data.csv", (TypeError, ValueError), "data.csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name):
    given, error, text = BAD[name]
    model = residual()
    before = weights(model)
    with pytest.raises(error, match=text):
        recommend(model, "calibrated", data=given)
    assert same(weights(model), before)


class Switch(layers.Layer):
    """Hands on what it is given, or infinity."""

    factor = 1.0

    def call(self, inputs):
        return inputs * self.factor


def test_what_goes_wrong_in_the_pass_changes_nothing():
    switch = Switch()
    stack = [layers.Dense(8), switch, layers.Dense(3)]
    model = keras.Sequential([Input((8,)), *stack])
    advice = recommend(model, "calibrated", data=data(8))
    switch.factor = np.inf
    before = weights(model)
    with pytest.raises(ValueError, match="Received: NaN or Inf"):
        advice.apply(seed=0)
    assert same(weights(model), before)


def test_trained_weights_are_refused():
    model = residual()
    advice = recommend(model, "calibrated", data=data(8))
    model.layers[1].bias.assign(np.ones(16))
    with pytest.raises(TrainedWeightsError, match="`apply` would overwrite them"):
        advice.apply(seed=0)
    assert advice.apply(seed=0, overwrite=True).changed


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ZOO if ZOO[n].is_called])
def test_the_whole_zoo(name):
    """Every kernel has the std asked for, or its reason; one more pass finds it so."""
    entry = ZOO[name]
    model, x = entry.build(), entry.example(32)
    advice = recommend(model, "calibrated", data=x)
    applied = advice.apply(seed=0, overwrite=True)
    std = {row.kernel.variable.path: row.std for row in advice}
    assert isinstance(applied, Calibrated)
    for kernel in applied:
        if kernel.note:
            continue
        assert kernel.std_after == pytest.approx(std[kernel.path], rel=1e-6)
    assert sum(not kernel.note for kernel in applied) >= 1
    assert calibrate(model, x, overwrite=True).changed
