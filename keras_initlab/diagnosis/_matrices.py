"""Kernels as the matrices that they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel
from .._weights.origins import Origin


@dataclass(frozen=True, eq=False)
class Weights:
    """A kernel with its values and its part in the model.

    Attributes:
        kernel: the kernel.
        path: its path, unique in the model.
        values: its values, float64.
        role: its role in the model, `hidden` where the graph is not known.
        activation: the activation that its output meets, None for linear.
        asked: returns the gains that the policies of `recommend` ask for.
        origin: what this package noted when it wrote these values, or None.
        takes_unit_inputs: whether it reads the model's inputs, which are taken for
            standardized.
        is_met: whether another signal is added to what it gives or multiplied with it.
    """

    kernel: Kernel
    path: str
    values: np.ndarray
    role: str = "hidden"
    activation: Any = None
    asked: Callable[[], Sequence[float]] = tuple
    origin: Origin | None = None
    takes_unit_inputs: bool = False
    is_met: bool = False

    @property
    def gain(self) -> float:
        """rms(w)·√fan_in: what it makes of a signal of independent units."""
        return gain_of(self.values, self.kernel)

    @property
    def is_finite(self) -> bool:
        """Whether all values are numbers."""
        return bool(np.isfinite(self.values).all())

    @property
    def is_constant(self) -> bool:
        """Whether all values are one."""
        is_several = self.values.size > 1 and self.is_finite
        return is_several and bool(np.ptp(self.values) == 0)

    @property
    def has_one_unit(self) -> bool:
        """Whether each block has one unit alone, with nothing to be equal to."""
        return self.matrices().shape[2] == 1

    @property
    def is_single(self) -> bool:
        """Whether each block is a single weight."""
        return self.matrices().shape[1:] == (1, 1)

    @property
    def bias(self) -> np.ndarray | None:
        """The values of the bias that is added to what it computes, or None."""
        if self.kernel.bias is None:
            return None
        return to_numpy(self.kernel.bias).astype("float64")

    def matrices(self) -> np.ndarray:
        """The blocks `(blocks, rows, columns)`: rows are what one unit sums over."""
        return self._stacked(list(self.kernel.axes.input_axes))

    def units(self) -> np.ndarray:
        """The blocks `(blocks, rows, columns)`: a column is all weights of one unit.

        Those of a recurrent layer have weights in each gate. A table sums nothing: its
        units are what all its rows hold at one place.
        """
        axes, rank = self.kernel.axes, self.values.ndim
        if not axes.input_axes:
            return self._stacked([i for i in range(rank) if i not in axes.outputs])
        blocks, gates = self.matrices(), axes.gates
        if blocks.shape[0] % gates:
            return blocks
        return blocks.reshape(blocks.shape[0] // gates, -1, blocks.shape[2])

    def unit_biases(self, units: np.ndarray) -> np.ndarray:
        """The biases of what `units` returns, `(blocks, rows, columns)`; 0 if none."""
        blocks, _, columns = units.shape
        each = blocks * columns
        bias = self.bias
        if bias is None or bias.size not in (each, each * self.kernel.axes.gates):
            bias = np.zeros(each)
        return bias.reshape(blocks, -1, columns)

    def _stacked(self, rows: list[int]) -> np.ndarray:
        axes, shape = self.kernel.axes, self.values.shape
        columns = list(axes.outputs)
        batch = [i for i in range(len(shape)) if i not in (*rows, *columns)]
        sizes = [_size(shape, part) for part in (batch, rows, columns)]
        stack = self.values.transpose([*batch, *rows, *columns]).reshape(sizes)
        if sizes[2] % axes.blocks:
            return stack
        batches, sums, units = sizes[0], sizes[1], sizes[2] // axes.blocks
        apart = stack.reshape(batches, sums, axes.blocks, units)
        return apart.swapaxes(1, 2).reshape(batches * axes.blocks, sums, units)


def gain_of(values: np.ndarray, kernel: Any) -> float:
    """rms(w)·√fan_in of values for a kernel."""
    square = np.mean(np.square(values, dtype="float64"))
    return math.sqrt(square * kernel.fans.at_least_one().fan_in)


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)
