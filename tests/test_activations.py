import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.integrate import quad
from scipy.special import erf, expit, log_expit

from keras_initlab import NotPointwiseError, activation_statistics, gain
from keras_initlab._activations import is_rectifier, name_of, resolve
from keras_initlab._quadrature import sample

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
SQRT_2PI = math.sqrt(2 * math.pi)


def density(z):
    return math.exp(-z * z / 2) / SQRT_2PI


def distribution(z):
    return (1 + erf(z / math.sqrt(2))) / 2


class Formula(NamedTuple):
    value: Callable[[float], float]
    slope: Callable[[float], float]
    slope_at_zero: float
    kinks: tuple[float, ...] = ()


def mish_slope(z):
    gate = math.tanh(np.logaddexp(0, z))
    return gate + z * (1 - gate**2) * expit(z)


POINTWISE = {
    "linear": Formula(lambda z: z, lambda z: 1, 1),
    "relu": Formula(lambda z: max(z, 0), lambda z: z > 0, 0.5, (0,)),
    "relu6": Formula(lambda z: min(max(z, 0), 6), lambda z: 0 < z < 6, 0.5, (0, 6)),
    "leaky_relu": Formula(
        lambda z: max(z, 0.2 * z), lambda z: 1 if z > 0 else 0.2, 0.6, (0,)
    ),
    "elu": Formula(
        lambda z: z if z > 0 else math.expm1(z),
        lambda z: 1 if z > 0 else math.exp(z),
        1,
        (0,),
    ),
    "celu": Formula(
        lambda z: z if z > 0 else math.expm1(z),
        lambda z: 1 if z > 0 else math.exp(z),
        1,
        (0,),
    ),
    "selu": Formula(
        lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * math.expm1(z)),
        lambda z: SELU_SCALE * (1 if z > 0 else SELU_ALPHA * math.exp(z)),
        SELU_SCALE * (1 + SELU_ALPHA) / 2,
        (0,),
    ),
    "gelu": Formula(
        lambda z: z * distribution(z),
        lambda z: distribution(z) + z * density(z),
        0.5,
    ),
    "silu": Formula(
        lambda z: z * expit(z), lambda z: expit(z) * (1 + z * expit(-z)), 0.5
    ),
    "hard_silu": Formula(
        lambda z: z * min(max(z + 3, 0), 6) / 6,
        lambda z: (z > 3) if abs(z) > 3 else (2 * z + 3) / 6,
        0.5,
        (-3, 3),
    ),
    "mish": Formula(lambda z: z * math.tanh(np.logaddexp(0, z)), mish_slope, 0.6),
    "softplus": Formula(lambda z: np.logaddexp(0, z), expit, 0.5),
    "squareplus": Formula(
        lambda z: (z + math.sqrt(z * z + 4)) / 2,
        lambda z: (1 + z / math.sqrt(z * z + 4)) / 2,
        0.5,
    ),
    "sparse_plus": Formula(
        lambda z: max(z, 0) if abs(z) > 1 else (z + 1) ** 2 / 4,
        lambda z: (z > 0) if abs(z) > 1 else (z + 1) / 2,
        0.5,
        (-1, 1),
    ),
    "log_sigmoid": Formula(log_expit, lambda z: expit(-z), 0.5),
    "exponential": Formula(math.exp, math.exp, 1),
    "sigmoid": Formula(expit, lambda z: expit(z) * expit(-z), 0.25),
    "hard_sigmoid": Formula(
        lambda z: min(max(z / 6 + 0.5, 0), 1),
        lambda z: 1 / 6 if abs(z) < 3 else 0,
        1 / 6,
        (-3, 3),
    ),
    "sparse_sigmoid": Formula(
        lambda z: min(max((z + 1) / 2, 0), 1),
        lambda z: 0.5 if abs(z) < 1 else 0,
        0.5,
        (-1, 1),
    ),
    "tanh": Formula(math.tanh, lambda z: 1 - math.tanh(z) ** 2, 1),
    "hard_tanh": Formula(
        lambda z: min(max(z, -1), 1), lambda z: abs(z) < 1, 1, (-1, 1)
    ),
    "softsign": Formula(
        lambda z: z / (1 + abs(z)), lambda z: (1 + abs(z)) ** -2, 1, (0,)
    ),
    "tanh_shrink": Formula(lambda z: z - math.tanh(z), lambda z: math.tanh(z) ** 2, 0),
    "soft_shrink": Formula(
        lambda z: math.copysign(max(abs(z) - 0.5, 0), z),
        lambda z: abs(z) > 0.5,
        0,
        (-0.5, 0.5),
    ),
    "hard_shrink": Formula(
        lambda z: z if abs(z) > 0.5 else 0,
        lambda z: abs(z) > 0.5,
        0,
        (-0.5, 0.5),
    ),
}
MIXING = ["glu", "log_softmax", "softmax", "sparsemax"]


def mean(function, kinks):
    """E[function(z)] for z ~ N(0, 1), by adaptive quadrature that knows the kinks."""
    edges = sorted({-12.0, -4.0, 0.0, 4.0, 12.0, *kinks, *(-kink for kink in kinks)})
    pieces = [
        quad(lambda z: function(z) * density(z), low, high, epsabs=1e-13, limit=200)[0]
        for low, high in itertools.pairwise(edges)
    ]
    return math.fsum(pieces)


def oracle(formula):
    """What `ActivationStatistics` holds, from the formula alone."""
    value, slope, slope_at_zero, kinks = formula

    def odd(z):
        return value(z) - value(-z)

    def even(z):
        return (value(z) + value(-z)) / 2 - value(0.0)

    odd_moment = mean(lambda z: odd(z) ** 2, kinks)
    odd_slope = mean(lambda z: z * odd(z), kinks)
    residual = mean(lambda z: (odd(z) - odd_slope * z) ** 2, kinks)
    first, second = mean(value, kinks), mean(lambda z: value(z) ** 2, kinks)
    even_moment = mean(lambda z: even(z) ** 2, kinks)
    return {
        "mean": first,
        "second_moment": second,
        "variance": second - first**2,
        "derivative_second_moment": mean(lambda z: slope(z) ** 2, kinks),
        "mean_derivative": mean(slope, kinks),
        "value_at_zero": value(0.0),
        "slope_at_zero": slope_at_zero,
        "odd_second_moment": odd_moment,
        "odd_slope": odd_slope,
        "odd_error": math.sqrt(residual) / abs(odd_slope),
        "center_error": math.sqrt(even_moment / odd_moment) * 2,
    }


def test_the_table_holds_every_pointwise_activation():
    public = {name for name in dir(keras.activations) if not name.startswith("_")}
    no_activation = {"get", "serialize", "deserialize", "threshold"}
    aliases = {"swish", "hard_swish"}
    assert public - no_activation - aliases == {*POINTWISE, *MIXING}


# Some backends compute some activations in float32 even for float64 input: Keras
# does so for tanh on JAX, which costs the slope at one point most.
TOLERANCE = {
    "derivative_second_moment": 1e-5,
    "mean_derivative": 1e-5,
    "slope_at_zero": 3e-5,
}


@pytest.mark.parametrize("name", POINTWISE)
def test_statistics_match_an_independent_quadrature(name):
    found = activation_statistics(name).to_dict()
    expected = oracle(POINTWISE[name])
    assert found.keys() == expected.keys()
    for figure, value in expected.items():
        tolerance = TOLERANCE.get(figure, 2e-7)
        assert found[figure] == pytest.approx(value, rel=1e-6, abs=tolerance), figure


def inside(bound):
    """P(|z| < bound)."""
    return math.erf(bound / math.sqrt(2))


CLOSED_FORMS = {
    # activation: E[φ], E[φ²], E[φ′²]
    "linear": (None, 0, 1, 1),
    "relu": ("relu", 1 / SQRT_2PI, 1 / 2, 1 / 2),
    "leaky_relu": ("leaky_relu", 0.8 / SQRT_2PI, 1.04 / 2, 1.04 / 2),
    "exponential": ("exponential", math.exp(1 / 2), math.exp(2), math.exp(2)),
    "hard_tanh": ("hard_tanh", 0, 1 - 2 * density(1), inside(1)),
    "hard_sigmoid": (
        "hard_sigmoid",
        1 / 2,
        1 / 4 + (9 - 8 * inside(3) - 6 * density(3)) / 36,
        inside(3) / 36,
    ),
    "hard_shrink": (
        "hard_shrink",
        0,
        1 - inside(1 / 2) + density(1 / 2),
        1 - inside(1 / 2),
    ),
    "soft_shrink": (
        "soft_shrink",
        0,
        5 / 4 * (1 - inside(1 / 2)) - density(1 / 2),
        1 - inside(1 / 2),
    ),
    "squareplus": ("squareplus", None, 3 / 2, None),
    "gelu": (
        "gelu",
        1 / (2 * math.sqrt(math.pi)),
        1 / 3 + 1 / (2 * math.pi * math.sqrt(3)),
        None,
    ),
    "sine": (ops.sin, 0, (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
    "square": (ops.square, 1, 3, 4),
    "magnitude": (ops.abs, math.sqrt(2 / math.pi), 1, 1),
    "error function": (
        ops.erf,
        0,
        2 / math.pi * math.asin(2 / 3),
        4 / (math.pi * math.sqrt(5)),
    ),
    "step": (lambda x: ops.cast(x > 0, x.dtype), 1 / 2, 1 / 2, 0),
    "sign": (ops.sign, 0, 1, 0),
    "jump away from 0": (
        lambda x: ops.where(x > 1.25, x - 1, x),
        -(1 - distribution(1.25)),
        1 - 2 * density(1.25) + (1 - distribution(1.25)),
        1,
    ),
}


@pytest.mark.parametrize(
    ("activation", "first", "second", "of_slope"),
    CLOSED_FORMS.values(),
    ids=CLOSED_FORMS,
)
def test_closed_forms(activation, first, second, of_slope):
    found = activation_statistics(activation)
    assert first is None or found.mean == pytest.approx(first, rel=2e-8, abs=1e-9)
    assert found.second_moment == pytest.approx(second, rel=2e-8)
    assert of_slope is None or found.derivative_second_moment == pytest.approx(
        of_slope, rel=2e-7, abs=1e-9
    )


def test_closed_forms_of_gains():
    assert gain("relu") == pytest.approx(math.sqrt(2), rel=1e-9)
    assert gain("relu", "backward") == pytest.approx(math.sqrt(2), rel=1e-9)
    assert gain("relu", "variance") == pytest.approx(
        1 / math.sqrt(1 / 2 - 1 / (2 * math.pi)), rel=1e-9
    )
    assert gain("leaky_relu") == pytest.approx(math.sqrt(2 / 1.04), rel=1e-7)
    assert gain("selu") == pytest.approx(1, rel=1e-6)
    assert gain(None) == pytest.approx(1, rel=1e-12)


def gauss_hermite_mean(function, nodes=64):
    z, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return float(weights @ function(z)) / SQRT_2PI


def test_the_quadrature_finds_kinks_that_gauss_hermite_misses():
    exact = 1 / SQRT_2PI
    # 64 nodes do the second moment exactly, by symmetry, so that one shows nothing.
    assert abs(gauss_hermite_mean(lambda z: np.maximum(z, 0)) - exact) > 1e-4
    assert abs(gauss_hermite_mean(lambda z: np.maximum(z, 0) ** 2) - 0.5) < 1e-9
    assert abs(activation_statistics("relu").mean - exact) < 1e-9


def test_the_quadrature_integrates_moments_of_the_normal_distribution():
    line = sample(lambda z: z)
    moments = [line.mean(line.values**power) for power in (0, 2, 4, 6, 8)]
    assert moments == pytest.approx([1, 1, 3, 15, 105], rel=1e-12)


EXACTLY_LINEAR_DIFFERENCE = {
    "relu": 1,
    "gelu": 1,
    "silu": 1,
    "hard_silu": 1,
    "softplus": 1,
    "squareplus": 1,
    "sparse_plus": 1,
    "log_sigmoid": 1,
    "leaky_relu": 1.2,
}


@pytest.mark.parametrize(("name", "slope"), EXACTLY_LINEAR_DIFFERENCE.items())
def test_mirrored_pairs_of_these_are_exactly_linear(name, slope):
    found = activation_statistics(name)
    assert found.odd_error < 1e-6
    assert found.odd_slope == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", ["mish", "elu", "tanh", "selu", "sigmoid", "softsign"])
def test_mirrored_pairs_of_others_are_not_linear(name):
    assert activation_statistics(name).odd_error > 0.01


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign", "hard_sigmoid"])
def test_odd_about_their_center(name):
    assert activation_statistics(name).center_error < 1e-6


@pytest.mark.parametrize("name", ["relu", "gelu", "elu", "softplus", "exponential"])
def test_not_odd_about_any_center(name):
    assert activation_statistics(name).center_error > 0.1


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


def test_built_prelu_uses_its_slopes():
    layer = layers.PReLU()
    layer.build((None, 4))
    layer.alpha.assign([0.1, 0.3, 0.1, 0.3])
    assert gain(layer) == pytest.approx(math.sqrt(2 / 1.04), rel=1e-6)


def test_statistics_follow_a_layer_that_changes():
    layer = layers.LeakyReLU(negative_slope=0.2)
    assert gain(layer) == pytest.approx(math.sqrt(2 / 1.04), rel=1e-6)
    layer.negative_slope = 0.5
    assert gain(layer) == pytest.approx(math.sqrt(2 / 1.25), rel=1e-6)


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
        __hash__ = None

        def __call__(self, x):
            return 2 * x

    assert gain(Unhashable()) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("name", MIXING)
def test_activations_that_mix_units_are_refused(name):
    with pytest.raises(NotPointwiseError, match=f"activation='{name}', which mixes"):
        activation_statistics(name)


@pytest.mark.parametrize(
    "activation",
    [layers.Softmax(), lambda x: x - ops.mean(x, axis=0), lambda x: ops.sum(x)],
    ids=["layer", "over the batch", "to a scalar"],
)
def test_other_ways_to_mix_units_are_refused(activation):
    with pytest.raises(NotPointwiseError, match="mixes units"):
        gain(activation)


def noisy(x):
    return x + keras.random.normal(ops.shape(x), dtype=x.dtype)


def rough(x):
    return ops.sin(1e6 * x)


def overflowing(x):
    return ops.exp(ops.exp(x))


REFUSED = {
    "unknown name": ("relux", "Received: activation='relux'"),
    "a number": (3, "Received: activation=3"),
    "needs more arguments": ("threshold", "activation='threshold'"),
    "NaN": (ops.log, "activation='log', which is not finite at -3"),
    "infinite": (overflowing, "activation='overflowing', which is not finite at [67]"),
    "random": (noisy, "activation='noisy', which is random"),
    "too rough": (rough, "activation='rough', which is too rough"),
}


@pytest.mark.parametrize(("activation", "received"), REFUSED.values(), ids=REFUSED)
def test_refused_activations(activation, received):
    with pytest.raises(ValueError, match=received):
        activation_statistics(activation)


def two(x):
    return ops.zeros_like(x) + 2


NO_GAIN = {
    "zero": (ops.zeros_like, "second_moment", "activation='zeros_like'"),
    "constant, variance": (two, "variance", "activation='two', whose variance moment"),
    "constant, backward": (two, "backward", "activation='two', whose backward moment"),
    "step, backward": (ops.sign, "backward", "activation='sign', whose backward"),
}


@pytest.mark.parametrize(
    ("activation", "kind", "received"), NO_GAIN.values(), ids=NO_GAIN
)
def test_activations_without_a_gain(activation, kind, received):
    with pytest.raises(ValueError, match=received):
        gain(activation, kind)


def test_constant_has_a_second_moment_gain():
    assert gain(two) == pytest.approx(0.5)


def test_unknown_kind():
    allowed = "'backward', 'second_moment', 'variance'"
    with pytest.raises(ValueError, match=f"{allowed}. Received: kind='forward'"):
        gain("relu", "forward")


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
