"""One batch of inputs, labels and weights as tensors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from .._core.errors import message
from .._keras.batch import Batch, checked_arrays, gives_batches, read_batch


def batch_of(model: Any, x: Any, y: Any, sample_weight: Any) -> Batch:
    """Returns the batch that `probe` was given, or raises if it does not fit."""
    batch = read_batch(model, x, "x")
    if not gives_batches(x) and batch.y is None:
        batch = batch._replace(y=y, weights=sample_weight)
    elif y is not None or sample_weight is not None:
        raise ValueError(_two_sources(x, "y" if y is not None else "sample_weight"))
    if batch.y is None and batch.weights is not None:
        raise ValueError(_no_labels(batch.weights))
    return Batch(
        _tensors(batch.x),
        _labels("y", batch.y, batch.examples),
        _labels("sample_weight", batch.weights, batch.examples),
    )


def _labels(name: str, values: Any, examples: int) -> Any:
    return None if values is None else _tensors(checked_arrays(values, name, examples))


def _tensors(arrays: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, arrays)


def _no_labels(weights: Any) -> str:
    return message(
        "`sample_weight` must come with labels `y`: a synthetic loss has no weights.",
        f"sample_weight of type {type(weights).__name__} and no labels",
        "Pass `y`, or leave `sample_weight` out.",
    )


def _two_sources(x: Any, name: str) -> str:
    return message(
        f"`{name}` must be left out where `x` gives batches with their labels.",
        f"{name} beside x of type {type(x).__name__}",
        "Hand over arrays, or let the data set yield `(x, y)`.",
    )
