"""A built model in, its kernels with their roles and surroundings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from .._core.errors import NoKernelsError, message
from .._keras.kinds import Computed, Effect, Kernel, kind_of, steps_of
from .._keras.paths import distinct
from .._keras.private import all_layers, build_shapes
from ._calls import Call
from ._custom import is_opened
from ._edges import Edges, own_activation
from ._graph import read_calls
from ._operations import activation_of, effect_of
from ._products import product_roles
from ._records import Inspection, KernelRecord
from ._residual import read_residual

_IN_CELLS = ("recurrent", "recurrent input")
_CLOSING = ("residual branch", "attention output")


def inspect(model: keras.Model, data: Any = None) -> Inspection:
    """Returns the kernels of a built model.

    Nested models and shared layers are followed. Custom layers, and models with a
    `call` of their own, run once on symbolic tensors, and what they call is followed
    too. Of a `call` that needs the backend's tensors only the layers are seen, and
    what runs between them is a guess; where that fails too, a custom layer counts as
    one operation. The parts of a model that its `call` does not reach, or of one
    without a `call`, are each looked at alone. The model is left as it is.

    Args:
        model: a built model.
        data: for a model with a `call` of its own that does not tell what it was
            built for, an example of its inputs: an array, or a list or dict of them.

    Raises:
        UnbuiltModelError: if the model has no weights yet.
        UnsupportedModelError: if it is no model, or its `call` cannot be traced.
        NoKernelsError: if no layer has a kernel.
    """
    calls = read_calls(model, data)
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
    return Inspection(model.name, records, tuple(reader.edges.merges))


class _Reader:
    """Reads the records off the calls; lives for one inspection."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        self.kernels_of = _kernels_of(calls)
        self.readers: list[list[int]] = [[] for _ in calls]
        for index, call in enumerate(calls):
            for source in dict.fromkeys(call.inputs):
                if source >= 0:
                    self.readers[source].append(index)
        self.numbers: dict[int, int] = {}  # a kernel's position, by its variable
        self.positions = self._positions()
        self.depths, self.upstream = self._depths()
        self.met, self.reaches = self._met_afterwards(), self._reaching()
        self.residual = read_residual(calls, [bool(k) for k in self.kernels_of])
        self.products = product_roles(calls)
        self.edges = Edges(calls, self.kernels_of, self.numbers)

    def records(self) -> tuple[KernelRecord, ...]:
        first_call: dict[int, int] = {}
        uses: dict[int, list[Any]] = {}
        owners: dict[int, Kernel] = {}
        for index, found in enumerate(self.kernels_of):
            for kernel in found:
                key = id(kernel.variable)
                first_call.setdefault(key, index)
                owners.setdefault(key, kernel)
                uses.setdefault(key, [])
                if not is_opened(operation := self.calls[index].operation):
                    uses[key].append((_user(operation), self.calls[index].use))
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
        self,
        position: int,
        kernel: Kernel,
        index: int,
        uses: Sequence[Any],
        path: str,
    ) -> KernelRecord:
        found = self.kernels_of[index]
        number = next(i for i, other in enumerate(found) if other is kernel)
        is_last = number == len(found) - 1
        activation, normalizer, gain = self._met(kernel, index, is_last)
        role = self._role(kernel, index, is_last)
        closes = role in _CLOSING and is_last
        branch = self.residual.numbers.get(index) if closes else None
        return KernelRecord(
            position=position,
            key=(self.calls[index].key, number),
            path=path,
            role=role,
            activation=activation,
            activation_gain=gain,
            normalization=type(normalizer).__name__ if normalizer else None,
            depth=self.depths[index],
            upstream=self.upstream[index],
            branches=0 if branch is None else self.residual.branches,
            branch=branch,
            edges=self.edges.to(kernel, index, role),
            calls=len(uses),
            trainable=bool(kernel.variable.trainable),
            kernel=kernel,
            is_tied=len(set(uses)) > 1,
            normalizer=normalizer,
            attention_std=getattr(self.products.get(index), "std", 1.0),
            time_steps=_time_steps(self.calls[index].operation, kernel.layer),
        )

    def _positions(self) -> dict[int, int]:
        """The position of the last kernel of each call that has kernels."""
        seen = self.numbers
        for found in self.kernels_of:
            for kernel in found:
                seen.setdefault(id(kernel.variable), len(seen))
        return {
            index: seen[id(found[-1].variable)]
            for index, found in enumerate(self.kernels_of)
            if found
        }

    def _depths(self) -> tuple[list[int], list[int | None]]:
        """For each call, the kernels on the longest path and the last one before it."""
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

    def _met(self, kernel: Kernel, index: int, is_last: bool) -> _Met:
        """The activation that a kernel's output meets, and what lies before it."""
        own = own_activation(self.calls[index], kernel)
        if own is not None and (is_last or kernel.part.role in _IN_CELLS):
            return _Met(own)
        return self.met[index] if is_last else _Met()

    def _met_afterwards(self) -> list[_Met]:
        """For each call, the activation its output meets before the next kernel."""
        met = [_Met()] * len(self.calls)
        for index in reversed(range(len(self.calls))):
            after = [i for i in self.readers[index] if i not in self.positions]
            if after:
                met[index] = _met_at(self.calls[after[0]].operation, met[after[0]])
        return met

    def _role(self, kernel: Kernel, index: int, is_last: bool) -> str:
        operation = self.calls[index].operation
        product = self.products.get(index)
        if product is not None and product.name == "bias":
            return product.name
        if operation is None:
            return "embedding"  # a learned signal
        if kernel.part.role is not None:
            return kernel.part.role
        roles = kind_of(operation).roles
        if kernel.layer.name in roles:
            return roles[kernel.layer.name]
        if not is_last:
            return "hidden"
        is_end = not self.reaches[index] and index not in self.residual.roles
        if product is not None and not (is_end and product.name == _CLOSING[1]):
            return product.name
        branch = self.residual.roles.get(index, "hidden")
        # A body without a head ends in a branch like the others.
        is_last_branch = branch == "residual branch" and self.residual.branches > 1
        return branch if self.reaches[index] or is_last_branch else "output"

    def _reaching(self) -> list[bool]:
        """For each call, whether its output reaches a kernel."""
        reaches = [False] * len(self.calls)
        for index in reversed(range(len(self.calls))):
            reaches[index] = any(
                reader in self.positions or reaches[reader]
                for reader in self.readers[index]
            )
        return reaches


def _kernels_of(calls: Sequence[Call]) -> list[list[Kernel]]:
    """The kernels of each call; what is used as one is no learned signal besides.

    A layer that is first called on numbers, as a cell on a state of zeros, gives some.
    """
    used = {
        id(kernel.variable)
        for call in calls
        for kernel in call.kernels
        if call.operation is not None
    }
    return [
        [
            one
            for one in call.kernels
            if call.operation is not None or id(one.variable) not in used
        ]
        for call in calls
    ]


class _Met(NamedTuple):
    """What a signal meets before the next kernel.

    Attributes:
        activation: the first one.
        normalizer: what normalizes before that, and before anything is added.
        gain: the factor that is on the signal where the activation meets it.
    """

    activation: Any = None
    normalizer: Any = None
    gain: float = 1.0


def _met_at(operation: Any, then: _Met) -> _Met:
    """What is met from an operation on, and after it."""
    effect = effect_of(operation)
    if effect is Effect.ACTIVATION:
        return _Met(activation_of(operation))
    if effect is Effect.OTHER:
        return _Met()
    if effect is Effect.NORMALIZATION:
        return _Met(then.activation, operation)
    if effect is Effect.SAME_UNITS and isinstance(operation, Computed):
        return then._replace(gain=then.gain * operation.gain)
    return then._replace(normalizer=None) if effect is Effect.ADD else then


def _user(operation: Any) -> Any:
    """What tells users of a kernel apart; a raw operation is new at every call."""
    is_layer = isinstance(operation, keras.Layer)
    return id(operation) if is_layer else type(operation).__name__


def _time_steps(operation: Any, cell: Any) -> int | None:
    """How many steps of its sequences a cell's layer was built for."""
    layers = all_layers(operation) if isinstance(operation, keras.Layer) else ()
    for layer in layers:
        inner = steps_of(layer) if kind_of(layer).is_loop else ()
        if any(cell in all_layers(one) for one in inner):
            shapes = build_shapes(layer)
            sequences = next(iter(shapes.values()), ())
            return sequences[1] if len(sequences) > 1 else None
    return None
