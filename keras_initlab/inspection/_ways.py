"""The ways on which signals reach kernels, between the calls of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._keras.kinds import Effect, Kernel
from ._calls import Call
from ._operations import activation_of, effect_of, normalized_mean_square, shares
from ._records import Link, Merge, Passage


def own_activation(call: Call, kernel: Kernel) -> Any:
    """The activation that a layer applies itself after one of its kernels."""
    is_layer = isinstance(call.operation, keras.Layer)
    return activation_of(kernel.layer) if is_layer else None


class Ways:
    """Follows signals from kernel to kernel.

    Args:
        calls: a model's calls, sources first.
        kernels_of: the kernels of each.
        numbers: every kernel's position, by its variable's id.

    Attributes:
        merges: where ways join, sources first.
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
        self._links: list[Link] = []
        for index in range(len(calls)):
            self._links.append(self._out_of(index))

    def _into(self, index: int) -> tuple[Link, ...]:
        """The ways to the inputs of a call."""
        return tuple(
            Link(None, entry=-1 - source) if source < 0 else self._links[source]
            for source in self._calls[index].inputs
        )

    def to(self, kernel: Kernel, index: int, role: str) -> tuple[Link, ...]:
        """The ways to a kernel of a call: not every one reads every input."""
        below = self._cell_below(kernel, index, role)
        if below is None:
            below = self._before_in_layer(kernel, index, role)
        if below is not None:
            return (below,)
        links, names = self._into(index), self._calls[index].arguments
        meant = role
        if role == "recurrent input":
            meant = names[0] if names else ""
        elif role == "key" and "key" not in names:
            meant = "value"
        own = [link for link, name in zip(links, names, strict=False) if name == meant]
        return tuple(own) or links

    def _cell_below(self, kernel: Kernel, index: int, role: str) -> Link | None:
        """The way from the cell below in a stack of cells, None for the lowest."""
        cell = getattr(self._calls[index].operation, "cell", None)
        stacked = isinstance(cell, keras.layers.StackedRNNCells)
        found = self._kernels_of[index]
        number = next(i for i, other in enumerate(found) if other is kernel)
        if not stacked or role != "recurrent input" or number == 0:
            return None
        return self._from(found[number - 1], index)

    def _before_in_layer(self, kernel: Kernel, index: int, role: str) -> Link | None:
        """The way from the kernel of the same layer whose output a kernel reads."""
        before = None
        if role == "attention output":
            before = self._named(index, "value")
        elif kernel.name == "pointwise_kernel":
            before = self._named(index, "depthwise_kernel")
        return None if before is None else Link(self._numbers[id(before.variable)])

    def _named(self, index: int, name: str) -> Kernel | None:
        """The kernel of a call that, or whose layer, has this name."""
        found = self._kernels_of[index]
        return next((k for k in found if name in (k.name, k.layer.name)), None)

    def _from(self, kernel: Kernel, index: int) -> Link:
        """The way from a kernel of a call, through its layer's own activation."""
        own = own_activation(self._calls[index], kernel)
        passages = () if own is None else (_activation_passage(own),)
        return Link(self._numbers[id(kernel.variable)], passages)

    def _out_of(self, index: int) -> Link:
        """The way to the output of a call."""
        operation = self._calls[index].operation
        if self._kernels_of[index]:
            return self._from(self._kernels_of[index][-1], index)
        effect = effect_of(operation)
        links = self._into(index)
        only = operation if self._uses[id(operation)] == 1 else None
        if len(links) != 1:
            shapes = self._calls[index].shapes
            self.merges.append(Merge(effect, links, shares(operation, shapes), only))
            return Link(self.merges[-1])
        if effect is Effect.ACTIVATION:
            passage = _activation_passage(activation_of(operation), only)
        else:
            name, (shape,) = type(operation).__name__, self._calls[index].shapes
            square = normalized_mean_square(operation, shape)
            passage = Passage(effect, name, mean_square=square, operation=only)
        return replace(links[0], passages=(*links[0].passages, passage))


def _activation_passage(activation: Any, operation: Any = None) -> Passage:
    name = type(activation).__name__
    return Passage(Effect.ACTIVATION, name, activation, operation=operation)
