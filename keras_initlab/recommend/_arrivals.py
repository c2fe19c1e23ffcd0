"""What arrives at each kernel when all kernels keep the signal at unit scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics
from ..inspection import Effect, Inspection, KernelRecord, Link, Merge

_AVERAGING = ("attention output", "recurrent", "recurrent input")
_APPROXIMATE = (Effect.POOL, Effect.OTHER, Effect.CHANNEL_LINEAR)


@dataclass(frozen=True)
class Arrival:
    """What arrives at a kernel: its mean square, and how sure that figure is."""

    moment: float
    is_exact: bool


class Arrivals:
    """Follows the mean square of the signal through a model.

    Every kernel is taken to give pre-activations of unit variance; what comes after
    it, up to the next kernel, decides what that one reads.
    """

    def __init__(self, inspection: Inspection, input_std: float):
        self._kernels = inspection.kernels
        self.input_std = input_std
        self._merged: dict[int, Arrival] = {}
        for merge in inspection.merges:  # sources first
            self._merged[id(merge)] = self._at_merge(merge)

    def at(self, kernel: KernelRecord) -> Arrival:
        """Returns what a kernel reads, the mean over its inputs."""
        arrivals = [self._on_link(link) for link in kernel.links]
        if not arrivals:
            return Arrival(1.0, is_exact=False)
        moment = sum(a.moment for a in arrivals) / len(arrivals)
        # Of several kernels in a layer, only the first may read the layer's input.
        is_first = kernel.key[1] == 0
        is_exact = is_first and all(a.is_exact for a in arrivals)
        return Arrival(max(moment, 1e-12), is_exact)

    def _on_link(self, link: Link) -> Arrival:
        arrival = self._at_source(link.source)
        moment, is_exact = arrival.moment, arrival.is_exact
        for passage in link.passages:
            if passage.effect is Effect.NORMALIZATION:
                moment, is_exact = 1.0, True
            elif passage.effect is Effect.ACTIVATION:
                statistics = statistics_or_none(passage.activation)
                # Known for standard normal input, which a sum or a recurrence is not.
                is_normal = isinstance(link.source, int) and math.isclose(moment, 1.0)
                is_exact = is_exact and is_normal and statistics is not None
                moment *= statistics.second_moment if statistics else 1.0
            elif passage.effect in _APPROXIMATE:
                is_exact = False
        return Arrival(moment, is_exact)

    def _at_source(self, source: int | Merge | None) -> Arrival:
        if source is None:
            return Arrival(self.input_std**2, is_exact=True)
        if isinstance(source, Merge):
            return self._merged[id(source)]
        kernel = self._kernels[source]
        shrink = 1 if kernel.normalization else max(1, kernel.branches)
        is_exact = kernel.trainable and kernel.role not in _AVERAGING
        return Arrival(1 / shrink, is_exact)

    def _at_merge(self, merge: Merge) -> Arrival:
        arrivals = [self._on_link(link) for link in merge.links]
        moments = [arrival.moment for arrival in arrivals]
        is_exact = all(arrival.is_exact for arrival in arrivals)
        if merge.effect is Effect.ADD:
            return Arrival(sum(moments), is_exact)
        if merge.effect is Effect.CONCATENATE:
            return Arrival(sum(moments) / len(moments), is_exact=False)
        return Arrival(math.prod(moments) if moments else 1.0, is_exact=False)


def statistics_or_none(activation: Any) -> ActivationStatistics | None:
    """Returns the statistics of an activation that has any."""
    try:
        return activation_statistics(activation)
    except ValueError:
        return None
