"""One forward and one backward pass, which leaves the model as it was."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
from keras import ops

from .._activations import name_of
from .._core.arrays import to_numpy
from .._core.errors import message
from .._core.transaction import within
from .._keras.batch import Batch
from .._keras.kinds import kernels
from .._keras.private import takes_training, with_own_loss
from .._keras.running import recording
from ..inspection import variable_paths
from ._figures import is_signal, measured
from ._layers import LayerSignal, layer_signals
from ._objective import Objective
from ._observer import Observer, weights_of
from ._weights import WeightSignal, weight_signal


class Passed:
    """What one pass showed.

    Attributes:
        loss: its value.
        layers: a record a layer, in the order of execution; those that did not run
            come last.
        broken: the path of the first operation that returned what is not finite, and
            how much of it; None if all is finite.
    """

    def __init__(
        self, loss: float, layers: list[LayerSignal], broken: tuple[str, int] | None
    ):
        self.loss = loss
        self.layers = layers
        self.broken = broken


def run(model: Any, batch: Batch, objective: Objective, training: bool) -> Passed:
    """Runs the model forward and backward once, eagerly, and restores it."""
    module = f"._backward_{keras.backend.backend()}"
    backward = importlib.import_module(module, __package__).Backward()
    observer = Observer(model, backward)
    variables = [v for v in model.trainable_variables if _is_float(v)]
    meant = {id(v) for v in variables}
    rest = [v for v in model.variables if id(v) not in meant]
    fixed = [(v, ops.stop_gradient(v.value)) for v in rest]

    def loss_of(outputs: Any) -> Any:
        try:
            return objective.compute(batch, outputs)
        except Exception as error:  # each backend has its own
            given, returned = map(_shapes, (batch.y, outputs))
            if batch.y is None or given == returned:
                raise
            raise ValueError(_no_labels(given, returned, objective)) from error

    def forward(values: list[Any]) -> Any:
        mapping = [*zip(variables, values, strict=True), *fixed]
        mode = {"training": training} if takes_training(model) else {}
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        loss = within([scope], lambda: loss_of(model(batch.x, **mode)))
        observer.is_forward = False
        return ops.multiply(ops.cast(loss, "float32"), objective.scale)

    operations = [one.operation for one in observer.watched.values()]
    activated = [
        one.operation
        for one in observer.watched.values()
        if one.is_row and one.activation is not None
    ]
    recorded = recording(operations, observer.on_return, activated)
    loss, gradients = within(
        (with_own_loss(model), recorded),
        lambda: backward.run(forward, [variable.value for variable in variables]),
    )
    slopes = _slopes(variables, gradients)
    found = _weights(model, observer, slopes, objective.scale)
    given = [one for one in keras.tree.flatten(batch.x) if is_signal(one)]
    inputs = [measured(to_numpy(one)) for one in given]
    watched = [one for one in _in_order(observer) if one.is_row]
    names = _activation_names(watched)
    records = layer_signals(watched, names, found, inputs, objective.scale)
    value = float(to_numpy(ops.stop_gradient(loss))) / objective.scale
    return Passed(value, records, _broken(observer))


def _activation_names(watched: list[Any]) -> dict[int, str]:
    """The names of the activations, by the operation's id."""
    return {
        id(one.operation): name_of(one.activation)
        for one in watched
        if one.activation is not None
    }


def _in_order(observer: Observer) -> list[Any]:
    ran = {id(one) for one in observer.order}
    # What never ran has no figures, but may have weights.
    rest = [o for o in observer.watched.values() if id(o) not in ran and o.is_row]
    return [*observer.order, *rest]


def _slopes(variables: list[Any], gradients: list[Any]) -> dict[int, Any]:
    """The gradients by the variable's id, 0 where the loss does not depend on it."""
    return {
        id(v): np.zeros(tuple(v.shape), "float32") if g is None else g
        for v, g in zip(variables, gradients, strict=True)
    }


def _weights(
    model: Any, observer: Observer, slopes: dict[int, Any], scale: float
) -> dict[int, tuple[WeightSignal, ...]]:
    """Records of all weights of floating point, by the id of what owns them."""
    known = {id(kernel.variable): kernel for kernel in kernels(model)}
    listed = [v for v in model.variables if _is_float(v)]
    paths = dict(zip(map(id, listed), variable_paths(model, listed), strict=True))
    found: dict[int, tuple[WeightSignal, ...]] = {}
    # A wrapper may list the variables of the layer within, which comes after it.
    for one in reversed(observer.watched.values()):
        own = {id(v): v for v in weights_of(one.operation)}
        found[id(one.operation)] = tuple(
            weight_signal(
                model, variable, paths.pop(key), known, slopes.get(key), scale
            )
            for key, variable in own.items()
            if key in paths
        )
    return found


def _broken(observer: Observer) -> tuple[str, int] | None:
    """The first operation to return NaN or infinity, and how many of them."""
    for one in observer.order:
        bad = sum(one.bad) + sum(figures.bad for figures in one.outputs)
        if bad:
            return one.path, bad
    return None


def _is_float(variable: Any) -> bool:
    return keras.backend.is_float_dtype(variable.dtype)


def _shapes(tensors: Any) -> list[tuple[int, ...]]:
    return [
        tuple(leaf.shape) for leaf in keras.tree.flatten(tensors) if leaf is not None
    ]


def _no_labels(given: Any, returned: Any, objective: Objective) -> str:
    """That labels do not go with what the model returns."""
    return message(
        "`y` must be what the loss takes beside the model's outputs.",
        f"y of shape {given} for outputs of shape {returned} and the loss "
        f"{objective.name!r}",
    )
