import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from scipy.integrate import quad
from scipy.special import erf, expit, log_expit

from keras_initlab import activation_statistics, gain
from keras_initlab._activations import moments_by_std
from keras_initlab._activations._quadrature import sample

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
        "second_moment_slope": mean(lambda z: z * value(z) * slope(z), kinks),
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


@pytest.mark.parametrize("name", POINTWISE)
def test_statistics_match_an_independent_quadrature(name):
    found = activation_statistics(name).to_dict()
    expected = oracle(POINTWISE[name])
    assert found.keys() == expected.keys()
    for figure, value in expected.items():
        assert found[figure] == pytest.approx(value, rel=1e-9, abs=2e-8), figure


def scaled(formula, std):
    """φ(std·u) as a function of u."""
    return Formula(
        lambda u: formula.value(std * u),
        lambda u: std * formula.slope(std * u),
        std * formula.slope_at_zero,
        tuple(kink / std for kink in formula.kinks),
    )


@pytest.mark.parametrize("std", [0.1, 3.0])
@pytest.mark.parametrize("name", sorted({*POINTWISE} - {"exponential"}))
def test_statistics_at_another_std(name, std):
    found = activation_statistics(name, std=std).to_dict()
    expected = oracle(scaled(POINTWISE[name], std))
    for figure, value in expected.items():
        by = {
            "derivative_second_moment": std**2,
            "mean_derivative": std,
            "odd_slope": std,
            "second_moment_slope": std**2,
            "slope_at_zero": std,
        }.get(figure, 1)
        assert found[figure] == pytest.approx(value / by, rel=1e-8, abs=5e-8), figure


@pytest.mark.parametrize("std", [1e-4, 0.3, 2.0, 40.0, 1000.0])
def test_statistics_at_any_std(std):
    assert activation_statistics("relu", std).mean == pytest.approx(std / SQRT_2PI)
    found = activation_statistics(ops.erf, std)
    precision = 1e-9 if keras.backend.backend() == "tensorflow" else 1e-6
    square = 2 / math.pi * math.asin(2 * std**2 / (1 + 2 * std**2))
    slopes = 4 / math.pi / math.sqrt(1 + 4 * std**2)
    assert found.second_moment == pytest.approx(square, rel=precision)
    assert found.derivative_second_moment == pytest.approx(slopes, rel=4 * precision)


@pytest.mark.parametrize("std", [0, -1.0, math.nan, math.inf, True, "1"])
def test_bad_std(std):
    with pytest.raises(ValueError, match=f"`std` must be .* Received: std={std!r}"):
        activation_statistics("relu", std=std)


@pytest.mark.parametrize("std", [5.5, 40.0])
def test_an_activation_that_outgrows_the_normal_density_is_refused(std):
    received = f"'exponential', whose second moment at std={std:g} lies beyond"
    with pytest.raises(ValueError, match=received):
        activation_statistics("exponential", std=std)


def test_an_activation_that_lives_in_the_far_tail_is_refused():
    received = "'soft_shrink', whose second moment at std=0.044 lies beyond"
    with pytest.raises(ValueError, match=received):
        activation_statistics("soft_shrink", std=0.044)


@pytest.mark.parametrize("std", [0.01, 0.5, 4.0])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "hard_tanh"])
def test_quick_moments_agree_with_the_exact_ones(name, std):
    exact = activation_statistics(name, std=std)
    second, of_slope = moments_by_std(name)(std)
    assert second == pytest.approx(exact.second_moment, rel=5e-3)
    assert of_slope == pytest.approx(exact.derivative_second_moment, rel=5e-3)


class Closed(NamedTuple):
    """An activation, its formula, and E[φ], E[φ²], E[φ′²] in closed form if known."""

    activation: object
    formula: Formula
    first: float | None
    second: float | None
    of_slope: float | None


def power_moments(low, high, degree):
    """E[z^k; low < z < high] for k = 0…degree, by M_k = (k−1) M_{k−2} + boundary."""
    tails = [erf(edge / math.sqrt(2)) / 2 for edge in (low, high)]
    moments = [tails[1] - tails[0]]

    def edge_term(edge, power):
        return 0.0 if math.isinf(edge) else edge**power * density(edge)

    for k in range(1, degree + 1):
        below = (k - 1) * moments[k - 2] if k > 1 else 0.0
        moments.append(below + edge_term(low, k - 1) - edge_term(high, k - 1))
    return moments


def piecewise(activation, *pieces, slope_at_zero=math.nan):
    """The closed form of polynomials: pieces are (low, high, coefficients from 0)."""
    first = second = of_slope = 0.0
    for low, high, coefficients in pieces:
        moments = power_moments(low, high, 2 * len(coefficients))
        slopes = [k * c for k, c in enumerate(coefficients)][1:]
        first += sum(c * m for c, m in zip(coefficients, moments, strict=False))
        second += sum(
            c * m
            for c, m in zip(
                np.convolve(coefficients, coefficients), moments, strict=False
            )
        )
        if slopes:
            of_slope += sum(
                c * m
                for c, m in zip(np.convolve(slopes, slopes), moments, strict=False)
            )

    def value(z):
        for low, high, coefficients in pieces:
            if low < z <= high:
                return sum(c * z**k for k, c in enumerate(coefficients))
        return 0.0

    def slope(z):
        for low, high, coefficients in pieces:
            if low < z <= high:
                return sum(
                    k * c * z ** (k - 1) for k, c in enumerate(coefficients) if k
                )
        return 0.0

    kinks = {edge for piece in pieces for edge in piece[:2] if math.isfinite(edge)}
    formula = Formula(value, slope, slope_at_zero, tuple(sorted(kinks)))
    return Closed(activation, formula, first, second, of_slope)


def exponential_below_zero(activation, scale, alpha, rate):
    """scale·z above 0, scale·alpha·(e^(rate·z) − 1) below: ELU, SELU and CELU."""

    def tail(t):  # E[e^(tz); z < 0]
        return math.exp(t * t / 2) * distribution(-t)

    formula = Formula(
        lambda z: scale * (z if z > 0 else alpha * math.expm1(rate * z)),
        lambda z: scale * (1 if z > 0 else alpha * rate * math.exp(rate * z)),
        scale * (1 + alpha * rate) / 2,
        (0,),
    )
    return Closed(
        activation,
        formula,
        scale * (1 / SQRT_2PI + alpha * (tail(rate) - 1 / 2)),
        scale**2 * (1 / 2 + alpha**2 * (tail(2 * rate) - 2 * tail(rate) + 1 / 2)),
        scale**2 * (1 / 2 + (alpha * rate) ** 2 * tail(2 * rate)),
    )


INF = math.inf
ACT = keras.activations


def bound(function, **arguments):
    return functools.partial(function, **arguments)


CLOSED = {
    "linear": piecewise(None, (-INF, INF, [0, 1])),
    "relu": piecewise("relu", (0, INF, [0, 1])),
    "relu, shifted": piecewise(bound(ACT.relu, threshold=0.7), (0.7, INF, [0, 1])),
    "relu, all arguments": piecewise(
        bound(ACT.relu, negative_slope=0.3, max_value=2.5, threshold=0.5),
        (-INF, 0.5, [-0.15, 0.3]),
        (0.5, 2.5, [0, 1]),
        (2.5, INF, [2.5]),
    ),
    "relu6": piecewise("relu6", (0, 6, [0, 1]), (6, INF, [6])),
    "hard_tanh": piecewise(
        "hard_tanh", (-INF, -1, [-1]), (-1, 1, [0, 1]), (1, INF, [1])
    ),
    "hard_sigmoid": piecewise("hard_sigmoid", (-3, 3, [1 / 2, 1 / 6]), (3, INF, [1])),
    "hard_silu": piecewise("hard_silu", (-3, 3, [0, 1 / 2, 1 / 6]), (3, INF, [0, 1])),
    "soft_shrink": piecewise(
        "soft_shrink", (-INF, -0.5, [0.5, 1]), (0.5, INF, [-0.5, 1])
    ),
    "soft_shrink, 1.3": piecewise(
        bound(ACT.soft_shrink, threshold=1.3),
        (-INF, -1.3, [1.3, 1]),
        (1.3, INF, [-1.3, 1]),
    ),
    "hard_shrink": piecewise("hard_shrink", (-INF, -0.5, [0, 1]), (0.5, INF, [0, 1])),
    "threshold": piecewise(
        bound(ACT.threshold, threshold=0.4, default_value=-0.2),
        (-INF, 0.4, [-0.2]),
        (0.4, INF, [0, 1]),
    ),
    "sparse_plus": piecewise(
        "sparse_plus", (-1, 1, [1 / 4, 1 / 2, 1 / 4]), (1, INF, [0, 1])
    ),
    "sparse_sigmoid": piecewise(
        "sparse_sigmoid", (-1, 1, [1 / 2, 1 / 2]), (1, INF, [1])
    ),
    "elu": exponential_below_zero("elu", 1, 1, 1),
    "elu, 0.4": exponential_below_zero(bound(ACT.elu, alpha=0.4), 1, 0.4, 1),
    "selu": exponential_below_zero("selu", SELU_SCALE, SELU_ALPHA, 1),
    "celu": exponential_below_zero("celu", 1, 1, 1),
    "celu, 2.5": exponential_below_zero(bound(ACT.celu, alpha=2.5), 1, 2.5, 0.4),
    "exponential": Closed(
        "exponential",
        POINTWISE["exponential"],
        math.exp(1 / 2),
        math.exp(2),
        math.exp(2),
    ),
    # Stein's lemma, E[z g(z)] = E[g′(z)], and ∫Φ²dΦ = 1/3.
    "gelu": Closed(
        "gelu",
        POINTWISE["gelu"],
        1 / (2 * math.sqrt(math.pi)),
        1 / 3 + 1 / (2 * math.pi * math.sqrt(3)),
        1 / 3 + 2 / (3 * math.pi * math.sqrt(3)),
    ),
    # φ² = (2z² + 4 + odd)/4, and E[1/(z² + a²)] = √(π/2)/a · e^(a²/2) erfc(a/√2).
    "squareplus": Closed(
        "squareplus",
        POINTWISE["squareplus"],
        None,
        3 / 2,
        1 / 2 - math.sqrt(math.pi / 2) / 2 * math.exp(2) * math.erfc(math.sqrt(2)),
    ),
    "sigmoid": Closed("sigmoid", POINTWISE["sigmoid"], 1 / 2, None, None),
    "tanh": Closed("tanh", POINTWISE["tanh"], 0, None, None),
    "softsign": Closed("softsign", POINTWISE["softsign"], 0, None, None),
}
for leak in (0.01, 0.2, 0.3, 1.0, -0.5):
    CLOSED[f"leaky_relu, {leak}"] = piecewise(
        bound(ACT.leaky_relu, negative_slope=leak),
        (-INF, 0, [0, leak]),
        (0, INF, [0, 1]),
    )
CLOSED["leaky_relu"] = CLOSED["leaky_relu, 0.2"]._replace(activation="leaky_relu")


@pytest.mark.parametrize("case", CLOSED.values(), ids=CLOSED)
def test_the_closed_forms_themselves(case):
    value, slope, _, kinks = case.formula
    integrals = (
        mean(value, kinks),
        mean(lambda z: value(z) ** 2, kinks),
        mean(lambda z: slope(z) ** 2, kinks),
    )
    for closed, integral in zip(case[2:], integrals, strict=True):
        if closed is not None:
            assert closed == pytest.approx(integral, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("case", CLOSED.values(), ids=CLOSED)
def test_closed_forms_of_moments_and_gains(case):
    found = activation_statistics(case.activation)
    if case.first is not None:
        assert found.mean == pytest.approx(case.first, rel=1e-9, abs=1e-12)
    if case.second is not None:
        second = 1 / math.sqrt(case.second)
        assert found.second_moment == pytest.approx(case.second, rel=1e-9)
        assert gain(case.activation) == pytest.approx(second, rel=1e-9)
    if case.of_slope is not None:
        backward = 1 / math.sqrt(case.of_slope)
        assert gain(case.activation, "backward") == pytest.approx(backward, rel=1e-9)
    if case.first is not None and case.second is not None:
        variance = 1 / math.sqrt(case.second - case.first**2)
        assert gain(case.activation, "variance") == pytest.approx(variance, rel=1e-9)


def jump(x):
    return ops.where(x > 1.25, x - 1, x)


CALLABLES = {
    # activation: E[φ], E[φ²], E[φ′²]
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
        jump,
        -(1 - distribution(1.25)),
        1 - 2 * density(1.25) + (1 - distribution(1.25)),
        1,
    ),
    "steep": (
        lambda x: ops.clip(1000 * x, -1, 1),
        0,
        1 - math.erf(1e-3 / math.sqrt(2)) + 1e6 * power_moments(-1e-3, 1e-3, 2)[2],
        1e6 * math.erf(1e-3 / math.sqrt(2)),
    ),
    "tiny": (lambda x: 1e-9 * ops.maximum(x, 0.0), 1e-9 / SQRT_2PI, 5e-19, 5e-19),
    "huge": (lambda x: 1e9 * ops.maximum(x, 0.0), 1e9 / SQRT_2PI, 5e17, 5e17),
}


@pytest.mark.parametrize(
    ("activation", "first", "second", "of_slope"), CALLABLES.values(), ids=CALLABLES
)
def test_closed_forms_of_callables(activation, first, second, of_slope):
    found = activation_statistics(activation)
    assert found.mean == pytest.approx(first, rel=1e-7, abs=1e-8)
    assert found.second_moment == pytest.approx(second, rel=1e-6)
    assert found.derivative_second_moment == pytest.approx(of_slope, rel=1e-6, abs=1e-9)


def assert_same_gains_unrecognized(name):
    function = getattr(keras.activations, name)

    def unrecognized(x):
        return function(x)

    for kind in ("backward", "second_moment", "variance"):
        assert gain(unrecognized, kind) == pytest.approx(gain(name, kind), rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "gelu", "hard_silu"])
def test_callables_computed_by_the_backend(name):
    assert_same_gains_unrecognized(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTWISE)
def test_every_activation_computed_by_the_backend(name):
    assert_same_gains_unrecognized(name)


def test_a_kink_in_a_callable_that_may_be_computed_in_float32():
    found = activation_statistics(lambda x: ops.maximum(ops.tanh(x), 0.5))
    kink = math.atanh(0.5)
    expected = mean(lambda z: (1 - math.tanh(z) ** 2) ** 2 * (z > kink), (kink,))
    assert found.derivative_second_moment == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def draws():
    """10^7 draws, rounded to bins of width 1e-4: their middles and their shares."""
    z = np.random.default_rng(0).standard_normal(10**7)
    counts, edges = np.histogram(z, bins=np.linspace(-7, 7, 140_001))
    return (edges[1:] + edges[:-1]) / 2, counts / len(z)


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTWISE)
def test_monte_carlo(name, draws):
    z, shares = draws
    values, slopes = (
        np.array([function(x) for x in z.tolist()], dtype=float)
        for function in POINTWISE[name][:2]
    )
    found = activation_statistics(name)
    figures = [
        (found.mean, values),
        (found.second_moment, values**2),
        (found.derivative_second_moment, slopes**2),
    ]
    for figure, drawn in figures:
        average = shares @ drawn
        error = math.sqrt(shares @ (drawn - average) ** 2 / 10**7)
        assert abs(figure - average) <= 5 * error + 1e-7


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
