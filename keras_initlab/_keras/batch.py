"""One batch out of whatever training data may be: every function reads it here.

A tuple is `(inputs, targets)` or `(inputs, targets, weights)`, as a data set for `fit`
yields it; arrays, lists and dicts are inputs. A model of several inputs takes as many
arrays in a tuple for these, which nothing else could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._core.arrays import as_numpy
from .._core.errors import message
from .private import build_shapes, inputs_struct


class Given(NamedTuple):
    """One batch, as it was given.

    Attributes:
        x: the inputs, an array or a nest of them.
        y: the targets, or None.
        weights: the weights of the examples, or None.
    """

    x: Any
    y: Any = None
    weights: Any = None


def gives_batches(data: Any) -> bool:
    """Whether data yields batches, and is none itself."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    is_batch = isinstance(data, (Mapping, Sequence)) or _is_array(data)
    return isinstance(data, Iterable) and not is_batch


def read_batch(model: Any, data: Any, name: str) -> Given:
    """Returns the batch in data, its inputs apart from targets and weights.

    Args:
        model: the model that it is for.
        data: an array, a list or dict of arrays, a tuple of inputs and what belongs to
            them, or something that yields such: a `tf.data.Dataset`,
            `keras.utils.PyDataset`, `DataLoader` or generator. Of that the first batch
            is taken, where a list is a tuple, as a `DataLoader` makes one of it.
        name: what the argument is called in messages.

    Raises:
        ValueError: if there is no batch, or a tuple holds too much.
    """
    if not gives_batches(data):
        is_tuple = isinstance(data, tuple)
        return _split(model, data, name) if is_tuple else Given(_plain(data))
    is_indexed = isinstance(data, keras.utils.PyDataset)
    batch = data[0] if is_indexed else next(iter(data), None)
    if batch is None:
        raise ValueError(_empty(name, f"no batch in a {type(data).__name__}"))
    is_tuple = isinstance(batch, (list, tuple))
    return _split(model, batch, name) if is_tuple else Given(_plain(batch))


def input_parts(model: Any) -> list[Any]:
    """Returns what a model was built for: a tensor, shape or nest for each input.

    Empty where it does not tell.
    """
    structure = inputs_struct(model)
    if structure is not None:
        is_list = isinstance(structure, (list, tuple))
        return list(structure) if is_list else keras.tree.flatten(structure)
    shapes = list(build_shapes(model).values())
    if len(shapes) == 1 and isinstance(shapes[0], dict):
        return list(shapes[0].values())
    if len(shapes) == 1 and _is_nested(shapes[0]):
        return list(shapes[0])
    return shapes


def _is_nested(shape: Any) -> bool:
    return isinstance(shape, (list, tuple)) and any(
        isinstance(part, (list, tuple)) for part in shape
    )


def _split(model: Any, batch: Sequence[Any], name: str) -> Given:
    if not batch or _are_inputs(model, batch):
        return Given(_plain(batch))
    if len(batch) > 3:
        raise ValueError(
            message(
                f"A tuple in `{name}` must be (inputs, targets, weights) or hold an "
                f"array for each input of the model.",
                f"{len(batch)} parts for {max(1, len(input_parts(model)))} inputs",
                "Hand several inputs over in a list or dict.",
            )
        )
    x, *others = batch
    return Given(_plain(x), *map(_plain, others))


def _are_inputs(model: Any, batch: Sequence[Any]) -> bool:
    """Whether each part of a batch is like one of several inputs."""
    parts = input_parts(model)
    return len(parts) == len(batch) > 1 and all(
        _leaves(own) == len(keras.tree.flatten(given))
        and _is_nest(own) == _is_nest(given)
        for own, given in zip(parts, batch, strict=True)
    )


def _leaves(part: Any) -> int:
    if hasattr(part, "shape"):
        return 1
    if isinstance(part, dict):
        return sum(map(_leaves, part.values()))
    is_shape = not part or not any(
        hasattr(one, "shape") or isinstance(one, (list, tuple, dict)) for one in part
    )
    return 1 if is_shape else sum(map(_leaves, part))


def _is_nest(part: Any) -> bool:
    """Whether something is a list, tuple or dict of tensors, and no shape."""
    if isinstance(part, dict):
        return True
    return isinstance(part, (list, tuple)) and any(
        hasattr(one, "shape") or isinstance(one, (list, tuple, dict)) for one in part
    )


def _plain(nest: Any) -> Any:
    """The same with tables and the like as NumPy arrays."""

    def of_leaf(leaf: Any) -> Any:
        is_foreign = _is_array(leaf) and not ops.is_tensor(leaf)
        return np.asarray(leaf) if is_foreign else leaf

    return keras.tree.map_structure(of_leaf, nest)


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") or hasattr(data, "__array__")


def checked_inputs(given: Any, name: str = "x") -> Any:
    """Returns arrays or tensors, one or a nest of them, that a model can be called on.

    Args:
        given: inputs, as `read_batch` returns them.
        name: what the argument is called in messages.

    Raises:
        TypeError: if there is anything else than arrays in it.
        ValueError: if it is empty, or not all of it is finite.
    """
    batch = keras.tree.map_structure(lambda leaf: _as_array(leaf, name), given)
    leaves = keras.tree.flatten_with_path(batch)
    if not leaves:
        raise ValueError(_empty(name, f"{name}={given!r}"))
    for path, leaf in leaves:
        _check_leaf(name, "".join(f"[{key!r}]" for key in path), leaf)
    sizes = {leaf.shape[0] for _, leaf in leaves}
    if len(sizes) > 1:
        raise ValueError(
            message(
                f"All inputs in `{name}` must have the same number of examples.",
                ", ".join(str(tuple(leaf.shape)) for _, leaf in leaves),
            )
        )
    return batch


def fitted(model: Any, batch: Any, name: str = "x") -> Any:
    """Returns inputs in the structure that a model is called on.

    Raises:
        ValueError: if a model that knows its inputs cannot take these.
    """
    expected = inputs_struct(model, getattr(model, "inputs", None))
    if expected is None:
        return batch  # its own `call` decides
    shapes = {t.name: tuple(t.shape) for t in keras.tree.flatten(expected)}
    if isinstance(expected, dict):
        shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    if isinstance(batch, dict):
        given = {key: batch[key] for key in shapes if key in batch}
    else:
        given = dict(zip(shapes, keras.tree.flatten(batch), strict=False))
    count = len(keras.tree.flatten(batch))
    is_right = len(given) == len(shapes) and (
        isinstance(batch, dict) or count == len(shapes)
    )
    if not is_right or not all(_fits(given[n].shape, s) for n, s in shapes.items()):
        raise ValueError(
            message(
                f"`{name}` must be what {model.name!r} takes: {shapes}.",
                f"{name} of shape {keras.tree.map_structure(_shape, batch)}",
                "Hand over inputs as for `model.predict`, with their batch axis.",
            )
        )
    if isinstance(batch, dict):
        return batch
    structure = inputs_struct(model)
    leaves = keras.tree.flatten(batch)
    if structure is None:
        return leaves[0] if len(leaves) == 1 else batch
    return keras.tree.pack_sequence_as(structure, leaves)


def _as_array(leaf: Any, name: str) -> Any:
    if not hasattr(leaf, "shape"):
        raise TypeError(_no_array(name, leaf))
    if ops.is_tensor(leaf):
        return leaf
    values = np.asarray(leaf)
    if values.dtype.kind in "OSUMmc" or values.dtype.names:
        text = message(f"`{name}` must hold numbers.", f"an array of {values.dtype}")
        raise TypeError(text)
    return values


def _check_leaf(name: str, path: str, leaf: Any) -> None:
    if len(leaf.shape) == 0 or leaf.shape[0] == 0:
        raise ValueError(_empty(name, f"{name}{path} of shape {tuple(leaf.shape)}"))
    if "float" not in keras.backend.standardize_dtype(leaf.dtype):
        return
    values = leaf if isinstance(leaf, np.ndarray) else as_numpy(leaf)
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(
            message(
                f"`{name}` must be finite.",
                f"{bad} NaN or Inf in {name}{path} of shape {tuple(leaf.shape)}",
                "Clean the data, or hand over a batch without them.",
            )
        )


def _fits(shape: Any, expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is as expected; Keras adds or drops a last axis of length 1."""
    shape = tuple(shape)
    if len(shape) == len(expected) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(shape) == len(expected) - 1 and expected[-1] == 1:
        shape = (*shape, 1)
    return len(shape) == len(expected) and all(
        size in (None, own) for own, size in zip(shape, expected, strict=True)
    )


def _shape(leaf: Any) -> str:
    return str(tuple(leaf.shape))


def _empty(name: str, received: str) -> str:
    return message(
        f"`{name}` must hold at least one example.",
        received,
        "A batch of 32 or more is usual.",
    )


def _no_array(name: str, value: Any) -> str:
    return message(
        f"`{name}` must be an array, a list or dict of arrays, or give batches of "
        "them.",
        f"{value!r} ({type(value).__name__})",
    )
