"""The edges of a model: from where signals reach its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._keras.kinds import Computed, Effect, Kernel
from ._calls import Call
from ._operations import activation_of, effect_of, normalized_mean_square, shares
from ._records import Edge, Merge, Transform


def own_activation(call: Call, kernel: Kernel) -> Any:
    """The activation that a layer applies itself after one of its kernels."""
    is_layer = isinstance(call.operation, keras.Layer)
    return activation_of(kernel.layer) if is_layer else None


class Edges:
    """Follows signals from kernel to kernel.

    Args:
        calls: a model's calls, sources first.
        kernels_of: the kernels of each.
        numbers: every kernel's position, by its variable's id.

    Attributes:
        merges: where edges join, sources first.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        kernels_of: Sequence[Sequence[Kernel]],
        numbers: Mapping[int, int],
    ):
        self._calls = calls
        self._kernels_of = kernels_of
        self._numbers = numbers
        self._uses = Counter(id(call.operation) for call in calls)
        self.merges: list[Merge] = []
        self._links: list[Edge] = []
        for index in range(len(calls)):
            self._links.append(self._out_of(index))

    def _into(self, index: int) -> tuple[Edge, ...]:
        """The edges to the inputs of a call."""
        return tuple(
            Edge(None, entry=-1 - source) if source < 0 else self._links[source]
            for source in self._calls[index].inputs
        )

    def to(self, kernel: Kernel, index: int, role: str) -> tuple[Edge, ...]:
        """The edges to a kernel of a call: not every one reads every input."""
        below = self._cell_below(kernel, index, role)
        if below is None:
            below = self._before_in_layer(kernel, index, role)
        if below is not None:
            return (below,)
        edges, names = self._into(index), self._calls[index].arguments
        meant = role
        if role == "recurrent input":
            meant = names[0] if names else ""
        elif role == "key" and "key" not in names:
            meant = "value"
        own = [edge for edge, name in zip(edges, names, strict=False) if name == meant]
        return tuple(own) or edges

    def _cell_below(self, kernel: Kernel, index: int, role: str) -> Edge | None:
        """The edge from the cell below in a stack of cells, None for the lowest."""
        cell = getattr(self._calls[index].operation, "cell", None)
        stacked = isinstance(cell, keras.layers.StackedRNNCells)
        found = self._kernels_of[index]
        number = next(i for i, other in enumerate(found) if other is kernel)
        if not stacked or role != "recurrent input" or number == 0:
            return None
        return self._from(found[number - 1], index)

    def _before_in_layer(self, kernel: Kernel, index: int, role: str) -> Edge | None:
        """The edge from the kernel of the same layer whose output a kernel reads."""
        before = None
        if role == "attention output":
            before = self._named(index, "value")
        elif kernel.name == "pointwise_kernel":
            before = self._named(index, "depthwise_kernel")
        return None if before is None else Edge(self._numbers[id(before.variable)])

    def _named(self, index: int, name: str) -> Kernel | None:
        """The kernel of a call that, or whose layer, has this name."""
        found = self._kernels_of[index]
        return next((k for k in found if name in (k.name, k.layer.name)), None)

    def _from(self, kernel: Kernel, index: int) -> Edge:
        """The edge from a kernel of a call, through its layer's own activation."""
        own = own_activation(self._calls[index], kernel)
        transforms = () if own is None else (_activation_transform(own),)
        return Edge(self._numbers[id(kernel.variable)], transforms)

    def _out_of(self, index: int) -> Edge:
        """The edge to the output of a call."""
        operation = self._calls[index].operation
        if self._kernels_of[index]:
            return self._from(self._kernels_of[index][-1], index)
        effect = effect_of(operation)
        edges = self._into(index)
        only = operation if self._uses[id(operation)] == 1 else None
        if len(edges) != 1:
            shapes = self._calls[index].shapes
            self.merges.append(Merge(effect, edges, shares(operation, shapes), only))
            return Edge(self.merges[-1])
        if effect is Effect.ACTIVATION:
            transform = _activation_transform(activation_of(operation), only)
        else:
            shape = self._calls[index].shapes[0] if self._calls[index].shapes else ()
            name = type(operation).__name__
            square = normalized_mean_square(operation, shape)
            gain, bends = 1.0, False
            if isinstance(operation, Computed):
                gain, bends = operation.gain, operation.bends
            transform = Transform(effect, name, None, square, gain, bends, only)
        return replace(edges[0], transforms=(*edges[0].transforms, transform))


def _activation_transform(activation: Any, operation: Any = None) -> Transform:
    name = type(activation).__name__
    return Transform(Effect.ACTIVATION, name, activation, operation=operation)
