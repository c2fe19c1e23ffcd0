"""What gradient norms say about a model, in rules with thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from ._alerts import Alert

NOT_FINITE = "not finite"
# Norms of neighboring kernels differ by a factor of a few in what trains, and by tens
# next to a bottleneck. float32 gradients a hundred thousand times smaller than the
# largest do nothing within a usual number of steps, at a rate that the largest bears.
LEAP_BY_LAYER = 100.0
SPAN = 1e5
# Norms of successive batches scatter by a factor of a few.
LEAP_IN_TIME = 100.0
_STEPS_TO_KNOW, _KERNELS_TO_KNOW, _ZEROS_TO_KNOW = 10, 6, 3
# About 1e-3 is what healthy training shows.
LARGE_UPDATE = 0.1


@dataclass(frozen=True)
class Observation:
    """What the rules look at in one observed step.

    Attributes:
        step: its number.
        norms: the gradient norm of each layer.
        totals: the sum of each operation's output, in the order of execution.
        kernels: the layers that own a matrix, whose norms can be compared.
        ratios: update-to-weight ratio of each layer, if measured.
    """

    step: int
    norms: Mapping[str, float]
    totals: Mapping[str, np.ndarray]
    kernels: Set[str]
    ratios: Mapping[str, float]

    @property
    def order(self) -> list[str]:
        """The layers that have a norm, in the order of execution."""
        known = [path for path in self.totals if path in self.norms]
        return [*known, *(path for path in self.norms if path not in self.totals)]


@dataclass
class Rules:
    """Judges the steps of a fit, one after the other."""

    _past: list[float] = field(default_factory=list)
    _zeros: dict[str, int] = field(default_factory=dict)

    def judge(self, seen: Observation) -> Iterator[Alert]:
        """Yields what is wrong in a step."""
        broken = _not_finite(seen)
        if broken is not None:
            yield broken
            return
        yield from _by_depth(seen)
        yield from self._no_gradient(seen)
        yield from self._leap(seen)
        yield from _large_updates(seen)

    def _no_gradient(self, seen: Observation) -> Iterator[Alert]:
        """Layers whose gradient stays exactly 0 while others learn.

        A branch that a zero closes has none in the first step only.
        """
        learns = any(norm > 0 for norm in seen.norms.values())
        for path in seen.order if learns else ():
            count = self._zeros.get(path, 0) + 1 if seen.norms[path] == 0 else 0
            self._zeros[path] = count
            if count == _ZEROS_TO_KNOW:
                yield Alert(
                    "no gradient",
                    path,
                    seen.step,
                    0.0,
                    f"got a gradient of exactly 0 in {count} steps",
                    "All units after it may be dead, or the loss may not depend on it.",
                )

    def _leap(self, seen: Observation) -> Iterator[Alert]:
        """The global norm far above what it has been."""
        norm = float(np.sqrt(sum(value**2 for value in seen.norms.values())))
        past = self._past[-50:]
        if len(past) >= _STEPS_TO_KNOW and norm > LEAP_IN_TIME * np.median(past) > 0:
            worst = max(seen.norms, key=seen.norms.__getitem__)
            usual = float(np.median(past))
            yield Alert(
                "gradient leaps",
                worst,
                seen.step,
                norm,
                f"has most of a gradient of norm {norm:.3g}, {norm / usual:.3g} times "
                "the usual",
                "Clip it, as `global_clipnorm=1.0` of the optimizer does, or lower the "
                "learning rate.",
            )
        self._past = [*past, norm]


def _not_finite(seen: Observation) -> Alert | None:
    """The first layer forward whose output is broken, else the last one's gradient."""
    for path, total in seen.totals.items():
        if not np.all(np.isfinite(total)):
            return Alert(
                NOT_FINITE,
                path,
                seen.step,
                float(np.sum(total)),
                "returns the first number that is not finite",
                "Look at its weights and at what it receives; lower the learning rate.",
            )
    for path in reversed(seen.order):
        norm = seen.norms[path]
        if not np.isfinite(norm):
            return Alert(
                NOT_FINITE,
                path,
                seen.step,
                norm,
                f"is the last layer, and so the first backward, with a gradient of "
                f"{norm}, while every output is finite",
                "Look at the derivative of what follows it: of √0, log 0 or 0/0.",
            )
    return None


def _by_depth(seen: Observation) -> Iterator[Alert]:
    """Norms that leap at one kernel, or drift apart over many.

    Medians of many kernels are compared: one alone, as on a branch that a small scale
    closes, says nothing.
    """
    norms = {
        path: seen.norms[path]
        for path in seen.order
        if path in seen.kernels and seen.norms[path] > 0
    }
    if len(norms) < _KERNELS_TO_KNOW:
        return
    order, values = list(norms), np.array(list(norms.values()))
    third = len(values) // 3
    span = float(np.median(values[:third]) / np.median(values[-third:]))
    leaps = values[:-1] / values[1:]
    leaps[[not _is_step(values, i) for i in range(len(leaps))]] = 0.0
    last = int(np.argmax(leaps))
    if leaps[last] > LEAP_BY_LAYER:
        yield Alert(
            "exploding gradients",
            order[last],
            seen.step,
            float(leaps[last]),
            f"gets a gradient {leaps[last]:.3g} times as large as {order[last + 1]}, "
            "and so do the layers before it",
            "What lies between the two multiplies it: look at its weights and scales.",
        )
    elif span > SPAN or span < 1 / SPAN:
        name, best = ("exploding", max) if span > 1 else ("vanishing", min)
        path = best(norms, key=norms.__getitem__)
        yield Alert(
            f"{name} gradients",
            path,
            seen.step,
            norms[path],
            f"has gradient norm {norms[path]:.3g}; from the last layers to the first "
            f"it changes {span:.3g}-fold",
            "Start from `keras_initlab.recommend(model).apply()`, or add normalization "
            "or skip connections.",
        )


def _is_step(values: np.ndarray, last: int) -> bool:
    """Whether norms are higher up to a kernel than after it, as a whole."""
    before, after = values[: last + 1], values[last + 1 :]
    return float(np.median(before)) > LEAP_BY_LAYER * float(np.median(after))


def _large_updates(seen: Observation) -> Iterator[Alert]:
    for path, ratio in seen.ratios.items():
        if ratio > LARGE_UPDATE:
            yield Alert(
                "large updates",
                path,
                seen.step,
                ratio,
                f"changes by {ratio:.0%} of its weights' norm in one step",
                "Lower the learning rate, or warm it up.",
            )
