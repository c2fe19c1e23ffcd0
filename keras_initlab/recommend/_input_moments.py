"""The second moment of each kernel's input when all kernels keep unit scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics, moments_by_std
from ..inspection import Edge, Effect, Inspection, KernelRecord, Merge, Transform
from ._inputs import InputScale
from ._measured import Measured
from ._normalized import is_frozen

_AVERAGING = ("attention output", "recurrent", "recurrent input")
_NO_MEAN = 1e-6
_NOTHING = 1e-12  # a mean square that no kernel could make up for
APPROXIMATE = (Effect.POOL, Effect.OTHER, Effect.CHANNEL_LINEAR)
_STEEPEST = 2.5  # times the signal, before a slope makes an activation chaotic
_STDS = tuple(2.0 ** (-step / 2) for step in range(20))
_NO_GAIN, _LEAST_GAIN, _TENTH = 0.01, 0.1, 0.1
_SMALL = 1e-7  # mean square: below it a signal is meant to be silent at the start


@dataclass(frozen=True)
class InputMoment:
    """The second moment of a kernel's input, and how sure that figure is.

    Attributes:
        moment: the mean square.
        is_exact: whether theory knows it.
        is_measured: whether a run of the model has told it.
        has_mean: whether the signal may have a mean, which adds up in sums.
    """

    moment: float
    is_exact: bool
    is_measured: bool = False
    has_mean: bool = False


class InputMoments:
    """Follows the mean square of the signal through a model.

    Every kernel is taken to give pre-activations of unit variance, or of the std it is
    known to give; what comes after it, up to the next kernel, decides what that reads.

    Args:
        inspection: the model's kernels.
        scale: root mean squares of the model's inputs.
        stds: the std that a kernel's output is known to have, by its position; filled
            in as the kernels are decided, sources first.
        measured: mean squares that were measured in a run of the model.
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
        read = self._measured.read.get(kernel.position)
        found = self.theory(kernel) if read is None else InputMoment(read, False, True)
        # A learned factor that starts at zero, or a state: to make up for it would
        # undo what it is for, and overflow as soon as it grows.
        is_silent = found.moment < _SMALL and not self.needs_data(kernel)
        return InputMoment(1.0, is_exact=False) if is_silent else found

    def theory(self, kernel: KernelRecord) -> InputMoment:
        """Returns what theory says that a kernel reads, the mean over its inputs."""
        input_moments = [self.on_edge(edge) for edge in kernel.edges]
        if not input_moments:
            return InputMoment(1.0, is_exact=False)
        moment = sum(a.moment for a in input_moments) / len(input_moments)
        # Of several kernels in a layer, only the first may read the layer's input.
        is_first = kernel.key[1] == 0
        is_exact = is_first and all(a.is_exact for a in input_moments)
        return InputMoment(max(moment, _NOTHING), is_exact)

    def needs_data(self, kernel: KernelRecord) -> bool:
        """Whether numbers that are made up say nothing of what a kernel reads.

        Of inputs, the scale is told as it is behind preprocessing. Frozen kernels fit
        the data that they were trained on.
        """
        return bool(kernel.edges) and any(map(self._is_of_data, kernel.edges))

    def _is_of_data(self, edge: Edge) -> bool:
        """Whether no kernel that is drawn is before an edge."""
        if isinstance(edge.source, Merge):
            edges = edge.source.edges
            return bool(edges) and all(map(self._is_of_data, edges))
        if edge.source is None:
            return not any(one.bends for one in edge.transforms) and not edge.has(
                Effect.NORMALIZATION
            )
        return not self._kernels[edge.source].trainable

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
        moment, is_exact, has_mean = start.moment, start.is_exact, start.has_mean
        has_acted = False
        for transform in transforms:
            moment *= transform.gain**2
            if transform.effect is Effect.NORMALIZATION:
                if is_frozen(transform.operation):
                    moment, is_exact, has_acted = transform.mean_square, False, True
                    continue
                moment, is_exact, has_acted = transform.mean_square, True, False
                has_mean = False
            elif transform.effect is Effect.ACTIVATION:
                known = statistics_or_none(transform.activation)
                # A kernel's output is normal, which a sum, an input or what another
                # activation gives need not be.
                is_normal = isinstance(edge.source, int) and not has_acted
                is_exact &= is_normal and known is not None
                has_acted = True
                has_mean = known is None or abs(known.mean) > _NO_MEAN
                if known is not None and math.isclose(moment, 1.0):
                    moment = known.second_moment
                elif known is not None:
                    moment, _ = moments_by_std(transform.activation)(math.sqrt(moment))
            elif transform.effect in APPROXIMATE:
                is_exact, has_acted = False, True
        return InputMoment(moment, is_exact, has_mean=has_mean)

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
        means = sum(input_moment.has_mean for input_moment in input_moments)
        if merge.effect is Effect.ADD:
            return InputMoment(sum(moments), is_exact and means < 2, has_mean=means > 0)
        if merge.effect is Effect.CONCATENATE:
            moment = sum(s * m for s, m in zip(merge.shares, moments, strict=True))
            return InputMoment(moment, is_exact=False)
        return InputMoment(math.prod(moments) if moments else 1.0, is_exact=False)


def activation_std(kernel: KernelRecord) -> float:
    """Returns the std that a kernel's output should have for what it meets.

    One, or less where the activation would stretch differences, as sin(30·z) does:
    as much as has E[(z·φ′)²] stay within a few times E[φ²]. It is not lowered where
    less would pass, as with a hard shrinkage, which is steep at its jumps and nothing
    between them. What is multiplied before it is divided by, unless that is so little
    that it is to be silent at first.
    """
    gain = abs(kernel.activation_gain)
    if kernel.activation is None or statistics_or_none(kernel.activation) is None:
        return 1.0
    moments = moments_by_std(kernel.activation)
    (small, _), (usual, _) = moments(_TENTH), moments(1.0)
    if math.isclose(small, _TENTH**2 * usual, rel_tol=_NO_GAIN):
        return 1.0  # any scale is as good, as for ReLU
    calm = (std for std in _STDS if _is_calm(std, *moments(std)))
    std = next((std for std in calm if moments(std)[0] >= std**2 * usual), 1.0)
    is_plain = gain < _LEAST_GAIN or math.isclose(gain, 1.0, rel_tol=_NO_GAIN)
    return std if is_plain else std / gain


def _is_calm(std: float, moment: float, slope: float) -> bool:
    return std**2 * slope <= _STEEPEST * moment


def statistics_or_none(activation: Any) -> ActivationStatistics | None:
    """Returns the statistics of an activation that has any and passes a signal on."""
    try:
        found = activation_statistics(activation)
    except ValueError:
        return None
    return found if found.second_moment > _NOTHING else None
