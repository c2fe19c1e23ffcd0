"""Figures of a tensor, and what they come to.

In NumPy: exact, alike on all backends, and with nothing to be compiled for each shape.
On a graphics processor each tensor is copied to the host for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from .._core.reports import Record
from .._keras.kinds import channel_axis

# Within 1 % of the range from an asymptote, the slope of tanh and of sigmoid is below
# 4 % of its largest.
NEAR = 0.01


@dataclass(frozen=True)
class Spread(Record):
    """Statistics of a tensor over all examples, positions and units not masked.

    Attributes:
        count: how many numbers.
        mean: their mean.
        std: their standard deviation (divided by n).
        min: the smallest.
        max: the largest.
        zero_share: the share of exact zeros, in [0, 1].
        example_std: the root mean square of each unit's standard deviation over the
            examples: 0 if all examples look alike; None with fewer than two examples
            or under a mask.
        not_finite: how many numbers are NaN or infinite; all but `count` and
            `zero_share` are then NaN.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    zero_share: float
    example_std: float | None
    not_finite: int

    @property
    def size(self) -> float:
        """The root mean square."""
        return math.hypot(self.mean, self.std)


@dataclass(frozen=True)
class GradientSpread(Record):
    """A gradient: of the loss by all numbers of one tensor.

    Attributes:
        norm: its L2 norm.
        mean: its mean.
        std: its standard deviation.
    """

    norm: float
    mean: float
    std: float


class Figures(NamedTuple):
    """Sums over one tensor, of which several can be joined.

    Attributes:
        size: how many numbers.
        mean: their mean.
        squares: the sum of their squared deviations from it.
        low: the smallest.
        high: the largest.
        zeros: how many are 0.
        alike: the sum of squared deviations that is left if each number is replaced by
            its mean over the examples; NaN where that is not known.
        bad: how many are NaN or infinite.
    """

    size: int
    mean: float
    squares: float
    low: float
    high: float
    zeros: int
    alike: float
    bad: int


def measured(value: np.ndarray, mask: np.ndarray | None = None) -> Figures:
    """Sums over a tensor in float64, in which squares neither over- nor underflow.

    Args:
        value: an array `(batch, …)`.
        mask: a boolean array of its leading axes, or None.
    """
    if mask is not None:
        value = value[mask]
    flat = np.ascontiguousarray(value).reshape(-1)
    # In parts that stay in the processor's cache while they are looked at.
    parts = [_part(flat[i : i + _PART]) for i in range(0, flat.size, _PART)]
    found = functools.reduce(_joined, parts, _NOTHING)
    if found.bad or mask is not None or len(value) < 2:
        return found._replace(alike=math.nan)
    means = np.mean(value, axis=0, dtype="float64")
    alike = len(value) * float(np.sum(np.square(means - found.mean)))
    return found._replace(alike=alike)


def fired(value: np.ndarray, mask: np.ndarray | None, axis: int) -> np.ndarray:
    """Which units are anything but 0 anywhere: a boolean array `(units,)`.

    Args:
        value: an array `(batch, …)`.
        mask: a boolean array of its leading axes, or None.
        axis: the axis of the units.
    """
    if mask is not None:  # what is masked may be NaN
        value, axis = value[mask], axis - mask.ndim + 1
    others = tuple(i for i in range(value.ndim) if i != axis)
    return np.any(value, axis=others)


def near_asymptotes(
    value: np.ndarray, mask: np.ndarray | None, asymptotes: tuple[float, float]
) -> int:
    """How many numbers lie near one of two limits."""
    low, high = asymptotes
    margin = NEAR * (high - low)
    value = value if mask is None else value[mask]
    is_near = (value <= low + margin) | (value >= high - margin)
    return int(np.count_nonzero(is_near))


def broken(value: np.ndarray) -> int:
    """How many numbers are NaN or infinite."""
    return value.size - int(np.count_nonzero(np.isfinite(value)))


def spread(figures: Sequence[Figures]) -> Spread:
    """Joins what `measured` found at each call of an operation."""
    whole = functools.reduce(_joined, figures, _NOTHING)
    zero_share = whole.zeros / max(1, whole.size)
    if whole.bad or not whole.size:
        nan = math.nan
        return Spread(whole.size, nan, nan, nan, nan, zero_share, None, whole.bad)
    # Each call by itself: examples are compared within a call.
    apart = sum(one.squares - one.alike for one in figures) / whole.size
    return Spread(
        count=whole.size,
        mean=whole.mean,
        std=math.sqrt(whole.squares / whole.size),
        min=whole.low,
        max=whole.high,
        zero_share=zero_share,
        example_std=None if math.isnan(apart) else math.sqrt(max(0.0, apart)),
        not_finite=0,
    )


def gradient_spread(figures: Sequence[Figures], scale: float = 1.0) -> GradientSpread:
    """Joins what `measured` found of the gradients of each call.

    Args:
        figures: those of each call.
        scale: what the loss was multiplied by.
    """
    found = spread(figures)
    norm = found.size * math.sqrt(found.count) / scale
    return GradientSpread(norm, found.mean / scale, found.std / scale)


def unit_axis(operation: Any, value: Any) -> int:
    """The axis on which a tensor's units lie."""
    return channel_axis(operation) % len(value.shape)


def is_signal(value: Any) -> bool:
    """Whether something is a floating-point tensor with a batch axis."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")) or not value.shape:
        return False
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


def _part(values: np.ndarray) -> Figures:
    wide = values.astype("float64")
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(wide))
        wide_apart = wide - mean
        squares = float(np.dot(wide_apart, wide_apart))
    bad = 0 if math.isfinite(squares) else broken(wide)
    zeros = wide.size - int(np.count_nonzero(wide))
    low, high = float(np.min(wide)), float(np.max(wide))
    return Figures(wide.size, mean, squares, low, high, zeros, 0.0, bad)


def _joined(one: Figures, other: Figures) -> Figures:
    """Chan, Golub and LeVeque's update of mean and squared deviations."""
    size = one.size + other.size
    share = other.size / max(1, size)
    apart = other.mean - one.mean if one.size else 0.0
    return Figures(
        size,
        one.mean + apart * share if one.size else other.mean,
        one.squares + other.squares + apart**2 * one.size * share,
        min(one.low, other.low),
        max(one.high, other.high),
        one.zeros + other.zeros,
        one.alike + other.alike,
        one.bad + other.bad,
    )


_PART = 2**16
_NOTHING = Figures(0, 0.0, 0.0, math.inf, -math.inf, 0, 0.0, 0)
