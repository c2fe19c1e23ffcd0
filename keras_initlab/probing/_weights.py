"""A layer's weights: what they are, what their initializer says, and their gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.arrays import to_numpy
from .._core.reports import Record
from .._keras.kinds import Kernel
from .._weights.theory import is_off, known_draw, standard_error
from ..diagnosis import Weights

# Twins get equal gradients up to the order of the sums.
_ALIKE = 1e-5
# A single number is so near to another one's by chance.
_LEAST_ROWS = 2


@dataclass(frozen=True)
class WeightSignal(Record):
    """A kernel, bias or other weight, and its gradient.

    Attributes:
        path: the variable's path.
        name: the variable's name.
        shape: its shape.
        is_kernel: whether it is a kernel, and no bias, scale or statistic.
        trainable: whether training changes it.
        mean: mean of its entries.
        std: their standard deviation.
        min: the smallest.
        max: the largest.
        initializer: class name of the initializer that drew the kernel as it is; None
            if that cannot be known, as of a trained, loaded or assigned one.
        theory_std: the standard deviation that it draws with, None if it has no
            formula for that, or is not known.
        gradient_norm: L2 norm of the gradient, None if it is frozen.
        gradient_std: standard deviation of the gradient's entries.
        symmetric_units: how many units have both the weights and the gradient of
            another unit, so that no training can tell them apart.
        units: how many units it has.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    is_kernel: bool
    trainable: bool
    mean: float
    std: float
    min: float
    max: float
    initializer: str | None = None
    theory_std: float | None = None
    gradient_norm: float | None = None
    gradient_std: float | None = None
    symmetric_units: int = 0
    units: int = 0

    _derived = ("std_error", "is_off_theory")

    @property
    def std_error(self) -> float | None:
        """What chance makes of the std of so many normal draws: theory/√(2n).

        Uniform, cut and orthogonal draws scatter less.
        """
        if self.theory_std is None:
            return None
        return standard_error(self.theory_std, math.prod(self.shape))

    @property
    def is_off_theory(self) -> bool:
        """Whether the std is farther from its initializer's than chance explains.

        By five standard errors. Something is wrong then with the initializer: values
        that it did not draw have no theory.
        """
        if self.theory_std is None:
            return False
        return is_off(self.std, self.theory_std, math.prod(self.shape))


def weight_signal(
    model: Any,
    variable: Any,
    path: str,
    kernels: Mapping[int, Kernel],
    gradient: Any,
    scale: float,
) -> WeightSignal:
    """Returns the record of a variable.

    Args:
        model: the model that it is in.
        variable: a variable of floating point.
        path: its path, unique in the model.
        kernels: the model's kernels, by the variable's id.
        gradient: the loss's gradient, None where there is none.
        scale: what the loss was multiplied by.
    """
    values = to_numpy(variable).astype("float64")
    kernel = kernels.get(id(variable))
    plain = WeightSignal(
        path=path,
        name=variable.name,
        shape=tuple(variable.shape),
        is_kernel=kernel is not None,
        trainable=gradient is not None,
        mean=_mean(values),
        std=_std(values),
        min=float(np.min(values, initial=np.inf)),
        max=float(np.max(values, initial=-np.inf)),
    )
    slope = None if gradient is None else to_numpy(gradient).astype("float64") / scale
    if slope is not None:
        plain = replace(
            plain,
            gradient_norm=float(np.linalg.norm(slope)),
            gradient_std=_std(slope),
        )
    if kernel is None:
        return plain
    return _of_kernel(model, plain, kernel, values, slope)


def _mean(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # of ∞ − ∞, which NaN says
        return float(np.mean(values)) if values.size else 0.0


def _std(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.std(values)) if values.size else 0.0


def _of_kernel(
    model: Any,
    plain: WeightSignal,
    kernel: Kernel,
    values: np.ndarray,
    slope: np.ndarray | None,
) -> WeightSignal:
    initializer, theory = known_draw(model, kernel)
    twins, units = (0, 0) if slope is None else _twins(kernel, values, slope)
    return replace(
        plain,
        initializer=None if initializer is None else type(initializer).__name__,
        theory_std=theory,
        symmetric_units=twins,
        units=units,
    )


def _twins(kernel: Kernel, values: np.ndarray, slope: np.ndarray) -> tuple[int, int]:
    """How many units are like another in weights, bias and gradient; of how many."""
    if not (np.isfinite(values).all() and np.isfinite(slope).all()):
        return 0, 0
    if values.shape != kernel.shape or not kernel.axes.outputs or not values.size:
        return 0, 0  # two weights in a byte, no axis of units, or no weights
    own = Weights(kernel, "", values)
    weights, slopes = own.units(), replace(own, values=slope).units()
    count, units = 0, weights.shape[2]
    biases = own.unit_biases(weights)
    for block, block_slope, offset in zip(weights, slopes, biases, strict=True):
        matrices = [np.vstack([block, offset]), block_slope]
        is_used = np.any(np.vstack(matrices) != 0, axis=0)
        if is_used.any():  # zeros beside others may have been pruned
            matrices = [matrix[:, is_used] for matrix in matrices]
        if block.shape[0] >= _LEAST_ROWS:
            count += _alike(matrices)
    return count, weights.shape[0] * units


def _alike(matrices: list[np.ndarray]) -> int:
    """How many columns equal another one in every matrix.

    By two random projections of each: what is apart in them is apart.
    """
    rng = np.random.default_rng(0)
    rows = []
    for matrix in matrices:
        largest = np.max(np.abs(matrix), initial=0.0) or 1.0
        size = math.sqrt(matrix.shape[0])
        rows.append(rng.normal(size=(2, matrix.shape[0])) @ (matrix / largest) / size)
    seen = np.vstack(rows)
    order = np.argsort(seen[0], kind="stable")
    near = np.all(np.abs(np.diff(seen[:, order], axis=1)) <= _ALIKE, axis=0)
    return int(np.sum(np.append(near, False) | np.append(False, near)))
