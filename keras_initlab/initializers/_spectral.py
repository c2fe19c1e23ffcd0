"""Kernels rescaled to a given spectral norm."""

from __future__ import annotations

import math
import operator as operators
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import keras
import numpy as np
from keras import ops

from .._core.errors import check_choice, check_positive, message
from .._keras.kinds import KernelAxes
from ._base import PACKAGE, LayoutInitializer
from ._matrices import (
    check_blocks,
    check_matrix,
    matrix_shape,
    split_columns,
    to_kernel,
)
from ._singular import as_real, largest_singular_value

_OPERATORS = ("convolution", "matrix")
# Numbers in the matrices that are solved at once; about as many more are at work.
_AT_ONCE = 2**25


@keras.saving.register_keras_serializable(PACKAGE)
class SpectralNorm(LayoutInitializer):
    """A Gaussian kernel rescaled so that its largest singular value is `norm`.

    With `operator="matrix"` the kernel is seen as the matrix from what one output unit
    sums over (window and inputs) to the outputs. A dense layer so initialized
    stretches no vector by more than `norm`. For a convolution the norm of the operator
    is larger than that of this matrix, by at most the square root of the number of
    taps in the window.

    With `operator="convolution"` it is the convolution itself that has this norm, with
    stride 1 and circular padding on an input of size `input_size`. Strides only lower
    it. So does padding with zeros, or none, if `input_size` is the layer's input size
    plus the window's minus 1; for the input size itself the norm may be exceeded a
    little. A transposed convolution of stride 1 has the norm of the convolution. The
    time grows with the product of `input_size`.

    Batch indices, such as the channels of a depthwise kernel, and the groups of a
    grouped convolution are operators of their own and each has this norm, so the layer
    has it as well. The gates of a recurrent kernel have it together.

    Args:
        norm: the largest singular value, positive.
        operator: `"matrix"` or `"convolution"`.
        input_size: for a convolution, its input's spatial size: one int for all axes
            of the window, or one int an axis; not smaller than the window.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range, `input_size` missing for a
            convolution or given for a matrix, a shape with fewer than two axes, or a
            convolution's without a window or with one that does not fit `input_size`.

    Example:
        >>> kernel = keras.ops.convert_to_numpy(SpectralNorm(0.9, seed=0)((300, 200)))
        >>> round(float(np.linalg.norm(kernel, 2)), 4)
        0.9

        No frequency of a signal of period 8 is amplified by more than `norm`.

        >>> initializer = SpectralNorm(0.9, "convolution", input_size=8, seed=0)
        >>> kernel = keras.ops.convert_to_numpy(initializer((3, 4, 6)))
        >>> response = np.fft.fft(kernel, n=8, axis=0)
        >>> round(float(np.linalg.norm(response, 2, axis=(1, 2)).max()), 4)
        0.9

    References:
        Sedghi, Gupta and Long 2018, "The singular values of convolutional layers",
        1805.10408, theorem 6: they are those of the kernel's Fourier transform, at
        all frequencies.
    """

    def __init__(
        self,
        norm: float = 0.9,
        operator: str = "matrix",
        input_size: SupportsIndex | Sequence[SupportsIndex] | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.norm = check_positive("norm", norm, usual=0.9)
        self.operator = check_choice("operator", operator, _OPERATORS)
        self.input_size = _check_input_size(input_size, operator)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        check_matrix(type(self).__name__, shape)
        batch, rows, columns = matrix_shape(shape, axes)
        axes = replace(axes, gates=1)  # a cell's gates read one input together
        check_blocks(shape, axes, columns)
        matrices = self._normal((batch, rows, columns), dtype)
        if self.operator == "matrix":
            largest = largest_singular_value(split_columns(matrices, axes.groups))
        else:
            largest = self._convolution_norm(to_kernel(matrices, shape, axes), axes)
        factor = ops.reshape(self.norm / largest, (batch, 1, axes.groups))
        scaled = matrices * ops.repeat(factor, columns // axes.groups, axis=-1)
        return to_kernel(scaled, shape, axes)

    def _convolution_norm(self, kernel: Any, axes: KernelAxes) -> Any:
        """The norms of a kernel's groups as convolutions, batch by batch."""
        shape = tuple(kernel.shape)
        sizes = _fitting_sizes(self.input_size, shape, axes)
        window = tuple(shape[axis] for axis in axes.window)
        taps = _taps(kernel, axes)
        batch, count, inputs, _ = taps.shape
        stacked = ops.reshape(taps, (batch, count * inputs, -1))
        groups = split_columns(stacked, axes.groups)
        apart = (batch * axes.groups, count, inputs, -1)
        return convolution_norm(ops.reshape(groups, apart), window, sizes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "norm": self.norm,
            "operator": self.operator,
            "input_size": self.input_size,
            **super().get_config(),
        }


def convolution_norm(taps: Any, window: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
    """Returns the largest singular value of circular convolutions, shape `(batch,)`.

    Args:
        taps: shape `(batch, taps, inputs, outputs)`, the window flattened.
        window: sizes of the window.
        sizes: sizes of the signal along the same axes.
    """
    batch, count, inputs, outputs = taps.shape
    flat = ops.reshape(taps, (batch, count, inputs * outputs))
    angles = _angles(window, sizes)
    parts = math.ceil(batch * len(angles) * 4 * inputs * outputs / _AT_ONCE)
    largest = []
    for part in np.array_split(angles, min(parts, len(angles))):
        shape = (batch * len(part), inputs, outputs)
        cosines, sines = (
            ops.reshape(ops.convert_to_tensor(wave, taps.dtype) @ flat, shape)
            for wave in (np.cos(part), np.sin(part))
        )
        values = largest_singular_value(as_real(cosines, -sines))
        largest.append(ops.max(ops.reshape(values, (batch, len(part))), axis=-1))
    return ops.max(ops.stack(largest), axis=0)


def _angles(window: tuple[int, ...], sizes: tuple[int, ...]) -> np.ndarray:
    """How far each tap turns at each frequency, shape `(frequencies, taps)`.

    Only frequencies that can differ: along an axis with one tap all are alike, and
    opposite ones have conjugate matrices.
    """
    periods = tuple(n if taps > 1 else 1 for n, taps in zip(sizes, window, strict=True))
    frequencies = np.indices(periods).reshape(len(periods), -1)
    size = np.array(periods)[:, None]
    numbers = np.ravel_multi_index(tuple(frequencies), periods)
    opposite = np.ravel_multi_index(tuple(-frequencies % size), periods)
    frequencies = frequencies[:, numbers <= opposite]
    places = np.indices(window).reshape(len(window), -1)
    return 2 * np.pi * (frequencies / size).T @ places


def _taps(kernel: Any, axes: KernelAxes) -> Any:
    """A kernel as a stack `(batch, taps, inputs, outputs)`."""
    named = (axes.window, axes.inputs, axes.outputs)
    batch = tuple(i for i in range(kernel.ndim) if i not in sum(named, ()))
    order = (batch, *named)
    sizes = [math.prod(kernel.shape[i] for i in group) for group in order]
    return ops.reshape(ops.transpose(kernel, sum(order, ())), sizes)


def _check_input_size(value: Any, operator: str) -> int | tuple[int, ...] | None:
    if operator == "matrix" and value is not None:
        raise ValueError(
            message(
                "`input_size` must be left out with `operator='matrix'`.",
                f"input_size={value!r}, operator='matrix'",
                "Leave it out, or ask for the convolution.",
            )
        )
    if operator == "convolution" and value is None:
        raise ValueError(
            message(
                "`operator='convolution'` needs the size of the input.",
                "input_size=None",
                "Pass the height and width of the layer's input: "
                "`input_size=32` or `input_size=(32, 48)`.",
            )
        )
    return None if value is None else _whole_sizes(value)


def _whole_sizes(value: Any) -> int | tuple[int, ...]:
    several = isinstance(value, (list, tuple, np.ndarray))
    sizes = tuple(value) if several else (value,)
    if not sizes or not all(_is_size(size) for size in sizes):
        raise ValueError(
            message(
                "`input_size` must be a positive int, or one for each axis of the "
                "window.",
                f"input_size={value!r}",
            )
        )
    return tuple(int(size) for size in sizes) if several else int(value)


def _is_size(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, np.bool_)) and operators.index(value) > 0
    except TypeError:
        return False


def _fitting_sizes(
    input_size: Any, shape: tuple[int, ...], axes: KernelAxes
) -> tuple[int, ...]:
    """One size per axis of the window, or raises if they do not fit the kernel."""
    window = tuple(shape[axis] for axis in axes.window)
    if not window:
        raise ValueError(
            message(
                "`operator='convolution'` needs a kernel with a window.",
                f"shape={shape}",
                "Use `operator='matrix'`, or name the window's axes in both "
                "`input_axes` and `output_axes`.",
            )
        )
    one = isinstance(input_size, int)
    sizes = (input_size,) * len(window) if one else input_size
    if len(sizes) != len(window) or any(map(operators.lt, sizes, window)):
        raise ValueError(
            message(
                "`input_size` must have one number for each axis of the window, none "
                "smaller than the window.",
                f"input_size={input_size}, shape={shape} with the window {window}",
                "Pass the spatial size of the layer's input, at least "
                f"`input_size={window}`.",
            )
        )
    return sizes
