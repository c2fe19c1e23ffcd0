"""Running custom layers on symbolic tensors, to see the operations inside them.

Keras records every layer and operation that is called on symbolic tensors; that is how
Functional models come to be. A custom layer hides its inside: Keras asks it for the
shape of its output alone. While a model is traced, custom layers answer by running
their `call` on symbolic tensors of their own, so that what is inside is recorded too.

A layer's weights are symbolic for that time, else nothing that is computed from them
alone (a transposed kernel, a token repeated for each example) could be told from a
constant. Layers that are not looked into get their true weights back while they run.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from .._keras.private import all_layers, own_metrics, sublayers
from .._keras.replacing import InPlace, replaced
from .._keras.running import recording
from .._keras.unchanged import unchanged
from ._arguments import filled
from ._custom import is_custom, is_opened
from ._listening import Listener
from ._symbols import SymbolicWeights


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
        for layer in layers:
            self._listen(layer)

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
        found = self._outputs(layer, args, kwargs)
        return self._listened(layer, args, kwargs) if found is None else found[0]

    def _listened(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Trace | None:
        """Hears which layers run inside one whose `call` needs true tensors."""
        if not sublayers(layer):
            return None
        given, inputs, own_args, own_kwargs = self._own(args, kwargs)
        listener, returned = Listener(inputs, self.weights.own(layer)), []
        call = layer.call

        def listened(*args: Any, **kwargs: Any) -> Any:
            tensors = keras.tree.flatten((args, kwargs))
            symbols = keras.tree.flatten((own_args, own_kwargs))
            listener.name(tensors, symbols)
            inner = all_layers(layer, include_self=False)
            with recording(inner, listener.on_return, on_call=listener.on_call):
                outputs = call(*args, **kwargs)
            returned[:] = listener.symbols(outputs)
            return outputs

        heard = InPlace(call, listened)
        with self.weights.true_weights(layer), replaced(layer, "call", heard):
            try:
                # A layer that says its output's shape itself would not run its `call`.
                keras.Operation.compute_output_spec(layer, *own_args, **own_kwargs)
            except Exception as error:  # whatever a user's `call` may raise
                self.failures[id(layer)] = error
                return None
        trace = Trace(given, inputs, tuple(returned), tuple(listener.nodes))
        self._kept.append((trace, own_args, own_kwargs))
        return trace

    def _outputs(
        self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Trace, Any] | None:
        contexts: list[Any] = [contextlib.nullcontext()]
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
            flat = tuple(keras.tree.flatten(outputs))
            trace = Trace(given, inputs, flat)
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
        inputs = tuple(_fresh(tensor) for tensor in given)
        own = dict(zip(map(id, given), inputs, strict=True))
        own_args, own_kwargs = keras.tree.map_structure(
            lambda value: own.get(id(value), value), (tuple(args), dict(kwargs))
        )
        return given, inputs, own_args, own_kwargs

    def _listen(self, layer: Any) -> None:
        """Has a layer trace itself, or compute shapes, from symbolic tensors."""
        attributes = vars(layer)
        attributes["add_loss"] = _ignore  # a symbolic loss is none
        for metric in own_metrics(layer):
            vars(metric)["update_state"] = _ignore
        if not is_opened(layer):
            attributes["compute_output_spec"] = self._told(
                layer, layer.compute_output_spec
            )

    def _told(self, layer: Any, compute: Callable[..., Any]) -> Callable[..., Any]:
        def compute_output_spec(*args: Any, **kwargs: Any) -> Any:
            found = self._outputs(layer, args, kwargs) if is_custom(layer) else None
            if found is None:
                with self.weights.true_weights(layer):
                    specification = compute(*args, **kwargs)
            else:
                specification = keras.tree.map_structure(_like, found[1])
            trace = None if found is None else found[0]
            # What could not be recorded may be heard, when it is asked for.
            for tensor in keras.tree.flatten(specification)[:1] if trace else ():
                self._kept.append(tensor)
                self._traces[id(tensor)] = trace
            return specification

        return compute_output_spec


@contextlib.contextmanager
def tracing(model: Any) -> Iterator[Tracer]:
    """Gives a tracer for a model, and leaves the model as it was."""
    layers = list(all_layers(model))
    scope = keras.StatelessScope(initialize_variables=False)
    with unchanged(model), scope, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they came when the model was built
        yield Tracer(layers)


def _fresh(tensor: Any) -> Any:
    # An input of its own knows in which order it is read; a bare tensor does not.
    shape = filled(tensor.shape)
    return keras.layers.InputLayer(
        batch_shape=shape, dtype=tensor.dtype, name="traced"
    ).output


def _without_time(tensor: Any) -> Any:
    return keras.KerasTensor((tensor.shape[0], *tensor.shape[2:]), tensor.dtype)


def _like(value: Any) -> Any:
    """What stands for a value outside the layer that computed it."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = keras.backend.standardize_dtype(value.dtype)
        return keras.KerasTensor(tuple(value.shape), dtype)
    return value


def _ignore(*args: Any, **kwargs: Any) -> None:
    return None
