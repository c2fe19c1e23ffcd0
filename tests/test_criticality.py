import itertools
import math

import numpy as np
import pytest
from keras import layers, ops
from scipy.integrate import quad

from keras_initlab import CriticalPoint, activation_statistics, critical_point

SQRT_2PI = math.sqrt(2 * math.pi)


def mean(function, q):
    """E[function(z)] for z ~ N(0, q), in pieces that end at 0."""

    def weighted(u):
        return function(math.sqrt(q) * u) * math.exp(-u * u / 2) / SQRT_2PI

    return sum(quad(weighted, *ends, epsabs=1e-13, limit=200)[0] for ends in PIECES)


PIECES = [(-12, -3), (-3, 0), (0, 3), (3, 12)]


def sech2(z):
    return 1 - math.tanh(z) ** 2


def gelu(z):
    return z * (1 + math.erf(z / math.sqrt(2))) / 2


def gelu_slope(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2 + z * math.exp(-z * z / 2) / SQRT_2PI


SMOOTH = {"tanh": (math.tanh, sech2), "gelu": (gelu, gelu_slope)}


@pytest.mark.parametrize("q", [0.05, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_both_conditions_hold_by_an_independent_quadrature(name, q):
    value, slope = SMOOTH[name]
    point = critical_point(name, q)

    def mapped(variance):
        second = mean(lambda z: value(z) ** 2, variance)
        return point.sigma_w**2 * second + point.sigma_b**2

    assert point.sigma_w**2 * mean(lambda z: slope(z) ** 2, q) == pytest.approx(1)
    assert mapped(q) == pytest.approx(q, rel=1e-9)
    step = 1e-4 * q
    slope_of_map = (mapped(q + step) - mapped(q - step)) / (2 * step)
    assert point.variance_slope == pytest.approx(slope_of_map, rel=1e-5)
    squared_mean = point.sigma_w**2 * mean(value, q) ** 2
    assert point.correlation_at_zero == pytest.approx(
        (squared_mean + point.sigma_b**2) / q, rel=1e-8
    )


@pytest.mark.parametrize("q", [1e-4, 0.3, 1.0, 50.0])
def test_rectifiers_have_one_point_at_every_q(q):
    relu = critical_point("relu", q)
    assert relu.sigma_w == pytest.approx(math.sqrt(2), rel=1e-9)
    assert relu.sigma_b == 0
    assert relu.variance_slope == pytest.approx(1, rel=1e-9)
    assert relu.correlation_at_zero == pytest.approx(1 / math.pi, rel=1e-9)
    leaky = critical_point(layers.LeakyReLU(negative_slope=0.5), q)
    assert leaky.sigma_w == pytest.approx(math.sqrt(2 / 1.25), rel=1e-9)
    assert leaky.sigma_b == 0
    linear = critical_point(None, q)
    assert (linear.sigma_w, linear.sigma_b) == pytest.approx((1, 0), rel=1e-9)


def test_the_line_of_tanh_ends_at_one_and_zero():
    points = [critical_point("tanh", q) for q in (1e-6, 1e-3, 0.1, 1.0)]
    assert (points[0].sigma_w, points[0].sigma_b) == pytest.approx((1, 0), abs=2e-6)
    # sigma_b² ≈ 4/3 q³ there
    assert points[1].sigma_b == pytest.approx(math.sqrt(4e-9 / 3), rel=0.01)
    for before, after in itertools.pairwise(points):
        assert before.sigma_w < after.sigma_w
        assert before.sigma_b < after.sigma_b
        assert before.variance_slope > after.variance_slope


def test_the_published_point_of_tanh():
    """Schoenholz et al. 2017, section 3: sigma_b² = 0.05 is critical at 1.76."""
    low, high = 0.01, 2.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        is_below = critical_point("tanh", middle).sigma_b ** 2 < 0.05
        low, high = (middle, high) if is_below else (low, middle)
    assert critical_point("tanh", low).sigma_w ** 2 == pytest.approx(1.76, abs=0.01)


def test_closed_form_of_the_error_function():
    q, precision = 0.7, 1e-6
    point = critical_point(ops.erf, q)
    weights = math.pi / 4 * math.sqrt(1 + 4 * q)
    biases = q - weights * 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert point.sigma_w == pytest.approx(math.sqrt(weights), rel=precision)
    assert point.sigma_b == pytest.approx(math.sqrt(biases), rel=10 * precision)


def test_a_deep_network_keeps_variance_and_distance(rng):
    """30 layers of 1,000 tanh units; Xavier's scale loses both."""
    kept = passed_on(critical_point("tanh", 0.5), rng)
    lost = passed_on(CriticalPoint(1.0, 0.0, 0.5, 1, 0), rng)
    assert kept[0] == pytest.approx(0.5, rel=0.1)
    assert kept[1] == pytest.approx(1, abs=0.4)
    assert lost[0] < 0.05


def passed_on(point, rng, width=1000, depth=30):
    """The variance after many layers, and the growth of a small distance."""
    near = math.sqrt(point.q) * rng.standard_normal(width)
    far = near + 1e-4 * rng.standard_normal(width)
    start = np.sum((near - far) ** 2)
    for _ in range(depth):
        kernel = point.sigma_w / math.sqrt(width) * rng.standard_normal((width, width))
        bias = point.sigma_b * rng.standard_normal(width)
        near, far = np.tanh(near) @ kernel + bias, np.tanh(far) @ kernel + bias
    return near.var(), np.sum((near - far) ** 2) / start


def test_the_record():
    point = critical_point("tanh", 2)
    assert isinstance(point, CriticalPoint)
    assert point.q == 2
    assert point.to_dict() == {
        "sigma_w": point.sigma_w,
        "sigma_b": point.sigma_b,
        "q": point.q,
        "variance_slope": point.variance_slope,
        "correlation_at_zero": point.correlation_at_zero,
    }


NONE = {
    "sigmoid": ("sigmoid", 1.0, "'sigmoid' at q=1, where it is -5.5.* at q=100"),
    "softplus": ("softplus", 1.0, "'softplus' at q=1, .* No q from 0.001 to 1000"),
    "exponential": ("exponential", 0.1, "'exponential' at q=0.1, .* one at q=1\\."),
    "a step": (ops.sign, 1.0, "'sign' at q=1, where it is -inf. No q"),
    "zero": (ops.zeros_like, 1.0, "'zeros_like' at q=1, where it is -inf. No q"),
}


@pytest.mark.parametrize(("activation", "q", "received"), NONE.values(), ids=NONE)
def test_where_there_is_none(activation, q, received):
    with pytest.raises(ValueError, match=received):
        critical_point(activation, q)


def test_sigmoid_has_one_where_the_message_says():
    point = critical_point("sigmoid", 100)
    found = activation_statistics("sigmoid", std=10)
    assert point.sigma_w**2 * found.derivative_second_moment == pytest.approx(1)
    second = point.sigma_w**2 * found.second_moment
    assert second + point.sigma_b**2 == pytest.approx(100)


@pytest.mark.parametrize("q", [0, -1.0, math.nan, math.inf, None])
def test_bad_q(q):
    with pytest.raises(ValueError, match=f"`q` must be .* Received: q={q!r}"):
        critical_point("relu", q)


def test_what_has_no_statistics_has_no_critical_point():
    with pytest.raises(ValueError, match="activation='softmax', which mixes"):
        critical_point("softmax")
