"""Running custom layers on symbolic tensors, to see the operations inside them.

Keras records every layer and operation that is called on symbolic tensors; that is how
Functional models come to be. A custom layer hides its inside: Keras asks it for the
shape of its output alone. While a model is traced, custom layers answer by running
their `call` on symbolic tensors of their own, so that what is inside is recorded too.

The symbolic tensors have values, a few normal numbers, and every operation answers by
what it really computes from these. So shapes are always known, conditions can be asked
for, and no layer has to say itself what the shape of its output is.

A layer's weights are symbolic for that time, else nothing that is computed from them
alone (a transposed kernel, a token repeated for each example) could be told from a
constant. Layers that are not looked into get their true weights back while they run.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras

from .._keras.kinds import Hook
from .._keras.private import (
    all_layers,
    note_call,
    own_metrics,
    sublayers,
    taking_tensors_alone,
)
from .._keras.replacing import all_replaced
from .._keras.running import method_of, recording
from .._keras.unchanged import unchanged
from ._custom import is_custom
from ._graph_values import GraphValues
from ._inlining import inlined, inlining
from ._listening import Listener
from ._symbols import Symbol, SymbolicWeights, value_of


@dataclass(frozen=True, eq=False)
class Trace:
    """What a custom layer did when it ran on symbolic tensors.

    Attributes:
        given: the tensors that it was called on.
        inputs: those that its operations read instead.
        outputs: what it returned, flat.
        nodes: what was heard, sources first, where nothing was recorded; else None.
    """

    given: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[Any, ...] | None = None


class Tracer:
    """Traces the custom layers of a model while it lives within `tracing`.

    Attributes:
        weights: the symbolic tensors in the place of the model's weights.
        failures: why a layer's inside could not be seen, by the layer's id.
    """

    def __init__(self, layers: Sequence[Any]):
        self.failures: dict[int, Exception] = {}
        self.weights = SymbolicWeights(layers)
        self._traces: dict[int, Trace | None] = {}
        self._kept: list[Any] = []  # an id is only unique while its object lives
        self._made: list[Symbol] = []
        self._values = GraphValues(self.weights.all_true)
        self._must_run = False  # or what an operation says of its output will do
        for layer in layers:
            self._quiet(layer)

    def trace(self, node: Any) -> Trace | None:
        """What happened inside the custom layer of a node, None if that is hidden."""
        key = id(node.outputs[0])
        if key not in self._traces:
            self._traces[key] = self._trace(node)
        return self._traces[key]

    def _trace(self, node: Any) -> Trace | None:
        layer, arguments = node.operation, node.arguments
        if not isinstance(layer, keras.layers.TimeDistributed):
            return self.run(layer, arguments.args, arguments.kwargs)
        tensors = [_without_time(tensor) for tensor in node.input_tensors]
        trace = self.run(layer.layer, tensors, {})
        return trace and replace(trace, given=tuple(node.input_tensors))

    def run(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Trace | None:
        """Runs a layer's `call` on tensors of its own, None if it fails."""
        found = self._outputs_at_some_size(layer, args, kwargs)
        trace = self._listened(layer, args, kwargs) if found is None else found[0]
        for symbol in self._made:
            symbol.forget()  # they may be larger than the weights
        self._made.clear()
        return trace

    def _outputs_at_some_size(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Trace, Any] | None:
        self._must_run = True
        try:
            found = self._outputs(layer, args, kwargs)
            sizes = self._values.sizes(layer, args, kwargs) if found is None else ()
            for size in sizes:
                if self._values.add(args, kwargs, size):
                    found = self._outputs(layer, args, kwargs)
                if found is not None:
                    return found
        finally:
            self._must_run = False
        return found or self._outputs(layer, args, kwargs)

    def _listened(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Trace | None:
        """Hears which layers run inside one whose `call` needs true tensors."""
        if not sublayers(layer):
            return None
        given, inputs, own_args, own_kwargs = self._own(args, kwargs)
        listener = Listener(inputs, self.weights.own(layer))
        values = keras.tree.map_structure(value_of, (own_args, own_kwargs))
        listener.name(
            keras.tree.flatten(values), keras.tree.flatten((own_args, own_kwargs))
        )
        inner = all_layers(layer, include_self=False)
        heard = recording(inner, listener.on_return, on_call=listener.on_call)
        with self.weights.true_weights(layer), heard:
            try:
                outputs = layer.call(*values[0], **values[1])
            except Exception as error:  # whatever a user's `call` may raise
                self.failures[id(layer)] = error
                return None
        returned = tuple(listener.symbols(outputs))
        trace = Trace(given, inputs, returned, tuple(listener.nodes))
        self._kept.append((trace, own_args, own_kwargs))
        return trace

    def _outputs(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Trace, Any] | None:
        contexts: list[Any] = [nullcontext()]
        if not self.weights.own(layer):
            # Symbolic weights of layers inside may be what is not understood.
            contexts.append(self.weights.true_weights(layer))
        for context in contexts:
            given, inputs, own_args, own_kwargs = self._own(args, kwargs)
            try:
                with context:
                    outputs = layer.call(*own_args, **own_kwargs)
            except Exception as error:  # whatever a user's `call` may raise
                self.failures.setdefault(id(layer), error)
                continue
            trace = Trace(given, inputs, tuple(_tensors(outputs)))
            self._kept.append((trace, own_args, own_kwargs))
            self.failures.pop(id(layer), None)
            return trace, outputs
        return None

    def _own(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], tuple[Any, ...], Sequence[Any], Mapping[str, Any]]:
        """The symbolic tensors among arguments, others like them, and these put in."""
        given = tuple(
            tensor
            for tensor in keras.tree.flatten((args, kwargs))
            if isinstance(tensor, keras.KerasTensor)
            and self.weights.variable(tensor) is None
        )
        inputs = tuple(self._values.fresh(tensor) for tensor in given)
        self._made += inputs
        own = dict(zip(map(id, given), inputs, strict=True))
        own_args, own_kwargs = keras.tree.map_structure(
            lambda value: own.get(id(value), value), (tuple(args), dict(kwargs))
        )
        return given, inputs, own_args, own_kwargs

    def _quiet(self, layer: Any) -> None:
        """Has a layer keep no losses and metrics of what it is traced on."""
        attributes = vars(layer)
        attributes["add_loss"] = _ignore  # a symbolic loss is none
        for metric in own_metrics(layer):
            vars(metric)["update_state"] = _ignore

    def hooks(self) -> list[Hook]:
        """What has calls on symbolic tensors go by the values of these."""
        return [
            (keras.Operation, "symbolic_call", self._called),
            (keras.Layer, "symbolic_call", self._specification),
            *taking_tensors_alone(),
            *inlining(),
        ]

    def _called(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """What a raw operation returns for symbolic tensors, noted as a call."""
        if isinstance(getattr(operation, "axis", None), list):
            operation.axis = tuple(operation.axis)  # JAX takes no list
        inline = inlined(operation)
        if inline is not None:
            return inline(operation, *args, **kwargs)
        outputs = self._specification(operation, *args, **kwargs)
        note_call(operation, args, kwargs, outputs)
        return outputs

    def _specification(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Symbols, with values, of what an operation returns for others."""
        found = self._outputs(operation, args, kwargs) if is_custom(operation) else None
        if found is not None:
            trace, outputs = found
            outputs = keras.tree.map_structure(_like, outputs)
            # What could not be recorded may be heard, when it is asked for.
            for tensor in _tensors(outputs)[:1]:
                self._kept.append(tensor)
                self._traces[id(tensor)] = trace
            return self._noted(outputs)
        tensors = keras.tree.flatten((args, kwargs))
        values = keras.tree.map_structure(value_of, (args, kwargs))
        is_layer = isinstance(operation, keras.Layer)
        true = self.weights.true_weights(operation) if is_layer else nullcontext()
        with true:
            try:
                call = getattr(operation, method_of(operation))
                outputs = keras.tree.map_structure(_like, call(*values[0], **values[1]))
            except Exception:  # whatever an operation may raise on such values
                if self._must_run:
                    raise
                outputs = operation.compute_output_spec(*args, **kwargs)
        given = [one for one in tensors if isinstance(one, keras.KerasTensor)]
        if not is_layer and all(map(self.weights.is_made_of, given)):
            return self.weights.noted(outputs)
        return self._noted(outputs)

    def _noted(self, outputs: Any) -> Any:
        self._made += [one for one in _tensors(outputs) if isinstance(one, Symbol)]
        return outputs


@contextlib.contextmanager
def tracing(model: Any) -> Iterator[Tracer]:
    """Gives a tracer for a model, and leaves the model as it was."""
    layers = list(all_layers(model))
    scope = keras.StatelessScope(initialize_variables=False)
    with unchanged(model), scope, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they came when the model was built
        tracer = Tracer(layers)
        with all_replaced(tracer.hooks(), only_here=True):
            yield tracer


def _without_time(tensor: Any) -> Any:
    return keras.KerasTensor((tensor.shape[0], *tensor.shape[2:]), tensor.dtype)


def _tensors(outputs: Any) -> list[Any]:
    """The tensors in what a `call` returned, without None and the like."""
    return [value for value in keras.tree.flatten(outputs) if _is_tensor(value)]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _like(value: Any) -> Any:
    """What stands for a value outside the layer that computed it."""
    if not _is_tensor(value):
        return value
    return Symbol(value.value if isinstance(value, Symbol) else value)


def _ignore(*args: Any, **kwargs: Any) -> None:
    return None
