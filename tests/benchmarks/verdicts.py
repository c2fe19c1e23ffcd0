"""Verdicts on starts of a network, each judged at the rate that is best for it.

A *case* is a network under one optimizer. Each start (*arm*) is trained on it at
several rates, from several seeds. What an arm is worth is its mean score at its best
rate. Two arms are level if their means differ by less than the margin: two standard
errors of the difference, from the seeds and from the test set, or 0.01, the larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_MARGIN = 0.01
DEFAULT, OURS = "default", "ours"


@dataclass(frozen=True)
class AtRate:
    """An arm at one rate.

    Attributes:
        rate: the learning rate.
        score: the mean over seeds of the test score at the end; more is better.
        error: its standard error.
        curve: the mean test score before the first step and after every epoch.
    """

    rate: float
    score: float
    error: float
    curve: tuple[float, ...] = ()

    def reaches(self, target: float) -> float:
        """When the curve is first at a target, in shares of the training.

        Between two epochs the curve is a straight line. Infinity for never.
        """
        for number, (before, after) in enumerate(
            zip(self.curve, self.curve[1:], strict=False)
        ):
            if after >= target:
                rise = after - before
                share = (target - before) / rise if rise > 0 else 0.0
                return (number + max(0.0, share)) / (len(self.curve) - 1)
        return math.inf


def at_rate(
    rate: float,
    scores: Sequence[float],
    curves: Sequence[Sequence[float]] = (),
    tests: int | None = None,
) -> AtRate:
    """An arm at a rate, from its runs.

    Args:
        rate: the learning rate.
        scores: the score of every run, a seed each.
        curves: the curve of every run.
        tests: how many test examples an accuracy was counted on, None for other scores.
            All seeds share the test set, so its part in the error does not shrink with
            their number.
    """
    mean = float(np.mean(scores))
    variance = np.var(scores, ddof=1) / len(scores) if len(scores) > 1 else 0.0
    if tests is not None:
        variance += mean * (1 - mean) / tests
    curve = tuple(np.mean(curves, axis=0).tolist()) if len(curves) else ()
    return AtRate(rate, mean, float(np.sqrt(variance)), curve)


@dataclass(frozen=True)
class Verdict:
    """What is known of a case: every arm at every rate.

    Attributes:
        name: of the case.
        arms: what each arm came to, a rate each.
    """

    name: str
    arms: Mapping[str, Sequence[AtRate]]

    def best(self, arm: str) -> AtRate:
        """An arm at its best rate."""
        return max(self.arms[arm], key=lambda one: one.score)

    def margin(self, one: AtRate, other: AtRate) -> float:
        return max(LEAST_MARGIN, 2 * math.hypot(one.error, other.error))

    def is_below(self, one: AtRate, other: AtRate) -> bool:
        """Whether one is worse than the other by more than the margin."""
        return other.score - one.score > self.margin(one, other)

    @property
    def others(self) -> list[str]:
        return [arm for arm in self.arms if arm != OURS]

    @property
    def is_open(self) -> bool:
        """Whether runs are missing that a verdict needs."""
        return not {DEFAULT, OURS} <= self.arms.keys()

    @property
    def word(self) -> str:
        """What ours is: harmful, behind, level or ahead; open while runs are missing.

        Harmful is below Keras's default by more than the margin, behind is below the
        best arm, ahead is above all others.
        """
        if self.is_open:
            return "open"
        ours = self.best(OURS)
        if self.is_below(ours, self.best(DEFAULT)):
            return "harmful"
        if any(self.is_below(ours, self.best(arm)) for arm in self.others):
            return "behind"
        is_ahead = all(self.is_below(self.best(arm), ours) for arm in self.others)
        return "ahead" if is_ahead else "level"

    @property
    def nearest(self) -> str:
        """The best arm beside ours."""
        return max(self.others, key=lambda arm: self.best(arm).score, default=OURS)

    def steps(self, arm: str) -> float | None:
        """Steps to the default's final score, in parts of what the default takes.

        None where the curves were not noted, or the default ends where it began.
        """
        default, other = self.best(DEFAULT), self.best(arm)
        if min(len(default.curve), len(other.curve)) < 2:
            return None
        needed = default.reaches(default.curve[-1])
        return other.reaches(default.curve[-1]) / needed if needed else None

    def good_rates(self, arm: str) -> int:
        """How many rates end within the margin of the arm's best."""
        best = self.best(arm)
        return sum(not self.is_below(one, best) for one in self.arms[arm])


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences on how ours does over several cases."""
    closed = [verdict for verdict in verdicts if not verdict.is_open]
    if not closed:
        return ["No case has a run of ours yet."]
    words = [verdict.word for verdict in closed]
    level = sum(word in ("level", "ahead") for word in words)
    sentences = [
        f"Within the margin of the best: {share(level, words)} "
        f"(ahead of all others in {share(words.count('ahead'), words)}).",
        f"Below Keras's default by more than the margin: {words.count('harmful')}.",
    ]
    steps = [found for one in closed if (found := one.steps(OURS)) is not None]
    if steps:
        median = float(np.median(steps))
        told = f"{median:.2f} of the default's" if math.isfinite(median) else "never"
        sentences.append(
            f"Median steps to the default's final score: {told}, over {len(steps)}."
        )
    wide = [one for one in closed if len(one.arms[OURS]) > 1]
    if wide:
        as_wide = sum(one.good_rates(OURS) >= one.good_rates(DEFAULT) for one in wide)
        sentences.append(
            f"As many good rates as the default or more: {share(as_wide, wide)}."
        )
    return sentences


def share(count: int, of: Sequence[Any]) -> str:
    return f"{count} of {len(of)} ({count / len(of):.0%})"
