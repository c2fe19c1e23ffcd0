"""What targets tell of a model's outputs: class shares, the mean and spread of values.

An output whose bias starts at the logarithm of what it will see most, or at the mean of
what it is to predict, need not spend its first steps on learning that. Values in units
of their own moreover start at a share of their spread: Adam changes an entry by about
the rate in each step, so a kernel far too small for them takes long to grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy
from .._core.errors import message
from .._keras.batch import Batch
from .._keras.private import functional_of
from ..inspection import Inspection, KernelRecord
from ._outputs import Output, output_names
from ._priors import logits_at

_CHANCE = 4.0  # standard deviations by which shares differ that differ
_QUARTILES = 1.349  # standard deviations between those of a normal distribution


class Targets:
    """What outputs start at beside these targets; what does not fit tells nothing.

    An example that weighs nothing counts for nothing. What is judged by its absolute
    error, or much like that, starts at its median, with a spread that is that of a
    normal distribution with its quartiles.

    Args:
        model: the model.
        inspection: its kernels.
        outputs: what its output kernels mean, by position.
        batch: the targets, an array, or one for each output in a list, tuple or dict,
            and the examples' weights.
        is_part: whether it is the first of more, which may be sorted.

    Raises:
        ValueError: for targets of another number of examples.

    Attributes:
        outputs: the same, with the spread of values.
        offsets: what biases start at, by position.
    """

    def __init__(
        self,
        model: Any,
        inspection: Inspection,
        outputs: Mapping[int, Output],
        batch: Batch,
        is_part: bool = False,
    ):
        self.outputs = dict(outputs)
        self.offsets: dict[int, tuple[float, ...]] = {}
        self._is_part = is_part
        names = output_names(model, inspection)
        order = list(getattr(functional_of(model), "output_names", ()))
        found = _by_position(batch, list(outputs), names, order)
        for position, values, weights in found:
            self._read(inspection.kernels[position], values, weights)

    def _read(
        self, kernel: KernelRecord, values: np.ndarray, weights: np.ndarray
    ) -> None:
        output, units = self.outputs[kernel.position], kernel.shape[-1]
        if output.kind == "softmax":
            self._note(kernel, self._log_shares(values, weights, units))
            return
        columns = _columns(values, units)
        if columns is None or len(columns) % len(weights):
            return
        weights = np.repeat(weights, len(columns) // len(weights))
        if output.kind == "sigmoid":
            if np.all((columns == 0) | (columns == 1)):
                shares = (weights @ columns + 0.5) / (weights.sum() + 1)
                self._note(kernel, logits_at(shares, is_softmax=False))
            return
        centers, spreads = (_robust if output.is_robust else _moments)(columns, weights)
        self._note(kernel, tuple(float(f"{center:.6g}") for center in centers))
        spread = float(np.sqrt(np.mean(np.square(spreads))))
        if spread > 0:
            self.outputs[kernel.position] = replace(output, spread=spread)

    def _note(self, kernel: KernelRecord, offset: tuple[float, ...] | None) -> None:
        has_bias = kernel.bias is not None and kernel.bias.shape == kernel.shape[-1:]
        if has_bias and offset is not None:
            self.offsets[kernel.position] = offset

    def _log_shares(
        self, values: np.ndarray, weights: np.ndarray, units: int
    ) -> tuple[float, ...] | None:
        """The logarithms of the classes' shares, unless chance alone made these."""
        counts = _counts(values, weights, units)
        if counts is None or (self._is_part and not counts.all()):
            return None
        expected = counts.sum() / units
        distance = np.sum((counts - expected) ** 2) / expected
        if distance < units - 1 + _CHANCE * np.sqrt(2 * (units - 1)):
            return None
        return logits_at((counts + 1) / (counts.sum() + units), is_softmax=True)


def _by_position(
    batch: Batch,
    positions: Sequence[int],
    names: Mapping[int, str],
    order: Sequence[str],
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each output's kernel with its targets and weights, as far as these are numbers.

    Weights have a mean of one.
    """
    name_of = {position: names.get(position, "") for position in positions}
    targets = _named(batch.y, list(name_of.values()), order)
    weights = _named(batch.weights, list(name_of.values()), order)
    for position, name in name_of.items():
        found = _numbers(targets.get(name))
        if found is None:
            continue
        if found.ndim == 0 or len(found) != batch.examples:
            raise ValueError(
                message(
                    "`data` must hold one target for each example.",
                    f"targets of shape {found.shape} for {batch.examples} examples",
                )
            )
        own = _numbers(weights.get(name))
        if own is None and batch.weights is None:
            own = np.ones(len(found))
        is_usable = own is not None and own.shape == (len(found),) and own.min() >= 0
        if own is not None and is_usable and own.sum() > 0:
            yield position, found, own / own.mean()


def _named(given: Any, names: Sequence[str], order: Sequence[str]) -> Mapping[str, Any]:
    """What belongs to each output, by its name."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, (list, tuple)) and len(given) == len(order):
        return dict(zip(order, given, strict=True))
    return {names[0]: given} if len(names) == 1 else {}


def _numbers(values: Any) -> np.ndarray | None:
    if values is None:
        return None
    array = as_numpy(values) if keras.ops.is_tensor(values) else np.asarray(values)
    is_usable = array.size and array.dtype.kind in "biuf" and np.all(np.isfinite(array))
    return array.astype("float64") if is_usable else None


def _columns(values: np.ndarray, units: int) -> np.ndarray | None:
    """The targets of each unit, `(examples, units)`; None if they are not of it."""
    if values.ndim > 1 and values.shape[-1] == units:
        return values.reshape(-1, units)
    return values.reshape(-1, 1) if units == 1 else None


def _moments(columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std of each column."""
    means = weights @ columns / weights.sum()
    return means, np.sqrt(weights @ (columns - means) ** 2 / weights.sum())


def _robust(columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of each column, and the std of a normal distribution of its quartiles."""
    counted = columns[weights > 0]
    low, middle, high = np.quantile(counted, [0.25, 0.5, 0.75], axis=0)
    return middle, (high - low) / _QUARTILES


def _counts(values: np.ndarray, weights: np.ndarray, units: int) -> np.ndarray | None:
    """How often each class is a target, given by its number or by shares."""
    if values.ndim > 1 and values.shape[-1] == units > 1:
        shares = values.reshape(-1, units)
        if np.all(shares >= 0) and np.allclose(shares.sum(axis=1), 1, atol=1e-3):
            return np.repeat(weights, len(shares) // len(weights)) @ shares
    labels = values.ravel()
    is_number = (labels >= 0) & (labels < units) & (labels == np.floor(labels))
    if units < 2 or not np.all(is_number):
        return None
    own = np.repeat(weights, len(labels) // len(weights))
    return np.bincount(labels.astype(int), own, minlength=units)
