"""Inputs made to what a model says it takes, to run it on where nobody gives any.

Normal numbers where it reads a signal, the numbers of rows where it looks them up, and
ones for masks and whatever else is whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from .._keras.inputs import fitted
from .._keras.private import functional_of, has_nodes, inputs_struct
from ..inspection import (
    LARGEST,
    SIZE,
    Inspection,
    KernelRecord,
    Merge,
    filled,
    is_custom,
    operations_in_sight,
    sizes_to_try,
    symbolic_inputs,
)

_NUMBERS = 2**17  # in one input, about
_TOKENS = 2**8  # in all examples, about: each may become as many logits as a vocabulary
_MOST = 32  # examples


def synthetic_inputs(
    model: keras.Model, inspection: Inspection, std: float
) -> Iterator[Any]:
    """Yields inputs that a model may run on, of one size after the other.

    Args:
        model: a built model.
        inspection: its kernels.
        std: of the inputs that are a signal.
    """
    wanted = _wanted(model)
    rows, fewest = _rows(inspection), _fewest(model)
    flat = keras.tree.flatten(wanted)
    is_open = any(size is None for one in flat for size in one.shape[1:])
    tables = (one.shape for one in inspection.kernels if one.role == "embedding")
    sizes = sizes_to_try(tables)
    for size in sizes if is_open else (SIZE,):
        shapes = [filled((None, *one.shape[1:]), size)[1:] for one in flat]
        largest = max(map(math.prod, shapes), default=1)
        if largest > LARGEST:
            return
        is_signal = any(_is_signal(one.dtype) for one in flat)
        most = _NUMBERS if is_signal else _TOKENS
        examples = max(fewest, min(_MOST, most // max(1, largest)))
        rng = np.random.default_rng(0)
        arrays = [
            _array((examples, *shape), one.dtype, rows.get(number), std, rng)
            for number, (shape, one) in enumerate(zip(shapes, flat, strict=True))
        ]
        yield fitted(model, keras.tree.pack_sequence_as(wanted, arrays), "data")


def _fewest(model: Any) -> int:
    """How many examples a run needs: two where they may be normalized together."""
    is_alone = all(_is_alone(operation) for _, operation in operations_in_sight(model))
    return 1 if is_alone and has_nodes(functional_of(model)) else 2


def _is_alone(operation: Any) -> bool:
    """Whether an operation surely computes each example by itself."""
    if not isinstance(operation, keras.Layer):
        axes = keras.tree.flatten(getattr(operation, "axis", -1))
        return None not in axes and 0 not in axes
    by_batch = isinstance(operation, keras.layers.BatchNormalization)
    return not by_batch and not is_custom(operation)


def _wanted(model: Any) -> Any:
    """Symbolic tensors like the inputs."""
    structure = inputs_struct(functional_of(model))
    if structure is not None:
        return structure
    args, kwargs = symbolic_inputs(model)
    return args[0] if args else {k: v for k, v in kwargs.items() if v is not False}


def _array(
    shape: tuple[int, ...],
    dtype: str,
    rows: int | None,
    std: float,
    rng: np.random.Generator,
) -> np.ndarray:
    if rows is not None:
        return rng.integers(0, rows, shape).astype(dtype)
    if _is_signal(dtype):
        return (std * rng.standard_normal(shape)).astype("float32")
    return np.ones(shape, dtype)


def _is_signal(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _rows(inspection: Inspection) -> Mapping[int, int]:
    """The rows of the smallest table that is looked up by each input, by its number."""
    found: dict[int, int] = {}
    for record in inspection.kernels:
        if record.role in ("embedding", "bias") and record.kernel.axes.inputs == ():
            for entry in _entries(record):
                count = record.shape[0]
                found[entry] = min(count, found.get(entry, count))
    return found


def _entries(reader: KernelRecord | Merge) -> Iterator[int]:
    for edge in reader.edges:
        if isinstance(edge.source, Merge):
            yield from _entries(edge.source)
        elif edge.source is None and edge.entry is not None:
            yield edge.entry
