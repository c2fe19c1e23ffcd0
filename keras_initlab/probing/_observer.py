"""What comes by in one forward and one backward pass of a model."""

from __future__ import annotations

import functools
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from .._activations import asymptotes
from .._keras.kinds import kind_of, looks_up, own_kernels, steps_of
from .._keras.paths import own_variables
from .._keras.private import copy_notes, has_logits
from .._keras.running import OperationEvent
from ..inspection import activation_of, operations_in_sight
from ._figures import (
    Figures,
    broken,
    fired,
    is_signal,
    measured,
    near_asymptotes,
    unit_axis,
)

_NORMAL, _QUANTILES = statistics.NormalDist(), 1000
_REMEMBERED = 8  # what a layer reads is what one just before it returned


@dataclass(eq=False)
class Watched:
    """An operation that is watched, and what was seen of it.

    Attributes:
        path: its path, unique in the model.
        operation: the operation.
        is_row: whether it has figures of its own in a report; else it is only asked
            whether it is the first to return what is not finite.
        activation: what it applies to its output, None for linear.
        limits: the activation's lower and upper limit, if it has both.
        usually_near: the share of its outputs near a limit for N(0, 1) inputs.
        shape: of what it returned last.
        calls: how often it was seen to return.
        inputs: figures of what it received, one a call.
        before: those of its pre-activations.
        outputs: those of what it returned.
        gradients: those of the gradient with respect to it.
        fired: which units were not 0, one array a call.
        near: how many outputs were near a limit, one number a call.
        bad: how many numbers were not finite, one number a call.
        is_bypassed: whether its loss may read the logits instead of the output.
    """

    path: str
    operation: Any
    is_row: bool
    activation: Any = None
    limits: tuple[float, float] | None = None
    usually_near: float = 0.0
    shape: tuple[int, ...] = ()
    calls: int = 0
    inputs: list[Figures] = field(default_factory=list)
    before: list[Figures] = field(default_factory=list)
    outputs: list[Figures] = field(default_factory=list)
    gradients: list[Figures] = field(default_factory=list)
    fired: list[np.ndarray] = field(default_factory=list)
    near: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    is_bypassed: bool = False

    @property
    def has_kernel(self) -> bool:
        """Whether the operation owns a kernel."""
        return has_kernel(self.operation)


class Observer:
    """Watches a model's operations during one pass.

    Attributes:
        watched: all of them by id, in the order of the model.
        order: those that returned, in the order in which they first did.
        is_forward: whether the forward pass is on; a layer that is computed again in
            the backward pass is not measured a second time.
    """

    def __init__(self, model: Any, backward: Any):
        self.watched = {id(one.operation): one for one in _watched(model)}
        self.order: list[Watched] = []
        self.is_forward = True
        self._backward = backward
        self._recent: deque[tuple[Any, Any, Figures]] = deque(maxlen=_REMEMBERED)

    def on_return(self, call: OperationEvent) -> Any:
        """Measures what an operation returns; taps it for the gradient."""
        one = self.watched[id(call.operation)]
        flat = keras.tree.flatten(call.output)
        place = next((i for i, leaf in enumerate(flat) if self._is_numeric(leaf)), None)
        if place is None:
            return None
        value = flat[place]
        if self.is_forward:
            self._measure(one, call, value)
        if not one.is_row:
            return None
        flat[place] = self._tapped(one, value)
        if flat[place] is value:
            return None
        return keras.tree.pack_sequence_as(call.output, flat)

    def _is_numeric(self, value: Any) -> bool:
        return is_signal(value) and self._backward.is_readable(value)

    def _measure(self, one: Watched, call: OperationEvent, value: Any) -> None:
        if not one.calls:
            self.order.append(one)
        one.calls += 1
        one.shape = tuple(value.shape)
        one.is_bypassed |= has_logits(value)
        numbers = self._numbers(value)
        if not one.is_row:
            one.bad.append(broken(numbers))
            return
        mask = call.mask_at("output") if value is call.output else None
        if self._is_numeric(call.inputs) and not looks_up(one.operation):
            one.inputs.append(self._taken(call.inputs, call.mask_at("input")))
        if one.activation is not None and self._is_numeric(call.preactivation):
            before = call.preactivation
            one.before.append(self._taken(before, call.mask_at("preactivation")))
        one.outputs.append(self._taken(value, mask))
        shown = _shown(mask)
        one.fired.append(fired(numbers, shown, unit_axis(one.operation, value)))
        if one.limits is not None:
            one.near.append(near_asymptotes(numbers, shown, one.limits))

    def _taken(self, value: Any, mask: Any) -> Figures:
        """A tensor's figures, which may have been taken just now."""
        for known, known_mask, figures in self._recent:
            if known is value and known_mask is mask:
                return figures
        figures = measured(self._numbers(value), _shown(mask))
        self._recent.append((value, mask, figures))
        return figures

    def _numbers(self, value: Any) -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(self._backward.numbers(value)))

    def _tapped(self, one: Watched, value: Any) -> Any:
        on_gradient = functools.partial(self._on_gradient, one)
        tapped = self._backward.tapped(value, on_gradient)
        if tapped is not value:
            copy_notes(value, tapped)
            for known, mask, figures in list(self._recent):
                if known is value:
                    self._recent.append((tapped, mask, figures))
        return tapped

    def _on_gradient(self, one: Watched, gradient: Any) -> None:
        if self._backward.is_readable(gradient):
            one.gradients.append(measured(self._numbers(gradient)))


def _shown(mask: Any) -> np.ndarray | None:
    return None if mask is None else np.asarray(ops.convert_to_numpy(mask), "bool")


def _watched(model: Any) -> list[Watched]:
    return [
        _of_interest(path, operation)
        for path, operation in [*operations_in_sight(model), (model.name, model)]
        if not isinstance(operation, keras.Model) or weights_of(operation)
    ]


def _of_interest(path: str, operation: Any) -> Watched:
    activation = activation_of(operation)
    has_weights = any("float" in one.dtype for one in weights_of(operation))
    is_loop = kind_of(operation).is_loop
    is_row = has_weights or activation is not None or is_loop
    limits = asymptotes(activation) if activation is not None and not is_loop else None
    if limits is None or limits.low is None or limits.high is None:
        return Watched(path, operation, is_row, activation)
    both = float(limits.low), float(limits.high)
    usually = _usually_near(activation, both)
    return Watched(path, operation, is_row, activation, both, usually)


def _usually_near(activation: Any, limits: tuple[float, float]) -> float:
    """As half of a ReLU6, which is off there as a ReLU is."""
    normal = [_NORMAL.inv_cdf((i + 0.5) / _QUANTILES) for i in range(_QUANTILES)]
    given = ops.convert_to_tensor(np.asarray(normal, "float32"))
    values = np.asarray(ops.convert_to_numpy(activation(given)))
    return near_asymptotes(values, None, limits) / _QUANTILES


def weights_of(operation: Any) -> list[Any]:
    """The variables of an operation, without those of layers inside it.

    A recurrent layer's are those of its cells, which run in a loop and out of sight.
    """
    cells = steps_of(operation) if kind_of(operation).is_loop else ()
    inner = [variable for cell in cells for variable in cell.variables]
    return inner or own_variables(operation)


def has_kernel(operation: Any) -> bool:
    """Whether an operation owns a kernel itself; a recurrent layer by its cells."""
    if kind_of(operation).is_loop:
        return True
    return isinstance(operation, keras.Layer) and bool(own_kernels(operation))
