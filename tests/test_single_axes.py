"""Kernels with axes of length 1, words of one kind, and activations that pass nothing.

What is one in number has no spread, no partner and no copy.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

import keras_initlab as initlab
from keras_initlab import recommend

RNG = np.random.default_rng(0)


def ending(*inner, shape, dtype=None):
    """A model of these layers and an output."""
    ends = [layers.Flatten(), layers.Dense(1)]
    return keras.Sequential([Input(shape, dtype=dtype), *inner, *ends])


def attention():
    inputs = Input((3, 1))
    outputs = layers.MultiHeadAttention(1, 1)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(outputs)))


def words(*shape):
    return lambda: ending(layers.Embedding(*shape), shape=(3,), dtype="int32")


MODELS = {
    "Dense 3 to 1": lambda: ending(layers.Dense(1, "relu"), shape=(3,)),
    "Dense 1 to 1": lambda: ending(layers.Dense(1, "tanh"), shape=(1,)),
    "Dense 1 to 4": lambda: ending(layers.Dense(4, "relu"), shape=(1,)),
    "Conv1D": lambda: ending(layers.Conv1D(1, 1), shape=(4, 1)),
    "Conv2D": lambda: ending(layers.Conv2D(1, 1, activation="relu"), shape=(4, 4, 1)),
    "Conv2D of one": lambda: ending(layers.Conv2D(1, 1), shape=(1, 1, 1)),
    "grouped": lambda: ending(layers.Conv2D(4, 1, groups=4), shape=(4, 4, 4)),
    "depthwise": lambda: ending(layers.DepthwiseConv2D(1), shape=(4, 4, 1)),
    "separable": lambda: ending(layers.SeparableConv2D(1, 1), shape=(4, 4, 1)),
    "transposed": lambda: ending(layers.Conv2DTranspose(1, 2, 2), shape=(4, 4, 1)),
    "EinsumDense": lambda: ending(
        layers.EinsumDense("abc,cde->abde", (3, 1, 1), bias_axes="de"), shape=(3, 1)
    ),
    "Embedding of one row": words(1, 4),
    "Embedding of width 1": words(5, 1),
    "Embedding of one": words(1, 1),
    "SimpleRNN": lambda: ending(layers.SimpleRNN(1), shape=(3, 1)),
    "GRU": lambda: ending(layers.GRU(1), shape=(3, 1)),
    "LSTM": lambda: ending(layers.Bidirectional(layers.LSTM(1)), shape=(1, 1)),
    "attention": attention,
    "deep": lambda: ending(*[layers.Dense(1, "tanh") for _ in range(8)], shape=(1,)),
    "normalized": lambda: ending(
        layers.Dense(1), layers.BatchNormalization(), layers.PReLU(), shape=(1,)
    ),
}


def data(model):
    """Inputs; words are all number 0."""
    (inputs,) = model.inputs
    shape = (16, *inputs.shape[1:])
    if "int" in inputs.dtype:
        return np.zeros(shape, "int32")
    return RNG.normal(size=shape).astype("float32")


def calibrated(model, x, **options):
    return initlab.calibrate(model, x, seed=0, overwrite=True, **options)


WRITES = {
    "signal": lambda model, x: recommend(model).apply(seed=0),
    "rules": lambda model, x: recommend(model, "rules").apply(seed=0),
    "data": lambda model, x: recommend(model, data=x).apply(seed=0),
    "policy": lambda model, x: recommend(model, "calibrated", data=x).apply(seed=0),
    "calibrate": calibrated,
    "channels": lambda model, x: calibrated(
        model, x, per_channel=True, center_bias=True, orthogonal=True
    ),
    "reinitialize": lambda model, x: initlab.reinitialize(model, seed=0),
}


@pytest.mark.parametrize("function", WRITES)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_finite(name, function):
    model = MODELS[name]()
    x = data(model)
    applied = WRITES[function](model, x)
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in model.variables)
    assert len({*applied.changed}) == len(applied.changed)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_seen_is_finite(name):
    model = MODELS[name]()
    x = data(model)
    assert all(min(one) > 0 for one in initlab.fans(model).values())
    report = initlab.probe(model, x)
    assert np.isfinite(report.loss)
    for seed in range(4):
        recommend(model).apply(seed=seed)
        kinds = {finding.kind for finding in initlab.audit(model)}
        # Of one number, an orthogonal draw has two values, which say nothing.
        assert not kinds & {"constant", "identical kernels", "symmetric units"}


def test_zeros_of_a_single_unit_are_constant():
    model = ending(layers.Dense(1, kernel_initializer="zeros"), shape=(4,))
    assert [finding.kind for finding in initlab.audit(model)] == ["constant"]


def test_channels_that_are_constant_are_left_as_they_are():
    """A mean of equal float32 numbers is not quite that number."""
    model = ending(layers.Dense(7, use_bias=False), shape=(3,))
    x = np.tile(RNG.normal(size=(1, 3)).astype("float32"), (37, 1))
    before = [ops.convert_to_numpy(v) for v in model.variables]
    for per_channel in (True, False):
        found = calibrated(model, x, per_channel=per_channel)
        assert "constant in every channel" in found[0].note or not per_channel
        found.undo()
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))


NOTHING = {
    "zeros": ops.zeros_like,
    "tiny": lambda x: x * 1e-30,
    "never": lambda x: ops.relu(x - 50.0),
    "a layer": layers.Activation(ops.zeros_like),
}


@pytest.mark.parametrize("deep", [1, 6])
@pytest.mark.parametrize("name", NOTHING)
def test_an_activation_that_passes_nothing_on_is_no_reason_to_scale(name, deep):
    """No kernel could make up for it; those behind it get the scale of unit inputs."""
    hidden = [layers.Dense(64, activation=NOTHING[name]) for _ in range(deep)]
    model = keras.Sequential([Input((64,)), *hidden, layers.Dense(64)])
    recommend(model).apply(seed=0)
    for layer in model.layers:
        assert 0.5 < 8 * np.std(ops.convert_to_numpy(layer.kernel)) < 2
    initlab.audit(model)


RETURNS = {
    "a constant": (lambda x: ops.full_like(x, 3.0), None),
    "whole numbers": (lambda x: ops.cast(ops.round(3 * x), "int32"), None),
    "truth values": (lambda x: x > 0, None),
    "a number": (lambda x: 2.0, "it returns float and not a"),
    "nothing": (lambda x: None, "it returns NoneType and not a"),
    "a list": (lambda x: [x], "it returns list and not a"),
    "complex numbers": (lambda x: ops.cast(x, "complex64"), "complex numbers"),
    "no numbers": (lambda x: x * float("nan"), "is not finite at"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_an_activation_is_answered_or_refused(name):
    activation, told = RETURNS[name]
    for ask in (initlab.activation_statistics, initlab.gain, initlab.initializer_for):
        if told is None:
            ask(activation)
        else:
            with pytest.raises(ValueError, match=told):
                ask(activation)
