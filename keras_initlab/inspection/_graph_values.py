"""Values in a model's graph, for layers that do not run on numbers of any shape.

What a graph says of the shapes in it is what its layers said, and sizes that are left
open may have to agree with one another. Where a layer cannot be traced on numbers of
the shapes it was called on, the graph before it is run to see what it really reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from .._keras.private import history_of
from ._arguments import SIZES
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

    def add(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Runs the graph before these arguments; whether that has told their values."""
        tensors = [
            one
            for one in keras.tree.flatten((args, kwargs))
            if isinstance(one, keras.KerasTensor)
            and not isinstance(one, Symbol)
            and history_of(one) is not None
            and id(one) not in self._values
        ]
        if not tensors:
            return False
        for size in SIZES:
            with contextlib.suppress(Exception), self._true_weights():
                self._kept += tensors
                self._values |= _run(tensors, size)
                return True
        return False


def _run(tensors: Sequence[Any], size: int) -> dict[int, Any]:
    """The values of tensors, by their ids."""
    nodes = nodes_to(tensors, {})
    values: dict[int, Any] = {}

    def value(one: Any) -> Any:
        if not isinstance(one, keras.KerasTensor):
            return one
        if id(one) not in values:
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
