"""The scale of a model's inputs, measured on data."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from .._core.errors import message
from .._keras.batch import input_parts
from .._keras.private import inputs_struct
from ..inspection import Inspection, Link


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


def input_scale(model: Any, inspection: Inspection, data: Any) -> InputScale:
    """Returns the root mean squares of a model's inputs on data.

    Args:
        model: a built model.
        inspection: its kernels. An input that only embeddings read, as word numbers,
            is no signal: its values do not count.
        data: an array for one input; a list or tuple in the order of the inputs, or
            a dict by their names, for several. For one input a list may also hold
            parts of it.

    Raises:
        ValueError: if the inputs are empty, not finite or all zero.
    """
    count = _count_of_inputs(model, data)
    arrays = _in_order(model, data)
    if len(arrays) != count or count <= 1:
        # Word numbers alone may all be 0, as those of padding.
        is_read = any(way.source is None for way in _ways_to_signals(inspection))
        return InputScale(_root_mean_square(arrays, may_be_zero=not is_read))
    is_signal = _signals(inspection)
    single = {
        number: _root_mean_square([array])
        for number, array in enumerate(arrays)
        if number in is_signal
    }
    return InputScale(1.0, single)


def one_batch(model: Any, data: Any) -> Any:
    """Returns data as a model is called on it: of the parts of one input, the first."""
    if _count_of_inputs(model, data) != 1:
        return data
    if isinstance(data, Mapping) and len(data) == 1:
        return next(iter(data.values()))
    if not isinstance(data, (list, tuple)):
        return data
    if not hasattr(data[0], "shape"):
        return np.asarray(data)
    expected = keras.tree.flatten(getattr(model, "inputs", None) or ())
    rank = len(expected[0].shape) if expected else 1 + len(data[0].shape)
    return data[0] if len(data[0].shape) >= rank else np.stack(data)


def _count_of_inputs(model: Any, data: Any) -> int:
    """How many inputs a model has; one that does not tell has as many as its data."""
    structure = inputs_struct(model)
    if structure is not None:
        return len(keras.tree.flatten(structure))
    return len(data) if isinstance(data, Mapping) else max(1, len(input_parts(model)))


def _in_order(model: Any, data: Any) -> list[Any]:
    """The arrays in the order in which inspection counts the inputs."""
    if isinstance(data, Mapping):
        names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
        if names and all(name in data for name in names):
            return [data[name] for name in names]
        return keras.tree.flatten(dict(data))
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _signals(inspection: Inspection) -> set[int]:
    """The numbers of the inputs that something else than an embedding reads."""
    return {
        link.entry
        for link in _ways_to_signals(inspection)
        if link.source is None and link.entry is not None
    }


def _ways_to_signals(inspection: Inspection) -> Iterator[Link]:
    """The ways to all that computes with the values of what it reads."""
    readers = [k for k in inspection.kernels if k.role != "embedding"]
    for reader in (*readers, *inspection.merges):
        yield from reader.links


def _root_mean_square(arrays: Sequence[Any], may_be_zero: bool = False) -> float:
    count, square = 0, 0.0
    for given in arrays:
        array = _as_numpy(given)
        count += array.size
        square += float(np.sum(np.square(array)))
    square /= max(1, count)
    is_zero = square == 0 and not may_be_zero
    if not count or not np.isfinite(square) or is_zero:
        raise ValueError(
            message(
                "`data` must hold finite inputs that are not all zero.",
                f"data of {count} values with mean square {square:g}",
            )
        )
    return float(np.sqrt(square)) or 1.0


def _as_numpy(given: Any) -> np.ndarray:
    if keras.ops.is_tensor(given):
        given = keras.ops.convert_to_numpy(given)
    try:
        array = np.asarray(given)
        if array.dtype.kind in "OSUMmc":  # some of which NumPy would make numbers of
            raise TypeError(f"{reprlib.repr(given)} is an array of {array.dtype}")
        return array.astype("float64")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            message(
                "`data` must hold numbers.",
                f"data of type {type(given).__name__}: {error}",
                "Pass an array `(examples, ...)`, or several in a list or dict.",
            )
        ) from error
