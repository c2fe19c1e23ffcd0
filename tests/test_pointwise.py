import functools
import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.special import expit

from keras_initlab import NotPointwiseError, activation_statistics, gain
from keras_initlab._activations import (
    is_rectifier,
    moments_by_std,
    name_of,
    resolve,
)

SQRT_2PI = math.sqrt(2 * math.pi)
MIXING = ["glu", "log_softmax", "softmax", "sparsemax"]


LAYERS = {
    "relu6": (layers.ReLU(max_value=6), "relu6"),
    "relu": (layers.ReLU(), "relu"),
    "leaky relu": (
        layers.LeakyReLU(negative_slope=0.3),
        lambda x: ops.maximum(x, 0.3 * x),
    ),
    "elu": (layers.ELU(alpha=1.0), "elu"),
    "elu, alpha": (
        layers.ELU(alpha=0.5),
        lambda x: ops.where(x > 0, x, 0.5 * ops.expm1(ops.minimum(x, 0.0))),
    ),
    "by name": (layers.Activation("gelu"), "gelu"),
    "by function": (layers.Activation(ops.tanh), "tanh"),
    "nested": (layers.Activation(layers.LeakyReLU(negative_slope=0.2)), "leaky_relu"),
    "prelu, unbuilt": (layers.PReLU(), "relu"),
    "prelu, unbuilt, constant": (
        layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2)),
        "leaky_relu",
    ),
    "linear": (layers.Activation(None), None),
    "alias": ("swish", "silu"),
}


@pytest.mark.parametrize(("given", "same_as"), LAYERS.values(), ids=LAYERS)
def test_layers_have_the_statistics_of_their_function(given, same_as):
    found = activation_statistics(given).to_dict()
    assert found == pytest.approx(activation_statistics(same_as).to_dict(), abs=1e-5)


def built_prelu(alphas, shared_axes=None):
    layer = layers.PReLU(shared_axes=shared_axes)
    shape = np.shape(alphas)
    layer.build(
        (None, *(7 if n == 1 else n for n in shape)) if shared_axes else (None, *shape)
    )
    layer.alpha.assign(alphas)
    return layer


ALPHAS = {
    "one axis": ([0.125, 0.375, 0.125, 0.5], None),
    "spread wide": ([-1.0, 2.0, 0.25], None),
    "shared over space": (np.linspace(0, 1, 5).reshape(1, 1, 5), [1, 2]),
    "per pixel": (np.linspace(-0.5, 0.5, 24).reshape(2, 3, 4), None),
    "one for all": ([[[0.25]]], [1, 2, 3]),
}


@pytest.mark.parametrize(("alphas", "shared_axes"), ALPHAS.values(), ids=ALPHAS)
def test_built_prelu_averages_over_its_slopes(alphas, shared_axes):
    layer = built_prelu(alphas, shared_axes)
    slopes = np.asarray(alphas, "float32").astype(float).ravel()
    found = activation_statistics(layer)
    square = (slopes**2).mean()
    assert layer.alpha.shape == np.shape(alphas)
    assert found.second_moment == pytest.approx((1 + square) / 2, rel=1e-9)
    assert found.derivative_second_moment == pytest.approx((1 + square) / 2, rel=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_a_prelu_of_one_slope_is_that_leaky_relu(slope):
    found = activation_statistics(built_prelu([slope, slope]))
    expected = activation_statistics(layers.LeakyReLU(negative_slope=slope))
    assert found.to_dict() == pytest.approx(expected.to_dict())


def test_the_mean_slope_alone_would_give_another_gain():
    alphas = [-1.0, 2.0, 0.25]
    of_mean = math.sqrt(2 / (1 + np.mean(alphas) ** 2))
    assert gain(built_prelu(alphas)) < 0.9 * of_mean


def test_prelu_at_another_std_scales():
    layer = built_prelu([0.0, 0.5])
    found = activation_statistics(layer, std=3.0)
    assert found.second_moment == pytest.approx(9 * 1.125 / 2, rel=1e-9)
    assert moments_by_std(layer)(3.0) == pytest.approx(
        (9 * 1.125 / 2, 1.125 / 2), rel=1e-2
    )


@pytest.mark.parametrize("seeded", [False, True])
def test_unbuilt_prelu_draws_its_slopes_without_a_trace(seeded):
    seed = keras.random.SeedGenerator(3) if seeded else 3
    uniform = keras.initializers.RandomUniform(0.0, 1.0, seed=seed)
    layer = layers.PReLU(alpha_initializer=uniform)
    second = activation_statistics(layer).second_moment
    assert second == pytest.approx((1 + 1 / 3) / 2, abs=5 * 0.15 / 2**8)
    assert activation_statistics(layer).second_moment == second
    assert not layer.built


class Swish(layers.Layer):
    """x·sigmoid(βx) with a learned β per unit or for all."""

    def __init__(self, per_unit, beta):
        super().__init__()
        self.per_unit, self.start = per_unit, beta

    def build(self, shape):
        sizes = tuple(n or 1 for n in shape[1:]) if self.per_unit else ()
        self.beta = self.add_weight(shape=sizes, initializer="ones")
        self.beta.assign(np.broadcast_to(self.start, sizes))

    def call(self, x):
        return x * ops.sigmoid(self.beta * x)


def swish_moment(beta):
    z = np.linspace(-12, 12, 200_001)
    values = (z * expit(beta * z)) ** 2 * np.exp(-(z**2) / 2) / SQRT_2PI
    return float(np.sum(values) * (z[1] - z[0]))


def test_a_custom_layer_counts_with_its_current_values():
    layer = Swish(per_unit=False, beta=1.0)
    layer.build((None, 4))
    for beta in (1.0, 2.0):
        layer.beta.assign(beta)
        found = activation_statistics(layer).second_moment
        assert found == pytest.approx(swish_moment(beta), rel=1e-6)


@pytest.mark.parametrize("shape", [(None, 3), (None, 6), (8, 2, 3)])
def test_a_layer_whose_units_differ_is_refused(shape):
    layer = Swish(per_unit=True, beta=np.linspace(0.5, 4.0, shape[-1]))
    layer.build(shape)
    with pytest.raises(ValueError, match=r"activation='swish', which (raises|mixes)"):
        gain(layer)
    assert not is_rectifier(layer)


def test_an_unbuilt_custom_layer_is_refused():
    with pytest.raises(ValueError, match=r"activation='swish', which raises .* build"):
        gain(Swish(per_unit=False, beta=1.0))


def test_a_custom_function_that_was_not_registered():
    def cubed(x):
        return x**3

    assert gain(cubed) == pytest.approx(1 / math.sqrt(15), rel=1e-6)
    assert gain(layers.Activation(cubed)) == pytest.approx(1 / math.sqrt(15), rel=1e-6)
    assert activation_statistics(cubed).derivative_second_moment == pytest.approx(27)


def test_statistics_follow_a_variable_in_a_closure():
    slope = keras.Variable(1.0)

    def line(x):
        return ops.cast(slope, x.dtype) * x

    assert gain(line) == pytest.approx(1)
    slope.assign(4.0)
    assert gain(line) == pytest.approx(1 / 4)
    assert moments_by_std(line)(1.0) == pytest.approx((16, 16), rel=1e-2)


def test_constants_in_float32_are_allowed():
    two = ops.convert_to_tensor(2.0, dtype="float32")
    assert gain(lambda x: x * two) == pytest.approx(1 / 2, rel=1e-6)


def test_statistics_follow_a_layer_that_changes():
    layer = layers.LeakyReLU(negative_slope=0.2)
    assert gain(layer) == pytest.approx(math.sqrt(2 / 1.04), rel=1e-9)
    layer.negative_slope = 0.5
    assert gain(layer) == pytest.approx(math.sqrt(2 / 1.25), rel=1e-9)


def test_layers_compute_in_float64_whatever_their_dtype():
    layer = layers.ReLU(dtype="float16")
    assert activation_statistics(layer).mean == pytest.approx(1 / SQRT_2PI, rel=1e-9)


NAMES = {
    "relu": "relu",
    "none": None,
    "softplus": layers.Activation("softplus"),
    "leaky_relu": layers.LeakyReLU(),
    "prelu": layers.PReLU(),
    "elu": layers.ELU(),
    "sin": ops.sin,
    "gelu": functools.partial(keras.activations.gelu, approximate=True),
}


@pytest.mark.parametrize(("name", "activation"), NAMES.items())
def test_names(name, activation):
    expected = "linear" if activation is None else name
    assert resolve(activation)[0] == expected


def test_name_of_a_callable_object():
    class Cube:
        def __call__(self, x):
            return x**3

    assert name_of(Cube()) == "Cube"
    assert activation_statistics(Cube()).second_moment == pytest.approx(15, rel=1e-9)


def test_unhashable_callables_work():
    class Unhashable:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, x):
            return 2 * x

    assert gain(Unhashable()) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("name", MIXING)
def test_activations_that_mix_units_are_refused(name):
    with pytest.raises(NotPointwiseError, match=f"activation='{name}', which mixes"):
        activation_statistics(name)


MIXING_OTHERWISE = {
    "layer": layers.Softmax(),
    "layer, first axis": layers.Softmax(axis=1),
    "layer, two axes": layers.Softmax(axis=(1, 2)),
    "wrapped": layers.Activation("softmax"),
    "wrapped twice": layers.Activation(layers.Activation("log_softmax")),
    "function": keras.activations.softmax,
    "operation": ops.softmax,
    "axis 1": lambda x: ops.softmax(x, axis=1),
    "axis 2": lambda x: ops.log_softmax(x, axis=2),
    "batch": lambda x: ops.softmax(x, axis=0),
    "glu, axis 1": lambda x: ops.glu(x, axis=1),
    "sparsemax": lambda x: ops.sparsemax(x),
    "less its mean": lambda x: x - ops.mean(x, axis=0),
    "to a scalar": lambda x: ops.sum(x),
    "sorted": lambda x: ops.sort(x, axis=-1),
    "flipped": lambda x: ops.flip(x, axis=-1),
    "summed up": lambda x: ops.cumsum(x, axis=-1),
    "tiny": lambda x: 1e-8 * ops.softmax(x),
    "flattened": layers.Flatten(),
    "normalized": layers.LayerNormalization(),
}


@pytest.mark.parametrize(
    "activation", MIXING_OTHERWISE.values(), ids=list(MIXING_OTHERWISE)
)
def test_other_ways_to_mix_units_are_refused(activation):
    if isinstance(activation, layers.LayerNormalization):
        activation.build((None, 6))
    with pytest.raises(NotPointwiseError, match="mixes units"):
        gain(activation)


def built(layer, shape):
    layer.build(shape)
    return layer


def test_a_dense_layer_is_no_activation():
    with pytest.raises(ValueError, match="activation='dense', which raises"):
        gain(layers.Dense(3))
    for units in (3, 4):
        with pytest.raises(ValueError, match="activation='dense', which raises"):
            gain(built(layers.Dense(units), (None, 4)))


RANDOM = {
    "dropout": lambda: layers.Dropout(0.5),
    "noise": lambda: layers.GaussianNoise(0.1),
    "multiplied": lambda: layers.GaussianDropout(0.3),
    "alpha": lambda: layers.AlphaDropout(0.3),
}


@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_random_layers_are_refused_and_keep_their_seeds(make):
    layer = make()
    before = [np.array(ops.convert_to_numpy(v.value)) for v in layer.variables]
    assert before
    for _ in range(2):
        with pytest.raises(ValueError, match="which is random"):
            gain(layer)
    for variable, value in zip(layer.variables, before, strict=True):
        assert np.array_equal(ops.convert_to_numpy(variable.value), value)


def test_a_refused_normalization_keeps_its_moving_averages():
    layer = built(layers.BatchNormalization(), (None, 6))
    with pytest.raises(ValueError, match="'batch_normalization', which raises"):
        gain(layer)
    assert np.array_equal(ops.convert_to_numpy(layer.moving_mean), np.zeros(6))


def noisy(x):
    return x + keras.random.normal(ops.shape(x), dtype=x.dtype)


def nothing(x):
    return None


def pair(x):
    return x, x


def broken(x):
    raise KeyError("no such")


def complicated(x):
    return ops.convert_to_numpy(x) * 1j


def rough(x):
    return ops.sin(1e6 * x)


def overflowing(x):
    return ops.exp(ops.exp(x))


REFUSED = {
    "unknown name": ("relux", "Received: activation='relux'"),
    "unknown, near": ("Gellu", "activation='Gellu'. Did you mean 'elu', 'gelu', 'glu'"),
    "unknown, far": ("qqq", "activation='qqq'. Known names: 'celu', 'elu', 'expon"),
    "a number": (3, "Received: activation=3"),
    "a float": (0.5, "Received: activation=0.5"),
    "a list": (["relu"], r"Received: activation=\['relu'\]"),
    "an array": (np.ones(2), r"Received: activation=array\(\[1., 1.\]\)"),
    "a class": (layers.ReLU, "activation='ReLU', which raises"),
    "no name": ("threshold", "activation='threshold'. "),
    "needs more arguments": (
        keras.activations.threshold,
        "activation='threshold', which raises TypeError: .*lambda",
    ),
    "returns None": (nothing, "activation='nothing', .* it returns NoneType"),
    "returns two": (pair, "activation='pair', .* it returns tuple"),
    "raises": (broken, "activation='broken', which raises KeyError: 'no such'"),
    "complex": (complicated, "activation='complicated', .* complex"),
    "NaN": (ops.log, "activation='log', which is not finite at -0"),
    "infinite": (overflowing, "activation='overflowing', which is not finite at [67]"),
    "random": (noisy, "activation='noisy', which is random"),
    "too rough": (rough, "activation='rough', which is too rough"),
}


@pytest.mark.parametrize(("activation", "received"), REFUSED.values(), ids=REFUSED)
def test_refused_activations(activation, received):
    with pytest.raises(ValueError, match=received):
        activation_statistics(activation)


RECTIFIERS = {
    "relu": ("relu", True),
    "relu6": ("relu6", True),
    "layer": (layers.ReLU(), True),
    "capped layer": (layers.ReLU(max_value=1), True),
    "wrapped": (layers.Activation("relu"), True),
    "squared": (lambda x: ops.relu(x) ** 2, True),
    "unbuilt prelu": (layers.PReLU(), False),
    "leaky": ("leaky_relu", False),
    "leaky layer": (layers.ReLU(negative_slope=0.1), False),
    "gelu": ("gelu", False),
    "hard_silu": ("hard_silu", False),
    "sparse_plus": ("sparse_plus", False),
    "soft_shrink": ("soft_shrink", False),
    "hard_sigmoid": ("hard_sigmoid", False),
    "linear": (None, False),
    "zero": (ops.zeros_like, False),
    "softmax": ("softmax", False),
    "unknown": ("relux", False),
    "needs more arguments": ("threshold", False),
}


@pytest.mark.parametrize(
    ("activation", "expected"), RECTIFIERS.values(), ids=RECTIFIERS
)
def test_is_rectifier(activation, expected):
    assert is_rectifier(activation) is expected
