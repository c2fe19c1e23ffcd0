"""A model's graph as a flat, ordered tuple of calls, nested models opened up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from .._errors import UnbuiltModelError, UnsupportedModelError, message


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation.

    Attributes:
        operation: the Keras layer or operation that is called. A shared layer has
            several calls.
        inputs: indices of the calls whose output it reads; −1, −2, … are the model's
            first, second, … input.
        key: tells the call from all others by its place in the graph upstream alone,
            so that it outlives layers added elsewhere. Seeds rest on it.
        scope: names of the nested models around it, outermost first.
    """

    operation: Any
    inputs: tuple[int, ...]
    key: int = 0
    scope: tuple[str, ...] = ()


def read_calls(model: keras.Model) -> tuple[Call, ...]:
    """Returns every call in a Sequential or Functional model, sources first.

    The order depends on the graph alone, not on names.

    Raises:
        UnbuiltModelError: if the model has no weights yet.
        UnsupportedModelError: if the model is neither Sequential nor Functional.
    """
    functional = _functional(model)
    flat: list[_RawCall] = []
    environment = {
        id(tensor): (-(index + 1), _key("input", index))
        for index, tensor in enumerate(functional.inputs)
    }
    _open(functional, environment, (), flat)
    return _ordered(flat)


@dataclass(frozen=True, eq=False)
class _RawCall:
    operation: Any
    inputs: tuple[int, ...]
    scope: tuple[str, ...]
    key: int


def _functional(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise UnbuiltModelError(_unbuilt(model))
        inner = model._functional
        if inner is None:
            raise UnsupportedModelError(_unsupported(model))
        return inner
    if _is_functional(model):
        return model
    if isinstance(model, keras.Model) and not model.built:
        raise UnbuiltModelError(_unbuilt(model))
    raise UnsupportedModelError(_unsupported(model))


def _is_functional(operation: Any) -> bool:
    return isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth")


def _is_nested(operation: Any) -> bool:
    if isinstance(operation, keras.Sequential):
        return operation._functional is not None
    return _is_functional(operation)


def _open(
    functional: Any,
    environment: dict[int, tuple[int, int]],
    scope: tuple[str, ...],
    flat: list[_RawCall],
) -> None:
    """Appends the calls of `functional`; `environment` maps tensors to (index, key)."""
    own = {id(node) for node in _nodes(functional)}
    for node in _nodes(functional):
        operation = node.operation
        if node.is_input:
            continue
        read = [environment[id(tensor)] for tensor in node.input_tensors]
        inputs = tuple(index for index, _ in read)
        key = _key(*(key for _, key in read), *_birth(node, own))
        if _is_nested(operation):
            outputs = _open_nested(operation, inputs, key, scope, flat)
        else:
            flat.append(_RawCall(operation, inputs, scope, key))
            outputs = [
                (len(flat) - 1, _key(key, number))
                for number in range(len(node.output_tensors))
            ]
        for tensor, output in zip(node.output_tensors, outputs, strict=True):
            environment[id(tensor)] = output


def _open_nested(
    model: Any,
    inputs: tuple[int, ...],
    key: int,
    scope: tuple[str, ...],
    flat: list[_RawCall],
) -> list[tuple[int, int]]:
    inner = _functional(model)
    environment = {
        id(tensor): (index, _key(key, number))
        for number, (tensor, index) in enumerate(
            zip(inner.inputs, inputs, strict=False)
        )
    }
    _open(inner, environment, (*scope, model.name), flat)
    return [environment[id(tensor)] for tensor in inner.outputs]


def _key(*parts: Any) -> int:
    """A 63-bit hash that is the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _nodes(functional: Any) -> Iterator[Any]:
    # Keras has no public way to walk a Functional model's nodes.
    for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True):
        yield from nodes


def _birth(node: Any, own: set[int]) -> list[int]:
    """Where a call stands among this model's calls on each of its inputs."""
    births = []
    for tensor in node.input_tensors:
        siblings = tensor._keras_history.operation._outbound_nodes
        mine = [sibling for sibling in siblings if id(sibling) in own]
        births.append(next((i for i, n in enumerate(mine) if n is node), 0))
    return births


def _ordered(flat: list[_RawCall]) -> tuple[Call, ...]:
    levels: list[int] = []
    for call in flat:
        above = [levels[index] for index in call.inputs if index >= 0]
        levels.append(1 + max(above, default=0))
    renamed: dict[int, int] = {}

    def place(old: int) -> tuple[Any, ...]:
        call = flat[old]
        return levels[old], tuple(_renamed(call.inputs, renamed)), call.key, old

    ordered: list[Call] = []
    for level in range(1, max(levels, default=0) + 1):
        members = [old for old, own in enumerate(levels) if own == level]
        for old in sorted(members, key=place):
            renamed[old] = len(ordered)
            call = flat[old]
            inputs = tuple(_renamed(call.inputs, renamed))
            ordered.append(Call(call.operation, inputs, call.key, call.scope))
    return tuple(ordered)


def _renamed(inputs: tuple[int, ...], renamed: Mapping[int, int]) -> Iterator[int]:
    return (index if index < 0 else renamed[index] for index in inputs)


def _unbuilt(model: Any) -> str:
    return message(
        "`model` must be built.",
        f"model={model.name!r} ({type(model).__name__}), not built",
        "Start it with `keras.Input`, or call `model.build(input_shape)`.",
    )


def _unsupported(model: Any) -> str:
    name = f"{model.name!r} " if hasattr(model, "name") else ""
    return message(
        "`model` must be a Sequential or a Functional Keras model.",
        f"model={name}({type(model).__name__})",
        "Build it from `keras.Input` with layers called on tensors.",
    )
