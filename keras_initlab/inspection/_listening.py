"""Listening to the layers inside a custom layer that computes out of sight.

A `call` that uses functions of the backend does not run on Keras's symbolic tensors.
It does run on the backend's own, of the same values. The layers inside are heard then,
and the tensors that go straight from one to the next are known. What else a layer reads
was computed out of sight, from those outputs that nobody has read yet: a guess, but
right for a chain and for towers that join.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras

from .._keras.kinds import Kernel
from .._keras.running import OperationEvent


class Unseen(keras.Operation):
    """What was computed out of sight.

    Attributes:
        kernels: weights that nothing else is known to use.
    """

    def __init__(self, kernels: Sequence[Kernel] = ()):
        super().__init__(name="unseen")
        self.kernels = tuple(kernels)


@dataclass(frozen=True, eq=False)
class HeardNode:
    """A call that was heard, with what Keras's nodes tell of theirs."""

    operation: Any
    arguments: Any
    input_tensors: list[Any]
    output_tensors: list[Any]
    is_input: bool = False

    @property
    def outputs(self) -> list[Any]:
        """The same as `output_tensors`."""
        return self.output_tensors


class Listener:
    """Hears which layers run inside another one.

    Attributes:
        nodes: what it has heard, in order.
    """

    def __init__(self, inputs: Iterable[Any], own: Iterable[Kernel] = ()):
        self._own = list(own)
        self.nodes: list[HeardNode] = []
        self._symbols: dict[int, Any] = {}
        self._kept: list[Any] = []  # an id is only unique while its object lives
        self._unread: list[Any] = list(inputs)
        self._last = self._unread[:1]
        self._running: list[tuple[Any, Any]] = []  # each with its symbolic arguments

    def name(self, tensors: Iterable[Any], symbols: Iterable[Any]) -> None:
        """Notes which symbolic tensors stand for the backend's."""
        for tensor, symbol in zip(tensors, symbols, strict=False):
            self._kept.append(tensor)
            self._symbols[id(tensor)] = symbol

    def on_call(self, call: OperationEvent) -> None:
        """Notes what a layer is about to read, unless it is inside another one."""
        given = call.args, dict(call.kwargs)
        own = given if self._running else keras.tree.map_structure(self._like, given)
        self._running.append((call.operation, own))

    def on_return(self, call: OperationEvent) -> None:
        """Notes what a layer returned."""
        operation, own = self._running.pop()
        while operation is not call.operation:  # what has raised does not return
            operation, own = self._running.pop()
        if not self._running:
            args, kwargs = own
            self._note(operation, args, kwargs, call.output)

    def symbols(self, outputs: Any) -> list[Any]:
        """What stands for the tensors that the outer layer returns."""
        return [
            self._symbol(tensor)
            for tensor in keras.tree.flatten(outputs)
            if keras.ops.is_tensor(tensor)
        ]

    def _like(self, value: Any) -> Any:
        return self._symbol(value) if keras.ops.is_tensor(value) else value

    def _symbol(self, tensor: Any) -> Any:
        if id(tensor) not in self._symbols:
            sources = self._unread or self._last
            self.name([tensor], [symbol_like(tensor)])
            # Which of them uses a weight of the layer's own cannot be told.
            operation, self._own = Unseen(self._own), []
            self._add(operation, sources, [self._symbols[id(tensor)]])
        return self._symbols[id(tensor)]

    def _note(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
    ) -> None:
        read = [
            value
            for value in keras.tree.flatten((args, kwargs))
            if isinstance(value, keras.KerasTensor)
        ]
        tensors = [t for t in keras.tree.flatten(outputs) if keras.ops.is_tensor(t)]
        symbols = [symbol_like(tensor) for tensor in tensors]
        # A layer may hand on what it was given, which then is its output.
        self.name(tensors, symbols)
        self._add(layer, read, symbols, args, kwargs)

    def _add(
        self,
        operation: Any,
        read: Sequence[Any],
        made: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = SimpleNamespace(args=tuple(args), kwargs=dict(kwargs or {}))
        self.nodes.append(HeardNode(operation, arguments, list(read), list(made)))
        gone = {id(symbol) for symbol in read}
        self._unread = [one for one in self._unread if id(one) not in gone]
        self._unread += made
        self._last = list(made)


def symbol_like(tensor: Any) -> Any:
    """A symbolic tensor of the shape and dtype of another."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.KerasTensor(tuple(tensor.shape), dtype)
