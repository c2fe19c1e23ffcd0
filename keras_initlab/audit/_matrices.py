"""Kernels as the matrices that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import to_numpy
from .._fans import Kernel


@dataclass(frozen=True, eq=False)
class Weights:
    """A kernel with its values and its part in the model.

    Attributes:
        kernel: the kernel.
        path: its path, unique in the model.
        values: its values, float64.
        role: its role in the model, `hidden` where the graph is not known.
        activation: the activation that its output meets, None for linear.
        asked: the gain that `recommend` asks for, None where that is not known.
        takes_unit_inputs: whether it reads the model's inputs, which are taken for
            standardized.
    """

    kernel: Kernel
    path: str
    values: np.ndarray
    role: str = "hidden"
    activation: Any = None
    asked: float | None = None
    takes_unit_inputs: bool = False

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
    def bias(self) -> np.ndarray | None:
        """The values of the bias that is added to what it computes, or None."""
        if self.kernel.bias is None:
            return None
        return to_numpy(self.kernel.bias).astype("float64")

    def matrices(self) -> np.ndarray:
        """The blocks `(blocks, rows, columns)`: rows are what one unit sums over."""
        axes, shape = self.kernel.axes, self.values.shape
        rows, columns = list(axes.input_axes), list(axes.outputs)
        batch = [i for i in range(len(shape)) if i not in (*rows, *columns)]
        sizes = [_size(shape, part) for part in (batch, rows, columns)]
        stack = self.values.transpose([*batch, *rows, *columns]).reshape(sizes)
        if sizes[2] % axes.blocks:
            return stack
        batches, sums, units = sizes[0], sizes[1], sizes[2] // axes.blocks
        apart = stack.reshape(batches, sums, axes.blocks, units)
        return apart.swapaxes(1, 2).reshape(batches * axes.blocks, sums, units)


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)
