"""Which layers of a model a callback can watch, and which it is to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_initlab._core.errors import message
from keras_initlab._keras.kinds import Effect, kind_of
from keras_initlab._keras.paths import own_variables
from keras_initlab._keras.private import all_layers, is_of_keras_layers
from keras_initlab.inspection import (
    activation_of,
    operation_paths,
    operations_in_sight,
)


def visible_operations(model: Any) -> list[tuple[str, Any]]:
    """Every operation whose calls can be seen, with its path.

    Layers inside recurrent ones run in a loop; models only pass on what their layers
    return.
    """
    found = operations_in_sight(model)
    return [(path, one) for path, one in found if not isinstance(one, keras.Model)]


def can_break(operation: Any) -> bool:
    """Whether finite numbers may go in and others come out.

    Not of what Keras's own layers without weights or activation do: they move numbers,
    add, average or drop them.
    """
    if not isinstance(operation, keras.layers.Layer):
        return kind_of(operation).effect not in _MOVING
    is_own = is_of_keras_layers(operation)
    is_lambda = isinstance(operation, keras.layers.Lambda)
    has_activation = activation_of(operation) is not None
    return not is_own or is_lambda or bool(own_variables(operation)) or has_activation


_MOVING = (Effect.ADD, Effect.CONCATENATE, Effect.REARRANGE)


def select(
    model: Any,
    found: dict[str, Any],
    layers: Sequence[Any] | None,
    kind: str,
    possible: Sequence[Any] = (),
) -> dict[str, Any]:
    """Returns those of the layers found that were asked for, or lie inside one.

    Args:
        model: the model.
        found: layers or operations by path.
        layers: paths, names or layer objects; None for all.
        kind: what the layers must be, for the error.
        possible: layers that may be asked for, though they are not found now: frozen
            ones.
    """
    if layers is None:
        return found
    is_one = isinstance(layers, str) or not isinstance(layers, Iterable)
    asked = [layers] if is_one else list(layers)
    chosen: dict[str, Any] = {}
    unknown: list[Any] = []
    for one in asked:
        inside = {
            id(inner)
            for path, layer in operation_paths(model)
            if layer is one or one in (path, layer.name)
            for inner in (*all_layers(layer), layer)
        }
        hits = {path: layer for path, layer in found.items() if id(layer) in inside}
        chosen.update(hits)
        if not hits and not inside & set(map(id, possible)):
            unknown.append(one if isinstance(one, str) else getattr(one, "name", one))
    if unknown:
        raise ValueError(
            message(
                f"`layers` must name {kind} of the model.",
                f"layers={unknown}",
                f"It has {list(found)[:8]}.",
            )
        )
    return {path: layer for path, layer in found.items() if path in chosen}
