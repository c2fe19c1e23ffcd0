"""Opening models and custom layers up into one flat list of calls."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._keras.kinds import Kernel, KernelAxes, Use, kernels, kind_of
from .._keras.private import functional_of
from ._calls import Call
from ._custom import is_custom, is_opened
from ._listening import Unseen
from ._nodes import (
    CallNumbers,
    Place,
    Places,
    argument_names,
    kernels_used,
    key_of,
    nodes_in,
    nodes_of,
    source_of,
)
from ._trace import Trace, Tracer
from ._weights import Weight, after, axes_of, is_vector, use_of

# A model that is called twice by one that is called twice, and so on, is called 2^depth
# times. Behind so many calls, a model that was followed before counts as one call.
_MOST_FOLLOWED = 10_000


class Opener:
    """Follows graphs from their inputs on and lists their calls.

    Attributes:
        flat: the calls, each after those whose output it reads.
        opened: ids of the layers whose inside was followed.
    """

    def __init__(self, tracer: Tracer | None = None):
        self.flat: list[Call] = []
        self.opened: set[int] = set()
        self._tracer = tracer
        self._inputs = 0
        self._keys: Counter[int] = Counter()
        self._weights: dict[int, Weight] = {}

    def open_model(self, model: Any, scope: tuple[str, ...] = ()) -> None:
        """Lists the calls of a Sequential or Functional model with its own inputs."""
        functional = functional_of(model)
        places = self._new_inputs(functional.inputs)
        self._follow(list(nodes_in(functional)), places, scope)
        self._note_outputs(functional.outputs, places)

    def open_trace(self, trace: Trace, scope: tuple[str, ...] = ()) -> None:
        """Lists the calls of a traced layer with inputs of its own."""
        places = self._new_inputs(trace.inputs)
        self._follow(nodes_of(trace, places), places, scope)
        self._note_outputs(trace.outputs, places)

    def _note_outputs(self, tensors: Iterable[Any], places: Places) -> None:
        for tensor in tensors:
            place = source_of(tensor, places)
            if place is not None and place.call >= 0:
                self.flat[place.call] = replace(self.flat[place.call], is_output=True)

    def add_alone(self, layer: Any, own: Sequence[Kernel] | None = None) -> None:
        """Lists a layer of which nothing but its kernels, or some, is known."""
        key = key_of("alone", len(self.flat))
        found = kernels(layer) if own is None else own
        self._list(Call(layer, (), key, kernels=tuple(found)))

    def own_key(self, key: int) -> int:
        """A call's key; another one each time where several calls come to the same.

        Calls out of sight, and those on several copies of a tensor, stand alike.
        """
        self._keys[key] += 1
        return key if self._keys[key] == 1 else key_of(key, self._keys[key])

    def _new_inputs(self, tensors: Iterable[Any]) -> dict[int, Place]:
        places = {}
        for tensor in tensors:
            self._inputs += 1
            places[id(tensor)] = Place(-self._inputs, key_of("input", self._inputs - 1))
        return places

    def _follow(
        self,
        nodes: Sequence[Any],
        places: Places,
        scope: tuple[str, ...],
        around: tuple[int, ...] = (),
    ) -> None:
        """Lists the calls of these nodes, sources first.

        Args:
            nodes: the nodes of one graph.
            places: where its inputs are from; those of all its tensors afterwards.
            scope: names of the models around it.
            around: key of the custom layer around it.
        """
        numbers = CallNumbers(nodes)
        for node in nodes:
            if node.is_input or self._computes_weight(node, places):
                continue
            reading = _Reading(self, node, places, numbers.of(node), scope, around)
            for tensor, place in zip(
                node.output_tensors, self._outputs(node, reading), strict=False
            ):
                if place is not None:
                    places[id(tensor)] = place

    def _outputs(self, node: Any, reading: _Reading) -> Sequence[Place | None]:
        """Lists what one node calls; returns where its outputs are from."""
        operation = node.operation
        if isinstance(operation, keras.layers.TimeDistributed):
            operation = operation.layer  # a time axis changes no unit's place
        is_enough = id(operation) in self.opened and len(self.flat) >= _MOST_FOLLOWED
        if is_opened(operation) and not is_enough:
            self.opened |= {id(operation), id(node.operation)}
            return self._open_nested(operation, reading)
        if self._tracer is not None and is_custom(operation):
            trace = self._tracer.trace(node)
            if trace is not None:
                self.opened |= {id(operation), id(node.operation)}
                return self._open_custom(operation, trace, reading)
        read, used = reading.all()
        if not read and not used:
            return []  # computes a constant
        if reading.adds_bias and len(read) == 1 and not used:
            return [read[0]] * len(node.output_tensors)
        is_layer = isinstance(node.operation, keras.Layer)
        own, use = kernels_used(node) if is_layer else (used, "")
        if isinstance(node.operation, Unseen):
            own = node.operation.kernels
        call = Call(
            operation if is_enough else node.operation,
            tuple(place.call for place in read),
            reading.key,
            reading.scope,
            tuple(own),
            arguments=tuple(reading.arguments if is_layer else ()),
            tensors=tuple(reading.tensors),
            taken=tuple(place.number for place in read),
            use=use,
            node=node,
        )
        last = self._list(call)
        return [
            Place(last, key_of(reading.key, number), number)
            for number in range(len(node.output_tensors))
        ]

    def _list(self, call: Call) -> int:
        self.flat.append(call)
        return len(self.flat) - 1

    def _open_nested(self, model: Any, reading: _Reading) -> list[Place | None]:
        inner = functional_of(model)
        given = reading.each()
        places = self._new_inputs(
            tensor
            for tensor, place in zip(inner.inputs, given, strict=False)
            if place is None
        )
        for number, (tensor, place) in enumerate(
            zip(inner.inputs, given, strict=False)
        ):
            if place is not None:
                key = key_of(reading.key, number)
                places[id(tensor)] = place._replace(key=key)
        self._follow(list(nodes_in(inner)), places, (*reading.scope, model.name))
        return [places.get(id(tensor)) for tensor in inner.outputs]

    def _open_custom(
        self, layer: Any, trace: Trace, reading: _Reading
    ) -> list[Place | None]:
        key = reading.key
        own: dict[int, Place] = {}
        for number, (given, inner) in enumerate(
            zip(trace.given, trace.inputs, strict=True)
        ):
            weight, place = self.weight(given), source_of(given, reading.places)
            if weight is not None:
                self._weights[id(inner)] = weight
            elif place is not None:
                own[id(inner)] = place._replace(key=key_of(key, number))
        places = ChainMap(own, reading.places)
        scope = (*reading.scope, layer.name)
        self._follow(nodes_of(trace, places), places, scope, (key,))
        return [
            source_of(tensor, places) or self._learned(tensor, key, number, scope)
            for number, tensor in enumerate(trace.outputs)
        ]

    def weight(self, tensor: Any) -> Weight | None:
        """The weight that a tensor is or is computed from alone, or None."""
        if self._tracer is None:
            return None
        variable = self._tracer.weights.variable(tensor)
        if variable is not None:
            return Weight((variable,))
        return self._weights.get(id(tensor))

    def learned(self, weight: Weight, key: int, scope: tuple[str, ...]) -> Place:
        """Lists a weight that is a signal itself; returns where that is from.

        A single vector, as a class token or a first state, is left as its layer draws
        it, as biases and scales are.
        """
        shapes = [variable.shape for variable in weight.variables]
        rank = max(map(len, shapes))
        is_table = any(sum(size > 1 for size in shape) > 1 for shape in shapes)
        axes = KernelAxes(inputs=(), outputs=(rank - 1,))  # none of it is summed
        found = self.kernels_of(weight, axes) if is_table else []
        return Place(self._list(Call(None, (), key, scope, tuple(found))), key)

    def kernels_of(self, weight: Weight, axes: Any) -> list[Kernel]:
        """The kernels that a weight is made of, with these axes if it is but one."""
        assert self._tracer is not None
        return [self._tracer.weights.kernel(one, axes) for one in weight.variables]

    def is_bias(self, weight: Weight, index: int) -> bool:
        """Whether a weight that is added to what a call gives is a bias of many axes.

        It is one where it has a value for each unit of a kernel, as of several experts,
        or is added to the logits of an attention, which no kernel gives.
        """
        own = [size for size in weight.variables[0].shape if size != 1]
        while index >= 0 and (call := self.flat[index]).operation is not None:
            if call.kernels:
                kernel = call.kernels[-1]
                units = [
                    size
                    for axis, size in enumerate(kernel.shape)
                    if axis not in (*kernel.axes.inputs, *kernel.axes.window)
                ]
                return own == units[-len(own) :]
            if kind_of(call.operation).multiplies and len(call.inputs) > 1:
                return True
            if not call.inputs:
                break
            index = call.inputs[0]
        return False

    def _learned(
        self, tensor: Any, key: int, number: int, scope: tuple[str, ...]
    ) -> Place | None:
        weight = self.weight(tensor)
        if weight is None:
            return None
        return self.learned(weight, key_of("weight", key, number), scope)

    def _computes_weight(self, node: Any, places: Places) -> bool:
        """Notes what a raw operation computes from weights alone."""
        if self._tracer is None or isinstance(node.operation, keras.Layer):
            return False
        found = [self.weight(tensor) for tensor in node.input_tensors]
        weights = [weight for weight in found if weight is not None]
        if not weights or len(weights) < len(found):
            return False
        made = after(node.operation, weights)
        self._weights.update({id(tensor): made for tensor in node.output_tensors})
        return True


class _Reading:
    """What one node reads."""

    def __init__(
        self,
        opener: Opener,
        node: Any,
        places: Places,
        numbers: list[int],
        scope: tuple[str, ...],
        around: tuple[int, ...],
    ):
        self.node, self.places, self.scope = node, places, scope
        self.arguments: list[str] = []
        self.tensors: list[Any] = []
        self.adds_bias = False
        self._opener = opener
        self._sources = [source_of(tensor, places) for tensor in node.input_tensors]
        keys = [place.key for place in self._sources if place is not None]
        self.key = opener.own_key(key_of(*(keys or around), *numbers))

    def each(self) -> list[Place | None]:
        """Where each tensor is from, None for a constant."""
        return [
            self._place_of(number) for number in range(len(self.node.input_tensors))
        ]

    def all(self) -> tuple[list[Place], list[Kernel]]:
        """Where the signals are from, and the kernels that they are multiplied by."""
        read: list[Place] = []
        used: list[Kernel] = []
        names = argument_names(self.node)
        is_layer = isinstance(self.node.operation, keras.Layer)
        for number, tensor in enumerate(self.node.input_tensors):
            weight = self._opener.weight(tensor)
            use = Use.SIGNAL if is_layer or not weight else self._use(weight)
            if weight is not None and use is Use.KERNEL:
                axes = axes_of(self.node.operation, weight, number)
                used += self._opener.kernels_of(weight, axes)
            elif use is Use.SHIFT:
                self.adds_bias = True
            elif use is Use.SIGNAL and not (is_layer and tensor.dtype == "bool"):
                place = self._place_of(number)
                if place is not None:
                    read.append(place)
                    self.arguments += names[number : number + 1]
                    self.tensors.append(tensor)
        return read, used

    def _use(self, weight: Weight) -> Use:
        use = use_of(self.node.operation, weight)
        if use is not Use.SHIFT or is_vector(weight):
            return use
        sources = [source for source in self._sources if source is not None]
        is_bias = any(self._opener.is_bias(weight, one.call) for one in sources)
        return use if is_bias else Use.SIGNAL

    def _place_of(self, number: int) -> Place | None:
        tensor = self.node.input_tensors[number]
        weight = self._opener.weight(tensor)
        if weight is None:
            return self._sources[number]
        key = key_of("weight", self.key, number)
        return self._opener.learned(weight, key, self.scope)
