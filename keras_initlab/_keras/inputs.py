"""What inputs a model takes, in which order, and whether given ones fit."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from .._core.errors import message
from .private import build_shapes, inputs_struct


def input_parts(model: Any) -> list[Any]:
    """What a model was built for: a tensor, shape or nest for each input.

    Empty where it does not tell.
    """
    structure = inputs_struct(model)
    if structure is not None:
        is_list = isinstance(structure, (list, tuple))
        return list(structure) if is_list else keras.tree.flatten(structure)
    shapes = list(build_shapes(model).values())
    if len(shapes) == 1 and isinstance(shapes[0], dict):
        return list(shapes[0].values())
    return list(shapes[0]) if len(shapes) == 1 and _is_nest(shapes[0]) else shapes


def are_inputs(model: Any, batch: Sequence[Any]) -> bool:
    """Whether each part of a batch is like one of several inputs."""
    parts = input_parts(model)
    return len(parts) == len(batch) > 1 and all(
        _leaves(own) == len(keras.tree.flatten(given))
        and _is_nest(own) == _is_nest(given)
        for own, given in zip(parts, batch, strict=True)
    )


def fitted(model: Any, batch: Any, name: str) -> Any:
    """Returns inputs in the structure that a model is called on.

    Raises:
        ValueError: if a model that knows its inputs cannot take these.
    """
    structure = inputs_struct(model, getattr(model, "inputs", None))
    if structure is None:
        return _alone(model, batch)
    if isinstance(structure, list) and len(structure) == 1:
        structure = structure[0]  # Keras takes the list for what is in it
    shapes = {
        _name(structure, path, tensor): tuple(tensor.shape)
        for path, tensor in keras.tree.flatten_with_path(structure)
    }
    given = _in_order(structure, shapes, batch)
    pairs = zip(given, shapes.values(), strict=False)
    if len(given) != len(shapes) or not all(_fits(one, shape) for one, shape in pairs):
        raise ValueError(
            message(
                f"`{name}` must be what {model.name!r} takes: {shapes}.",
                f"{name} of shape {_shapes(batch)}",
                "Hand over inputs as for `model.predict`, with their batch axis.",
            )
        )
    return keras.tree.pack_sequence_as(structure, given)


def _leaves(part: Any) -> int:
    if isinstance(part, dict):
        part = list(part.values())
    return sum(map(_leaves, part)) if _is_nest(part) else 1


def _is_nest(part: Any) -> bool:
    """Whether something is a list, tuple or dict of tensors, and no shape."""
    if isinstance(part, dict):
        return True
    return isinstance(part, (list, tuple)) and any(
        hasattr(one, "shape") or isinstance(one, (list, tuple, dict)) for one in part
    )


def _alone(model: Any, batch: Any) -> Any:
    """The only array in a list for a model that was built for one, else the batch."""
    parts = input_parts(model)
    is_one = isinstance(batch, (list, tuple)) and len(batch) == len(parts) == 1
    return batch[0] if is_one and not _is_nest(parts[0]) else batch


def _name(structure: Any, path: tuple[Any, ...], tensor: Any) -> str:
    is_key = isinstance(structure, dict) and len(path) == 1
    return path[0] if is_key else tensor.name


def _in_order(structure: Any, names: Iterable[str], batch: Any) -> list[Any]:
    """The arrays in a model's own order; none for a dict with names of others."""
    if isinstance(batch, dict):
        if all(name in batch for name in names):
            return [batch[name] for name in names]
        paths = [
            [path for path, _ in keras.tree.flatten_with_path(nest)]
            for nest in (structure, batch)
        ]
        return keras.tree.flatten(batch) if paths[0] == paths[1] else []
    return keras.tree.flatten(batch)


def _fits(array: Any, expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is as expected; Keras adds or drops a last axis of length 1."""
    shape: tuple[Any, ...] = tuple(getattr(array, "shape", ()))
    if len(shape) == len(expected) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(shape) == len(expected) - 1 and expected[-1:] == (1,):
        shape = (*shape, 1)
    return len(shape) == len(expected) and all(
        size in (None, own) for own, size in zip(shape, expected, strict=True)
    )


def _shapes(batch: Any) -> str:
    if hasattr(batch, "shape"):
        return str(tuple(batch.shape))
    return reprlib.repr(keras.tree.map_structure(_shapes, batch))
