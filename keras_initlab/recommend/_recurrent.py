"""Recurrent layers: their kernels, and the state they hand on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from .._activations import moments_at
from ..initializers import Orthogonal
from ..inspection import KernelRecord
from ._choice import VARIANCE, Choice

_SAXE = "Saxe et al. 2014, 1312.6120, sec. 4"
_FORGET = "Jozefowicz et al. 2015, sec. 5.1"
_SETTLED = 50  # steps of the fixed point; it contracts by a half in each


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


def state_moment(kernel: KernelRecord) -> float:
    """Returns E[h²] of a recurrent layer's state when its input gives unit gates.

    The fixed point of the cell's own recursion with independent, Gaussian gates: the
    input contributes variance 1 to each, the state its own mean square.

    Args:
        kernel: the cell's recurrent kernel.
    """
    step = _step(kernel.layer)
    moment = 0.0
    for _ in range(_SETTLED):
        moment = min(1.0, step(math.sqrt(1 + moment)))
    return max(moment, 1e-3)


def _step(cell: Any) -> Callable[[float], float]:
    """The state's next mean square, by the std of what the gates receive."""
    gate = getattr(cell, "recurrent_activation", None)
    if gate is None:
        return lambda std: _moment(cell.activation, std)
    if "GRU" in type(cell).__name__:
        return lambda std: _gru_step(cell.activation, gate, std)
    is_opened = getattr(cell, "unit_forget_bias", False)
    forget = _opened(gate) if is_opened else gate
    return lambda std: _lstm_step(cell.activation, gate, forget, std)


def _gru_step(activation: Any, gate: Any, std: float) -> float:
    # E[(1 − z)²] = E[z²] for a gate that is odd about one half.
    share = _moment(gate, std)
    return share * _moment(activation, std) / max(1e-3, 1 - share)


def _lstm_step(activation: Any, gate: Any, forget: Any, std: float) -> float:
    let_in = _moment(gate, std)
    carried = max(1e-3, 1 - _moment(forget, std))
    cell = let_in * _moment(activation, std) / carried
    return let_in * _moment(activation, math.sqrt(cell))


def _moment(activation: Any, std: float) -> float:
    try:
        return moments_at(activation, std)[0]
    except ValueError:  # mixes units, or is no function of one value
        return 1.0


@functools.lru_cache(maxsize=16)
def _opened(gate: Any) -> Callable[[Any], Any]:
    """A gate whose bias is one."""
    return lambda z: gate(z + 1)
