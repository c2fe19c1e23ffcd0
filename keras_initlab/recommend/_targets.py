"""What targets tell of a model's outputs: class shares, the mean and spread of values.

An output whose bias starts at the logarithm of what it will see most, or at the mean of
what it is to predict, need not spend its first steps on learning that. Values in units
of their own moreover start at a share of their spread: a kernel that is too small by a
factor of a hundred takes about that many times as long to grow under Adam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy
from .._keras.private import functional_of
from ..inspection import Inspection, KernelRecord
from ._outputs import Output, logits_at, output_names

_CHANCE = 4.0  # standard deviations by which shares differ that differ


class Targets:
    """What outputs start at beside these targets; what does not fit tells nothing.

    Args:
        model: the model.
        inspection: its kernels.
        outputs: what its output kernels mean, by position.
        targets: an array, or one for each output in a list, tuple or dict.
        is_part: whether they are the first of more, which may be sorted.

    Attributes:
        outputs: the same, with the spread of values.
        offsets: what biases start at, by position.
    """

    def __init__(
        self,
        model: Any,
        inspection: Inspection,
        outputs: Mapping[int, Output],
        targets: Any,
        is_part: bool = False,
    ):
        self.outputs = dict(outputs)
        self.offsets: dict[int, tuple[float, ...]] = {}
        self._is_part = is_part
        names = output_names(model, inspection)
        order = list(getattr(functional_of(model), "output_names", ()))
        for position, values in _by_position(targets, list(outputs), names, order):
            self._read(inspection.kernels[position], values)

    def _read(self, kernel: KernelRecord, values: np.ndarray) -> None:
        output, units = self.outputs[kernel.position], kernel.shape[-1]
        if output.kind == "softmax":
            self._note(kernel, self._log_shares(values, units))
            return
        columns = _columns(values, units)
        if columns is None:
            return
        if output.kind == "sigmoid":
            if np.all((columns == 0) | (columns == 1)):
                shares = (columns.sum(axis=0) + 0.5) / (len(columns) + 1)
                self._note(kernel, logits_at(shares, is_softmax=False))
            return
        spread = float(np.sqrt(columns.var(axis=0).mean()))
        if spread > 0:
            self.outputs[kernel.position] = replace(output, spread=spread)
            means = columns.mean(axis=0)
            self._note(kernel, tuple(float(f"{mean:.6g}") for mean in means))

    def _note(self, kernel: KernelRecord, offset: tuple[float, ...] | None) -> None:
        has_bias = kernel.bias is not None and kernel.bias.shape == kernel.shape[-1:]
        if has_bias and offset is not None:
            self.offsets[kernel.position] = offset

    def _log_shares(self, values: np.ndarray, units: int) -> tuple[float, ...] | None:
        """The logarithms of the classes' shares, unless chance alone made these."""
        counts = _counts(values, units)
        if counts is None or (self._is_part and not counts.all()):
            return None
        expected = counts.sum() / units
        distance = np.sum((counts - expected) ** 2) / expected
        if distance < units - 1 + _CHANCE * np.sqrt(2 * (units - 1)):
            return None
        return logits_at((counts + 1) / (counts.sum() + units), is_softmax=True)


def _by_position(
    targets: Any,
    positions: Sequence[int],
    names: Mapping[int, str],
    order: Sequence[str],
) -> Iterator[tuple[int, np.ndarray]]:
    """Each output's kernel with its targets, as far as these are numbers."""
    if isinstance(targets, Mapping):
        named = dict(targets)
    elif isinstance(targets, (list, tuple)) and len(targets) == len(order):
        named = dict(zip(order, targets, strict=True))
    elif len(positions) == 1:
        named = {names.get(positions[0], ""): targets}
    else:
        return
    for position in positions:
        values = named.get(names.get(position, ""))
        if values is None:
            continue
        array = as_numpy(values) if keras.ops.is_tensor(values) else np.asarray(values)
        if array.size and array.dtype.kind in "biuf" and np.all(np.isfinite(array)):
            yield position, array.astype("float64")


def _columns(values: np.ndarray, units: int) -> np.ndarray | None:
    """The targets of each unit, `(examples, units)`; None if they are not of it."""
    if values.ndim > 1 and values.shape[-1] == units:
        return values.reshape(-1, units)
    return values.reshape(-1, 1) if units == 1 else None


def _counts(values: np.ndarray, units: int) -> np.ndarray | None:
    """How often each class is a target, given by its number or by shares."""
    if values.ndim > 1 and values.shape[-1] == units > 1:
        shares = values.reshape(-1, units)
        if np.all(shares >= 0) and np.allclose(shares.sum(axis=1), 1, atol=1e-3):
            return shares.sum(axis=0)
    labels = values.ravel()
    is_number = (labels >= 0) & (labels < units) & (labels == np.floor(labels))
    if units < 2 or not np.all(is_number):
        return None
    return np.bincount(labels.astype(int), minlength=units).astype("float64")
