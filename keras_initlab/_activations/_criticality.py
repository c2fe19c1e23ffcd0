"""Where a deep plain network neither forgets nor scrambles its input."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._core.errors import check_positive, message
from ._pointwise import resolve
from ._statistics import ActivationStatistics, activation_statistics

# ReLU's and other homogeneous activations' sigma_b is 0, whose square rounding may make
# negative; an activation given as a callable may be computed in float32.
_ROUNDING = 1e-6
_ELSEWHERE = tuple(float(q) for q in np.logspace(-3, 3, 13))


@dataclass(frozen=True)
class CriticalPoint:
    """Scales of weights and biases between order and chaos.

    With kernels drawn N(0, sigma_w²/fan_in) and biases N(0, sigma_b²), pre-activations
    of variance `q` keep it from layer to layer, and so does, to first order, the
    distance of two inputs that are close (χ₁ = 1).

    Attributes:
        sigma_w: std of a kernel times √fan_in.
        sigma_b: std of the biases.
        q: the pre-activations' variance, a fixed point of the variance map.
        variance_slope: dq′/dq of the variance map there. Below 1 other variances are
            drawn to `q`; at 1 (ReLU) all are kept; above 1 they are driven away, and
            a deep network must start at exactly `q`.
        correlation_at_zero: what one layer makes of correlation 0 between two inputs.
            Correlations climb to 1 from there, slowly, as a power of the depth.

    Example:
        >>> point = critical_point("relu")  # He's initialization
        >>> round(point.sigma_w, 4), point.sigma_b
        (1.4142, 0.0)
    """

    sigma_w: float
    sigma_b: float
    q: float
    variance_slope: float
    correlation_at_zero: float

    def to_dict(self) -> dict[str, float]:
        """Returns all figures as a dict."""
        return asdict(self)


def critical_point(activation: Any, q: float = 1.0) -> CriticalPoint:
    """Returns the scales at which depth costs an activation's signal least.

    For pre-activations of variance q, sigma_w² = 1/E[φ′(√q z)²] makes χ₁ = 1, and
    sigma_b² = q − sigma_w² E[φ(√q z)²] makes q a fixed point. That exists where it is
    not negative. ReLU and leaky ReLU have one such point, at every q. Tanh has a line
    of them, from (1, 0) at q → 0. Sigmoid has none up to q ≈ 50.

    The theory is that of wide networks without skips and normalization.

    Args:
        activation: as for `activation_statistics`.
        q: the variance of the pre-activations, positive.

    Returns:
        A `CriticalPoint` record.

    Raises:
        ValueError: where none exists at this `q` (the message says at which it does),
            for a `q` that is not positive, or what `activation_statistics` refuses.

    Example:
        >>> point = critical_point("tanh", q=0.5)
        >>> round(point.sigma_w, 4), round(point.sigma_b, 4)
        (1.2992, 0.195)

    References:
        Poole et al. 2016, 1606.05340, equations 3 (variance map) and 8 (χ₁).
        Schoenholz et al. 2017, "Deep information propagation", 1611.01232, equation 5.
    """
    q = check_positive("q", q, usual=1.0)
    statistics = activation_statistics(activation, math.sqrt(q))
    squares = _squares(statistics, q)
    if squares is None:
        raise ValueError(_none_at(activation, statistics, q))
    weights, biases = squares
    return CriticalPoint(
        sigma_w=math.sqrt(weights),
        sigma_b=math.sqrt(biases),
        q=q,
        variance_slope=weights * statistics.second_moment_slope,
        correlation_at_zero=(weights * statistics.mean**2 + biases) / q,
    )


def _squares(statistics: ActivationStatistics, q: float) -> tuple[float, float] | None:
    """sigma_w² and sigma_b², or None where there is no critical point."""
    biases = _biases(statistics, q)
    if biases < -_ROUNDING * q:
        return None
    is_rounding = biases < 1e-12 * q
    return 1 / statistics.derivative_second_moment, 0.0 if is_rounding else biases


def _biases(statistics: ActivationStatistics, q: float) -> float:
    """sigma_b² as the two conditions want it, −inf for a function without slopes."""
    slope, moment = statistics.derivative_second_moment, statistics.second_moment
    return q - moment / slope if slope > 1e-12 * moment / q else -math.inf


def _none_at(activation: Any, statistics: ActivationStatistics, q: float) -> str:
    existing = [other for other in _ELSEWHERE if _exists(activation, other)]
    nearest = min(existing, key=lambda other: abs(math.log(other / q)), default=None)
    cure = (
        "No q from 0.001 to 1000 has one; center the activation or use another."
        if nearest is None
        else f"There is one at q={nearest:.3g}."
    )
    return message(
        "`activation` must have a critical point at this `q`: a bias variance "
        "q − E[φ²]/E[φ′²] that is not negative.",
        f"activation={resolve(activation)[0]!r} at q={q:g}, where it is "
        f"{_biases(statistics, q):.3g}",
        cure,
    )


def _exists(activation: Any, q: float) -> bool:
    try:
        return _squares(activation_statistics(activation, math.sqrt(q)), q) is not None
    except ValueError:  # grows too fast for this one
        return False
