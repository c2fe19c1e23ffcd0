"""What a comparison says in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._ranking import lead, metrics_of, ranked
from ._run import Run

_MORE_SEEDS = "pass more, as `seeds=range(5)`"


def verdict(labels: Sequence[str], runs: Sequence[Run]) -> str:
    """Says whether the best initializer is really ahead of the next."""
    metric = metrics_of(runs)[0]
    scores = [s for s in ranked(labels, runs, metric) if s.runs]
    if len(scores) < 2:
        return f"Only {scores[0].label} finished: there is nothing to compare it with."
    best, after = scores[0].label, scores[1].label
    difference = lead(runs, metric, best, after)
    ahead = f"{best} is ahead of {after} by {_amount(metric, difference.mean)}"
    if math.isnan(difference.mean):
        return f"{best} and {after} cannot be compared: no seed gave both a number."
    if difference.pairs == 1:
        return f"{ahead}, but one seed cannot tell whether that is real: {_MORE_SEEDS}."
    if math.isnan(difference.margin):
        count = difference.pairs
        if difference.mean == 0:
            return f"{best} and {after} end equal in each of {count} seeds."
        return (
            f"{ahead} in each of {count} seeds, which show no spread to judge it by: "
            f"{_MORE_SEEDS}."
        )
    return (
        f"{ahead} (± {_number(metric, difference.margin)}, 95 % confidence, paired "
        f"over {difference.pairs} seeds): "
        + ("a real difference." if difference.is_real else "it may well be chance.")
    )


def fastest(labels: Sequence[str], runs: Sequence[Run]) -> str:
    """Says which initializer converges first, and where to."""
    metrics = metrics_of(runs)
    first = ranked(labels, runs, "convergence_epoch")[0]
    final = ranked([first.label], runs, metrics[0])[0]
    if metrics[0] == "final_accuracy":
        goal = f"90 % of its own final accuracy, {figure(final.mean)} %"
    else:
        goal = f"90 % of the way to its own final loss, {figure(final.mean)}"
    return f"Fastest: {first.label}, in epoch {figure(first.mean)} at {goal}."


def _amount(metric: str, value: float) -> str:
    unit = "points of final accuracy" if _is_percent(metric) else "in final loss"
    return f"{_number(metric, value)} {unit}"


def _number(metric: str, value: float) -> str:
    return f"{value:.2f}" if _is_percent(metric) else figure(value)


def _is_percent(metric: str) -> bool:
    return metric == "final_accuracy"


def figure(value: float, digits: int = 3) -> str:
    """A number in few characters."""
    return "–" if math.isnan(value) else f"{value:.{digits}g}"
