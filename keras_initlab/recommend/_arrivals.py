"""What arrives at each kernel when all kernels keep the signal at unit scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics, moments_at
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

    Every kernel is taken to give pre-activations of unit variance, or of the std it is
    known to give; what comes after it, up to the next kernel, decides what that reads.
    """

    def __init__(
        self, inspection: Inspection, input_std: float, stds: Mapping[int, float]
    ):
        self.input_std = input_std
        self._stds = stds  # filled in as the kernels are decided, sources first
        self._kernels = inspection.kernels
        self._merged: dict[int, Arrival] = {}

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
                known = statistics_or_none(passage.activation)
                # A kernel's output is normal, which a sum or an input need not be.
                is_exact &= isinstance(link.source, int) and known is not None
                if known is not None and math.isclose(moment, 1.0):
                    moment = known.second_moment
                elif known is not None:
                    moment, _ = moments_at(passage.activation, math.sqrt(moment))
            elif passage.effect in _APPROXIMATE:
                is_exact = False
        return Arrival(moment, is_exact)

    def _at_source(self, source: int | Merge | None) -> Arrival:
        if source is None:
            return Arrival(self.input_std**2, is_exact=True)
        if isinstance(source, Merge):
            if id(source) not in self._merged:
                self._merged[id(source)] = self._at_merge(source)
            return self._merged[id(source)]
        kernel = self._kernels[source]
        shrink = 1 if kernel.normalization else max(1, kernel.branches)
        is_exact = kernel.trainable and kernel.role not in _AVERAGING
        return Arrival(self._stds.get(source, 1.0) ** 2 / shrink, is_exact)

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
