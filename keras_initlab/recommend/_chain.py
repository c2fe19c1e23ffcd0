"""How wide a model is, from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..inspection import Edge, Inspection, KernelRecord, Merge

_FIRST = ("query", "key", "value", "qkv", "recurrent input")


def chain_widths(inspection: Inspection) -> list[int]:
    """Returns the widths along the longest chain of kernels that carry the signal.

    A layer is as wide as its output, so a depthwise one as its channels and attention
    as all its heads. Word numbers have no width: what is looked up for them counts.
    Nothing at all, as of inputs without features, counts as one unit.
    """
    chain = _longest_chain(inspection)
    readers = [*chain[1:], None]
    widths = [_width_read(chain[0]), *map(_width, chain, readers)]
    return [max(1, width) for width in widths]


def _longest_chain(inspection: Inspection) -> list[KernelRecord]:
    """The longest one past the gates: they weigh what passes, and pass nothing on.

    Of a layer with several kernels the last one stands for all.
    """
    before: list[int | None] = []
    lengths: list[int] = []
    at_merge: dict[int, int | None] = {}

    def last_on(edge: Edge) -> int | None:
        source = edge.source
        if not isinstance(source, Merge):
            return source
        if id(source) not in at_merge:
            at_merge[id(source)] = longest(source.edges)
        return at_merge[id(source)]

    def longest(edges: Sequence[Edge]) -> int | None:
        found = {last for edge in edges if (last := last_on(edge)) is not None}
        known = [one for one in sorted(found) if one < len(lengths)]
        passing = [one for one in known if inspection.kernels[one].role != "gate"]
        return max(passing or known, key=lengths.__getitem__, default=None)

    for kernel in inspection.kernels:  # sources come first
        before.append(longest(kernel.edges))
        lengths.append(1 if before[-1] is None else 1 + lengths[before[-1]])
    chain = [longest([Edge(kernel.position) for kernel in inspection.kernels])]
    while chain[-1] is not None:
        chain.append(before[chain[-1]])
    found = [inspection.kernels[one] for one in reversed(chain) if one is not None]
    return [one for one in found if not _is_first_of_several(one)] or found


def _is_first_of_several(kernel: KernelRecord) -> bool:
    """Whether a later kernel of its layer stands for it too."""
    return kernel.role in _FIRST or kernel.kernel.name == "depthwise_kernel"


def _width(kernel: KernelRecord, reader: KernelRecord | None) -> int:
    """How many units a kernel's output has."""
    axes, shape = kernel.axes, kernel.shape
    units = math.prod(shape[axis] for axis in axes.outputs) // axes.gates
    if kernel.role == "embedding":
        return units
    named = (*axes.input_axes, *axes.outputs)
    apart = math.prod(size for axis, size in enumerate(shape) if axis not in named)
    # What experts compute apart is added up, what heads do lies side by side.
    is_added = axes.inputs and reader is not None and _width_read(reader) <= units
    return units if is_added else units * apart


def _width_read(kernel: KernelRecord) -> int:
    """How many units a kernel reads; of several that read apart, each of them."""
    axes, shape = kernel.axes, kernel.shape
    if kernel.role == "embedding":
        return _width(kernel, None)
    if axes.inputs:
        return math.prod(shape[axis] for axis in axes.inputs) * axes.groups
    named = (*axes.outputs, *axes.window)
    return math.prod(size for axis, size in enumerate(shape) if axis not in named)
