"""The kernels of plain deep stretches: constructions that keep the geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics, moments_at
from ..initializers import DeltaOrthogonal, MirroredOrthogonal, Orthogonal
from ..inspection import Effect, KernelRecord
from ._choice import CONSTRUCTION, ESTIMATE, Choice, tidy
from ._stretches import Carrier

_POOLE = "Poole et al. 2016, 1606.05340, eq. 3"
_LOOKS_LINEAR = "Balduzzi et al. 2017, 1702.08591, sec. 4.1"
_ISOMETRY = "Pennington et al. 2017, 1711.04735, sec. 2"


@dataclass(frozen=True)
class Place:
    """A kernel's place in a plain stretch.

    Attributes:
        kernel: the kernel.
        own: how its output carries the signal.
        source: the kernel before it in the stretch, None at its start.
        before: how that one's output carries the signal.
        length: how many hidden layers the stretch has.
        moment: mean square of what arrives, at its start.
        std: of the pre-activations of `source`.
        shrink: factor on the kernel where its output is to be smaller.
    """

    kernel: KernelRecord
    own: Carrier
    source: KernelRecord | None
    before: Carrier
    length: int
    moment: float
    std: float
    shrink: float

    def construct(self, input_std: float, slope: float) -> tuple[Choice, float]:
        """Returns the choice for the kernel, and the std of its pre-activations.

        Args:
            input_std: the std that the choice's forward gain is relative to.
            slope: rms slope of the activations before the kernel.
        """
        statistics = activation_statistics(
            self.source.activation if self.source else None
        )
        if self.source is None:
            reading, kept = 1 / math.sqrt(self.moment), 1.0
        else:
            reading = _reading_gain(self.before, statistics)
            kept, slope = _passed_on(
                self.before, self.source.activation, statistics, self.std, reading
            )
        gain = tidy(reading * self._widening() * self.shrink)
        std = self.std * kept * self.shrink
        reason, reference = self._told()
        choice = Choice(
            initializer=self._initializer(gain),
            reason=reason,
            reference=reference,
            confidence=ESTIMATE if self._is_pooled() else CONSTRUCTION,
            alternatives=("orthogonal", "he_normal"),
            forward_gain=std / input_std,
            backward_gain=gain * self._backward(slope),
            centered_mean=statistics.mean if self.before is Carrier.CENTERED else None,
        )
        return choice, std

    def _sides(self) -> tuple[float, float]:
        """Rows and columns of the orthogonal matrix; a pair of units counts once."""
        inputs, outputs = self.kernel.shape[-2], self.kernel.shape[-1]
        rows = inputs // 2 if self.before is Carrier.MIRRORED else inputs
        columns = outputs // 2 if self.own is Carrier.MIRRORED else outputs
        return rows, columns

    def _widening(self) -> float:
        """An orthogonal matrix to more units spreads the signal thin."""
        rows, columns = self._sides()
        return math.sqrt(max(1.0, columns / rows))

    def _initializer(self, gain: float) -> Any:
        is_pair_in = self.before is Carrier.MIRRORED
        is_pair_out = self.own is Carrier.MIRRORED
        if is_pair_in or is_pair_out:
            return MirroredOrthogonal(gain, is_pair_in, is_pair_out)
        if self.kernel.axes.window:
            return DeltaOrthogonal(gain)
        return Orthogonal(gain)

    def _is_pooled(self) -> bool:
        links = self.kernel.links
        return bool(links) and links[0].has(Effect.CHANNEL_LINEAR)

    def _backward(self, slope: float) -> float:
        """The factor on gradients beside the gain."""
        rows, columns = self._sides()
        factor = math.sqrt(min(rows, columns) / rows) * slope
        if self.own is Carrier.MIRRORED:
            # The gradients of a pair add up, each is its slope's share.
            mirrored = activation_statistics(self.kernel.activation)
            factor *= abs(mirrored.odd_slope)
            factor /= math.sqrt(mirrored.derivative_second_moment)
        return factor

    def _told(self) -> tuple[str, str]:
        if self.own is not Carrier.RANDOM or self.source is None:
            return _told(self.own, self.kernel, self.length)
        return _told(self.before, self.source, self.length)


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
