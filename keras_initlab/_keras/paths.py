"""Paths that are unique within a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from .private import (
    all_layers,
    operations_of,
    own_non_trainable,
    own_trainable,
    sublayers,
)


def layer_paths(model: Any) -> list[tuple[str, Any]]:
    """Returns `(unique path, layer)` for every layer inside a model, once each.

    Keras's own `layer.path` where it is set, else the name. Nested Functional models
    may hold layers of equal paths: those get the names of the models around them
    before, and a number after if that is not enough.
    """
    return _named(_walk(model, (), set()))


def operation_paths(model: Any) -> list[tuple[str, Any]]:
    """Returns `(unique path, operation)` for every layer and raw operation of a model.

    Raw operations are functions of `keras.ops` called on a Functional model's tensors.
    """
    layers = list(_walk(model, (), set()))
    raw = [
        (operation, (*scope, part.name) if part is not model else ())
        for part, scope in [(model, ()), *layers]
        for operation in operations_of(part)
        if not isinstance(operation, keras.Layer)
    ]
    return _named([*layers, *raw])


def operations_in_sight(model: Any) -> list[tuple[str, Any]]:
    """The same without inputs, and without the layers that run in a recurrent loop."""
    found = operation_paths(model)
    looped = {
        id(inner)
        for _, operation in found
        if isinstance(operation, keras.layers.RNN)
        for inner in all_layers(operation, include_self=False)
    }
    return [
        (path, operation)
        for path, operation in found
        if id(operation) not in looped
        and not isinstance(operation, keras.layers.InputLayer)
    ]


def own_variables(operation: Any) -> list[Any]:
    """Returns the variables of a layer, without those of layers inside it.

    None for a raw operation.
    """
    own = own_trainable(operation)
    return [*own, *own_non_trainable(operation)]


def variable_paths(model: Any, variables: Sequence[Any]) -> list[str]:
    """Returns a unique path for each of the model's variables."""
    scope_of: dict[int, tuple[str, ...]] = {}
    for layer, scope in _walk(model, (), set()):
        scope_of.update({id(variable): scope for variable in own_variables(layer)})
    return distinct(
        [variable.path for variable in variables],
        [scope_of.get(id(variable), ()) for variable in variables],
    )


def distinct(names: Sequence[str], scopes: Sequence[tuple[str, ...]]) -> list[str]:
    """Tells equal names apart by their scopes, then by a number."""
    counts = Counter(names)
    scoped = [
        "/".join((*scope, name)) if counts[name] > 1 else name
        for name, scope in zip(names, scopes, strict=True)
    ]
    counts, seen = Counter(scoped), Counter[str]()
    paths = []
    for name in scoped:
        seen[name] += 1
        paths.append(f"{name}#{seen[name]}" if counts[name] > 1 else name)
    return paths


def _named(
    found: Iterable[tuple[Any, tuple[str, ...]]],
) -> list[tuple[str, Any]]:
    found = list(found)
    names = [getattr(part, "path", None) or part.name for part, _ in found]
    paths = distinct(names, [scope for _, scope in found])
    return [(path, part) for path, (part, _) in zip(paths, found, strict=True)]


def _walk(
    layer: Any, scope: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    for inner in sublayers(layer):
        if id(inner) not in seen:
            seen.add(id(inner))
            yield inner, scope
            yield from _walk(inner, (*scope, inner.name), seen)
