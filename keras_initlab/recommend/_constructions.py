"""The kernels of plain deep stretches: constructions that keep the geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._activations import ActivationStatistics, activation_statistics, moments_by_std
from ..initializers import DeltaOrthogonal, MirroredOrthogonal, Orthogonal
from ..inspection import KernelRecord
from ._choice import CONSTRUCTION, Choice, tidy
from ._stretches import Carrier

_POOLE = "Poole et al. 2016, 1606.05340, eq. 3"
_LOOKS_LINEAR = "Balduzzi et al. 2017, 1702.08591, sec. 4.1"
_ISOMETRY = "Pennington et al. 2017, 1711.04735, sec. 2"

# Per layer, of a gradient's variance: sigmoid's 1.03 trains at 100 layers, sparse
# sigmoid's 1.32 does not at 50.
_MOST_GROWTH = 1.05
# A head that makes up for what 1,000 tanh layers have shrunk makes every step change
# the outputs so much more: 0.97 of the digits at a gain of 1, 0.93 at 3, 0.85 at 45.
_MOST_CHANGE = 1.0


@dataclass(frozen=True)
class Place:
    """A kernel's place in a plain stretch.

    Attributes:
        kernel: the kernel.
        own: how its output carries the signal.
        source: the kernel before it in the stretch, None at its start.
        before: how that one's output carries the signal.
        length: how many hidden layers the stretch has.
        moment: second moment of its input.
        std: of the pre-activations of `source`.
        target: the std its pre-activations are to have where they end the stretch.
        share: what averages over positions before it leave of the mean square.
    """

    kernel: KernelRecord
    own: Carrier
    source: KernelRecord | None
    before: Carrier
    length: int
    moment: float
    std: float
    target: float
    share: float = 1.0

    def construct(self, input_std: float, slope: float) -> tuple[Choice, float]:
        """Returns the choice for the kernel, and the std of its pre-activations.

        Args:
            input_std: the std that the choice's forward gain is relative to.
            slope: rms slope of the activations before the kernel.
        """
        statistics = activation_statistics(
            self.source.activation if self.source else None,
            self.std if self.before is Carrier.CENTERED else 1.0,
        )
        if self.source is None:
            reading, kept = 1 / math.sqrt(self.moment), 1.0
        else:
            reading = _reading_gain(self.before, statistics, self.std)
            kept, slope = _passed_on(
                self.before, self.source.activation, statistics, self.std, reading
            )
        std = self.std * kept
        change = (self._target() or std) / std
        if self.before is Carrier.LINEAR_POINT:
            change = min(change, _MOST_CHANGE)
        gain = tidy(reading * self._widening() * change / math.sqrt(self.share))
        std *= change
        reason, reference = self._reason()
        choice = Choice(
            initializer=self._initializer(gain),
            reason=reason,
            reference=reference,
            confidence=CONSTRUCTION,
            alternatives=("orthogonal", "he_normal"),
            forward_gain=std / input_std,
            backward_gain=gain * self._backward(slope),
            centered_mean=_center_of(statistics, self.before),
        )
        return choice, std

    def _target(self) -> float | None:
        """The std that the kernel brings the signal to, None to leave it as it is."""
        if self.own is Carrier.RANDOM:
            return self.target
        is_centered = self.own is Carrier.CENTERED
        return _centered_std(self.kernel.activation) if is_centered else None

    @property
    def is_spread(self) -> bool:
        """Whether the kernel reads its whole window: the center tap loses pixels.

        The first one of a stretch, whose channels would be copies of the input's, and
        one with strides, which steps over what is not in its center.
        """
        is_first_or_strided = self.source is None or self.kernel.axes.stride > 1
        return self._taps() > 1 and is_first_or_strided

    def _taps(self) -> int:
        return math.prod(self.kernel.shape[axis] for axis in self.kernel.axes.window)

    def _sides(self) -> tuple[int, int]:
        """Rows and columns of the orthogonal matrix; a pair of units counts once."""
        inputs, outputs = self.kernel.shape[-2], self.kernel.shape[-1]
        rows = inputs // 2 if self.before is Carrier.MIRRORED else inputs
        columns = outputs // 2 if self.own is Carrier.MIRRORED else outputs
        return rows * (self._taps() if self.is_spread else 1), columns

    def _widening(self) -> float:
        """An orthogonal matrix to more units spreads the signal thin."""
        rows, columns = self._sides()
        return math.sqrt(max(1.0, columns / rows))

    def _initializer(self, gain: float) -> Any:
        is_pair_in = self.before is Carrier.MIRRORED
        is_pair_out = self.own is Carrier.MIRRORED
        if is_pair_in or is_pair_out:
            spread = self.is_spread
            return MirroredOrthogonal(gain, is_pair_in, is_pair_out, spread=spread)
        if self.kernel.axes.window and not self.is_spread:
            return DeltaOrthogonal(gain)
        return Orthogonal(gain)

    def _backward(self, slope: float) -> float:
        """The factor on gradients beside the gain."""
        rows, columns = self._sides()
        met = self._taps() / self.kernel.axes.stride if self.is_spread else 1
        factor = math.sqrt(min(rows, columns) / rows * met) * slope
        if self.own is Carrier.MIRRORED:
            # The gradients of a pair add up, each is its slope's share.
            mirrored = activation_statistics(self.kernel.activation)
            factor *= abs(mirrored.odd_slope)
            factor /= math.sqrt(mirrored.derivative_second_moment)
        return factor

    def _reason(self) -> tuple[str, str]:
        if self.own is not Carrier.RANDOM or self.source is None:
            return _reason(self.own, self.kernel, self.length)
        return _reason(self.before, self.source, self.length)


def _reading_gain(
    carrier: Carrier, statistics: ActivationStatistics, std: float
) -> float:
    """The gain at which an orthogonal kernel reads a signal of this std back."""
    if carrier is Carrier.MIRRORED:
        return 1 / math.sqrt(statistics.odd_second_moment)
    if carrier is Carrier.CENTERED:
        return std / math.sqrt(statistics.variance)
    return 1 / abs(statistics.slope_at_zero)


def _centered_std(activation: Any) -> float:
    """The largest std at which an activation is nearly linear about its center.

    There the gradient grows by no more than √1.05 a layer, where the signal keeps its
    variance: a sigmoid's by 1.5 % at std 1, a sparse sigmoid's by 1.8 % at 0.5.
    """
    for std in (1.0, 0.5):
        statistics = activation_statistics(activation, std)
        moment = std**2 * statistics.derivative_second_moment
        if moment < _MOST_GROWTH * statistics.variance:
            return std
    return 0.25


def _center_of(statistics: ActivationStatistics, carrier: Carrier) -> float | None:
    """φ(0), if the bias of what reads the activation is to take it out."""
    return statistics.value_at_zero if carrier is Carrier.CENTERED else None


def _passed_on(
    carrier: Carrier,
    activation: Any,
    statistics: ActivationStatistics,
    std: float,
    reading: float,
) -> tuple[float, float]:
    """What is kept of a signal of this std, and the rms slope for gradients."""
    if carrier is Carrier.LINEAR_POINT:  # the only one whose signal shrinks
        moment, slope = moments_by_std(activation)(std)
        return reading * math.sqrt(moment) / std, math.sqrt(slope)
    return 1.0, math.sqrt(statistics.derivative_second_moment)


def _reason(carrier: Carrier, kernel: KernelRecord, length: int) -> tuple[str, str]:
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
        center = activation_statistics(kernel.activation).value_at_zero
        std = _centered_std(kernel.activation)
        at = "" if std == 1 else f" at std {std:g}"
        how = f"orthogonal over std(φ){at}, the bias takes the mean {center:.3g} out"
        return f"{plain}: {how}", _POOLE
    return f"{plain}: orthogonal at the linear point φ(0) = 0", _ISOMETRY
