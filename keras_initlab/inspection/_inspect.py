"""A built model in, its kernels with their roles and surroundings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from .._errors import NoKernelsError, message
from .._fans import Kernel, kernels
from ._graph import Call, read_calls
from ._operations import Effect, activation_of, effect_of
from ._paths import distinct
from ._records import Inspection, KernelRecord, Link, Merge, Passage
from ._residual import residual_roles

_ATTENTION_ROLES = {
    "query": "query",
    "key": "key",
    "value": "value",
    "attention_output": "attention output",
}


def inspect(model: keras.Model) -> Inspection:
    """Returns the kernels of a built Sequential or Functional model.

    Args:
        model: a built model; nested models and shared layers are followed.

    Raises:
        UnbuiltModelError: if the model has no weights yet.
        UnsupportedModelError: if the model is neither Sequential nor Functional.
        NoKernelsError: if no layer has a kernel.
    """
    calls = read_calls(model)
    reader = _Reader(calls)
    records = reader.records()
    if not records:
        raise NoKernelsError(
            message(
                "`model` must have at least one kernel.",
                f"model={model.name!r}, {len(calls)} layer"
                f"{'s' if len(calls) != 1 else ''} without kernels",
            )
        )
    return Inspection(model.name, records, tuple(reader.merges))


class _Reader:
    """Reads the records off the calls; lives for one inspection."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        self.kernels_of = [_kernels_of(call.operation) for call in calls]
        self.readers: list[list[int]] = [[] for _ in calls]
        for index, call in enumerate(calls):
            for source in dict.fromkeys(call.inputs):
                if source >= 0:
                    self.readers[source].append(index)
        self.positions = self._positions()
        self.depths, self.upstream = self._depths()
        self.residual = residual_roles(calls, [bool(k) for k in self.kernels_of])
        self.merges: list[Merge] = []
        self.links: list[Link] = []
        for index in range(len(calls)):
            self.links.append(self._link_out(index))

    def records(self) -> tuple[KernelRecord, ...]:
        first_call: dict[int, int] = {}
        uses: dict[int, int] = {}
        owners: dict[int, Kernel] = {}
        for index, found in enumerate(self.kernels_of):
            for kernel in found:
                key = id(kernel.variable)
                first_call.setdefault(key, index)
                owners.setdefault(key, kernel)
                uses[key] = uses.get(key, 0) + 1
        paths = distinct(
            [owners[key].variable.path for key in first_call],
            [self.calls[index].scope for index in first_call.values()],
        )
        return tuple(
            self._record(position, owners[key], index, uses[key], path)
            for position, ((key, index), path) in enumerate(
                zip(first_call.items(), paths, strict=True)
            )
        )

    def _record(
        self, position: int, kernel: Kernel, index: int, uses: int, path: str
    ) -> KernelRecord:
        found = self.kernels_of[index]
        number = next(i for i, other in enumerate(found) if other is kernel)
        is_last = number == len(found) - 1
        activation, normalization = self._met(kernel, index, is_last)
        role, branches = self._role(kernel, index, is_last)
        return KernelRecord(
            position=position,
            key=(self.calls[index].key, number),
            path=path,
            layer_path=path.rpartition("/")[0],
            role=role,
            activation=activation,
            normalization=normalization,
            depth=self.depths[index],
            upstream=self.upstream[index],
            branches=branches,
            links=self._links_in(index),
            calls=uses,
            trainable=bool(kernel.variable.trainable),
            kernel=kernel,
        )

    def _positions(self) -> dict[int, int]:
        """The position of the last kernel of each call that has kernels."""
        seen: dict[int, int] = {}
        for found in self.kernels_of:
            for kernel in found:
                seen.setdefault(id(kernel.variable), len(seen))
        return {
            index: seen[id(found[-1].variable)]
            for index, found in enumerate(self.kernels_of)
            if found
        }

    def _depths(self) -> tuple[list[int], list[int | None]]:
        """For each call, the kernels on the longest way and the last one before it."""
        depths: list[int] = []
        upstream: list[int | None] = []
        for call, found in zip(self.calls, self.kernels_of, strict=True):
            sources = [index for index in call.inputs if index >= 0]
            deepest = max(sources, key=depths.__getitem__, default=None)
            above = 0 if deepest is None else depths[deepest]
            depths.append(above + bool(found))
            if deepest is None:
                upstream.append(None)
            else:
                upstream.append(self.positions.get(deepest, upstream[deepest]))
        return depths, upstream

    def _links_in(self, index: int) -> tuple[Link, ...]:
        """The ways to the inputs of a call."""
        return tuple(
            Link(None) if source < 0 else self.links[source]
            for source in self.calls[index].inputs
        )

    def _link_out(self, index: int) -> Link:
        """The way to the output of a call."""
        operation = self.calls[index].operation
        if index in self.positions:
            own = activation_of(self.kernels_of[index][-1].layer)
            passages = () if own is None else (_activation_passage(own),)
            return Link(self.positions[index], passages)
        effect = effect_of(operation)
        links = self._links_in(index)
        if len(links) != 1:
            self.merges.append(Merge(effect, links))
            return Link(self.merges[-1])
        if effect is Effect.ACTIVATION:
            passage = _activation_passage(activation_of(operation))
        else:
            passage = Passage(effect, type(operation).__name__)
        return Link(links[0].source, (*links[0].passages, passage))

    def _met(self, kernel: Kernel, index: int, is_last: bool) -> tuple[Any, str | None]:
        """The activation that a kernel's output meets, and the normalization before."""
        own = activation_of(kernel.layer)
        is_cell = type(kernel.layer).__name__.endswith("Cell")
        if own is not None and (is_last or is_cell):
            return own, None
        return self._met_after(index) if is_last else (None, None)

    def _met_after(self, index: int) -> tuple[Any, str | None]:
        """Follows the output until an activation or the next kernel."""
        normalization: str | None = None
        has_added = False
        while True:
            after = [i for i in self.readers[index] if i not in self.positions]
            if not after:
                break
            index = after[0]
            operation = self.calls[index].operation
            effect = effect_of(operation)
            if effect is Effect.ACTIVATION:
                return activation_of(operation), normalization
            if effect is Effect.NORMALIZATION and not has_added:
                normalization = normalization or type(operation).__name__
            elif effect is Effect.OTHER:
                break
            has_added |= effect is Effect.ADD
        return None, normalization

    def _role(self, kernel: Kernel, index: int, is_last: bool) -> tuple[str, int]:
        layer_class = type(kernel.layer).__name__
        if layer_class in ("Embedding", "ReversibleEmbedding"):
            return "embedding", 0
        if "recurrent" in kernel.name:
            return "recurrent", 0
        if layer_class.endswith("Cell"):
            return "recurrent input", 0
        is_attention = "Attention" in type(self.calls[index].operation).__name__
        if is_attention and kernel.layer.name in _ATTENTION_ROLES:
            role = _ATTENTION_ROLES[kernel.layer.name]
            branch = self.residual.get(index) if role == "attention output" else None
            return role, branch[1] if branch else 0
        if not is_last:
            return "hidden", 0
        if not self._reaches_kernel(index):
            return "output", 0
        return self.residual.get(index, ("hidden", 0))

    def _reaches_kernel(self, index: int) -> bool:
        waiting, seen = list(self.readers[index]), set()
        while waiting:
            reader = waiting.pop()
            if reader in seen:
                continue
            seen.add(reader)
            if reader in self.positions:
                return True
            waiting += self.readers[reader]
        return False


def _kernels_of(operation: Any) -> list[Kernel]:
    return kernels(operation) if isinstance(operation, keras.Layer) else []


def _activation_passage(activation: Any) -> Passage:
    return Passage(Effect.ACTIVATION, type(activation).__name__, activation)
