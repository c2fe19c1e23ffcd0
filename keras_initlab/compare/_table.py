"""A comparison as a table that people read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from .._core.reports import new_table, printable
from ._ranking import Score, metrics_of, ranked, score
from ._run import Run
from ._words import figure

_LABEL = 20  # characters of a label that are not folded
_WIDE = 100.5  # an accuracy of 100.0 keeps its decimal
_HEADS = {
    "final_accuracy": "final\ntest [%]",
    "best_accuracy": "best\ntest [%]",
    "final_loss": "final\ntest loss",
    "best_loss": "best\ntest loss",
    "stability": "stability",
    "convergence_epoch": "90 % at\nepoch",
    "seconds": "seconds",
}


def table(title: str, labels: Sequence[str], runs: Sequence[Run]) -> Table:
    """Returns a row an initializer, the best first: means ± standard errors.

    Stability, seconds and best losses are means alone, to leave room for the labels.
    """
    metrics = metrics_of(runs)
    shown = _shown(metrics)
    found = new_table(title)
    width = min(_LABEL, max(map(len, labels)))
    found.add_column("initializer", overflow="fold", min_width=width)
    for metric in shown:
        found.add_column(_HEADS[metric], justify="right", no_wrap=True)
    for first in ranked(labels, runs, metrics[0]):
        scores = [score(first.label, runs, metric) for metric in shown]
        found.add_row(printable(first.label), *map(_cell, shown, scores))
    return found


def _shown(metrics: Sequence[str]) -> list[str]:
    """The five metrics of the table: losses only where there is no accuracy."""
    hidden = ("final_loss", "best_loss") if metrics[0] == "final_accuracy" else ()
    return [m for m in _HEADS if m in metrics and m not in hidden]


def _cell(metric: str, score: Score) -> str:
    if not score.runs:
        return "failed"
    mean, error = score.mean, score.standard_error
    if metric == "stability":
        return figure(mean, 2)
    if metric == "best_loss":
        return figure(mean)
    if metric == "seconds":
        return _tenths(mean)
    if metric.endswith("loss"):
        text, spread = figure(mean), figure(error, 1)
    else:
        text, spread = _tenths(mean), _tenths(error)
    return text if math.isnan(error) else f"{text} ± {spread}"


def _tenths(value: float) -> str:
    """A number with one decimal, as long as that fits the column."""
    return f"{value:.1f}" if not value >= _WIDE else f"{value:.0f}"
