"""What an activation does to a Gaussian signal.

The statistics of φ(z) and φ′(z) for normal z decide which scale keeps a signal
alive, and the symmetry of φ decides which construction survives depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._core.errors import check_choice, check_positive, message
from ._memory import remembered
from ._pointwise import check_pointwise, evaluate, resolve
from ._quadrature import HalfLine, sample

_KINDS = ("backward", "second_moment", "variance")


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of an activation φ under z ~ N(0, std²), with std 1 unless asked.

    Attributes:
        mean: E[φ(z)].
        second_moment: E[φ(z)²].
        derivative_second_moment: E[φ′(z)²], the factor on a gradient's variance.
        mean_derivative: E[φ′(z)].
        second_moment_slope: E[z φ(z) φ′(z)]/std², the derivative of E[φ(z)²] by
            std².
        value_at_zero: φ(0).
        slope_at_zero: the mean of the slopes on both sides of 0.
        odd_second_moment: E[(φ(z) − φ(−z))²], what a mirrored pair passes on.
        odd_slope: a in the best fit φ(z) − φ(−z) ≈ a·z.
        odd_error: rms of that fit's residual, as a share of the rms of a·z. 0 for
            ReLU, GELU, SiLU, hard SiLU, softplus and leaky ReLU.
        center_error: rms of (φ(z) + φ(−z))/2 − φ(0), as a share of the rms of
            (φ(z) − φ(−z))/2. 0 for an activation that is odd about its center, such
            as tanh and sigmoid.

    Example:
        >>> relu = activation_statistics("relu")
        >>> round(relu.variance, 4)  # 1/2 − 1/(2π)
        0.3408
    """

    mean: float
    second_moment: float
    derivative_second_moment: float
    mean_derivative: float
    second_moment_slope: float
    value_at_zero: float
    slope_at_zero: float
    odd_second_moment: float
    odd_slope: float
    odd_error: float
    center_error: float

    @property
    def variance(self) -> float:
        """Var[φ(z)]."""
        return max(0.0, self.second_moment - self.mean**2)

    def to_dict(self) -> dict[str, float]:
        """Returns all figures as a dict."""
        return {**asdict(self), "variance": self.variance}


def activation_statistics(activation: Any, std: float = 1.0) -> ActivationStatistics:
    """Returns what an activation does to a normal signal.

    The integrals are adaptive Gauss-Legendre quadrature; kinks and jumps are found by
    halving. Keras's own activations and layers are evaluated in float64 and accurate to
    1e-9 or better. Any other pointwise callable works too, to about 1e-6, since Keras
    computes it in float32 on some backends. A jump adds nothing to the derivative's
    moments, as in automatic differentiation. A feature narrower than a hundredth that
    lies away from 0 can go unseen.

    A layer counts with the values it holds now: a PReLU as the leaky ReLU that has its
    second moments (over 65,536 draws of its initializer before it is built).

    Args:
        activation: a name Keras knows (`"gelu"`), a callable that maps a tensor to a
            tensor of the same shape, an activation layer (`keras.layers.LeakyReLU()`),
            or None for linear.
        std: of the signal, positive. Its mean is 0.

    Returns:
        An `ActivationStatistics` record.

    Raises:
        NotPointwiseError: for softmax, GLU and others that mix units.
        ValueError: for an unknown name, what is no activation, NaN or infinite values,
            randomness, a function too rough to integrate or one that grows too fast
            for this std, or a std that is not positive.

    Example:
        >>> statistics = activation_statistics("relu")
        >>> round(statistics.second_moment, 6), round(statistics.odd_error, 6)
        (0.5, 0.0)
        >>> round(activation_statistics("relu", std=3.0).second_moment, 6)
        4.5

    References:
        Poole et al. 2016, "Exponential expressivity in deep neural networks through
        transient chaos", 1606.05340, equations 3 and 8, for the role of these moments.
    """
    std = check_positive("std", std, usual=1.0)
    name, function = resolve(activation)
    return _statistics(name, function, std)


def gain(activation: Any, kind: str = "second_moment") -> float:
    """Returns the factor on the std of a kernel drawn N(0, 1/fan_in).

    With `"second_moment"`, 1/√E[φ(z)²]: units that read this activation's output keep
    the variance of its input (√2 for ReLU, He et al.). With `"variance"`,
    1/std(φ(z)): the same after the mean has been taken out, as centered biases and
    normalization do. With `"backward"`, 1/√E[φ′(z)²]: gradients keep their variance
    for fan_out = fan_in.

    Args:
        activation: as for `activation_statistics`.
        kind: `"backward"`, `"second_moment"` or `"variance"`.

    Returns:
        A positive float.

    Raises:
        ValueError: for an unknown `kind`, for what `activation_statistics` refuses, or
            for an activation that passes nothing on (a constant).

    Example:
        >>> round(gain("relu"), 6), round(gain("tanh"), 6)
        (1.414214, 1.592537)

    References:
        He et al. 2015, "Delving deep into rectifiers", 1502.01852, equation 10.
    """
    check_choice("kind", kind, _KINDS)
    statistics = activation_statistics(activation)
    moment = {
        "backward": statistics.derivative_second_moment,
        "second_moment": statistics.second_moment,
        "variance": statistics.variance,
    }[kind]
    if moment <= 1e-12:
        name, _ = resolve(activation)
        raise ValueError(
            message(
                f"`activation` must pass a signal on to have a {kind} gain.",
                f"activation={name!r}, whose {kind} moment is {moment:.3g}",
            )
        )
    return 1 / math.sqrt(moment)


def moments_by_std(activation: Any) -> Callable[[float], tuple[float, float]]:
    """Returns a function from std to E[φ(z)²] and E[φ′(z)²] for z ~ N(0, std²).

    To about three digits, for std in [1e-3, 1e3]; beyond, the end of that range counts,
    which is 10 for what overflows.

    Args:
        activation: as for `activation_statistics`.
    """
    name, function = resolve(activation)
    stds, moments, slopes = _moment_curves(name, function, 1.0)

    def at(std: float) -> tuple[float, float]:
        log = math.log(max(std, 1e-30))
        return (
            std**2 * math.exp(np.interp(log, stds, moments)),
            math.exp(np.interp(log, stds, slopes)),
        )

    return at


@remembered
def _statistics(
    name: str, function: Callable[[Any], Any], std: float
) -> ActivationStatistics:
    check_pointwise(name, function, min(std, 1.0))
    with np.errstate(over="ignore", invalid="ignore"):
        line = sample(lambda z: evaluate(name, function, std * z))
        share = line.tail_share() if line else 0.0
    at_zero = evaluate(name, function, np.zeros((1, 1)))
    if line is None:
        raise ValueError(
            message(
                "`activation` must be smooth but for a few kinks and jumps.",
                f"activation={name!r}, which is too rough to integrate",
            )
        )
    if not share <= 1e-7:  # or NaN
        raise ValueError(
            message(
                "`activation` must have its moments within 11 standard deviations.",
                f"activation={name!r}, whose second moment at std={std:g} lies beyond",
                "Ask at another std.",
            )
        )
    return _moments(line, at_zero, std)


@remembered
def _moment_curves(
    name: str, function: Callable[[Any], Any], _: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ln std, ln(E[φ²]/std²) and ln E[φ′²], smooth enough to be interpolated."""
    z = np.linspace(-8.0, 8.0, 3201)
    try:
        stds = np.logspace(-3, 3, 97)
        values = evaluate(name, function, stds[:, None] * z)
    except ValueError:  # it grows too fast
        stds = np.logspace(-3, 1, 65)
        values = evaluate(name, function, stds[:, None] * z)
    slopes = np.diff(values) / np.diff(z) / stds[:, None]
    values = (values[..., 1:] + values[..., :-1]) / 2
    weights = np.exp(-0.5 * ((z[1:] + z[:-1]) / 2) ** 2)
    weights /= weights.sum()
    floor = 1e-30
    return (
        np.log(stds),
        np.log(np.maximum(values**2 @ weights / stds**2, floor)),
        np.log(np.maximum(slopes**2 @ weights, floor)),
    )


def _moments(line: HalfLine, at_zero: np.ndarray, std: float) -> ActivationStatistics:
    right, left = line.values
    odd, even = right - left, (right + left) / 2 - at_zero
    odd_slope = line.mean(_twice(line.z * odd))  # per unit of z, so times std
    odd_moment = line.mean(_twice(odd**2))
    residual = line.mean(_twice((odd - odd_slope * line.z) ** 2))
    signed = np.stack([line.z, -line.z])
    return ActivationStatistics(
        mean=line.mean(line.values),
        second_moment=line.mean(line.values**2),
        derivative_second_moment=line.mean(line.slopes**2) / std**2,
        mean_derivative=line.mean(line.slopes) / std,
        second_moment_slope=line.mean(signed * line.values * line.slopes) / std**2,
        value_at_zero=float(np.mean(at_zero)),
        slope_at_zero=float(np.mean(line.slopes_at_zero)) / std,
        odd_second_moment=odd_moment,
        odd_slope=odd_slope / std,
        odd_error=_share(residual, odd_slope**2),
        center_error=_share(line.mean(_twice(even**2)), odd_moment / 4),
    )


def _twice(symmetric: np.ndarray) -> np.ndarray:
    """An even function's values on z > 0, as on both sides."""
    return np.stack([symmetric, symmetric])


def _share(part: float, whole: float) -> float:
    """The rms of a part as a share of the rms of the whole."""
    if whole <= 1e-24:
        return math.inf if part > 1e-24 else 0.0
    return math.sqrt(max(0.0, part) / whole)
