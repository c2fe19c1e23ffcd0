"""One batch of inputs, labels and weights, out of whatever training data may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._core.errors import message
from .._keras.batch import checked_inputs, fitted, gives_batches, read_batch


class Batch(NamedTuple):
    """What a model is run on.

    Attributes:
        x: tensors, one or a nest of them.
        y: the same for labels, or None.
        weights: the same for sample weights, or None.
        examples: how many examples it holds.
    """

    x: Any
    y: Any
    weights: Any
    examples: int


def batch_of(model: Any, x: Any, y: Any, sample_weight: Any) -> Batch:
    """Returns the batch that `probe` was given, or raises if it does not fit."""
    given = read_batch(model, x, "x")
    if gives_batches(x) or given.y is not None:
        if y is not None or sample_weight is not None:
            raise ValueError(_two_sources(x, "y" if y is not None else "sample_weight"))
        _, y, sample_weight = given
    x = fitted(model, checked_inputs(given.x))
    examples = int(keras.tree.flatten(x)[0].shape[0])
    y = _labels("y", y, examples)
    weights = _labels("sample_weight", sample_weight, examples)
    return Batch(_tensors("x", x), y, weights, examples)


def _labels(name: str, values: Any, examples: int) -> Any:
    """Labels or weights as tensors; each leaf has an entry for every example."""
    if values is None:
        return None
    tensors = _tensors(name, values)
    if not keras.tree.flatten(tensors):
        raise ValueError(_no_labels(name, values))
    for leaf in keras.tree.flatten(tensors):
        if len(leaf.shape) == 0 or leaf.shape[0] != examples:
            raise ValueError(
                message(
                    f"`{name}` must have an entry for each example of `x`.",
                    f"{name} of shape {tuple(leaf.shape)} for {examples} examples",
                )
            )
        is_float = keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(leaf.dtype)
        )
        bad = int(np.sum(~np.isfinite(to_numpy(leaf).astype("float64"))))
        if is_float and bad:
            received = f"{bad} NaN or Inf in {name} of shape {tuple(leaf.shape)}"
            raise ValueError(message(f"`{name}` must be finite.", received))
    return tensors


def _tensors(name: str, values: Any) -> Any:
    try:
        return keras.tree.map_structure(ops.convert_to_tensor, values)
    except Exception as error:  # each backend has its own
        raise ValueError(_no_labels(name, values)) from error


def _no_labels(name: str, values: Any) -> str:
    return message(
        f"`{name}` must hold arrays of numbers.",
        f"{name}={values!r} ({type(values).__name__})",
    )


def _two_sources(x: Any, name: str) -> str:
    return message(
        f"`{name}` must be left out where `x` gives batches with their labels.",
        f"{name} beside x of type {type(x).__name__}",
        "Hand over arrays, or let the data set yield `(x, y)`.",
    )
