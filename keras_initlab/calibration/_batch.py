"""One batch of a model's inputs, out of whatever training data may be."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .._arrays import to_numpy
from .._errors import message


def first_batch(x: Any) -> Any:
    """Returns arrays or tensors, one or a nest of them, that a model can be called on.

    Args:
        x: these, all of which are the batch, or something that gives batches: a
            `tf.data.Dataset`, `keras.utils.PyDataset`, `DataLoader` or generator. Of
            that the first is taken, without targets and weights.

    Raises:
        TypeError: if there is anything else than arrays in it.
        ValueError: if it is empty, or not all of it is finite.
    """
    batch = keras.tree.map_structure(_as_array, _without_targets(x))
    leaves = keras.tree.flatten_with_path(batch)
    if not leaves:
        raise ValueError(_empty(f"x={x!r}"))
    for path, leaf in leaves:
        _check_leaf("".join(f"[{key!r}]" for key in path), leaf)
    sizes = {leaf.shape[0] for _, leaf in leaves}
    if len(sizes) > 1:
        raise ValueError(
            message(
                "All inputs in `x` must have the same number of examples.",
                ", ".join(str(tuple(leaf.shape)) for _, leaf in leaves),
            )
        )
    return batch


def check_fits(model: Any, batch: Any) -> None:
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
                f"`x` must be what {model.name!r} takes: {shapes}.",
                f"x of shape {keras.tree.map_structure(_shape, batch)}",
                "Hand over inputs as for `model.predict`, with their batch axis.",
            )
        )


def _without_targets(x: Any) -> Any:
    if isinstance(x, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(_first(x, iter([x[0]])))[0]
    if hasattr(x, "shape") or isinstance(x, (list, tuple, dict, str)):
        return x
    if not hasattr(x, "__iter__"):
        raise TypeError(_no_array(x))
    return keras.utils.unpack_x_y_sample_weight(_first(x, iter(x)))[0]


def _first(x: Any, batches: Any) -> Any:
    batch = next(batches, None)
    if batch is None:
        raise ValueError(_empty(f"no batch in a {type(x).__name__}"))
    return batch


def _as_array(leaf: Any) -> Any:
    if not hasattr(leaf, "shape"):
        raise TypeError(_no_array(leaf))
    return leaf if ops.is_tensor(leaf) else np.asarray(leaf)


def _check_leaf(path: str, leaf: Any) -> None:
    if len(leaf.shape) == 0 or leaf.shape[0] == 0:
        raise ValueError(_empty(f"x{path} of shape {tuple(leaf.shape)}"))
    if "float" not in keras.backend.standardize_dtype(leaf.dtype):
        return
    bad = int(np.sum(~np.isfinite(to_numpy(leaf).astype("float64"))))
    if bad:
        raise ValueError(
            message(
                "`x` must be finite.",
                f"{bad} NaN or Inf in x{path} of shape {tuple(leaf.shape)}",
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


def _empty(received: str) -> str:
    return message(
        "`x` must hold at least one example.",
        received,
        "A batch of 32 or more is usual.",
    )


def _no_array(value: Any) -> str:
    return message(
        "`x` must be an array, a list or dict of arrays, or give batches of them.",
        f"{value!r} ({type(value).__name__})",
    )
