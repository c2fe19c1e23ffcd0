"""Symbolic arguments for a layer that is run to see what it does."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from .._core.errors import UnsupportedModelError, message
from .._keras.private import build_shapes

# Sizes that are not known are taken for these. Most models halve them, and few hold
# fewer positions.
_BATCH, SIZE = 2, 32
_SMALLER, _LARGER = (8,), (256, 2048)  # tables hold few positions, windows are wide
_MOST_ROWS = 4
LARGEST = 2**22  # numbers in one example


def symbolic_inputs(layer: Any, data: Any = None) -> tuple[list[Any], dict[str, Any]]:
    """Returns symbolic arguments, positional and named, for a layer's `call`.

    Args:
        layer: a built layer or model.
        data: what they shall be like: an array, or a list or dict of them; None for
            what the layer was built for.

    Raises:
        UnsupportedModelError: if it does not tell what that was.
    """
    parameters = inspect.signature(layer.call).parameters
    others = {
        name: False
        for name, parameter in parameters.items()
        if name == "training" and parameter.default is parameter.empty
    }
    if data is not None:
        tensors = keras.tree.map_structure(_like, data)
        is_named = isinstance(data, dict) and next(iter(parameters)) in data
        return ([], {**tensors, **others}) if is_named else ([tensors], others)
    shapes = build_shapes(layer)
    if not shapes:
        raise UnsupportedModelError(_shapeless(layer))
    tensors = {
        name.removesuffix("_shape"): keras.tree.map_shape_structure(_symbolic, shape)
        for name, shape in shapes.items()
    }
    is_one = len(tensors) == 1  # which then may be named otherwise than in `call`
    return ([*tensors.values()], others) if is_one else ([], {**tensors, **others})


def filled(shape: Iterable[int | None], size: int = SIZE) -> tuple[int, ...]:
    """A shape with numbers where sizes are not known."""
    usual = itertools.chain([_BATCH], itertools.repeat(size))
    sizes = zip(shape, usual, strict=False)
    return tuple(usual if own is None else own for own, usual in sizes)


def sizes_to_try(shapes: Iterable[Sequence[int | None]]) -> tuple[int, ...]:
    """Returns what open sizes may be, one after the other: a model may fail with some.

    Args:
        shapes: of weights, of which some may be tables of positions that hold as many
            as an input must have.
    """
    tables = [shape[-2] for shape in shapes if len(shape) > 1]
    rows = {size for size in tables if size and size > 1}
    some = sorted(one for one in rows if one <= max(_LARGER))[:_MOST_ROWS]
    return tuple(dict.fromkeys((SIZE, *_SMALLER, *some, *_LARGER)))


def _symbolic(shape: Any) -> Any:
    return keras.KerasTensor(filled(shape))


def _like(array: Any) -> Any:
    dtype = keras.backend.standardize_dtype(array.dtype)
    return keras.KerasTensor(filled((None, *array.shape[1:])), dtype)


def _shapeless(model: Any) -> str:
    return message(
        "The shape of the inputs of `model` must be known.",
        f"model={model.name!r} ({type(model).__name__}), which does not tell what it "
        "was built for",
        "Pass `data=` with an example of its inputs.",
    )
