"""Kernels whose outputs are multiplied with one another: gates, attention by hand.

The logits of an attention are sums of products of a query and a key. How large these
have to be for logits of variance one is told by how many they sum, and by the factors
on the way from the kernels to the softmax: 1/√d as a rule, but not always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import keras

from .._keras.kinds import Computed, Effect, Use, kind_of, looks_up
from ._calls import Call
from ._operands import (
    Operand,
    ends_of,
    factor_of,
    is_product,
    is_softmax,
    operands_of,
)
from ._operations import effect_of


class ProductRole(NamedTuple):
    """The part that a kernel's output has in a product.

    Attributes:
        name: the role.
        std: that of a query or key at which the logits have variance 1.
    """

    name: str
    std: float = 1.0


def product_roles(calls: Sequence[Call]) -> dict[int, ProductRole]:
    """Returns the role of each call whose output enters a product in a known operand.

    A gate is what multiplies another signal after a sigmoid or softmax, or after an
    activation where the other has none. Attention is a softmax of a product of two
    signals that multiplies a third.

    Args:
        calls: the model's calls, sources first.
    """
    found: dict[int, ProductRole] = {}
    for index, call in enumerate(calls):
        roles = kind_of(call.operation).operands
        if roles:
            found.update(_merged(found, _of_layer(call, roles, calls)))
            found.update(_closing(index, calls))
        elif is_product(call):
            attention = _attention(call, calls)
            found.update(
                _merged(found, attention) if attention else _gates(call, calls)
            )
            if attention:
                found.update(_closing(index, calls))
    for index in _choosing(calls):
        found.setdefault(index, ProductRole("gate"))
    found.update(dict.fromkeys(_beside_logits(calls), ProductRole("bias")))
    return found


def _beside_logits(calls: Sequence[Call]) -> Iterator[int]:
    """Tables and learned signals that meet the logits of an attention alone.

    Relative positions are added to them, sinks stand beside them.
    """
    for call in calls:
        if "query" in kind_of(call.operation).operands:
            yield from _tables(call.inputs[3:], calls)
        elif is_softmax(call):
            ends = list(ends_of(call.inputs, calls))
            if any(is_product(calls[end]) for end in ends):
                yield from (end for end in ends if _is_table(calls[end]))


def _tables(inputs: Sequence[int], calls: Sequence[Call]) -> Iterator[int]:
    return (end for end in ends_of(inputs, calls) if _is_table(calls[end]))


def _is_table(call: Call) -> bool:
    return bool(call.kernels) and (call.operation is None or looks_up(call.operation))


def _merged(
    found: dict[int, ProductRole], new: Iterable[tuple[int, ProductRole]]
) -> dict[int, ProductRole]:
    """Roles of an attention; a kernel with several of them is fused."""
    merged: dict[int, ProductRole] = {}
    for index, role in new:
        before = merged.get(index) or found.get(index)
        if before is not None and before.name != role.name:
            both = {before.name, role.name} <= {"query", "key", "value", "qkv"}
            role = ProductRole("qkv" if both else role.name, min(before.std, role.std))
        merged[index] = role
    return merged


def _of_layer(
    call: Call, roles: Sequence[str], calls: Sequence[Call]
) -> list[tuple[int, ProductRole]]:
    """The roles of what an attention in one operation reads."""
    operands = operands_of(call, calls)
    pairs = list(zip(roles, operands, call.shapes, strict=False))
    of_role = {role: (operand, shape) for role, operand, shape in pairs}
    if "key" not in of_role and "value" in of_role:
        of_role["key"] = of_role["value"]
    std = 1.0
    if "query" in of_role and "key" in of_role:
        (query, shape), (key, _) = of_role["query"], of_role["key"]
        gain = query.gain * key.gain * _factor(call, shape[-1])
        std = _logit_std(gain, shape[-1])
    return _of_kernels(
        [operand for _, operand, _ in pairs],
        [ProductRole(role, 1.0 if role == "value" else std) for role, *_ in pairs],
        calls,
    )


def _factor(call: Call, width: int | None) -> float:
    """The factor that an attention in one operation has on the logits."""
    is_layer = isinstance(call.operation, keras.Layer)
    if is_layer and getattr(call.operation, "score_mode", None) == "dot":
        return 1.0  # its learned scale starts there
    given = {} if is_layer else getattr(call.node.arguments, "kwargs", {})
    scale = given.get("scale")
    return float(scale) if scale else (width or 1) ** -0.5


def _logit_std(gain: float, width: int | None) -> float:
    """What query and key have to be so that the logits have variance 1."""
    variance = gain**2 * (width or 1)
    return variance**-0.25 if variance > 0 else 1.0


def _gates(call: Call, calls: Sequence[Call]) -> dict[int, ProductRole]:
    operands = operands_of(call, calls)
    if len({operand.end for operand in operands}) == 1:
        return {}  # a signal that gates itself, as in a hand-made SiLU
    is_multiply = kind_of(call.operation).use is Use.SCALE
    gates = [operand for operand in operands if operand.is_choosing]
    if not gates and is_multiply and any(not one.activations for one in operands):
        gates = [operand for operand in operands if operand.activations]
    return dict(_of_kernels(gates, [ProductRole("gate")] * len(gates), calls))


def _attention(call: Call, calls: Sequence[Call]) -> list[tuple[int, ProductRole]]:
    """The kernels of an attention that ends in this product, if it is one."""
    operands = operands_of(call, calls)
    for chosen, value in (operands, operands[::-1]) if len(operands) == 2 else ():
        if "softmax" not in chosen.activations or chosen.end < 0:
            continue
        scores = list(_scores(chosen.end, chosen.gain, calls))
        found = [role for one in scores for role in _of_scores(*one, calls)]
        if found:
            value_role = _of_kernels([value], [ProductRole("value")], calls)
            return [*found, *value_role]
    return []


def _scores(
    index: int, gain: float, calls: Sequence[Call]
) -> Iterator[tuple[Call, float]]:
    """The products that are added up to an attention's logits, with their factors."""
    waiting, seen = [(index, gain)], set()
    while waiting:
        number, factor = waiting.pop()
        if number < 0 or number in seen or calls[number].kernels:
            continue
        seen.add(number)
        call = calls[number]
        if is_product(call):
            yield call, factor
            continue
        if isinstance(call.operation, Computed):
            factor *= factor_of(call.operation)
        waiting += [(source, factor) for source in call.inputs]


def _of_scores(
    scores: Call, gain: float, calls: Sequence[Call]
) -> list[tuple[int, ProductRole]]:
    """The kernels of query and key in a product of the two."""
    operands = operands_of(scores, calls)
    std = _logit_std(gain * operands[0].gain * operands[1].gain, _summed(scores))
    roles = [ProductRole("query", std), ProductRole("key", std)]
    return _of_kernels(operands, roles[::-1] if _is_key_first(scores) else roles, calls)


def _terms(call: Call) -> tuple[list[str], str] | None:
    """The labels of an einsum's operands and output."""
    subscripts = getattr(call.operation, "subscripts", None)
    if not isinstance(subscripts, str) or "->" not in subscripts:
        return None
    operands, output = subscripts.replace(" ", "").split("->")
    return operands.split(","), output


def _summed(call: Call) -> int | None:
    """Over how many entries a product of two signals sums."""
    terms, shapes = _terms(call), call.shapes
    if terms is None:
        return shapes[0][-1]
    (one, other), output = terms
    sizes = [
        size or 1
        for label, size in zip(one[::-1], shapes[0][::-1], strict=False)
        if label in other and label not in output and label != "."
    ]
    return math.prod(sizes)


def _is_key_first(scores: Call) -> bool:
    """Whether the first operand has the positions that the softmax is over."""
    terms = _terms(scores)
    if terms is None:
        return False
    (one, other), output = terms
    return output[-1] in one and output[-1] not in other


def _closing(index: int, calls: Sequence[Call]) -> Iterator[tuple[int, ProductRole]]:
    """The kernel that reads what an attention returns."""
    for number, call in enumerate(calls):
        if call.kernels and [operand.end for operand in operands_of(call, calls)] == [
            index
        ]:
            yield number, ProductRole("attention output")


def _choosing(calls: Sequence[Call]) -> Iterator[int]:
    """Calls whose output, made shares or numbers of the largest, chooses elsewhere."""
    readers: dict[int, list[int]] = {}
    for index, call in enumerate(calls):
        for source in dict.fromkeys(call.inputs):
            readers.setdefault(source, []).append(index)
    for index, call in enumerate(calls):
        is_kernel = bool(call.kernels) and call.operation is not None
        if is_kernel and _chooses(index, readers, calls):
            yield index


def _chooses(index: int, readers: dict[int, list[int]], calls: Sequence[Call]) -> bool:
    waiting, mine = [(index, False)], {index}
    while waiting:
        number, is_choice = waiting.pop()
        for reader in readers.get(number, ()):
            call = calls[reader]
            if call.kernels or effect_of(call.operation) is Effect.ADD:
                continue
            others = [one for one in call.inputs if one not in mine]
            if others and kind_of(call.operation).multiplies and is_choice:
                return True
            if not others and reader not in mine:
                mine.add(reader)
                waiting.append((reader, is_choice or _is_choice(call)))
    return False


def _is_choice(call: Call) -> bool:
    return is_softmax(call) or kind_of(call.operation).chooses


def _of_kernels(
    operands: Sequence[Operand], roles: Sequence[ProductRole], calls: Sequence[Call]
) -> list[tuple[int, ProductRole]]:
    pairs = zip(operands, roles, strict=False)
    return [
        (operand.end, role)
        for operand, role in pairs
        if operand.end >= 0 and calls[operand.end].kernels
    ]
