"""What a function is said to do to a signal, when it is asked by running it.

The oracle is NumPy: the size of what each function gives is computed anew, on other
numbers than those that it is asked with.
"""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_initlab._keras.kinds import Effect
from keras_initlab.inspection._asking import ask

pytestmark = [pytest.mark.slow_on_jax]

SHAPE = (6, 8, 32)
EPSILON = 1e-6


def mean(x, axis=-1):
    return ops.mean(x, axis=axis, keepdims=True)


def centered(x, axis=-1):
    return x - mean(x, axis)


def variance(x, axis=-1):
    return ops.var(x, axis=axis, keepdims=True)


def by_moments(x):
    at, spread = ops.moments(x, axes=-1, keepdims=True)
    return (x - at) / ops.sqrt(spread + 1e-3)


def grouped(x):
    """Group normalization by hand, 4 groups of the channels."""
    y = ops.reshape(x, (*x.shape[:-1], 4, -1))
    y = centered(y) * ops.rsqrt(variance(y) + EPSILON)
    return ops.reshape(y, x.shape)


def size(values):
    return math.sqrt(np.mean(np.square(values, dtype="float64")))


def root_mean_square(x):
    return np.sqrt(np.mean(np.square(x), -1, keepdims=True))


SIZES = {
    "unit": lambda x: x / root_mean_square(x),
    "half": lambda x: x / root_mean_square(x) / 2,
    "length one": lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True),
    "largest one": lambda x: x / np.abs(x).max(-1, keepdims=True),
    "sum one": lambda x: x / np.abs(x).sum(-1, keepdims=True),
}
NORMALIZATIONS = {
    "rsqrt": ("unit", lambda x: x * ops.rsqrt(mean(x * x) + EPSILON)),
    "sqrt": ("unit", lambda x: x / ops.sqrt(mean(ops.square(x)) + EPSILON)),
    "power": ("unit", lambda x: x * (mean(x**2) + 1e-5) ** -0.5),
    "epsilon outside": ("unit", lambda x: x / (ops.sqrt(mean(x * x)) + 1e-3)),
    "length and width": (
        "unit",
        lambda x: x / ops.norm(x, axis=-1, keepdims=True) * x.shape[-1] ** 0.5,
    ),
    "one and a gain of zero": (
        "unit",
        lambda x: x * ops.rsqrt(mean(x * x) + EPSILON) * (1 + ops.zeros(32)),
    ),
    "mean and variance": (
        "unit",
        lambda x: centered(x) * ops.rsqrt(variance(x) + EPSILON),
    ),
    "mean and std": ("unit", lambda x: centered(x) / (ops.std(x, -1, True) + 1e-5)),
    "moments": ("unit", by_moments),
    "positions": ("unit", lambda x: centered(x, 1) / ops.sqrt(variance(x, 1) + 1e-5)),
    "all but examples": (
        "unit",
        lambda x: centered(x, (1, 2)) * ops.rsqrt(variance(x, (1, 2)) + EPSILON),
    ),
    "groups": ("unit", grouped),
    "twice": ("unit", lambda x: by_moments(by_moments(x) * 3 + 1)),
    "ops.rms_normalization": ("unit", ops.rms_normalization),
    "ops.layer_normalization": ("unit", ops.layer_normalization),
    "half": ("half", lambda x: 0.5 * x * ops.rsqrt(mean(x * x) + EPSILON)),
    "length one": ("length one", lambda x: x / ops.norm(x, axis=-1, keepdims=True)),
    "length by rsqrt": (
        "length one",
        lambda x: x * ops.rsqrt(ops.sum(x * x, -1, keepdims=True) + EPSILON),
    ),
    "ops.normalize": ("length one", lambda x: ops.normalize(x, axis=-1)),
    "largest": ("largest one", lambda x: x / ops.max(ops.abs(x), -1, keepdims=True)),
    "sum": ("sum one", lambda x: x / ops.sum(ops.abs(x), -1, keepdims=True)),
}


def asked(function, shape=SHAPE):
    return ask(function, shape, "by_hand")


@pytest.mark.whole
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalization_is_told_in_any_form(name):
    kind, function = NORMALIZATIONS[name]
    answer = asked(function)
    assert answer.effect is Effect.NORMALIZATION
    x = np.random.default_rng(7).normal(size=(500, *SHAPE[1:]))
    expected = size(SIZES[kind](x)) ** 2
    assert answer.mean_square == pytest.approx(expected, rel=0.05)
    others = {size(f(x)) ** 2 for one, f in SIZES.items() if one != kind}
    assert answer.mean_square != pytest.approx(min(others), rel=0.05)
    # What is said is what it does, at any scale but that of the epsilon.
    for scale in (0.3, 20.0):
        given = ops.convert_to_tensor((scale * x[: SHAPE[0]]).astype("float32"))
        found = size(ops.convert_to_numpy(function(given))) ** 2
        assert found == pytest.approx(answer.mean_square, rel=0.1)


def cdf(x):
    return 0.5 * (1 + ops.erf(x / 2**0.5))


ACTIVATIONS = {
    "gelu": [lambda x: x * cdf(x), lambda x: 0.5 * x * (1 + ops.erf(x * 0.70710678))],
    "silu": [lambda x: x * ops.sigmoid(x), lambda x: x / (1 + ops.exp(-x))],
    "relu": [
        lambda x: ops.maximum(x, 0),
        lambda x: ops.where(x > 0, x, ops.zeros_like(x)),
        lambda x: 0.5 * (x + ops.abs(x)),
        lambda x: x * ops.cast(x > 0, x.dtype),
    ],
    "tanh": [lambda x: 2 * ops.sigmoid(2 * x) - 1],
    "sigmoid": [lambda x: 1 / (1 + ops.exp(-x)), lambda x: 0.5 + 0.5 * ops.tanh(x / 2)],
    "softplus": [lambda x: ops.log(1 + ops.exp(x)), lambda x: ops.logaddexp(x, 0.0)],
    "mish": [lambda x: x * ops.tanh(ops.softplus(x))],
    "relu6": [lambda x: ops.clip(x, 0, 6)],
    "leaky_relu": [lambda x: ops.maximum(x, 0.2 * x)],
    "softsign": [lambda x: x / (1 + ops.abs(x))],
    "exponential": [ops.exp],
    "hard_silu": [lambda x: x * ops.relu6(x + 3) / 6],
    "softmax": [
        lambda x: ops.exp(x) / ops.sum(ops.exp(x), -1, keepdims=True),
        lambda x: ops.exp(x - ops.logsumexp(x, -1, keepdims=True)),
        lambda x: ops.softmax(x, axis=1),
    ],
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_of_kerass_is_known_by_its_values(name):
    for function in ACTIVATIONS[name]:
        answer = asked(function)
        assert answer.effect is Effect.ACTIVATION
        assert answer.activation is keras.activations.get(name)


OWN = {
    "relu²": (lambda x: ops.square(ops.relu(x)), lambda x: np.maximum(x, 0) ** 2),
    "quick gelu": (
        lambda x: x * ops.sigmoid(1.702 * x),
        lambda x: x / (1 + np.exp(-1.702 * x)),
    ),
    "leaky": (lambda x: ops.maximum(x, 0.1 * x), lambda x: np.maximum(x, 0.1 * x)),
    "twice relu": (lambda x: 2 * ops.relu(x), lambda x: 2 * np.maximum(x, 0)),
    "sine": (lambda x: ops.sin(30 * x), lambda x: np.sin(30 * x)),
    "snake": (lambda x: x + ops.sin(x) ** 2, lambda x: x + np.sin(x) ** 2),
    "cube": (lambda x: x**3, lambda x: x**3),
    "shifted": (lambda x: x + 1, lambda x: x + 1),
    "sign": (ops.sign, np.sign),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", OWN)
def test_another_activation_brings_its_own_values(name):
    function, oracle = OWN[name]
    answer = asked(function)
    assert answer.effect is Effect.ACTIVATION
    assert answer.activation.__name__ == "by_hand"
    for shape in ((5,), (7, 300), (2, 3, 5, 7)):  # fewer and more than it was asked on
        z = np.random.default_rng(1).normal(size=shape).astype("float32")
        found = answer.activation(ops.convert_to_tensor(z))
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), oracle(z), rtol=1e-4, atol=1e-4
        )


def rotary(x):
    """Rotary positions, halves put together."""
    positions, width = x.shape[-2], x.shape[-1]
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.tile(np.outer(np.arange(positions), rates), 2).astype("float32")
    one, other = ops.split(x, 2, axis=-1)
    turned = ops.concatenate([-other, one], axis=-1)
    cosine, sine = map(ops.convert_to_tensor, (np.cos(angles), np.sin(angles)))
    return x * cosine + turned * sine


def hadamard(x):
    matrix = np.ones((1, 1), "float32")
    for _ in range(5):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return x @ ops.convert_to_tensor(matrix / 32**0.5)


SAME, TURNED, MIXED = Effect.SAME_UNITS, Effect.REARRANGE, Effect.CHANNEL_LINEAR
LINEAR = {
    "times 8": (SAME, 8.0, lambda x: x * 8.0),
    "over 8": (SAME, 1 / 8, lambda x: x / 8.0),
    "over the root of the width": (SAME, 32**-0.5, lambda x: x / x.shape[-1] ** 0.5),
    "negative": (SAME, 1.0, lambda x: -x),
    "added to itself": (SAME, 2.0, lambda x: x + x),
    "rotary": (TURNED, 1.0, rotary),
    "reversed": (TURNED, 1.0, lambda x: ops.flip(x, -1)),
    "rolled": (TURNED, 1.0, lambda x: ops.roll(x, 2, 1)),
    "hadamard": (TURNED, 1.0, hadamard),
    "mean of 8": (MIXED, 8**-0.5, lambda x: ops.mean(x, 1)),
    "sum of 8": (MIXED, 8**0.5, lambda x: ops.sum(x, 1)),
    "sums so far": (MIXED, 4.5**0.5, lambda x: ops.cumsum(x, 1)),
    "differences": (MIXED, 2**0.5, lambda x: x[:, 1:] - x[:, :-1]),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_is_told_with_its_gain(name):
    effect, gain, function = LINEAR[name]
    answer = asked(function)
    assert answer.effect is effect
    wanted = 1.0 if effect is TURNED else gain
    assert answer.gain == pytest.approx(wanted, rel=0.1)
    given = ops.convert_to_tensor(
        np.random.default_rng(3).normal(size=SHAPE).astype("float32")
    )
    found = size(ops.convert_to_numpy(function(given))) / size(
        ops.convert_to_numpy(given)
    )
    assert found == pytest.approx(gain, rel=0.1)


NONE_OF_THESE = {
    "variance": lambda x: ops.var(x, -1),
    "products so far": lambda x: ops.cumprod(x, -1),
    "times its mean": lambda x: x * mean(x),
    "times its neighbor": lambda x: x * ops.roll(x, 1, -1),
    "softmax gate": lambda x: x * ops.softmax(x),
    "largest": lambda x: ops.max(x, 1),
    "sorted": lambda x: ops.sort(x, -1),
    "over its mean square": lambda x: x / (mean(x * x) + EPSILON),
    "shares of no softmax": lambda x: (
        ops.sigmoid(x) / ops.sum(ops.sigmoid(x), -1, keepdims=True)
    ),
    "an epsilon that counts": lambda x: x / ops.sqrt(mean(x * x) + 1.0),
    "whole numbers": lambda x: ops.argmax(x, -1),
    "not a number": lambda x: ops.log(ops.minimum(x, 0.0) * 1.0),
    "entries of places": lambda x: ops.concatenate([x[:, :4], ops.relu(x[:, 4:])], 1),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", NONE_OF_THESE)
def test_what_is_none_of_these_is_not_told(name):
    assert asked(NONE_OF_THESE[name]) is None


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_too_few_numbers_tell_nothing(shape):
    assert asked(ops.relu, shape) is None


NEAR_MISSES = [
    (lambda x: x * cdf(x), lambda x: x * cdf(1.1 * x)),
    (lambda x: ops.maximum(x, 0.2 * x), lambda x: ops.maximum(x, 0.21 * x)),
    (lambda x: x * 8.0, lambda x: x * 8.5),
    (NORMALIZATIONS["rsqrt"][1], NORMALIZATIONS["length one"][1]),
    (NORMALIZATIONS["rsqrt"][1], NONE_OF_THESE["over its mean square"]),
    (ops.softmax, NONE_OF_THESE["shares of no softmax"]),
    (rotary, lambda x: 1.2 * rotary(x)),
    (lambda x: ops.mean(x, 1), lambda x: ops.max(x, 1)),
]


@pytest.mark.whole
@pytest.mark.parametrize(("function", "other"), NEAR_MISSES)
def test_what_nearly_does_it_gets_another_answer(function, other):
    assert asked(function) is not None
    assert asked(function) == asked(function)
    assert asked(function) != asked(other)
