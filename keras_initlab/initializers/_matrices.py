"""Kernels seen as stacks of matrices, and the random matrices that fill them."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from .._core.errors import message
from .._keras.kinds import KernelAxes


def matrix_shape(shape: tuple[int, ...], axes: KernelAxes) -> tuple[int, int, int]:
    """Returns `(batch, rows, columns)`: rows are what one output unit sums over."""
    batch, rows, columns = _grouped_axes(len(shape), axes)
    return (
        math.prod(shape[axis] for axis in batch),
        math.prod(shape[axis] for axis in rows),
        math.prod(shape[axis] for axis in columns),
    )


def tap_shape(shape: tuple[int, ...], axes: KernelAxes) -> tuple[int, int, int]:
    """The shape `(batch, inputs, outputs)` of one tap of the window."""
    return matrix_shape(_one_tap(shape, axes), axes)


def to_kernel(matrices: Any, shape: tuple[int, ...], axes: KernelAxes) -> Any:
    """Lays a stack `(batch, rows, columns)` out as a kernel of this shape."""
    order = [axis for group in _grouped_axes(len(shape), axes) for axis in group]
    stacked = ops.reshape(matrices, [shape[axis] for axis in order])
    if order == sorted(order):
        return stacked  # a transposition would copy it
    return ops.transpose(stacked, [order.index(axis) for axis in range(len(shape))])


def split_columns(matrices: Any, count: int) -> Any:
    """Returns a stack `(batch, rows, columns)` as `(batch·count, rows, block)`."""
    batch, rows, columns = matrices.shape
    blocks = ops.reshape(matrices, (batch, rows, count, columns // count))
    by_block = ops.transpose(blocks, (0, 2, 1, 3))
    return ops.reshape(by_block, (batch * count, rows, columns // count))


def join_columns(blocks: Any, count: int) -> Any:
    """Undoes `split_columns`."""
    total, rows, columns = blocks.shape
    apart = ops.reshape(blocks, (total // count, count, rows, columns))
    side_by_side = ops.transpose(apart, (0, 2, 1, 3))
    return ops.reshape(side_by_side, (total // count, rows, count * columns))


def check_blocks(shape: tuple[int, ...], axes: KernelAxes, columns: int) -> None:
    """Raises if the outputs do not divide into gates and groups."""
    if columns % axes.blocks:
        raise ValueError(
            message(
                "The outputs of the kernel must divide into its gates and groups.",
                f"shape={shape}, gates={axes.gates}, groups={axes.groups}",
            )
        )


def orthonormal(normal: Any) -> Any:
    """Returns matrices with orthonormal columns, uniformly distributed.

    Args:
        normal: standard normal draws, shape `(..., rows, columns)`, at least as many
            rows as columns.

    References:
        Mezzadri 2007, "How to generate random matrices from the classical compact
        groups", math-ph/0609050, section 5: without the signs of R's diagonal the
        result depends on the QR routine and is not uniform.
    """
    q, r = ops.qr(normal)
    diagonal = ops.diagonal(r, axis1=-2, axis2=-1)
    signs = ops.where(diagonal < 0, -1.0, 1.0)
    return q * ops.expand_dims(ops.cast(signs, q.dtype), -2)


def tall(rows: int, columns: int) -> tuple[int, int]:
    """The shape to hand to `orthonormal` for a `rows` x `columns` matrix."""
    return max(rows, columns), min(rows, columns)


def oriented(tall_matrix: Any, rows: int, columns: int) -> Any:
    """Undoes `tall`: transposes where there are more columns than rows."""
    return tall_matrix if rows >= columns else ops.swapaxes(tall_matrix, -1, -2)


def at_window_center(matrices: Any, shape: tuple[int, ...], axes: KernelAxes) -> Any:
    """Returns a convolution kernel that is zero but for its center tap.

    Args:
        matrices: the center tap, shape `(batch, inputs, outputs)`.
        shape: shape of the kernel.
        axes: what its axes mean.
    """
    tap = to_kernel(matrices, _one_tap(shape, axes), axes)
    # With "same" padding an even window has its extra tap after the center.
    before = [(n - 1) // 2 if i in axes.window else 0 for i, n in enumerate(shape)]
    width = [
        (b, n - b - 1) if i in axes.window else (0, 0)
        for i, (b, n) in enumerate(zip(before, shape, strict=True))
    ]
    return ops.pad(tap, width)


def check_matrix(name: str, shape: tuple[int, ...]) -> None:
    """Raises if a kernel of this shape is no matrix."""
    if len(shape) < 2:
        raise ValueError(
            message(
                f"`{name}` needs a kernel with at least two axes.",
                f"shape={shape}",
                "Use 'zeros' for a bias.",
            )
        )


def _one_tap(shape: tuple[int, ...], axes: KernelAxes) -> tuple[int, ...]:
    """The shape of a kernel whose window has one tap."""
    return tuple(1 if i in axes.window else n for i, n in enumerate(shape))


def _grouped_axes(
    rank: int, axes: KernelAxes
) -> tuple[list[int], list[int], list[int]]:
    rows = list(axes.input_axes)
    columns = list(axes.outputs)
    batch = [axis for axis in range(rank) if axis not in (*rows, *columns)]
    return batch, rows, columns
