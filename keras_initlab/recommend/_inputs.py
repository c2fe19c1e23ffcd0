"""The scale of a model's inputs, measured on data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy
from .._core.errors import message
from ..inspection import Edge, Inspection


@dataclass(frozen=True)
class InputScale:
    """Root mean squares of a model's inputs.

    Attributes:
        overall: of all of them, or of those not in `single`.
        single: by the input's number, where there are several.
    """

    overall: float = 1.0
    single: Mapping[int, float] = field(default_factory=dict)

    def of(self, entry: int | None) -> float:
        """The root mean square of an input, by its number."""
        return self.overall if entry is None else self.single.get(entry, self.overall)


def input_scale(inspection: Inspection, inputs: Any) -> InputScale:
    """Returns the root mean squares of a model's inputs on data.

    Args:
        inspection: the model's kernels. An input that only embeddings read, as word
            numbers, is no signal: its values do not count.
        inputs: what the model is called on.

    Raises:
        ValueError: if inputs that are a signal are all zero.
    """
    arrays = keras.tree.flatten(inputs)
    if len(arrays) == 1:
        # Word numbers alone may all be 0, as those of padding.
        is_read = any(edge.source is None for edge in _edges_to_signals(inspection))
        return InputScale(_root_mean_square(arrays[0], may_be_zero=not is_read))
    is_signal = _signals(inspection)
    single = {
        number: _root_mean_square(array)
        for number, array in enumerate(arrays)
        if number in is_signal
    }
    return InputScale(1.0, single)


def _signals(inspection: Inspection) -> set[int]:
    """The numbers of the inputs that something else than an embedding reads."""
    return {
        edge.entry
        for edge in _edges_to_signals(inspection)
        if edge.source is None and edge.entry is not None
    }


def _edges_to_signals(inspection: Inspection) -> Iterator[Edge]:
    """The edges to all that computes with the values that it reads."""
    readers = [k for k in inspection.kernels if k.role != "embedding"]
    for reader in (*readers, *inspection.merges):
        yield from reader.edges


def _root_mean_square(given: Any, may_be_zero: bool = False) -> float:
    is_tensor = keras.ops.is_tensor(given)
    values = (as_numpy(given) if is_tensor else given).astype("float64")
    square = float(np.mean(np.square(values)))
    if square == 0 and not may_be_zero:
        raise ValueError(
            message(
                "`data` must hold inputs that are not all zero.",
                f"data of shape {values.shape}, all zero",
            )
        )
    return math.sqrt(square) or 1.0
