"""How a kernel's output must be scaled to have the standard deviation asked for."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import backend, ops

from .._core.arrays import as_numpy, is_on_host, to_numpy
from .._keras.running import Channels

# So many numbers stay in a processor's cache.
_PART = 2**16
_TINY = 1e-30  # squares of what is smaller leave the range of float32
_UNUSUAL = 1e4  # what was so small may be no signal but rounding
# A standard deviation from fewer values than this says nothing.
FEWEST = 8


class OutOfSightError(Exception):
    """The output is a placeholder of a traced function, not numbers."""


@dataclass(frozen=True)
class Wanted:
    """What the outputs shall be like.

    Attributes:
        std: their standard deviation.
        per_channel: whether each channel shall have it, or all values together.
        center: whether a bias shall take away what they are on average.
        is_alone: whether it is that of the kernel's product alone, without the bias.
        scales_bias: whether the bias is scaled with the kernel.
        spare: a factor within which of the std they are left as they are.
    """

    std: float
    per_channel: bool = False
    center: bool = False
    is_alone: bool = False
    scales_bias: bool = False
    spare: float = 1.0


@dataclass(frozen=True)
class Scaling:
    """What to do with a kernel's output.

    Attributes:
        before: the standard deviation as it was.
        after: as it will be.
        factors: on the output and so on the kernel; one, or one a channel with the
            output's rank. None if it is left as it is.
        note: why it is left, or what is left of it.
    """

    before: float | None = None
    after: float | None = None
    factors: np.ndarray | None = None
    note: str = ""


def scaling(product: Any, bias: np.ndarray | None, ch: Channels, w: Wanted) -> Scaling:
    """How to scale what a kernel computes so that its bias added, it is as wanted.

    Args:
        product: what the kernel computes, without the bias, float32 or wider.
        bias: the bias, with as many axes as the product; None if it is zero.
        ch: where the product has its channels.
        w: what is wanted.

    Raises:
        OutOfSightError: if the product has no numbers.
        FloatingPointError: if some of them are NaN or infinite.
    """
    shape = tuple(product.shape)  # TensorFlow makes a new one each time
    axes = ch.others(len(shape)) if w.per_channel else tuple(range(len(shape)))
    values = math.prod(shape[axis] for axis in axes)
    if values < FEWEST:
        each = " a channel" if w.per_channel else ""
        return Scaling(note=f"{values} values{each} are too few for a std")
    mean, variance = _moments(product, axes)
    if w.per_channel:
        return _by_channel(mean, variance, _epsilon(product), w)
    if bias is None:
        is_one_unit = values == math.prod(shape[axis] for axis in ch.others(len(shape)))
        return _as_one(mean, variance, _epsilon(product), w, is_one_unit)
    return _beside_bias(product, variance, bias, w)


def centered(product: Any, bias: np.ndarray) -> Any:
    """What the product is on average over the places that share one bias."""
    axes = tuple(axis for axis, size in enumerate(bias.shape) if size == 1)
    return ops.mean(product, axis=axes, keepdims=True)


def mean_square(tensor: Any) -> float:
    """The mean square of a tensor.

    Raises:
        OutOfSightError: if it has no numbers.
    """
    return float(_numbers(ops.mean(ops.square(ops.cast(tensor, "float32"))))[0])


def _as_one(
    mean: Any, variance: Any, epsilon: float, w: Wanted, is_one_unit: bool
) -> Scaling:
    before, offset = math.sqrt(variance.item()), abs(mean.item())
    if before <= epsilon * offset or before == 0:
        return Scaling(before, before, note=f"constant at {mean.item():.3g}")
    if is_one_unit and offset > before:
        # Over many units the means, as random as the weights, count as variance. A
        # single one would be multiplied until what lies beside its mean were enough.
        factor = w.std / math.hypot(before, offset)
        note = f"its mean is {offset / before:.2g} times its std: scaled by both"
        return Scaling(before, factor * before, np.asarray(factor), note)
    factor = w.std / before
    note = f"multiplied by {factor:.1g}" if factor > _UNUSUAL else ""
    return Scaling(before, w.std, np.asarray(factor), note)


def _by_channel(
    mean: np.ndarray, variance: np.ndarray, epsilon: float, w: Wanted
) -> Scaling:
    stds = np.sqrt(variance)
    constant = (stds <= epsilon * np.abs(mean)) | (stds == 0)
    before = float(np.sqrt(variance.mean()))
    count = int(constant.sum())
    if count == stds.size:
        return Scaling(before, before, note="constant in every channel")
    factors = np.where(constant, 1.0, w.std / np.where(constant, 1.0, stds))
    after = float(np.sqrt(np.mean((factors * stds) ** 2)))
    notes = [f"{count} of {stds.size} channels are constant"] if count else []
    if factors.max() > _UNUSUAL:
        notes.append(f"multiplied by up to {factors.max():.1g}")
    return Scaling(before, after, factors, "; ".join(notes))


def _beside_bias(
    product: Any, variance: np.ndarray, bias: np.ndarray, w: Wanted
) -> Scaling:
    """The factor s for which s·product + bias has the standard deviation wanted.

    s²A + 2sC + B = std², where A and B are the variances of product and bias and C is
    their covariance: where the published procedure converges to, which divides the
    kernel alone and measures anew.
    """
    shared = centered(product, bias)
    means = to_numpy(shared).astype("float64")
    offsets = bias - bias.mean()
    a, b = variance.item(), float(np.mean(offsets**2))
    c = float(np.mean((means - means.mean()) * offsets))
    before = math.sqrt(max(0.0, a + 2 * c + b))
    if w.center:  # what varies with the bias is taken away first
        axes = tuple(range(len(product.shape)))
        a, c = _moments(product - shared, axes)[1].item(), 0.0
    if a <= _epsilon(product) ** 2 * float(np.mean(means**2)) or a <= 0:
        return Scaling(before, before, note="constant but for its bias")
    if b >= w.std**2:
        note = f"its bias alone has a std of {math.sqrt(b):.3g}"
        return Scaling(before, before, note=note)
    factor = (math.sqrt(c * c - a * (b - w.std**2)) - c) / a
    return Scaling(before, w.std, np.asarray(factor))


def _moments(product: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and variance in float64, with 1 where an axis was; or of all as scalars."""
    # Two sums are quicker than to subtract the mean first, and as exact where it is
    # small beside the standard deviation.
    mean, square = _means(product, axes)
    with np.errstate(invalid="ignore"):
        variance = square - mean**2
        is_exact = (variance > 0.1 * square) & (variance > _TINY) & (square < np.inf)
    if is_exact.all():
        return mean, variance
    # A square may leave the range of float32 where the value does not.
    (peak,) = _numbers(ops.max(ops.abs(product)))
    largest = float(peak) or 1.0
    if not math.isfinite(largest):
        raise FloatingPointError
    scaled = product / largest
    mean = ops.mean(scaled, axes, keepdims=True)
    # Without the mean, what is constant but for rounding has no variance.
    variance = ops.mean(ops.square(scaled - mean), axes, keepdims=True)
    mean, variance = _numbers(mean, variance)
    return mean * largest, variance * largest**2


def _means(product: Any, axes: tuple[int, ...]) -> list[Any]:
    """The means of the values and of their squares, as `_moments`."""
    values = _at_hand(product) if len(axes) == len(product.shape) else None
    if values is None:
        return _numbers(
            ops.mean(product, axes, keepdims=True),
            ops.mean(ops.square(product), axes, keepdims=True),
        )
    # Dot products need no squared copy, which takes longer than all else here; in
    # parts, the numbers are read from memory once.
    flat = values.ravel(order="K")
    ones = _ones(flat.dtype)
    total = squares = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _PART):
            part = flat[start : start + _PART]
            total += float(part.dot(ones[: part.size]))
            squares += float(part.dot(part))
    return [np.float64(total / flat.size), np.float64(squares / flat.size)]


@functools.cache
def _ones(dtype: np.dtype) -> np.ndarray:
    return np.ones(_PART, dtype)


def _at_hand(product: Any) -> np.ndarray | None:
    """The product's numbers without a copy, None if they are on another device."""
    try:
        return as_numpy(product) if is_on_host(product) else None
    except Exception as error:  # each backend raises its own
        raise OutOfSightError from error


def _numbers(*tensors: Any) -> list[np.ndarray]:
    try:
        return [to_numpy(tensor).astype("float64") for tensor in tensors]
    except Exception as error:  # each backend raises its own
        raise OutOfSightError from error


def _epsilon(product: Any) -> float:
    """What rounding alone makes of a constant, relative to it."""
    is_wide = backend.standardize_dtype(product.dtype) == "float64"
    return 32 * (2.0**-52 if is_wide else 2.0**-23)
