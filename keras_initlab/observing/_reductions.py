"""Figures of a layer's calls, small enough to leave every observed step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .._keras.kinds import channel_axis
from ._recipe import Place, Reduction

# What `statistics` gives, in this order.
STATISTICS = ("count", "mean", "squares", "min", "max", "zeros")


def escapes_per_unit(
    operation: Any, name: str, tests: Sequence[Callable[[Any], Any]]
) -> Reduction:
    """Whether each unit fails a test on any example and at any position.

    Asked so that NaN, which passes no test, has escaped.

    Args:
        operation: the operation.
        name: names the tests: two of one name must be the same.
        tests: functions in `keras.ops` of an output to a boolean tensor of its shape.

    Returns:
        A reduction to an array `(tests, units)` of 0 and 1.
    """

    def reduce(output: Any, mask: Any) -> Any:
        others = _other_axes(operation, output)
        found = []
        for test in tests:
            # Not `logical_not`, which TensorFlow's graphs turn into a comparison that
            # NaN passes; nor the maximum of the output, which drops NaN under XLA.
            escaped = ops.where(test(output), 0.0, 1.0)
            if mask is not None:
                escaped = ops.where(_spread(mask, output), escaped, 0.0)
            found.append(ops.max(escaped, axis=others) if others else escaped)
        return ops.stack(found)

    return Reduction(operation, name, reduce, ops.maximum)


def fires_per_unit(operation: Any) -> Reduction:
    """Whether each unit of a ReLU is above 0 on any example and at any position.

    Nothing is negative, so a sum is 0 only if all is; NaN, broken but not dead, is
    kept. On many processors a comparison of all outputs costs far more.

    Returns:
        A reduction to an array `(1, units)` of 0 and 1.
    """

    def reduce(output: Any, mask: Any) -> Any:
        others = _other_axes(operation, output)
        if mask is not None:
            output = ops.where(_spread(mask, output), output, ops.zeros_like(output))
        sums = ops.sum(output, axis=others) if others else output
        return ops.expand_dims(ops.cast(sums != 0, "float32"), 0)

    return Reduction(operation, "fires", reduce, ops.maximum)


def mean_size_per_unit(operation: Any) -> Reduction:
    """The mean size of each unit's output over examples and positions.

    Returns:
        A reduction to an array `(2, units)`: sums of |output|, and their counts.
    """

    def reduce(output: Any, mask: Any) -> Any:
        others = _other_axes(operation, output)
        size = ops.abs(ops.cast(output, "float32"))
        weights = _weights(size, mask)
        size = ops.where(weights > 0, size, 0.0)  # what is masked may be NaN
        sums = [ops.sum(one, axis=others) for one in (size, weights)]
        return ops.stack(sums)

    return Reduction(operation, "mean size per unit", reduce, ops.add)


def total(operation: Any) -> Reduction:
    """The sum of an output, which is finite if the output is.

    Returns:
        A reduction to a float32 number; 0 for outputs of integers or truth values.
    """
    return Reduction(operation, "total", _total, ops.add, is_masked=False)


def statistics(operation: Any, place: Place = "output") -> Reduction:
    """Count, mean, sum of squared deviations, minimum, maximum and count of zeros.

    Over all examples, positions and units that are not masked. All are 0 for integers
    and truth values, which are no signal.

    Returns:
        A reduction to a float32 array `(6,)`, in the order of `STATISTICS`.
    """
    return Reduction(operation, "statistics", _statistics, _join_statistics, place)


def histogram(operation: Any, edges: np.ndarray, place: Place = "output") -> Reduction:
    """How many values fall between the edges; the first and last bin are open.

    Args:
        operation: the operation.
        edges: `(bins + 1,)`, rising.
        place: which tensor is counted.

    Returns:
        A reduction to a float32 array `(bins,)`. PyTorch stops to count at 2²⁴ a bin.
    """
    inner = tuple(float(edge) for edge in edges[1:-1])
    reduce = functools.partial(_histogram, inner)
    name = f"histogram {inner}"
    return Reduction(operation, name, reduce, ops.add, place)


def _total(output: Any, mask: Any) -> Any:
    if not _is_float(output):
        return ops.zeros((), dtype="float32")
    return ops.sum(ops.cast(output, "float32"))


def _statistics(output: Any, mask: Any) -> Any:
    if not _is_float(output):
        return ops.zeros((len(STATISTICS),), dtype="float32")
    values = ops.cast(output, "float32")
    count = ops.cast(_count(values, mask), "float32")
    divisor = ops.maximum(count, 1.0)
    counted = True if mask is None else _spread(mask, values)
    values = ops.where(counted, values, 0.0)  # what is masked may be NaN
    rough = ops.sum(values) / divisor
    # What the rounding of this mean leaves over, which the squares would double.
    apart = ops.where(counted, values - rough, 0.0)
    rest = ops.sum(apart) / divisor
    squares = ops.sum(ops.square(apart)) - count * ops.square(rest)
    low = ops.min(ops.where(counted, values, np.inf), initial=np.inf)
    high = ops.max(ops.where(counted, values, -np.inf), initial=-np.inf)
    is_zero = ops.logical_and(counted, values == 0)
    zeros = ops.cast(ops.sum(ops.cast(is_zero, "int32")), "float32")
    mean, squares = rough + rest, ops.where(squares < 0, 0.0, squares)
    return ops.stack([count, mean, squares, low, high, zeros])


def _join_statistics(one: Any, other: Any) -> Any:
    """Chan, Golub and LeVeque's update of mean and squared deviations."""
    count, mean, squares, low, high, zeros = (one[i] for i in range(6))
    count_2, mean_2, squares_2, low_2, high_2, zeros_2 = (other[i] for i in range(6))
    both = count + count_2
    share = count_2 / ops.maximum(both, 1.0)
    apart = mean_2 - mean
    return ops.stack(
        [
            both,
            mean + apart * share,
            squares + squares_2 + ops.square(apart) * count * share,
            ops.minimum(low, low_2),
            ops.maximum(high, high_2),
            zeros + zeros_2,
        ]
    )


def _histogram(inner: tuple[float, ...], output: Any, mask: Any) -> Any:
    values = ops.cast(output, "float32")
    counted = ops.logical_not(ops.isnan(values))  # NaN is in no bin
    if mask is not None:
        counted = ops.logical_and(counted, _spread(mask, values))
    values, counted = (ops.reshape(one, (-1,)) for one in (values, counted))
    bins = ops.searchsorted(np.array(inner, "float32"), values, side="right")
    counts = ops.segment_sum(ops.cast(counted, "int32"), bins, len(inner) + 1)
    return ops.cast(counts, "float32")


def _count(values: Any, mask: Any) -> Any:
    """How many values are not masked, as integers: float32 ends to count at 2²⁴."""
    if mask is None:
        return ops.prod(ops.cast(ops.shape(values), "int32"))
    positions = ops.sum(ops.cast(mask, "int32"))
    return positions * math.prod(values.shape[len(mask.shape) :])


def _other_axes(operation: Any, output: Any) -> list[int]:
    """All axes but that of the units."""
    rank = len(output.shape)
    return [i for i in range(rank) if i != channel_axis(operation) % rank]


def _is_float(tensor: Any) -> bool:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.backend.is_float_dtype(dtype)


def _weights(values: Any, mask: Any) -> Any:
    """1 for what counts and 0 for what is masked, in the shape of the values."""
    ones = ops.ones_like(values)
    return ones if mask is None else ones * ops.cast(_spread(mask, values), ones.dtype)


def _spread(mask: Any, values: Any) -> Any:
    """A mask of the leading axes with axes of size 1 for the others."""
    mask = ops.cast(mask, "bool")
    for _ in range(len(values.shape) - len(mask.shape)):
        mask = ops.expand_dims(mask, -1)
    return mask
