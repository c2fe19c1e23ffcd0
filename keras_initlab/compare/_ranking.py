"""Scores of initializers over seeds, their order, and whether the first is ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._run import Run
from ._student import Difference, paired_difference

# What each metric is worth: 1 where more is better, −1 where less is.
DIRECTIONS = {
    "final_accuracy": 1,
    "best_accuracy": 1,
    "stability": 1,
    "convergence_epoch": -1,
    "seconds": -1,
    "final_loss": -1,
    "best_loss": -1,
}
_OF_ACCURACY = ("final_accuracy", "best_accuracy")
_OF_ALL = ("stability", "convergence_epoch", "seconds", "final_loss", "best_loss")


@dataclass(frozen=True)
class Score:
    """What an initializer reached by one metric, over the seeds that finished.

    Attributes:
        label: the initializer.
        mean: the mean; NaN if no seed finished.
        standard_error: of the mean; NaN of fewer than two seeds.
        runs: how many seeds finished.
    """

    label: str
    mean: float
    standard_error: float
    runs: int


def metrics_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """The metrics that all finished runs have, the one that decides first."""
    finished = [run for run in runs if run.error is None]
    if all(run.has_accuracy for run in finished):
        return (*_OF_ACCURACY, *_OF_ALL)
    return (*_OF_ALL[3:], *_OF_ALL[:3])


def score(label: str, runs: Sequence[Run], metric: str) -> Score:
    """Returns one initializer's score."""
    values = np.array(
        [run.metrics[metric] for run in runs if run.label == label and not run.error]
    )
    count = len(values)
    with np.errstate(invalid="ignore"):  # a loss may be infinite
        mean = float(np.mean(values)) if count else math.nan
        error = np.std(values, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return Score(label, mean, float(error), count)


def ranked(labels: Sequence[str], runs: Sequence[Run], metric: str) -> list[Score]:
    """Returns all scores, the best first; what is no number comes last.

    Of equal ones the better by the metric that decides comes first.
    """
    main = metrics_of(runs)[0]

    def place(label: str) -> tuple[float, ...]:
        keys = []
        for name in (metric, main):
            mean = score(label, runs, name).mean
            keys += [math.isnan(mean), -DIRECTIONS[name] * mean]
        return tuple(0.0 if math.isnan(key) else key for key in keys)

    return [score(label, runs, metric) for label in sorted(labels, key=place)]


def lead(runs: Sequence[Run], metric: str, first: str, second: str) -> Difference:
    """Returns by how much one initializer is better than another, paired by seed."""
    by_seed = [
        {
            run.seed: run.metrics[metric]
            for run in runs
            if run.label == label and not run.error
        }
        for label in (first, second)
    ]
    seeds = [seed for seed in by_seed[0] if seed in by_seed[1]]
    one, other = (np.array([values[seed] for seed in seeds]) for values in by_seed)
    with np.errstate(invalid="ignore"):
        difference = paired_difference(one, other)
    return difference._replace(mean=DIRECTIONS[metric] * difference.mean)
