"""What a probe says of one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._core.reports import Record
from .._keras.kinds import kind_of
from ._figures import Figures, GradientSpread, Spread, gradient_spread, spread
from ._observer import Watched
from ._weights import WeightSignal

_SAME = 1e-6  # figures of one tensor, before and after a change of its shape


@dataclass(frozen=True)
class LayerSignal(Record):
    """A layer in one forward and one backward pass.

    Attributes:
        path: its path, unique in the model.
        kind: its class name.
        shape: the shape of what it returned, `(batch, …)`; empty if it did not run.
        calls: how often it ran in sight; figures join all calls.
        has_kernel: whether it owns a kernel.
        activation: the name of its activation, `linear` for none.
        input: statistics of what it received; None for word numbers and the like.
        preactivation: of what its activation received; those of the output if it has
            no activation; None if that is out of sight, as in a recurrent layer.
        output: of what it returned, None if it did not run.
        dead_units: indices of units that are 0 for every example and position. Where
            calls differ in width, the units of each width follow one another.
        units: how many units it has.
        saturated_share: the share of outputs within 1 % of the range of its activation
            from either limit; None for activations without two limits.
        usually_saturated: that share for N(0, 1) pre-activations: half for ReLU6.
        variance_preservation: the std of its pre-activations over that of what it
            received; over 1 for a layer that reads the model's input; 0 where the std
            received is 0. None without a kernel.
        gradient: the gradient of the loss by what it returned. All 0 if the loss does
            not depend on that; None where it cannot be seen.
        weights: its variables of floating point.
    """

    path: str
    kind: str
    shape: tuple[int, ...] = ()
    calls: int = 0
    has_kernel: bool = False
    activation: str = "linear"
    input: Spread | None = None
    preactivation: Spread | None = None
    output: Spread | None = None
    dead_units: tuple[int, ...] = ()
    units: int = 0
    saturated_share: float | None = None
    usually_saturated: float = 0.0
    variance_preservation: float | None = None
    gradient: GradientSpread | None = None
    weights: tuple[WeightSignal, ...] = ()

    _derived = ("dead_share", "weight_gradient_norm")

    @property
    def dead_share(self) -> float:
        """The share of its units that are dead, in [0, 1]."""
        return len(self.dead_units) / self.units if self.units else 0.0

    @property
    def kernel(self) -> WeightSignal | None:
        """Its first kernel, if it owns one."""
        return next((one for one in self.weights if one.is_kernel), None)

    @property
    def weight_gradient_norm(self) -> float | None:
        """L2 norm of the gradient by all its weights; None if all are frozen."""
        norms = [w.gradient_norm for w in self.weights if w.gradient_norm is not None]
        return math.hypot(*norms) if norms else None

    @property
    def signal(self) -> Spread | None:
        """The pre-activations, or what it returned where these are out of sight."""
        return self.output if self.preactivation is None else self.preactivation


def layer_signals(
    watched: Sequence[Watched],
    names: dict[int, str],
    weights: dict[int, tuple[WeightSignal, ...]],
    inputs: Sequence[Figures],
    scale: float,
) -> list[LayerSignal]:
    """Returns a record for every layer that has figures of its own.

    Args:
        watched: what was seen, in the order of execution.
        names: the names of the activations, by the operation's id.
        weights: the records of the weights, by the operation's id.
        inputs: figures of what the model received.
        scale: what the loss was multiplied by.
    """
    is_first = _readers_of_input(watched, inputs)
    return [
        _layer_signal(
            one,
            names.get(id(one.operation), "linear"),
            weights.get(id(one.operation), ()),
            is_first[id(one.operation)],
            scale,
        )
        for one in watched
    ]


def _layer_signal(
    one: Watched,
    activation: str,
    weights: tuple[WeightSignal, ...],
    is_first: bool,
    scale: float,
) -> LayerSignal:
    kind, is_own = type(one.operation).__name__, one.has_kernel
    if not one.calls:
        return LayerSignal(one.path, kind, has_kernel=is_own, weights=weights)
    given = spread(one.inputs) if one.inputs else None
    after = spread(one.outputs)
    is_loop = kind_of(one.operation).is_loop
    before = after if one.activation is None and not is_loop else None
    if one.before and not is_loop:
        before = spread(one.before)
    fired = _joint(one.fired)
    dead = () if after.not_finite else tuple(np.flatnonzero(~fired).tolist())
    near = sum(one.near) / max(1, after.count)
    return LayerSignal(
        path=one.path,
        kind=kind,
        shape=one.shape,
        calls=one.calls,
        has_kernel=is_own,
        activation=activation,
        input=given,
        preactivation=before,
        output=after,
        dead_units=dead,
        units=len(fired),
        saturated_share=near if one.limits is not None else None,
        usually_saturated=one.usually_near,
        variance_preservation=_preservation(one, before, given, is_first),
        gradient=_gradient(one, scale),
        weights=weights,
    )


def _joint(fired: Sequence[np.ndarray]) -> np.ndarray:
    """Which units fired in any call; those of other widths follow one another."""
    widths: dict[int, np.ndarray] = {}
    for row in fired:
        widths[len(row)] = widths.get(len(row), False) | row
    return np.concatenate(list(widths.values()))


def _preservation(
    one: Watched, before: Spread | None, given: Spread | None, is_first: bool
) -> float | None:
    """The std of the pre-activations over that of the post-activations before."""
    if not one.has_kernel or before is None:
        return None
    if is_first or given is None:
        return before.std
    return before.std / given.std if given.std != 0 else 0.0


def _gradient(one: Watched, scale: float) -> GradientSpread | None:
    if one.gradients:
        return gradient_spread(one.gradients, scale)
    # A loss that reads the logits instead, as TensorFlow's, goes around the output.
    return None if one.is_bypassed else GradientSpread(0.0, 0.0, 0.0)


def _readers_of_input(
    watched: Sequence[Watched], inputs: Sequence[Figures]
) -> dict[int, bool]:
    """Whether each layer reads what the model received, by the operation's id.

    A cast or a reshape makes another tensor of it, with the same figures. The first
    layer with a kernel counts as one in any case.
    """
    kernels = [one for one in watched if one.has_kernel and one.calls]
    known = [*inputs, *(row for one in kernels[:1] for row in one.inputs)]
    first = kernels[0] if kernels else None
    return {
        id(one.operation): one is first
        or (bool(one.inputs) and all(_is_known(row, known) for row in one.inputs))
        for one in watched
    }


def _is_known(figures: Figures, known: Sequence[Figures]) -> bool:
    # Neither how examples differ, which a reshape of positions may change.
    return any(np.allclose(figures[:6], one[:6], rtol=_SAME, atol=0) for one in known)
