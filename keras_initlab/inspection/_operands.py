"""What a product multiplies, followed back to the kernels and sums it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._activations import evaluate
from .._keras.kinds import Computed, Effect, Use, kind_of
from ._calls import Call
from ._operations import activation_name, activation_of, effect_of

# Their values lie between 0 and 1: they choose among units or examples.
_CHOOSING = ("hard_sigmoid", "sigmoid", "softmax", "sparse_sigmoid", "sparsemax")
_SMALL = np.array([[-1e-2, 1e-2]])
_PASSED = (
    Effect.ACTIVATION,
    Effect.CHANNEL_LINEAR,
    Effect.NORMALIZATION,
    Effect.REARRANGE,
    Effect.SAME_UNITS,
)


@dataclass(frozen=True)
class Operand:
    """What a product multiplies, followed back to where it comes from.

    Attributes:
        end: index of the call that it comes from: with kernels, a merge, or an input.
        activations: names of the activations between the two.
        gain: the linear factor between the two.
    """

    end: int
    activations: tuple[str, ...]
    gain: float = 1.0

    @property
    def is_choosing(self) -> bool:
        return any(name in _CHOOSING for name in self.activations)


def is_product(call: Call) -> bool:
    """Whether a call multiplies two signals with one another."""
    multiplies = kind_of(call.operation).multiplies
    return multiplies and len(call.inputs) == 2 and not call.kernels


def operands_of(call: Call, calls: Sequence[Call]) -> list[Operand]:
    """Returns what a call reads, each followed back to where it comes from."""
    return [_operand(index, calls) for index in call.inputs]


def _operand(index: int, calls: Sequence[Call]) -> Operand:
    activations: list[str] = []
    gain = 1.0
    while index >= 0 and not calls[index].kernels and _passes(calls[index]):
        operation = calls[index].operation
        if effect_of(operation) is Effect.ACTIVATION:
            activations.append(activation_name(activation_of(operation)))
        if isinstance(operation, Computed):
            gain *= factor_of(operation)
        index = calls[index].inputs[0]  # what stands beside it is a mask
    own = _own_activation(calls[index]) if index >= 0 else None
    return Operand(index, (*activations, *([own] if own else [])), gain)


def factor_of(operation: Computed) -> float:
    """The factor on small numbers, as of a cap c·tanh(x/c) on logits."""
    function = activation_of(operation)
    is_activation = effect_of(operation) is Effect.ACTIVATION
    if not is_activation or activation_name(function) in _CHOOSING:
        return operation.gain
    low, high = evaluate(operation.name, function, _SMALL).ravel()
    return float((high - low) / np.ptp(_SMALL))


def _passes(call: Call) -> bool:
    effect = effect_of(call.operation)
    if effect is Effect.CONCATENATE and len(set(call.inputs)) == 1:
        return True  # parts of one signal
    if len(call.inputs) != 1:
        is_layer = isinstance(call.operation, keras.Layer)
        return bool(call.inputs) and is_layer and effect is Effect.ACTIVATION
    is_affine = kind_of(call.operation).use in (Use.SCALE, Use.SHIFT)
    return is_affine or effect in _PASSED


def _own_activation(call: Call) -> str | None:
    if not call.kernels or not isinstance(call.operation, keras.Layer):
        return None
    activation: Any = activation_of(call.kernels[-1].layer)
    return None if activation is None else activation_name(activation)


def is_softmax(call: Call) -> bool:
    """Whether a call is that of a softmax alone."""
    is_it = effect_of(call.operation) is Effect.ACTIVATION and not call.kernels
    return is_it and activation_name(activation_of(call.operation)) == "softmax"


def ends_of(inputs: Sequence[int], calls: Sequence[Call]) -> Iterator[int]:
    """The products and calls with kernels from which signals come to these inputs."""
    waiting, seen = list(inputs), set()
    while waiting:
        number = waiting.pop()
        if number < 0 or number in seen:
            continue
        seen.add(number)
        if calls[number].kernels or is_product(calls[number]):
            yield number
        else:
            waiting += calls[number].inputs
