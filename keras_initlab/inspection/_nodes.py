"""Keras's records of calls: in which order they stand, and what they read."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from .._keras.kinds import Kernel, kernels, kind_of
from .._keras.private import history_of, inbound_nodes, nodes_by_depth, outbound_nodes

if TYPE_CHECKING:
    from ._trace import Trace


class Place(NamedTuple):
    """Where a tensor is from.

    Attributes:
        call: the number of a call or input.
        key: of the place.
        number: which of the call's outputs it is.
    """

    call: int
    key: int
    number: int = 0


Places = MutableMapping[int, Place]


def nodes_in(functional: Any) -> Iterator[Any]:
    # Keras has no public way to walk a Functional model's nodes.
    for _, nodes in sorted(nodes_by_depth(functional).items(), reverse=True):
        yield from nodes


def nodes_of(trace: Trace, places: Places) -> Sequence[Any]:
    return nodes_to(trace.outputs, places) if trace.nodes is None else trace.nodes


def nodes_to(outputs: Iterable[Any], places: Places) -> list[Any]:
    """The nodes between these places and outputs, sources first."""
    found: dict[int, Any] = {}
    waiting = [
        (_node_of(tensor), False) for tensor in outputs if id(tensor) not in places
    ]
    while waiting:
        node, is_ready = waiting.pop()
        if node is None or id(node) in found:
            continue
        if is_ready:
            found[id(node)] = node
            continue
        waiting.append((node, True))
        waiting += [
            (_node_of(tensor), False)
            for tensor in reversed(node.input_tensors)
            if id(tensor) not in places
        ]
    return list(found.values())


def _node_of(tensor: Any) -> Any:
    history = history_of(tensor)
    if history is None or history.operation is None:
        return None
    return inbound_nodes(history.operation)[history.node_index]


def source_of(tensor: Any, places: Places) -> Place | None:
    """Where a tensor is from; Keras may have cast it on the way into a layer."""
    while id(tensor) not in places:
        node = _node_of(tensor)
        if node is None or len(node.input_tensors) != 1:
            return None
        (tensor,) = node.input_tensors
    return places[id(tensor)]


def argument_names(node: Any) -> list[str]:
    """For each tensor that a node reads, the name of the argument that holds it."""
    if len(node.input_tensors) < 2 or not isinstance(node.operation, keras.Layer):
        return []
    args, kwargs = node.arguments.args, node.arguments.kwargs
    parameters = inspect.signature(node.operation.call).parameters
    given = [*zip(parameters, args, strict=False), *sorted(kwargs.items())]
    return [
        name
        for name, value in given
        for tensor in keras.tree.flatten(value)
        if isinstance(tensor, keras.KerasTensor)
    ]


def kernels_used(node: Any) -> tuple[list[Kernel], str]:
    """The kernels that a layer's call uses, and what for where its calls differ."""
    layer, found = node.operation, kernels(node.operation)
    tell = kind_of(layer).used
    if tell is None:
        return found, ""
    given = inspect.signature(layer.call).bind_partial(
        *node.arguments.args, **node.arguments.kwargs
    )
    names, use = tell(layer, given.arguments)
    return [one for one in found if one.layer is not layer or one.name in names], use


class CallNumbers:
    """Tells where a call stands among a graph's calls on each of its inputs.

    Args:
        nodes: the nodes of the graph.
    """

    def __init__(self, nodes: Sequence[Any]):
        self._own = {id(node) for node in nodes}
        self._after: dict[int, dict[int, int]] = {}  # by the operation
        readers: dict[int, dict[int, Any]] = {}
        for node in nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), {})[id(node)] = node
        self._reading = {key: _numbers(found) for key, found in readers.items()}

    def of(self, node: Any) -> list[int]:
        """Returns the number of the call among those on each of its inputs."""
        numbers = []
        for tensor in node.input_tensors:
            history = history_of(tensor)
            if history is None:
                numbers.append(self._reading[id(tensor)].get(id(node), 0))
            elif history.operation is not None:
                numbers.append(self._reads_of(history.operation).get(id(node), 0))
        return numbers

    def _reads_of(self, operation: Any) -> dict[int, int]:
        if id(operation) not in self._after:
            mine = [id(n) for n in outbound_nodes(operation) if id(n) in self._own]
            self._after[id(operation)] = _numbers(mine)
        return self._after[id(operation)]


def _numbers(keys: Iterable[int]) -> dict[int, int]:
    """The first place of each key."""
    found: dict[int, int] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, number)
    return found


def key_of(*parts: Any) -> int:
    """A 63-bit hash that is the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
