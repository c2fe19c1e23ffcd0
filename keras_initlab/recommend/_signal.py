"""The signal policy: kernels that let the signal through, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import keras

from .._activations import ActivationStatistics, activation_statistics, moments_at
from .._fans import keras_fans
from ..initializers import DeltaOrthogonal, MirroredOrthogonal, Orthogonal
from ..inspection import Effect, Inspection, KernelRecord, Link, Merge, activation_name
from ._arrivals import Arrival, Arrivals, statistics_or_none
from ._choice import FROZEN, Choice
from ._stretches import Carrier, carriers, stretch_lengths

_HE = "He et al. 2015, 1502.01852, eq. 10"
_LECUN = "LeCun et al. 1998, Efficient BackProp, eq. 16"
_POOLE = "Poole et al. 2016, 1606.05340, eq. 3"
_LOOKS_LINEAR = "Balduzzi et al. 2017, 1702.08591, sec. 4.1"
_ISOMETRY = "Pennington et al. 2017, 1711.04735, sec. 2"
_SAXE = "Saxe et al. 2014, 1312.6120, sec. 4"
_FIXUP = "Hanin and Rolnick 2018, 1803.01719, thm. 6"

_CONSTRUCTION, _VARIANCE, _ESTIMATE = 0.95, 0.8, 0.6


def signal_choices(inspection: Inspection, input_std: float) -> list[Choice]:
    """Returns the signal policy's choice for every kernel, in order of position.

    Args:
        inspection: the model's kernels.
        input_std: root mean square of the model's inputs.
    """
    policy = _Policy(inspection, input_std)
    return [policy.choice(kernel) for kernel in inspection.kernels]


class _Policy:
    def __init__(self, inspection: Inspection, input_std: float):
        self.inspection = inspection
        self.carriers = carriers(inspection)
        self.lengths = stretch_lengths(inspection, self.carriers)
        # The std of pre-activations, where it is not 1: where the signal shrinks.
        self.stds: dict[int, float] = {}
        self.arrivals = Arrivals(inspection, input_std, self.stds)

    def choice(self, kernel: KernelRecord) -> Choice:
        if not kernel.trainable:
            return FROZEN
        if kernel.role == "recurrent":
            return self._recurrent(kernel)
        if kernel.role == "embedding":
            return self._embedding()
        source = self._carrying_source(kernel)
        if source is not None or self.carriers[kernel.position] is not Carrier.RANDOM:
            return self._in_stretch(kernel, source)
        return self._random(kernel)

    def _carrying_source(self, kernel: KernelRecord) -> KernelRecord | None:
        """The kernel before it in its stretch, or None at the stretch's start."""
        source = kernel.links[0].source
        if len(kernel.links) > 1 or not isinstance(source, int):
            return None
        is_carrying = self.carriers[source] is not Carrier.RANDOM
        return self.inspection.kernels[source] if is_carrying else None

    def _in_stretch(self, kernel: KernelRecord, source: KernelRecord | None) -> Choice:
        own = self.carriers[kernel.position]
        before = self.carriers[source.position] if source else Carrier.RANDOM
        statistics = activation_statistics(source.activation if source else None)
        is_pair_in, is_pair_out = (c is Carrier.MIRRORED for c in (before, own))
        inputs, outputs = kernel.shape[-2], kernel.shape[-1]
        rows = inputs // 2 if is_pair_in else inputs
        columns = outputs // 2 if is_pair_out else outputs
        # An orthogonal matrix to more units spreads the signal thin.
        widening = math.sqrt(max(1.0, columns / rows))
        if source is None:
            reading = 1 / math.sqrt(self.arrivals.at(kernel).moment)
        else:
            reading = _reading_gain(before, statistics)
        gain = _tidy(reading * widening)
        if is_pair_in or is_pair_out:
            initializer = MirroredOrthogonal(gain, is_pair_in, is_pair_out)
        elif kernel.axes.window:
            initializer = DeltaOrthogonal(gain)
        else:
            initializer = Orthogonal(gain)
        pooled = kernel.links[0].has(Effect.CHANNEL_LINEAR) if kernel.links else False
        telling = own if own is not Carrier.RANDOM else before
        told = kernel if own is not Carrier.RANDOM else source or kernel
        reason, reference = _told(telling, told, self.lengths[kernel.position])
        std = self.stds.get(source.position, 1.0) if source else 1.0
        kept, slope = 1.0, math.sqrt(self._slope_before(kernel))
        if source is not None:
            kept, slope = _passed_on(
                before, source.activation, statistics, std, reading
            )
        self.stds[kernel.position] = std * kept
        backward = gain * math.sqrt(min(rows, columns) / rows) * slope
        if is_pair_out:  # the gradients of a pair add up, each is its slope's share
            mirrored = activation_statistics(kernel.activation)
            backward *= abs(mirrored.odd_slope)
            backward /= math.sqrt(mirrored.derivative_second_moment)
        return Choice(
            initializer=initializer,
            reason=reason,
            reference=reference,
            confidence=_ESTIMATE if pooled else _CONSTRUCTION,
            alternatives=("orthogonal", "he_normal"),
            forward_gain=std * kept / self._input_scale(kernel),
            backward_gain=backward,
            centered_mean=statistics.mean if before is Carrier.CENTERED else None,
        )

    def _input_scale(self, kernel: KernelRecord) -> float:
        """The std that a kernel's gain is relative to: the input's for the first."""
        if kernel.upstream is None:
            return self.arrivals.input_std
        return self.stds.get(kernel.upstream, 1.0)

    def _random(self, kernel: KernelRecord) -> Choice:
        arrival = self.arrivals.at(kernel)
        branches = 0 if kernel.normalization else kernel.branches
        shrink = 1 / max(1, branches)
        scale = _tidy(shrink / arrival.moment)
        initializer = _variance_scaling(kernel, scale)
        std = math.sqrt(scale / max(1.0, kernel.fans.fan_in))
        reason, reference = self._random_reason(kernel, arrival, branches)
        return Choice(
            initializer=initializer,
            reason=reason,
            reference=reference,
            confidence=_VARIANCE if arrival.is_exact else _ESTIMATE,
            alternatives=("orthogonal", "glorot_uniform"),
            forward_gain=math.sqrt(shrink) / self._input_scale(kernel),
            backward_gain=std
            * math.sqrt(kernel.fans.fan_out * self._slope_before(kernel)),
        )

    def _random_reason(
        self, kernel: KernelRecord, arrival: Arrival, branches: int
    ) -> tuple[str, str]:
        scale = _tidy(1 / arrival.moment)
        keras_fan_in = keras_fans(kernel.shape).fan_in
        fan = ""
        if kernel.fans.fan_in != keras_fan_in:
            fan = f"; Keras counts fan_in {keras_fan_in} for this shape"
        if branches:
            return (
                f"closes 1 of {branches} residual branches: variance "
                f"{_tidy(scale / branches):.3g}/fan_in keeps their sum bounded{fan}",
                _FIXUP,
            )
        about = "" if arrival.is_exact else "about "
        after = ", normalized after it" if kernel.normalization else ""
        reads = f"reads {_reads(kernel)} of mean square {about}{arrival.moment:.3g}"
        return (
            f"{reads}{after}: variance {scale:.3g}/fan_in{fan}",
            {1.0: _LECUN, 2.0: _HE}.get(scale, _POOLE),
        )

    def _recurrent(self, kernel: KernelRecord) -> Choice:
        if kernel.axes.window:
            return self._random(kernel)
        gates = kernel.axes.gates
        kept = f"each of {gates} gates orthogonal" if gates > 1 else "orthogonal"
        return Choice(
            initializer=Orthogonal(gates=gates),
            reason=f"recurrent: {kept}, so that the state keeps its norm",
            reference=_SAXE,
            confidence=_VARIANCE,
            alternatives=("glorot_uniform",),
            forward_gain=1.0,
            backward_gain=1.0,
        )

    def _embedding(self) -> Choice:
        return Choice(
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            reason="a row is looked up, not summed (fan_in 1): unit variance",
            reference=_LECUN,
            confidence=_ESTIMATE,
            alternatives=("random_uniform",),
            forward_gain=1.0,
        )

    def _slope_before(self, kernel: KernelRecord) -> float:
        """E[φ′²] of the activations between this kernel and the one before."""
        slope = 1.0
        for passage in kernel.links[0].passages if kernel.links else ():
            if passage.effect is Effect.ACTIVATION:
                statistics = statistics_or_none(passage.activation)
                slope *= statistics.derivative_second_moment if statistics else 1.0
        return slope


def _reading_gain(carrier: Carrier, statistics: ActivationStatistics) -> float:
    """The gain at which an orthogonal kernel reads a unit signal back."""
    if carrier is Carrier.MIRRORED:
        return 1 / math.sqrt(statistics.odd_second_moment)
    if carrier is Carrier.CENTERED:
        return 1 / math.sqrt(statistics.variance)
    return 1 / abs(statistics.slope_at_zero)


def _passed_on(
    carrier: Carrier,
    activation: Any,
    statistics: ActivationStatistics,
    std: float,
    reading: float,
) -> tuple[float, float]:
    """What is kept of a signal of this std, and the rms slope for gradients."""
    if carrier is Carrier.LINEAR_POINT:  # the only one whose signal shrinks
        moment, slope = moments_at(activation, std)
        return reading * math.sqrt(moment) / std, math.sqrt(slope)
    return 1.0, math.sqrt(statistics.derivative_second_moment)


def _told(carrier: Carrier, kernel: KernelRecord, length: int) -> tuple[str, str]:
    """The reason and reference for a kernel of a stretch."""
    plain = f"{length} plain {kernel.activation_name} layers"
    if carrier is Carrier.MIRRORED:
        statistics = activation_statistics(kernel.activation)
        exactly = "exactly" if statistics.odd_error < 1e-4 else "nearly"
        return (
            f"{plain}: mirrored pairs make them {exactly} linear and orthogonal",
            _LOOKS_LINEAR,
        )
    if carrier is Carrier.CENTERED:
        return (
            f"{plain}: orthogonal over std(φ), the bias takes the mean "
            f"{activation_statistics(kernel.activation).mean:.3g} out",
            _POOLE,
        )
    return f"{plain}: orthogonal at the linear point φ(0) = 0", _ISOMETRY


def _reads(kernel: KernelRecord) -> str:
    """What the kernel reads, in words."""
    link = kernel.links[0] if kernel.links else Link(None)
    for passage in reversed(link.passages):
        if passage.effect is Effect.ACTIVATION:
            return activation_name(passage.activation)
        if passage.effect is Effect.NORMALIZATION:
            return "normalized units"
    if link.source is None:
        return "the input"
    if isinstance(link.source, Merge):
        return {Effect.ADD: "a sum", Effect.CONCATENATE: "several signals"}.get(
            link.source.effect, "a product"
        )
    return "linear units"


def _variance_scaling(kernel: KernelRecord, scale: float) -> Any:
    if kernel.fans.fan_in != keras_fans(kernel.shape).fan_in:
        return keras.initializers.RandomNormal(
            stddev=math.sqrt(scale / max(1.0, kernel.fans.fan_in))
        )
    if scale == 2.0:
        return keras.initializers.HeNormal()
    if scale == 1.0:
        return keras.initializers.LecunNormal()
    return keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")


def _tidy(value: float) -> float:
    """Drops the quadrature's rounding, so that ReLU's 2 is 2 on every backend."""
    return float(f"{value:.5g}")
