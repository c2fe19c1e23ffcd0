"""Which kernels close a residual branch, and which lie on its shortcut."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .._keras.kinds import Effect
from ._calls import Call
from ._operations import effect_of

BRANCH = "residual branch"


@dataclass
class Residual:
    """The residual branches of a model.

    Attributes:
        branches: how many there are.
        roles: `residual branch` or `shortcut`, by index of the call that closes one.
        numbers: which branch a call closes, counted from 0 at the model's inputs.
    """

    branches: int = 0
    roles: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)


def read_residual(calls: Sequence[Call], has_kernel: Sequence[bool]) -> Residual:
    """Returns the residual branches of a model.

    An addition closes residual branches where its operands share an ancestor and one
    of them, the shortcut, passes fewer kernels since then than the others. A branch may
    be a sum itself, as of experts beside one another: of several branches, then.

    Args:
        calls: the model's calls, sources first.
        has_kernel: for each call, whether it holds a kernel.
    """
    ancestors = _ancestors(calls)
    kernel_mask = sum(1 << index for index, has in enumerate(has_kernel) if has)
    sums = [
        one
        for index, call in enumerate(calls)
        if (one := _sum(index, call, ancestors, kernel_mask)) is not None
    ]
    uses = Counter(id(one.variable) for call in calls for one in call.kernels)
    repeated = {
        index
        for index, call in enumerate(calls)
        if any(uses[id(one.variable)] > 1 for one in call.kernels)
    }
    roles: dict[int, str] = {}
    closed: list[tuple[int, list[int]]] = []
    # First those with nothing on the shortcut: a sum within a branch closes no others.
    for one in sorted(sums, key=lambda one: bool(min(one.counts))):
        shortest = min(one.counts)
        ends = [
            [
                _ends(term, own, calls, has_kernel)
                for term in _terms(operand, own, calls, has_kernel)
            ]
            for operand, own in zip(calls[one.place].inputs, one.own, strict=True)
        ]
        every = {end for terms in ends for term in terms for end in term}
        is_inside = any(roles.get(end) == BRANCH for end in every)
        if shortest and (is_inside or any(end in repeated for end in every)):
            continue  # the sum of a step, in a recurrence that is a loop
        for count, terms in zip(one.counts, ends, strict=True):
            for term in terms if max(one.counts) > shortest else ():
                is_branch = count > shortest
                for end in term:
                    roles.setdefault(end, BRANCH if is_branch else "shortcut")
                if is_branch:
                    closed.append((one.place, term))
    closed.sort(key=lambda one: one[0])
    found = Residual(len(closed), roles)
    for number, (_, term) in enumerate(closed):
        for end in term:
            found.numbers.setdefault(end, number)
    return found


class _Sum(NamedTuple):
    """An addition of signals that share an ancestor.

    Attributes:
        place: index of the call.
        own: for each operand, the calls before it that not all have before them.
        counts: how many of these hold kernels.
    """

    place: int
    own: list[int]
    counts: list[int]


def _sum(
    index: int, call: Call, ancestors: Mapping[int, int], kernel_mask: int
) -> _Sum | None:
    if effect_of(call.operation) is not Effect.ADD or len(call.inputs) < 2:
        return None
    ancestries = [ancestors[source] for source in call.inputs]
    shared = functools.reduce(operator.and_, ancestries)
    own = [ancestry & ~shared for ancestry in ancestries]
    counts = [(one & kernel_mask).bit_count() for one in own]
    # A sum of many operands may have none that is a shortcut.
    if not shared or (min(counts) and len(counts) > 2):
        return None
    shapes, shortcut = call.shapes, counts.index(min(counts))
    if len(shapes) == len(counts) and _is_repeated(shortcut, shapes):
        return None
    return _Sum(index, own, counts)


def _is_repeated(index: int, shapes: Sequence[Sequence[int | None]]) -> bool:
    """Whether an operand is repeated to the others' shape, as a shift by channel is."""
    rank = max(map(len, shapes))
    same = [shape for shape in shapes if len(shape) == rank]
    return shapes[index] not in same or any(
        size == 1 and any(shape[axis] not in (1, None) for shape in same)
        for axis, size in enumerate(shapes[index])
        if axis > 0  # numbers of examples, which may be left open
    )


def _terms(
    index: int, own: int, calls: Sequence[Call], has_kernel: Sequence[bool]
) -> list[int]:
    """What an operand is the sum of, within `own`."""

    def before(number: int) -> Sequence[int]:
        if number < 0 or has_kernel[number] or not own >> number & 1:
            return ()
        call = calls[number]
        is_sum = effect_of(call.operation) is Effect.ADD or len(call.inputs) == 1
        return call.inputs if is_sum else ()

    return _back(index, before)


def _back(index: int, before: Callable[[int], Sequence[int]]) -> list[int]:
    """Where the ways back from a call end: at those with nothing before them."""
    found: list[int] = []
    waiting, seen = [index], set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        inputs = before(number)
        if inputs:
            waiting += inputs[::-1]
        else:
            found.append(number)
    return found


def _ancestors(calls: Sequence[Call]) -> dict[int, int]:
    """Each call's ancestors and itself, as the bits of an int; inputs are bits too."""
    inputs = {index for call in calls for index in call.inputs if index < 0}
    masks = {index: 1 << (len(calls) - index) for index in inputs}
    for index, call in enumerate(calls):
        mask = 1 << index
        for source in call.inputs:
            mask |= masks[source]
        masks[index] = mask
    return masks


def _ends(
    index: int, own: int, calls: Sequence[Call], has_kernel: Sequence[bool]
) -> list[int]:
    """The last calls with kernels on the ancestries to `index`, within `own`."""

    def is_own(number: int) -> bool:
        return number >= 0 and bool(own >> number & 1)

    def before(number: int) -> Sequence[int]:
        is_end = not is_own(number) or has_kernel[number]
        return () if is_end else calls[number].inputs

    ends = _back(index, before)
    return [number for number in ends if is_own(number) and has_kernel[number]]
