"""Which kernels close a residual branch, and which lie on its shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .._keras.kinds import Effect
from ._calls import Call
from ._operations import effect_of


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
    of them, the shortcut, passes fewer kernels since then than the others.

    Args:
        calls: the model's calls, sources first.
        has_kernel: for each call, whether it holds a kernel.
    """
    ancestors = _ancestors(calls)
    kernel_mask = sum(1 << index for index, has in enumerate(has_kernel) if has)
    found = Residual()
    for call in calls:
        if effect_of(call.operation) is not Effect.ADD or len(call.inputs) < 2:
            continue
        ancestries = [ancestors[index] for index in call.inputs]
        shared = ancestries[0]
        for ancestry in ancestries[1:]:
            shared &= ancestry
        if not shared:
            continue
        counts = [
            (ancestry & ~shared & kernel_mask).bit_count() for ancestry in ancestries
        ]
        shortest = min(counts)
        if shortest and len(counts) > 2:
            continue  # a sum of many operands, none of them a shortcut
        for operand, ancestry, count in zip(
            call.inputs, ancestries, counts, strict=True
        ):
            own = ancestry & ~shared
            is_branch = count > shortest
            role = "residual branch" if is_branch else "shortcut"
            if is_branch or max(counts) > shortest:
                for end in _ends(operand, own, calls, has_kernel):
                    found.roles.setdefault(end, role)
                    if is_branch:
                        found.numbers.setdefault(end, found.branches)
            found.branches += is_branch
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
    if index < 0 or not own >> index & 1:
        return []
    if has_kernel[index]:
        return [index]
    return [
        end
        for source in calls[index].inputs
        for end in _ends(source, own, calls, has_kernel)
    ]
