"""Which units fire, and their history: dead at the start, died, revived."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_initlab._activations import Asymptotes, asymptotes, is_rectifier
from keras_initlab.observing import Reduction, escapes_per_unit, fires_per_unit


class UnitEvent(NamedTuple):
    """One change in the life of a unit.

    Attributes:
        unit: its index.
        step: when.
        kind: "dead at start", "died" or "revived".

    Example:
        >>> unit, step, kind = UnitEvent(3, 120, "died")
    """

    unit: int
    step: int
    kind: str


@dataclass(frozen=True)
class Watched:
    """An operation whose units can die.

    Attributes:
        operation: the layer or raw operation.
        reduction: to an array `(1 or 2, units)`: whether each unit has left the lower
            limit, and whether its activation has had a slope.
        is_bounded: whether its activation has an upper limit, too.
    """

    operation: Any
    reduction: Reduction
    is_bounded: bool


def watched(operation: Any, activation: Any, threshold: float | None) -> Watched | None:
    """Returns how an operation is watched, None if its units cannot die.

    Args:
        operation: a layer or raw operation.
        activation: what it applies to its output; None for nothing.
        threshold: how near to a limit counts as there; None for exactly.
    """
    if activation is None:
        return None
    ends: Any = asymptotes(activation)
    if threshold is None:
        if not is_rectifier(activation):
            return None
        ends = Asymptotes(0.0, ends.high, is_leaky=False)
    if ends == Asymptotes(None, None, is_leaky=False):
        return None
    margin = threshold or 0.0
    is_bounded = ends.high is not None

    low: Any = ends.low

    def is_low(output: Any) -> Any:
        if low is None and not ends.is_leaky:
            return output < -math.inf
        is_near = output <= (low or 0.0) + margin
        if threshold is None or low is None:
            return is_near
        # GELU and SiLU fall below their limit before they come to it.
        return ops.logical_and(is_near, output >= low - margin)

    def is_flat(output: Any) -> Any:
        return ops.logical_or(is_low(output), output >= ends.high - margin)

    if threshold is None and not is_bounded:
        return Watched(operation, fires_per_unit(operation), is_bounded)
    tests = [is_low, is_flat] if is_bounded else [is_low]
    name = f"beyond {margin} of {ends}"
    return Watched(operation, escapes_per_unit(operation, name, tests), is_bounded)


class UnitHistory:
    """The units of one layer over the epochs.

    Args:
        missed: how many epochs there were without the layer.
    """

    def __init__(self, missed: int = 0) -> None:
        none = np.zeros(0, dtype="int64")
        self.dead: list[np.ndarray] = [none] * missed
        self.saturated: list[np.ndarray] = [none] * missed
        self._events: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._counts: list[int] = [0] * missed
        self._last_fired = np.zeros(0, dtype="int64")
        self._has_fired = np.zeros(0, dtype=bool)
        self._last_step: int | None = None
        self._is_dead = np.zeros(0, dtype=bool)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Counts anew."""
        self._fired: np.ndarray | None = None
        self._first_fired = np.zeros(0, dtype="int64")

    def observe(self, step: int, fired: np.ndarray) -> None:
        """Takes which units have left their limits in a step, `(1 or 2, units)`."""
        if self._fired is None:
            self._fired = np.zeros_like(fired)
            self._first_fired = np.full(fired.shape[1], -1)
            self._begin_units(step, fired.shape[1])
        self._last_step = step
        self._fired |= fired
        self._has_fired |= fired[0]
        self._last_fired[fired[0]] = step
        self._first_fired[fired[0] & (self._first_fired < 0)] = step

    def _begin_units(self, step: int, units: int) -> None:
        """Makes what did not fire count from here, where the count of steps begins."""
        is_new = len(self._last_fired) != units
        if is_new:
            self._has_fired = np.zeros(units, dtype=bool)
            self._is_dead = np.zeros(units, dtype=bool)
        if is_new or self._last_step is None or step <= self._last_step:
            self._last_fired = np.full(units, step - 1)

    def finish_epoch(self) -> None:
        """Judges the epoch."""
        fired = np.zeros((1, 0), dtype=bool) if self._fired is None else self._fired
        is_dead = ~fired[0]
        is_saturated = fired[0] & ~fired[-1]
        self.dead.append(np.flatnonzero(is_dead))
        self.saturated.append(np.flatnonzero(is_saturated))
        self._counts.append(fired.shape[1])
        if self._fired is not None:
            self._note_events(is_dead)

    def _note_events(self, is_dead: np.ndarray) -> None:
        died = np.flatnonzero(is_dead & ~self._is_dead)
        kinds = np.where(self._has_fired[died], "died", "dead at start")
        self._events.append((died, self._last_fired[died] + 1, kinds))
        revived = np.flatnonzero(~is_dead & self._is_dead)
        kinds = np.full(len(revived), "revived")
        self._events.append((revived, self._first_fired[revived], kinds))
        self._is_dead = is_dead

    @property
    def events(self) -> list[UnitEvent]:
        """Every change so far, epoch by epoch."""
        return [
            UnitEvent(*event)
            for found in self._events
            for event in zip(*(column.tolist() for column in found), strict=True)
        ]

    @property
    def is_seen(self) -> bool:
        """Whether the last epoch saw the units."""
        return bool(self._counts and self._counts[-1])

    @property
    def units(self) -> int:
        """How many the last epoch saw."""
        return self._counts[-1] if self._counts else 0

    def share(self, kind: str) -> float:
        """The share of units that were "dead" or "saturated" in the last epoch."""
        return _share(getattr(self, kind)[-1], self._counts[-1])

    def shares(self, kind: str) -> list[float]:
        """That of every epoch."""
        return list(map(_share, getattr(self, kind), self._counts))


def _share(units: np.ndarray, count: int) -> float:
    return len(units) / count if count else math.nan
