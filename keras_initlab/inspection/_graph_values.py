"""Values in a model's graph, for layers that do not run on numbers of any shape.

What a graph says of the shapes in it is what its layers said, and sizes that are left
open may have to agree with one another. Where a layer cannot be traced on numbers of
the shapes it was called on, the graph before it is run to see what it really reads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from .._keras.private import history_of
from ._arguments import LARGEST, SIZE, filled, sizes_to_try
from ._nodes import nodes_to
from ._symbols import Symbol, as_input, fresh, numbers


class GraphValues:
    """Values of symbolic tensors that have none.

    Args:
        true_weights: gives a context in which all layers have their true weights.
    """

    def __init__(self, true_weights: Callable[[], AbstractContextManager[None]]):
        self._true_weights = true_weights
        self._values: dict[int, Any] = {}
        self._kept: list[Any] = []  # an id is only unique while its object lives

    def fresh(self, tensor: Any) -> Symbol:
        """A symbolic input like a symbolic tensor."""
        found = self._values.get(id(tensor))
        return fresh(tensor) if found is None else as_input(Symbol(found))

    def sizes(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[int, ...]:
        """What may be tried for axes that are open, one size if none is."""
        tensors = _with_graphs(args, kwargs)
        if not any(None in one.shape[1:] for one in tensors):
            return (SIZE,) if tensors else ()
        return sizes_to_try(one.shape for one in layer.weights)

    def add(self, args: Sequence[Any], kwargs: Mapping[str, Any], size: int) -> bool:
        """Runs the graph before these arguments; whether that has told their values."""
        tensors = _with_graphs(args, kwargs)
        with contextlib.suppress(Exception), self._true_weights():
            self._kept += tensors
            self._values |= _run(tensors, size)
            return True
        return False


def _with_graphs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The symbolic tensors of a graph that has not been run."""
    return [
        one
        for one in keras.tree.flatten((args, kwargs))
        if isinstance(one, keras.KerasTensor)
        and not isinstance(one, Symbol)
        and history_of(one) is not None
    ]


def _run(tensors: Sequence[Any], size: int) -> dict[int, Any]:
    """The values of tensors, by their ids."""
    nodes = nodes_to(tensors, {})
    values: dict[int, Any] = {}

    def value(one: Any) -> Any:
        if not isinstance(one, keras.KerasTensor):
            return one
        if id(one) not in values:
            if math.prod(filled(one.shape, size)) > LARGEST:
                raise MemoryError(f"Too large to be tried: {one.shape}.")
            values[id(one)] = numbers(one, size)
        return values[id(one)]

    for node in nodes:
        if node.is_input:
            continue
        args, kwargs = keras.tree.map_structure(
            value, (node.arguments.args, node.arguments.kwargs)
        )
        returned = keras.tree.flatten(node.operation(*args, **kwargs))
        flat = [one for one in returned if hasattr(one, "shape")]
        for tensor, found in zip(node.output_tensors, flat, strict=False):
            values[id(tensor)] = found
    return {id(one): value(one) for one in tensors}
