"""What the statistics of activations say about a model, in rules with thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ._finding import NOT_FINITE, Finding
from ._thresholds import ALIKE, FINITE, LARGEST, SIGNAL_LEAP, SIGNAL_SPAN

_LAYERS_TO_KNOW = 6
# A branch that starts from zeros is constant in the first step only; a few ReLU units
# may rest on a single example.
_STEPS_TO_KNOW, _NUMBERS_TO_KNOW = 3, 100
_CURE = "Start from `keras_initlab.recommend(model).apply()`."


@dataclass(frozen=True)
class Signal:
    """What a layer does in one observed step.

    Sizes are root mean squares: the standard deviation of a layer with few units says
    little, where all examples have become alike.

    Attributes:
        count: how many numbers it returned.
        mean: their mean.
        std: their standard deviation.
        largest: the largest of their absolute values.
        given: the size of what it received; NaN if that is no signal, as token numbers.
        size: that of its pre-activations; of what it returns, if it has none.
    """

    count: float
    mean: float
    std: float
    largest: float
    given: float
    size: float


@dataclass
class SignalRules:
    """Judges the steps of a fit, one after the other."""

    _resting: dict[str, tuple[int, float]] = field(default_factory=dict)
    _is_broken: bool = False

    def judge(self, step: int, seen: Mapping[str, Signal]) -> Iterator[Finding]:
        """Yields what is wrong in a step.

        Args:
            step: its number.
            seen: the layers that were seen, by path, in the order of execution.
        """
        broken, was_broken = _not_finite(step, seen), self._is_broken
        self._is_broken = broken is not None
        if broken is not None:
            if not was_broken:  # the steps after it show what came of it
                yield broken
            return
        yield from self._constant(step, seen)
        yield from _by_depth(step, seen)

    def _constant(self, step: int, seen: Mapping[str, Signal]) -> Iterator[Finding]:
        """Layers that return one number for every example and unit, and go on so."""
        for path, one in seen.items():
            steps, numbers = self._resting.get(path, (0, 0.0))
            is_resting = one.std == 0
            steps, numbers = (steps + 1, numbers + one.count) if is_resting else (0, 0)
            self._resting[path] = steps, numbers
            if steps >= _STEPS_TO_KNOW and numbers >= _NUMBERS_TO_KNOW:
                text = (
                    f"has returned {one.mean:.3g} for every example and unit, {steps} "
                    "observed steps in a row"
                )
                cure = f"Its units may be dead or saturated, or its weights 0. {_CURE}"
                yield Finding(
                    "constant outputs",
                    path,
                    0.0,
                    (ALIKE, math.inf),
                    text,
                    cure,
                    step=step,
                )


def _not_finite(step: int, seen: Mapping[str, Signal]) -> Finding | None:
    """The first layer whose output is broken, or too large to have a deviation."""
    for path, one in seen.items():
        if not math.isfinite(one.mean) or math.isinf(one.largest):
            text = f"returns the first numbers that are not finite (mean {one.mean})"
            cure = "Look at its weights and its input; lower the learning rate."
            shown = one.largest if math.isfinite(one.mean) else one.mean
            return Finding(NOT_FINITE, path, shown, FINITE, text, cure, step=step)
        if not math.isfinite(one.std):
            text = f"returns numbers up to {one.largest:.3g}, whose squares overflow"
            most = math.sqrt(LARGEST)
            return Finding(
                "exploding signal", path, one.largest, (0, most), text, _CURE, step=step
            )
    return None


def _by_depth(step: int, seen: Mapping[str, Signal]) -> Iterator[Finding]:
    """A size that leaps at one layer for all that follow, or drifts over many.

    Medians are compared: a branch that a small scale closes says nothing of the rest.
    """
    sizes = {path: one.size for path, one in seen.items() if 0 < one.size < np.inf}
    paths, values = list(sizes), list(sizes.values())
    if not paths:
        return
    leap = _largest_leap([seen[path].given for path in paths], values)
    if leap is not None:
        index, factor = leap
        name = "exploding" if factor > 1 else "vanishing"
        change = f"{factor:.3g} times larger" if factor > 1 else _smaller(factor)
        text = f"makes the signal {change}, for all layers after it"
        cure = f"Look at the scale of its weights. {_CURE}"
        expected = 1 / SIGNAL_LEAP, SIGNAL_LEAP
        yield Finding(
            f"{name} signal", paths[index], factor, expected, text, cure, step=step
        )
    elif len(values) >= _LAYERS_TO_KNOW:
        third = len(values) // 3
        span = float(np.median(values[-third:]) / np.median(values[:third]))
        if not 1 / SIGNAL_SPAN <= span <= SIGNAL_SPAN:
            name, best = ("exploding", max) if span > 1 else ("vanishing", min)
            path = best(sizes, key=sizes.__getitem__)
            change = f"{span:.3g}-fold" if span > 1 else _smaller(span)
            text = (
                f"has a signal of size {sizes[path]:.3g}; from the first layers to the "
                f"last it becomes {change}"
            )
            expected = 1 / SIGNAL_SPAN, SIGNAL_SPAN
            yield Finding(
                f"{name} signal", path, span, expected, text, _CURE, step=step
            )


def _largest_leap(
    given: Sequence[float], sizes: Sequence[float]
) -> tuple[int, float] | None:
    """The layer that changes the size most, and all after it, and its factor.

    Not the last one, whose scale is the task's.
    """
    found: list[tuple[float, int, float]] = []
    start = [given[0]] if given[0] > 0 else []  # not NaN either
    for index, (received, size) in enumerate(zip(given[:-1], sizes[:-1], strict=True)):
        before = [*start, *sizes[:index]]
        if not (received > 0 and before):
            continue
        own = math.log(size) - math.log(received)
        whole = math.log(np.median(sizes[index:])) - math.log(np.median(before))
        least = min(abs(own), abs(whole)) if own * whole > 0 else 0.0
        if least > math.log(SIGNAL_LEAP):
            found.append((least, index, size / received))
    return max(found)[1:] if found else None


def _smaller(factor: float) -> str:
    return f"{1 / factor:.3g} times smaller"
