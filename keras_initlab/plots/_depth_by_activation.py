"""How deep networks still train, by activation and by where they start from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core.errors import message
from ._style import VERMILION, new_figure, style

_ROW, _CELL, _REST = 0.24, 0.62, 1.5  # inches
_NAMES = 1.3  # inches of the activations' names
_BRIGHT = 0.6  # of the color scale: from there on, black is read better than white
_KEYS = ("activation", "depth", "arm", "accuracy")
_BUDGET = ("width", "learning_rate", "epochs", "batch")
_FAILED = "×"
_BAR = "test accuracy [%]"


class _Accuracies(NamedTuple):
    """Mean accuracies in percent: NaN where a run failed; what is missing has none."""

    cells: Mapping[tuple[str, int, str], float]
    activations: list[str]
    depths: list[int]
    arms: list[str]


def depth_by_activation(
    results: Any,
    arms: Sequence[str] | Mapping[str, str] | None = None,
    title: str = "",
) -> Any:
    """Draws accuracies by depth and activation, a panel for each start, as a heat map.

    Every cell holds the test accuracy in percent, a mean over the seeds that ended with
    a finite one; × where none did, nothing where there was no run. Activations that do
    best from the last start lie on top.

    Args:
        results: records with `activation`, `depth`, `arm` (where the network started
            from), `accuracy` in [0, 1], or None if it was not finite, and whatever
            else; or `{(activation, depth, arm): accuracy}`, or several accuracies.
        arms: the starts to show from left to right, or `{start: heading}`; None for all
            in the order in which they come.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if there is no result, one lacks an entry or is no accuracy, runs of
            one cell differ in width, learning rate, epochs or batch, or an arm is not
            there.
        ImportError: if matplotlib is not installed.

    Example:
        >>> figure = depth_by_activation(
        ...     {
        ...         ("relu", 50, "he"): [0.85, 0.83],
        ...         ("relu", 100, "he"): 0.41,
        ...         ("relu", 50, "ours"): 0.95,
        ...         ("relu", 100, "ours"): 0.96,
        ...     }
        ... )
        >>> he, ours = figure.axes[:2]
        >>> [text.get_text() for text in he.texts]
        ['84', '41']
    """
    found = _accuracies(results)
    headings = _headings(arms, found.arms)
    found = found._replace(
        activations=_ordered(found, list(headings)[-1]), arms=list(headings)
    )
    columns, rows = len(found.depths), len(found.activations)
    with style():
        width = _NAMES + max(1.6, _CELL * columns) * len(headings) + 0.9
        figure = new_figure(width, _ROW * rows + _REST, title)
        panels = figure.subplots(1, len(headings), sharey=True, squeeze=False)[0]
        meshes = [
            _draw(axes, found, arm) for axes, arm in zip(panels, headings, strict=True)
        ]
        for axes, heading in zip(panels, headings.values(), strict=True):
            axes.set_title(heading)
        panels[0].set_yticks(range(rows), found.activations)
        bar = figure.colorbar(meshes[0], ax=panels, label=_BAR, aspect=30)
        bar.outline.set_visible(False)
        figure.supxlabel("hidden layers", fontsize=10)
    return figure


def _draw(axes: Any, found: _Accuracies, arm: str) -> Any:
    """Draws the accuracies from one start; returns the mesh that a bar explains."""
    shape = len(found.activations), len(found.depths)
    values = np.full(shape, np.nan)
    for row, activation in enumerate(found.activations):
        for column, depth in enumerate(found.depths):
            value = found.cells.get((activation, depth, arm))
            if value is not None:
                values[row, column] = value
                _write(axes, column, row, value)
    mesh = axes.pcolormesh(
        np.arange(shape[1] + 1) - 0.5,
        np.arange(shape[0] + 1) - 0.5,
        np.ma.masked_invalid(values),
        vmin=0,
        vmax=100,
        edgecolor="white",
        linewidth=1.0,
    )
    axes.set_xticks(range(shape[1]), [f"{depth:,}" for depth in found.depths])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_ylim(shape[0] - 0.5, -0.5)
    return mesh


def _write(axes: Any, column: int, row: int, value: float) -> None:
    failed = np.isnan(value)
    dark = not failed and value < 100 * _BRIGHT
    axes.text(
        column,
        row,
        _FAILED if failed else f"{value:.0f}",
        color=VERMILION if failed else "white" if dark else "black",
        fontsize=8,
        ha="center",
        va="center_baseline",
    )


def _accuracies(results: Any) -> _Accuracies:
    """Reads results of either form; all offenders are named at once."""
    runs = _runs(results)
    bad = [run for run in runs if not _is_accuracy(run[-1])]
    if bad or not runs:
        raise ValueError(
            message(
                "`results` must hold an accuracy from 0 to 1, or None, for every run.",
                ", ".join(map(repr, bad[:3])) or repr(results),
            )
        )
    by_cell: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for activation, depth, arm, accuracy in runs:
        percent = np.nan if accuracy is None else 100 * float(accuracy)
        by_cell[activation, depth, arm].append(percent)
    return _Accuracies(
        {cell: _mean(accuracies) for cell, accuracies in by_cell.items()},
        list(dict.fromkeys(run[0] for run in runs)),
        sorted({run[1] for run in runs}),
        list(dict.fromkeys(run[2] for run in runs)),
    )


def _runs(results: Any) -> list[tuple[Any, ...]]:
    """`(activation, depth, arm, accuracy)` of every run."""
    if isinstance(results, Mapping):
        _check_cells(results)
        return [
            (*cell, accuracy)
            for cell, given in results.items()
            for accuracy in (given if isinstance(given, Iterable) else [given])
        ]
    records = list(results) if isinstance(results, Iterable) else [results]
    lacking = [one for one in records if not _is_record(one)]
    if lacking:
        raise ValueError(
            message(
                f"Each of `results` must have {', '.join(map(repr, _KEYS))}.",
                repr(lacking[0]),
            )
        )
    _check_budgets(records)
    return [tuple(one[key] for key in _KEYS) for one in records]


def _is_record(one: Any) -> bool:
    return isinstance(one, Mapping) and {*_KEYS} <= {*one}


def _check_cells(results: Mapping[Any, Any]) -> None:
    wrong = [one for one in results if not (isinstance(one, tuple) and len(one) == 3)]
    if wrong:
        raise ValueError(
            message(
                "Each key of `results` must be (activation, depth, arm).",
                repr(wrong[0]),
            )
        )


def _check_budgets(records: Sequence[Mapping[str, Any]]) -> None:
    """Raises if runs that would be averaged were not trained alike."""
    first: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for one in records:
        cell = tuple(one[key] for key in _KEYS[:3])
        other = first.setdefault(cell, one)
        apart = [key for key in _BUDGET if one.get(key) != other.get(key)]
        if apart:
            key = apart[0]
            raise ValueError(
                message(
                    "Runs of one cell of `results` must differ in their seed alone.",
                    f"{key}={other.get(key)!r} and {one.get(key)!r} for {cell}",
                    "Select the runs of one budget.",
                )
            )


def _is_accuracy(value: Any) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, (int, float, np.number))
    return is_number and bool(np.isnan(value) or 0 <= value <= 1)


def _mean(accuracies: Sequence[float]) -> float:
    """Of those that are finite; NaN if none is."""
    finite = [one for one in accuracies if not np.isnan(one)]
    return float(np.mean(finite)) if finite else np.nan


def _headings(arms: Any, known: Sequence[str]) -> dict[str, str]:
    """The starts to show and what to write above them."""
    given = known if arms is None else arms
    names = list(given) if isinstance(given, Iterable) else []
    if not names or any(name not in [*known] for name in names):
        raise ValueError(
            message(
                f"`arms` must name some of {', '.join(map(repr, sorted(known)))}.",
                f"arms={arms!r}",
            )
        )
    return dict(given) if isinstance(given, Mapping) else {one: one for one in names}


def _ordered(found: _Accuracies, arm: str) -> list[str]:
    """The activations, those first that do best from one start at the depths it has."""

    def rank(activation: str) -> float:
        cells = [found.cells.get((activation, d, arm), np.nan) for d in found.depths]
        return -_mean(cells) if not np.isnan(cells).all() else 1.0

    return sorted(found.activations, key=rank)
