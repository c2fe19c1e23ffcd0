"""The second moment of each kernel's input when all kernels keep unit scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics, moments_at
from ..inspection import Edge, Effect, Inspection, KernelRecord, Merge, Transform
from ._inputs import InputScale
from ._measured import Measured

_AVERAGING = ("attention output", "recurrent", "recurrent input")
_NOTHING = 1e-12  # a mean square that no kernel could make up for
APPROXIMATE = (Effect.POOL, Effect.OTHER, Effect.CHANNEL_LINEAR)
_WAVES = {"Sin": -1, "Cos": 1}
# Of a few dozen normal values the largest has mean square 4, eight times a rectified
# unit's, of two by two 1.55, three times it, and 1 time if all agree: between the two.
_LARGEST = {"GlobalMaxPooling": math.sqrt(8), "MaxPooling": math.sqrt(3.1)}
# How many positions an average is over: two by two, or a few dozen.
_AVERAGED = {"AveragePooling": 4, "GlobalAveragePooling": 36, "Mean": 36}


@dataclass(frozen=True)
class InputMoment:
    """The second moment of a kernel's input, and how sure that figure is."""

    moment: float
    is_exact: bool


class InputMoments:
    """Follows the mean square of the signal through a model.

    Every kernel is taken to give pre-activations of unit variance, or of the std it is
    known to give; what comes after it, up to the next kernel, decides what that reads.

    Args:
        inspection: the model's kernels.
        scale: root mean squares of the model's inputs.
        stds: the std that a kernel's output is known to have, by its position; filled
            in as the kernels are decided, sources first.
        measured: mean squares that were measured on data.
    """

    def __init__(
        self,
        inspection: Inspection,
        scale: InputScale,
        stds: Mapping[int, float],
        measured: Measured,
    ):
        self._scale = scale
        self._stds = stds
        self._measured = measured
        self._kernels = inspection.kernels
        self._merged: dict[int, InputMoment] = {}

    def at(self, kernel: KernelRecord) -> InputMoment:
        """Returns what a kernel reads, the mean over its inputs."""
        if kernel.position in self._measured.read:
            return InputMoment(self._measured.read[kernel.position], is_exact=True)
        input_moments = [self.on_edge(edge) for edge in kernel.edges]
        if not input_moments:
            return InputMoment(1.0, is_exact=False)
        moment = sum(a.moment for a in input_moments) / len(input_moments)
        # Of several kernels in a layer, only the first may read the layer's input.
        is_first = kernel.key[1] == 0
        is_exact = is_first and all(a.is_exact for a in input_moments)
        return InputMoment(max(moment, _NOTHING), is_exact)

    def std_of_input(self, kernel: KernelRecord) -> float:
        """Returns the root mean square of the model input that a kernel starts from."""
        stds = [
            self._scale.of(edge.entry)
            for edge in kernel.edges
            if edge.source is None and edge.entry is not None
        ]
        return stds[0] if stds else self._scale.overall

    def on_edge(self, edge: Edge) -> InputMoment:
        """Returns the second moment at the end of an edge."""
        start, transforms = self._start(edge)
        moment, is_exact = start.moment, start.is_exact
        kept = None if isinstance(edge.source, Merge) else 0.0  # E[φ]²/E[φ²]
        for transform in transforms:
            moment *= transform.gain**2
            if transform.effect is Effect.NORMALIZATION:
                moment, is_exact, kept = transform.mean_square, True, 0.0
            elif transform.effect is Effect.ACTIVATION:
                known = statistics_or_none(transform.activation)
                # A kernel's output is normal, which a sum or an input need not be.
                is_exact &= isinstance(edge.source, int) and known is not None
                kept = known.mean**2 / known.second_moment if known else None
                if known is not None and math.isclose(moment, 1.0):
                    moment = known.second_moment
                elif known is not None:
                    moment, _ = moments_at(transform.activation, math.sqrt(moment))
            elif transform.name in _WAVES:
                # E[sin²] and E[cos²] of a normal phase; of both side by side, 1/2.
                moment = (1 + _WAVES[transform.name] * math.exp(-2 * moment)) / 2
                is_exact = False
            elif transform.effect in APPROXIMATE:
                is_exact = False
                largest = _of_name(_LARGEST, transform.name)
                if largest and kept:
                    moment, kept = moment * largest, 1.0
                elif kept is not None:
                    share = _averaged(kept, transform.name)
                    moment, kept = moment * share, min(1.0, kept / share)
        return InputMoment(moment, is_exact)

    def _start(self, edge: Edge) -> tuple[InputMoment, tuple[Transform, ...]]:
        """What is known of a signal, and what it passes from there on."""
        for number, transform in reversed(list(enumerate(edge.transforms))):
            moment = self._measured.after(transform)
            if moment is not None:
                return InputMoment(moment, is_exact=True), edge.transforms[number + 1 :]
        return self._at_source(edge), self._transforms(edge)

    def _transforms(self, edge: Edge) -> tuple[Transform, ...]:
        """What a signal passes; a recurrent state has its activation inside."""
        if isinstance(edge.source, int) and edge.transforms:
            is_state = self._kernels[edge.source].role == "recurrent"
            if is_state and edge.transforms[0].effect is Effect.ACTIVATION:
                return edge.transforms[1:]
        return edge.transforms

    def _at_source(self, edge: Edge) -> InputMoment:
        source = edge.source
        if source is None:
            return InputMoment(self._scale.of(edge.entry) ** 2, is_exact=True)
        if isinstance(source, Merge):
            if id(source) not in self._merged:
                self._merged[id(source)] = self._at_merge(source)
            return self._merged[id(source)]
        kernel = self._kernels[source]
        is_exact = kernel.trainable and kernel.role not in _AVERAGING
        return InputMoment(self._stds.get(source, 1.0) ** 2, is_exact)

    def _at_merge(self, merge: Merge) -> InputMoment:
        measured = self._measured.after(merge)
        if measured is not None:
            return InputMoment(measured, is_exact=True)
        input_moments = [self.on_edge(edge) for edge in merge.edges]
        moments = [input_moment.moment for input_moment in input_moments]
        is_exact = all(input_moment.is_exact for input_moment in input_moments)
        if merge.effect is Effect.ADD:
            return InputMoment(sum(moments), is_exact)
        if merge.effect is Effect.CONCATENATE:
            moment = sum(s * m for s, m in zip(merge.shares, moments, strict=True))
            return InputMoment(moment, is_exact=False)
        return InputMoment(math.prod(moments) if moments else 1.0, is_exact=False)


def averaged(edge: Edge) -> float:
    """The share of a signal without mean that averages over positions leave."""
    return math.prod(_averaged(0.0, transform.name) for transform in edge.transforms)


def _averaged(kept: float, name: str) -> float:
    """The share of the mean square that an average over positions leaves.

    Between all of it, if the positions agree, and if they do not, that of the mean and
    a part of the rest: their geometric mean.

    Args:
        kept: the share of the mean.
        name: of the operation.
    """
    count = _of_name(_AVERAGED, name)
    return math.sqrt(kept + (1 - kept) / count) if count else 1.0


def _of_name(table: Mapping[str, float], name: str) -> float | None:
    return next((v for start, v in table.items() if name.startswith(start)), None)


def statistics_or_none(activation: Any) -> ActivationStatistics | None:
    """Returns the statistics of an activation that has any and passes a signal on."""
    try:
        found = activation_statistics(activation)
    except ValueError:
        return None
    return found if found.second_moment > _NOTHING else None
