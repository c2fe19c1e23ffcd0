"""Kernels whose outputs are multiplied with one another: gates, attention by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from .._keras.kinds import Effect, Use, kind_of
from ._calls import Call
from ._operations import activation_name, activation_of, effect_of

# Their values lie between 0 and 1: they choose among units or examples.
_CHOOSING = ("hard_sigmoid", "sigmoid", "softmax", "sparse_sigmoid", "sparsemax")
_PASSED = (
    Effect.ACTIVATION,
    Effect.CHANNEL_LINEAR,
    Effect.REARRANGE,
    Effect.SAME_UNITS,
)


@dataclass(frozen=True)
class _Operand:
    """What a product multiplies, followed back to where it comes from.

    Attributes:
        end: index of the call that it comes from: with kernels, a merge, or an input.
        activations: names of the activations between the two.
    """

    end: int
    activations: tuple[str, ...]

    @property
    def is_choosing(self) -> bool:
        return any(name in _CHOOSING for name in self.activations)


def product_roles(calls: Sequence[Call]) -> dict[int, str]:
    """Returns the role of each call whose output enters a product in a known operand.

    A gate is what multiplies another signal after a sigmoid or softmax, or after an
    activation where the other has none. Attention is a softmax of a product of two
    signals that multiplies a third.

    Args:
        calls: the model's calls, sources first.
    """
    found: dict[int, str] = {}
    for index, call in enumerate(calls):
        roles = kind_of(call.operation).operands
        if roles:
            found.update(_of_kernels(_operands(call, calls), roles, calls))
        elif _is_product(call):
            roles = _attention(call, calls) or _gates(call, calls)
            found.update(roles)
            if "value" in roles.values():
                found.update(_closing(index, calls))
    return found


def _gates(call: Call, calls: Sequence[Call]) -> dict[int, str]:
    operands = _operands(call, calls)
    if len({operand.end for operand in operands}) == 1:
        return {}  # a signal that gates itself, as in a hand-made SiLU
    is_multiply = kind_of(call.operation).use is Use.SCALE
    gates = [operand for operand in operands if operand.is_choosing]
    if not gates and is_multiply and any(not one.activations for one in operands):
        gates = [operand for operand in operands if operand.activations]
    return _of_kernels(gates, ["gate"] * len(gates), calls)


def _attention(call: Call, calls: Sequence[Call]) -> dict[int, str]:
    """The kernels of an attention that ends in this product, if it is one."""
    operands = _operands(call, calls)
    for chosen, value in (operands, operands[::-1]) if len(operands) == 2 else ():
        if "softmax" not in chosen.activations or chosen.end < 0:
            continue
        scores = _masked(calls[chosen.end], calls)
        if scores is None or not _is_product(scores):
            continue
        attended = [*_operands(scores, calls), value]
        return _of_kernels(attended, ("query", "key", "value"), calls)
    return {}


def _masked(call: Call, calls: Sequence[Call]) -> Call | None:
    """The product below a mask that is added to it, or the call itself."""
    if effect_of(call.operation) is not Effect.ADD:
        return call
    ends = [operand.end for operand in _operands(call, calls)]
    products = [calls[end] for end in ends if end >= 0 and _is_product(calls[end])]
    return products[0] if products else None


def _closing(index: int, calls: Sequence[Call]) -> Iterator[tuple[int, str]]:
    """The kernel that reads what an attention returns."""
    for number, call in enumerate(calls):
        if call.kernels and [operand.end for operand in _operands(call, calls)] == [
            index
        ]:
            yield number, "attention output"


def _of_kernels(
    operands: Sequence[_Operand], roles: Sequence[str], calls: Sequence[Call]
) -> dict[int, str]:
    pairs = zip(operands, roles, strict=False)
    return {
        operand.end: role
        for operand, role in pairs
        if operand.end >= 0 and calls[operand.end].kernels
    }


def _is_product(call: Call) -> bool:
    multiplies = kind_of(call.operation).multiplies
    return multiplies and len(call.inputs) == 2 and not call.kernels


def _operands(call: Call, calls: Sequence[Call]) -> list[_Operand]:
    return [_operand(index, calls) for index in call.inputs]


def _operand(index: int, calls: Sequence[Call]) -> _Operand:
    activations: list[str] = []
    while index >= 0 and not calls[index].kernels and _passes(calls[index]):
        operation = calls[index].operation
        if effect_of(operation) is Effect.ACTIVATION:
            activations.append(activation_name(activation_of(operation)))
        (index,) = calls[index].inputs
    own = _own_activation(calls[index]) if index >= 0 else None
    return _Operand(index, (*activations, *([own] if own else [])))


def _passes(call: Call) -> bool:
    if len(call.inputs) != 1:
        return False
    is_affine = kind_of(call.operation).use in (Use.SCALE, Use.SHIFT)
    return is_affine or effect_of(call.operation) in _PASSED


def _own_activation(call: Call) -> str | None:
    if not call.kernels or not isinstance(call.operation, keras.Layer):
        return None
    activation: Any = activation_of(call.kernels[-1].layer)
    return None if activation is None else activation_name(activation)
