"""One batch of a model's inputs, out of whatever training data may be."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .._arrays import as_numpy
from .._errors import message


def first_batch(x: Any, name: str = "x") -> Any:
    """Returns arrays or tensors, one or a nest of them, that a model can be called on.

    Args:
        x: these, all of which are the batch, or something that gives batches: a
            `tf.data.Dataset`, `keras.utils.PyDataset`, `DataLoader` or generator. Of
            that the first is taken, without targets and weights.
        name: what the argument is called in messages.

    Raises:
        TypeError: if there is anything else than arrays in it.
        ValueError: if it is empty, or not all of it is finite.
    """
    given = _without_targets(x, name)
    batch = keras.tree.map_structure(lambda leaf: _as_array(leaf, name), given)
    leaves = keras.tree.flatten_with_path(batch)
    if not leaves:
        raise ValueError(_empty(name, f"{name}={x!r}"))
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


def check_fits(model: Any, batch: Any, name: str = "x") -> None:
    """Raises if a model that knows its inputs cannot take these."""
    expected = getattr(model, "_inputs_struct", getattr(model, "inputs", None))
    if expected is None:
        return  # its own `call` decides
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


def _without_targets(x: Any, name: str) -> Any:
    if isinstance(x, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(x[0])[0]
    if hasattr(x, "shape") or isinstance(x, (list, tuple, dict, str)):
        return x
    if not hasattr(x, "__iter__"):
        raise TypeError(_no_array(name, x))
    batch = next(iter(x), None)
    if batch is None:
        raise ValueError(_empty(name, f"no batch in a {type(x).__name__}"))
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


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
