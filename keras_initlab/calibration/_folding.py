"""Scaling what a layer computes within the batch normalization behind it.

To multiply a convolution's output reads and writes all of it once more. Normalized by
moving statistics, s·y with mean m and scale g is y with mean m/s and scale s·g: a few
numbers a channel, where nothing but that normalization reads the output.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import keras

from .._core.arrays import as_tensor
from .._keras.hearing import runs_own_code_of_keras
from .._keras.private import all_layers, functional_of, sublayers
from .._keras.replacing import InPlace
from ..inspection import activation_of, is_opened, nodes_in

# Beyond these the normalization's own numbers might leave float32.
_LEAST, _MOST = 1e-6, 1e6


class Folding:
    """Factors that normalizations take over from the layers before them.

    Args:
        model: a model that is about to run as in inference.
        scope: where it reads its variables from.
    """

    def __init__(self, model: keras.Layer, scope: keras.StatelessScope):
        self._behind = dict(_normalized(model))
        self._scope = scope
        self._factors: dict[int, float] = {}

    def takes(self, layer: Any, factor: Any) -> bool:
        """Whether the output of a layer may stay as it is: its factor is seen to."""
        normalization = self._behind.get(id(layer))
        if normalization is None or factor.size > 1 or not _LEAST < factor < _MOST:
            return False
        self._factors[id(normalization)] = factor.item()
        return True

    def hooks(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        """What to set on the model's layers while it runs."""
        return [(layer, "call", self._folded(layer)) for layer in self._behind.values()]

    def _folded(self, layer: Any) -> Callable[..., Any]:
        call = layer.call

        def called(*args: Any, **kwargs: Any) -> Any:
            factor = self._factors.pop(id(layer), None)
            if factor is None:
                return call(*args, **kwargs)
            mean, gamma = as_tensor(layer.moving_mean), as_tensor(layer.gamma)
            self._scope.add_update((layer.moving_mean, mean / factor))
            self._scope.add_update((layer.gamma, gamma * factor))
            try:
                return call(*args, **kwargs)
            finally:
                self._scope.add_update((layer.moving_mean, mean))
                self._scope.add_update((layer.gamma, gamma))

        return InPlace(call, called)


def _normalized(model: keras.Layer) -> Iterator[tuple[int, Any]]:
    """Layers' ids, each with the normalization that alone reads what it computes."""
    parts = list({id(layer): layer for layer in all_layers(model)}.values())
    owners = Counter(id(inner) for part in parts for inner in sublayers(part))
    for part in parts:
        for layer, reader in _pairs(part) if is_opened(part) else ():
            if owners[id(layer)] == owners[id(reader)] == 1:
                yield id(layer), reader


def _pairs(model: Any) -> Iterator[tuple[Any, Any]]:
    """A model's layers that run once before a normalization that runs once."""
    graph = functional_of(model)
    nodes = list(nodes_in(graph))
    calls = Counter(id(node.operation) for node in nodes)
    readers = defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            readers[id(tensor)].append(node)
    given = {id(tensor) for tensor in graph.outputs}
    for node in nodes:
        found = readers[id(node.outputs[0])]
        is_alone = len(node.outputs) == len(found) == calls[id(node.operation)] == 1
        if not is_alone or activation_of(node.operation) is not None:
            continue
        if not runs_own_code_of_keras(node.operation):
            continue  # what it returns may not go as what its kernel computes
        (reader,) = found
        if (
            id(node.outputs[0]) not in given
            and calls[id(reader.operation)] == 1
            and _is_plain(reader)
        ):
            yield node.operation, reader.operation


def _is_plain(node: Any) -> bool:
    """Whether a call normalizes by moving statistics unless the model is trained."""
    layer = node.operation
    return (
        isinstance(layer, keras.layers.BatchNormalization)
        and type(layer).call is keras.layers.BatchNormalization.call
        and layer.gamma is not None
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and not any(node.arguments.kwargs.values())
    )
