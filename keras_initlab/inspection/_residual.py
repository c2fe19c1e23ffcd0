"""Which kernels close a residual branch, and which lie on its shortcut."""

from __future__ import annotations

from collections.abc import Sequence

from ._graph import Call
from ._operations import Effect, effect_of


def residual_roles(
    calls: Sequence[Call], has_kernel: Sequence[bool]
) -> dict[int, tuple[str, int]]:
    """Returns `{call index: (role, number of branches in the model)}`.

    An addition closes residual branches where its operands share an ancestor and one
    of them, the shortcut, passes fewer kernels since then than the others.

    Args:
        calls: the model's calls, sources first.
        has_kernel: for each call, whether it holds a kernel.
    """
    ancestors = _ancestors(calls)
    kernel_mask = sum(1 << index for index, has in enumerate(has_kernel) if has)
    branch_ends: dict[int, str] = {}
    branches = 0
    for call in calls:
        if effect_of(call.operation) is not Effect.ADD or len(call.inputs) < 2:
            continue
        ways = [ancestors[index] for index in call.inputs]
        shared = ways[0]
        for way in ways[1:]:
            shared &= way
        if not shared:
            continue
        counts = [(way & ~shared & kernel_mask).bit_count() for way in ways]
        shortest = min(counts)
        for operand, way, count in zip(call.inputs, ways, counts, strict=True):
            own = way & ~shared
            is_branch = count > shortest
            branches += is_branch
            role = "residual branch" if is_branch else "shortcut"
            if is_branch or max(counts) > shortest:
                for end in _ends(operand, own, calls, has_kernel):
                    branch_ends.setdefault(end, role)
    return {
        index: (role, branches if role == "residual branch" else 0)
        for index, role in branch_ends.items()
    }


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
    """The last calls with kernels on the ways to `index`, within `own`."""
    if index < 0 or not own >> index & 1:
        return []
    if has_kernel[index]:
        return [index]
    return [
        end
        for source in calls[index].inputs
        for end in _ends(source, own, calls, has_kernel)
    ]
