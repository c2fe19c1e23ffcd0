"""What gradient norms say about a model, in rules with thresholds."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from ._finding import NOT_FINITE, Finding
from ._thresholds import (
    FINITE,
    GRADIENT_LEAP,
    GRADIENT_LEAP_APART,
    GRADIENT_LEAP_IN_TIME,
    GRADIENT_SPAN,
    LARGE_UPDATE,
    LEAST_GRADIENT,
)

_STEPS_TO_KNOW, _KERNELS_TO_KNOW, _ZEROS_TO_KNOW = 10, 6, 3


@dataclass(frozen=True)
class Observation:
    """What the rules look at in one observed step.

    Attributes:
        step: its number.
        norms: the gradient norm of each layer.
        totals: the sum of each operation's output, in the order of execution.
        kernels: the layers that own a matrix, whose norms can be compared.
        ratios: update-to-weight ratio of each layer, if measured.
        is_scaled: whether the optimizer scales the loss, to skip the steps in which its
            gradients overflow.
    """

    step: int
    norms: Mapping[str, float]
    totals: Mapping[str, np.ndarray]
    kernels: Set[str]
    ratios: Mapping[str, float]
    is_scaled: bool = False

    @functools.cached_property
    def order(self) -> list[str]:
        """The layers that have a norm, in the order of execution."""
        known = [path for path in self.totals if path in self.norms]
        return [*known, *(path for path in self.norms if path not in self.totals)]


@dataclass
class Rules:
    """Judges the steps of a fit, one after the other."""

    _is_broken: bool = False
    _past: list[float] = field(default_factory=list)
    _largest: float = 0.0
    _closed: set[str] = field(default_factory=set)
    _zeros: dict[str, int] = field(default_factory=dict)

    def judge(self, seen: Observation) -> Iterator[Finding]:
        """Yields what is wrong in a step."""
        broken, was_broken = _not_finite(seen), self._is_broken
        self._is_broken = broken is not None
        if broken is not None and not was_broken:
            yield broken  # the steps after it show what came of it
        if not all(map(math.isfinite, seen.norms.values())):
            return
        yield from _by_depth(seen)
        yield from self._no_gradient(seen)
        yield from self._leap(seen)
        yield from self._large_updates(seen)

    def _no_gradient(self, seen: Observation) -> Iterator[Finding]:
        """Layers whose gradient stays exactly 0 while others learn.

        A branch that a zero closes has none in the first step only.
        """
        learns = any(norm > 0 for norm in seen.norms.values())
        for path in seen.order if learns else ():
            count = self._zeros.get(path, 0) + 1 if seen.norms[path] == 0 else 0
            self._zeros[path] = count
            if count == _ZEROS_TO_KNOW:
                yield Finding(
                    "no gradient",
                    path,
                    0.0,
                    (LEAST_GRADIENT, math.inf),
                    f"got a gradient of exactly 0 in {count} steps",
                    "All units after it may be dead, or the loss may not depend on it.",
                    step=seen.step,
                )

    def _leap(self, seen: Observation) -> Iterator[Finding]:
        """The global norm far above what it was lately, and above all before.

        Late in training single batches stand out; as large as at the start is harmless.
        """
        norm = float(np.sqrt(sum(value**2 for value in seen.norms.values())))
        past = self._past[-50:]
        is_new = norm > self._largest and len(past) >= _STEPS_TO_KNOW
        self._largest = max(norm, self._largest)
        if is_new and norm > GRADIENT_LEAP_IN_TIME * statistics.median(past) > 0:
            worst = max(seen.norms, key=seen.norms.__getitem__)
            usual = statistics.median(past)
            yield Finding(
                "gradient leaps",
                worst,
                norm,
                (0.0, GRADIENT_LEAP_IN_TIME * usual),
                f"has most of a gradient of norm {norm:.3g}, {norm / usual:.3g} times "
                "the usual",
                "Clip it, as `global_clipnorm=1.0` of the optimizer does, or lower the "
                "learning rate.",
                step=seen.step,
            )
        self._past = [*past, norm]

    def _large_updates(self, seen: Observation) -> Iterator[Finding]:
        """Layers that a step changes by much, unless they have only left 0."""
        for path, ratio in seen.ratios.items():
            if np.isnan(ratio):
                self._closed.add(path)  # its weights are 0, to begin with
            elif ratio <= LARGE_UPDATE:
                self._closed.discard(path)
            elif path in seen.kernels and path not in self._closed:
                yield Finding(
                    "large updates",
                    path,
                    ratio,
                    (0.0, LARGE_UPDATE),
                    f"changes by {ratio:.0%} of its weights' norm in one step",
                    "Lower the learning rate, or warm it up.",
                    step=seen.step,
                )


def _not_finite(seen: Observation) -> Finding | None:
    """The first layer forward whose output is broken, else the last one's gradient.

    An infinite output alone is none: attention masks are made of −∞.
    """
    is_trained = all(map(math.isfinite, seen.norms.values()))
    sums = np.array(list(seen.totals.values()))
    for path, total in () if np.all(np.isfinite(sums)) else seen.totals.items():
        if np.any(np.isnan(total)) or (np.any(np.isinf(total)) and not is_trained):
            return Finding(
                NOT_FINITE,
                path,
                float(np.sum(total)),
                FINITE,
                f"returns the first numbers that are not finite (their sum is "
                f"{np.sum(total)})",
                "Look at its weights and at what it receives; lower the learning rate.",
                step=seen.step,
            )
    for path in reversed(seen.order) if not seen.is_scaled else ():
        norm = seen.norms[path]
        if not np.isfinite(norm):
            return Finding(
                NOT_FINITE,
                path,
                norm,
                FINITE,
                f"is the last layer, and so the first backward, with a gradient of "
                f"{norm}, while every output is finite",
                "Look at the derivative of what follows it: of √0, log 0 or 0/0.",
                step=seen.step,
            )
    return None


def _by_depth(seen: Observation) -> Iterator[Finding]:
    """Norms that leap at one kernel, or drift apart over many.

    Many kernels are compared, and all must agree: those on a branch that a small scale
    closes say nothing of the others.
    """
    norms = {
        path: seen.norms[path]
        for path in seen.order
        if path in seen.kernels and seen.norms[path] > 0
    }
    if len(norms) < _KERNELS_TO_KNOW:
        return
    order, values = list(norms), np.array(list(norms.values()))
    leaps = values[:-1] / values[1:]
    found = [
        i for i in np.flatnonzero(leaps > GRADIENT_LEAP) if _is_step(values, int(i))
    ]
    if found:
        last = int(max(found, key=lambda i: leaps[i]))
        yield Finding(
            "exploding gradient",
            order[last],
            float(leaps[last]),
            (0.0, GRADIENT_LEAP),
            f"gets a gradient {leaps[last]:.3g} times as large as {order[last + 1]}, "
            "and so do the layers before it",
            "What lies between the two multiplies it: look at its weights and scales.",
            step=seen.step,
        )
    else:
        yield from _drift(seen.step, norms)


def _drift(step: int, norms: Mapping[str, float]) -> Iterator[Finding]:
    """Norms of the first third and of the last that are far apart, all of them."""
    values, third = list(norms.values()), len(norms) // 3
    first, others = values[:third], values[-third:]
    span = statistics.median(first) / statistics.median(others)
    low, high = (first, others) if span < 1 else (others, first)
    is_apart = min(high) > GRADIENT_LEAP_APART * max(low)
    if is_apart and not 1 / GRADIENT_SPAN <= span <= GRADIENT_SPAN:
        name, best = ("exploding", max) if span > 1 else ("vanishing", min)
        path = best(norms, key=norms.__getitem__)
        last_norm = statistics.median(others)
        yield Finding(
            f"{name} gradient",
            path,
            norms[path],
            (last_norm / GRADIENT_SPAN, last_norm * GRADIENT_SPAN),
            f"has gradient norm {norms[path]:.3g}; from the last layers to the first "
            f"it changes {span:.3g}-fold",
            "Start from `keras_initlab.recommend(model).apply()`, or add normalization "
            "or skip connections.",
            step=step,
        )


def _is_step(values: np.ndarray, last: int) -> bool:
    """Whether norms are higher up to a kernel than after it, as a whole.

    Every one is, and the medians by far: where a small scale closes most branches, a
    stem and a head have large norms, and what lies between them small ones.
    """
    before, after = values[: last + 1], values[last + 1 :]
    apart = statistics.median(before) / statistics.median(after)
    return apart > GRADIENT_LEAP and np.min(before) > GRADIENT_LEAP_APART * np.max(
        after
    )
