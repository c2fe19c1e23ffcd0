"""Plain deep stretches, and how each of their kernels hands the signal on.

A stretch is a tree of dense or convolution kernels with nothing between them but
pointwise activations and operations that treat all units alike: no normalization, no
shortcut. There a random kernel of the right scale keeps the variance but not the
geometry: after a few dozen layers all inputs look the same. Three constructions keep
the map (nearly) linear and orthogonal, and which of them works is a matter of the
activation's symmetry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from .._activations import ActivationStatistics, activation_statistics
from ..inspection import Edge, Effect, Inspection, KernelRecord

# Up to this many hidden layers every sensible scale trains equally well, but where most
# of what an activation gives is its mean: of a sigmoid's mean square all but a seventh,
# which says nothing of the example.
SHALLOW = 3
# Mirrored pairs stay near enough to linear up to SELU's 0.11 and sigmoid's 0.13; at
# tanh's 0.27 they fail.
_MOST_ODD_ERROR = 0.2
_TRUNK = ("hidden", "output")
_KEEPS_PAIRS = (Effect.ACTIVATION, Effect.SAME_UNITS, Effect.CHANNEL_LINEAR)


class Carrier(enum.Enum):
    """How the units of a layer carry the signal to the kernels that read them."""

    RANDOM = "the variance is kept"
    MIRRORED = "in pairs φ(u), φ(−u), whose difference is linear in u"
    CENTERED = "about the activation's center, which a bias takes out"
    LINEAR_POINT = "near zero, where the activation is linear"


def carriers(
    inspection: Inspection, obeys: Callable[[Any], Any] = lambda _: None
) -> dict[int, Carrier]:
    """Returns how each kernel's output carries the signal, by position.

    Args:
        inspection: the model's kernels.
        obeys: tells whether a variable obeys a constraint, which may undo what the
            values of a kernel are made for.
    """
    found = {
        kernel.position: _carrier(kernel, inspection) for kernel in inspection.kernels
    }
    for kernel in inspection.kernels:
        around = [kernel, *inspection.readers[kernel.position]]
        if any(isinstance(k, KernelRecord) and obeys(k.variable) for k in around):
            found[kernel.position] = Carrier.RANDOM
    for stretch in _stretches(inspection, found):
        if len(stretch) <= SHALLOW:
            off = [one for one in stretch if found[one] is not Carrier.CENTERED]
            found.update(dict.fromkeys(off, Carrier.RANDOM))
    return found


def stretch_lengths(
    inspection: Inspection, found: dict[int, Carrier]
) -> dict[int, int]:
    """Returns the number of hidden layers of each kernel's stretch, by position."""
    lengths: dict[int, int] = {}
    for stretch in _stretches(inspection, found):
        for position in stretch:
            lengths[position] = len(stretch)
            for reader in inspection.readers[position]:
                if isinstance(reader, KernelRecord):
                    lengths[reader.position] = len(stretch)
    return lengths


def _stretches(inspection: Inspection, found: dict[int, Carrier]) -> list[list[int]]:
    """Groups the kernels whose outputs carry a signal, tree by tree."""
    stretch_of: dict[int, list[int]] = {}
    stretches: list[list[int]] = []
    for kernel in inspection.kernels:  # sources come first
        if found[kernel.position] is Carrier.RANDOM:
            continue
        source = kernel.edges[0].source
        stretch = stretch_of.get(source) if isinstance(source, int) else None
        if stretch is None or len(kernel.edges) > 1:
            stretch = []
            stretches.append(stretch)
        stretch.append(kernel.position)
        stretch_of[kernel.position] = stretch
    return stretches


def _carrier(kernel: KernelRecord, inspection: Inspection) -> Carrier:
    readers = inspection.readers[kernel.position]
    if kernel.role != "hidden" or kernel.normalization or not is_plain(kernel):
        return Carrier.RANDOM
    if not readers or not all(
        isinstance(reader, KernelRecord) and _reads_units(reader) for reader in readers
    ):
        return Carrier.RANDOM
    try:
        statistics = activation_statistics(kernel.activation)
    except ValueError:
        return Carrier.RANDOM
    carrier = by_symmetry(statistics)
    if carrier is Carrier.MIRRORED and kernel.shape[-1] < 2:
        return Carrier.RANDOM
    if carrier is Carrier.CENTERED and not all(
        isinstance(reader, KernelRecord) and reader.bias is not None
        for reader in readers
    ):
        return Carrier.RANDOM
    return carrier


def by_symmetry(statistics: ActivationStatistics) -> Carrier:
    """How units of an activation can carry a signal, by its symmetry alone."""
    if statistics.center_error < 1e-3:  # odd about its center
        if abs(statistics.slope_at_zero) < 0.1:
            return Carrier.RANDOM
        is_zero = abs(statistics.value_at_zero) < 1e-9
        return Carrier.LINEAR_POINT if is_zero else Carrier.CENTERED
    if statistics.odd_error < _MOST_ODD_ERROR and statistics.odd_second_moment > 1e-6:
        return Carrier.MIRRORED
    return Carrier.RANDOM


def is_plain(kernel: KernelRecord) -> bool:
    """Whether a kernel is one matrix from units to units, used once and trainable."""
    axes = kernel.axes
    return (
        kernel.trainable
        and kernel.calls == 1
        and kernel.kernel.part.is_plain
        and axes.groups == 1
    )


def _reads_units(reader: KernelRecord) -> bool:
    return (
        is_plain(reader)
        and reader.role in _TRUNK
        and len(reader.edges) == 1
        and _keeps_pairs(reader.edges[0])
    )


def _keeps_pairs(edge: Edge) -> bool:
    effects = [transform.effect for transform in edge.transforms]
    return (
        all(effect in _KEEPS_PAIRS for effect in effects)
        and effects.count(Effect.ACTIVATION) <= 1
    )
