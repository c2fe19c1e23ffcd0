"""One batch out of whatever training data may be: every function reads it here.

A tuple is `(inputs, targets)` or `(inputs, targets, weights)`, as a data set for `fit`
yields it; arrays, lists and dicts are inputs, as `predict` takes them. A model of
several inputs takes as many arrays in a tuple for these, which nothing else could be.
Lists of numbers or of examples are no arrays: Keras takes each entry for an input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._core.arrays import as_numpy
from .._core.errors import message
from .inputs import are_inputs, fitted, input_parts

_NUMBERS = ("bfloat", "bool", "float", "int", "uint")


class Batch(NamedTuple):
    """One batch, as a model is run on it.

    Attributes:
        x: the inputs, an array or tensor or a nest of them as the model is called on.
        y: the targets as they were given, or None.
        weights: the weights of the examples as they were given, or None.
    """

    x: Any
    y: Any = None
    weights: Any = None

    @property
    def examples(self) -> int:
        """How many examples it holds."""
        return int(keras.tree.flatten(self.x)[0].shape[0])


def gives_batches(data: Any) -> bool:
    """Whether data yields batches, and is none itself."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    is_batch = isinstance(data, (Mapping, Sequence)) or _is_array(data)
    return isinstance(data, Iterable) and not is_batch


def read_batch(model: Any, data: Any, name: str) -> Batch:
    """Returns the batch in data, its inputs checked and apart from what goes with them.

    Args:
        model: the model that it is for.
        data: an array, a list or dict of arrays, a tuple of inputs and what belongs to
            them, or something that yields such: a `tf.data.Dataset`,
            `keras.utils.PyDataset`, `DataLoader` or generator. Of that the first batch
            is taken, where a list is a tuple, as a `DataLoader` makes one of it. A
            `Batch` is returned as it is.
        name: what the argument is called in messages.

    Raises:
        TypeError: if the inputs are anything else than arrays of numbers.
        ValueError: if there is no batch, a tuple holds too much, or the inputs are
            empty, not finite or not what the model takes.
    """
    if isinstance(data, Batch):
        return data
    is_tuple = isinstance(data, tuple)
    if gives_batches(data):
        data = _first(data, name)
        is_tuple = isinstance(data, (list, tuple))
    x, *others = _parts(model, data, name) if is_tuple else [data]
    return Batch(fitted(model, checked_arrays(x, name), name), *others)


def checked_arrays(nest: Any, name: str, examples: int | None = None) -> Any:
    """Returns arrays of numbers or tensors, one or a nest of them.

    Args:
        nest: what was given: tables and the like become NumPy arrays.
        name: what the argument is called in messages.
        examples: how many examples each must hold; None for as many as the others.

    Raises:
        TypeError: if there is anything else than arrays of numbers in it.
        ValueError: if it is empty, not all of it is finite, or the examples differ.
    """
    arrays = [
        _checked(leaf, name, "".join(f"[{key!r}]" for key in path))
        for path, leaf in keras.tree.flatten_with_path(nest)
    ]
    shapes = [tuple(array.shape) for array in arrays]
    if not shapes:
        raise ValueError(_empty(name, f"{name}={nest!r}"))
    expected = shapes[0][0] if examples is None else examples
    if any(shape[0] != expected for shape in shapes):
        raise ValueError(
            message(
                f"All arrays in `{name}` must hold one and the same number of examples"
                f"{'' if examples is None else ', that of the inputs'}.",
                f"{name} of shape {', '.join(map(str, shapes))}"
                f"{'' if examples is None else f' for {examples} examples'}",
            )
        )
    return keras.tree.pack_sequence_as(nest, arrays)


def _first(data: Any, name: str) -> Any:
    if isinstance(data, keras.utils.PyDataset):
        batch = data[0] if data.num_batches != 0 else None
    else:
        batch = next(iter(data), None)
    if batch is None:
        raise ValueError(_empty(name, f"no batch in a {type(data).__name__}"))
    return batch


def _parts(model: Any, batch: Sequence[Any], name: str) -> Sequence[Any]:
    """The inputs in a tuple, then its targets and weights as far as it has them."""
    if not batch or are_inputs(model, batch):
        return [list(batch)]
    if len(batch) > 3:
        raise ValueError(
            message(
                f"A tuple in `{name}` must be (inputs, targets, weights) or hold an "
                f"array for each input of the model.",
                f"{len(batch)} parts for {max(1, len(input_parts(model)))} inputs",
                "Hand several inputs over in a list or dict.",
            )
        )
    return batch


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") or hasattr(data, "__array__")


def _checked(leaf: Any, name: str, path: str) -> Any:
    """An array or tensor of finite numbers, with at least one example."""
    if not _is_array(leaf):
        rule = f"`{name}` must be an array, a list or dict of arrays, or give batches "
        received = f"{leaf!r} ({type(leaf).__name__})"
        cure = "`np.asarray` makes an array of lists of numbers."
        raise TypeError(message(f"{rule}of them.", received, cure))
    is_own = ops.is_tensor(leaf)
    values = as_numpy(leaf) if is_own else np.asarray(leaf)
    if not str(values.dtype).startswith(_NUMBERS):
        received = f"an array of {values.dtype} ({type(leaf).__name__})"
        cure = "Encode text, dates and categories first; make ragged arrays dense."
        raise TypeError(message(f"`{name}` must hold numbers.", received, cure))
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(_empty(name, f"{name}{path} of shape {values.shape}"))
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(
            message(
                f"`{name}` must be finite.",
                f"{bad} NaN or Inf in {name}{path} of shape {values.shape}",
                "Clean the data, or hand over a batch without them.",
            )
        )
    return leaf if is_own else values


def _empty(name: str, received: str) -> str:
    return message(
        f"`{name}` must hold at least one example.",
        received,
        "A batch of 32 or more is usual.",
    )
