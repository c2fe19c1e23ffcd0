"""Recurrent layers: their kernels, and the state they hand on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from .._activations import moments_by_std
from ..initializers import Orthogonal
from ..inspection import KernelRecord
from ._choice import VARIANCE, Choice
from ._input_moments import statistics_or_none
from ._stretches import Carrier, by_symmetry

_SAXE = "Saxe et al. 2014, 1312.6120, sec. 4"
_FORGET = "Jozefowicz et al. 2015, sec. 5.1"
_SETTLED = 50  # steps of the fixed point; it contracts by a half in each
_USUAL_STEPS = 50  # of sequences whose length is open


def recurrent_choice(kernel: KernelRecord) -> Choice:
    """Returns the choice for a kernel from a cell's state to its gates."""
    gates = kernel.axes.gates
    kept = f"each of {gates} gates orthogonal" if gates > 1 else "orthogonal"
    opened = getattr(kernel.layer, "unit_forget_bias", False)
    return Choice(
        initializer=Orthogonal(gates=gates),
        reason=f"recurrent: {kept}, so that the state keeps its norm"
        + ("; the forget gate's bias stays 1" if opened else ""),
        reference=f"{_SAXE}; {_FORGET}" if opened else _SAXE,
        confidence=VARIANCE,
        alternatives=("glorot_uniform",),
        forward_gain=1.0,
        backward_gain=1.0,
    )


def input_std(kernel: KernelRecord) -> float:
    """Returns the std of what a cell's input contributes to each of its gates.

    A gate decides what is kept, and can do so at unit scale or below. A cell without
    gates keeps what its activation leaves: with an orthogonal recurrent kernel, an
    input of std s and tanh, E[h²] settles at s/√2, where E[tanh′²] is 1 − √2·s. Over T
    steps a signal's size then falls by exp(−sT/√2): by e, if s = √2/T.

    Args:
        kernel: the cell's kernel or recurrent kernel.
    """
    cell = kernel.layer
    if is_gated(kernel) or kernel.axes.window:
        return 1.0
    activation = getattr(cell, "activation", None)
    statistics = statistics_or_none(activation) if activation else None
    if statistics is None or by_symmetry(statistics) is not Carrier.LINEAR_POINT:
        return 1.0
    return min(1.0, math.sqrt(2) / (kernel.time_steps or _USUAL_STEPS))


def is_gated(kernel: KernelRecord) -> bool:
    """Whether a kernel is of a cell with gates."""
    return hasattr(kernel.layer, "recurrent_activation")


def state_moment(kernel: KernelRecord, std: float) -> float:
    """Returns E[h²] of a recurrent layer's state.

    What the cell's own recursion settles at with independent, Gaussian gates: the
    input contributes its variance to each, the state its own mean square.

    Args:
        kernel: the cell's recurrent kernel.
        std: of what its input contributes to each gate.
    """
    step, variance = _step(kernel.layer, kernel.gates), std**2
    settles = variance == 1 or is_gated(kernel)
    steps = _SETTLED if settles else kernel.time_steps or _USUAL_STEPS
    moment = 0.0
    for _ in range(steps):
        moment = min(1.0, step(math.sqrt(variance + moment)))
    return max(moment, min(1e-3, variance))


def _step(cell: Any, gates: int) -> Callable[[float], float]:
    """The state's next mean square, by the std of what the gates receive."""
    moment = _moment(getattr(cell, "activation", None))
    gate = getattr(cell, "recurrent_activation", None)
    if gate is None:
        return moment
    share = _moment(gate)
    if gates == 3:  # a GRU
        # E[(1 − z)²] = E[z²] for a gate that is odd about one half.
        return lambda std: share(std) * moment(std) / max(1e-3, 1 - share(std))
    kept = _moment(_opened(gate)) if getattr(cell, "unit_forget_bias", False) else share

    def lstm(std: float) -> float:
        cell_moment = share(std) * moment(std) / max(1e-3, 1 - kept(std))
        return share(std) * moment(math.sqrt(cell_moment))

    return lstm


def _moment(activation: Any) -> Callable[[float], float]:
    """The mean square that an activation leaves of a std.

    A cell that names none counts as linear, one that mixes units as giving one.
    """
    try:
        moments = moments_by_std(activation)
    except ValueError:  # mixes units, or is no function of one value
        return lambda std: 1.0
    return lambda std: moments(std)[0]


@functools.lru_cache(maxsize=16)
def _opened(gate: Any) -> Callable[[Any], Any]:
    """A gate whose bias is one."""
    return lambda z: gate(z + 1)
