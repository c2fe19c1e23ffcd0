"""Gradient norms over layers and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._core.errors import check_choice
from ._histories import Timeline, history_of, labels_of, rows_of, shortened, timeline
from ._layers import heat_map, height_of, label_rows
from ._style import (
    BLUE,
    GREY,
    VERMILION,
    color_bar,
    dots,
    legend_above,
    log_scale,
    new_figure,
    style,
    whole_numbers,
)

_PANEL, _REST = 1.7, 0.9  # inches
_HEALTHY = 1e-3


def gradient_norms(logger: Any, title: str = "") -> Any:
    """Draws the gradient norm of every layer at every observed step.

    A heat map, layers from top to bottom, log color; below it the global norm on a log
    axis, with that after clipping, and the update-to-weight ratio with the range over
    the layers, if they were measured. A vertical line marks the first number that was
    not finite, which the logger knows and its history alone does not.

    Args:
        logger: a `GradientNormLogger`, or anything with such a `.history`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if the history is empty, or another callback's.
        ImportError: if matplotlib is not installed.

    Example:
        >>> norms = {"dense": np.array([0.1, 2.0]), "dense_1": np.array([1.0, 3.0])}
        >>> history = {"step": [0, 10], "layers": norms, "global_norm": [1.0, 3.6]}
        >>> heat, line = gradient_norms(history).axes
        >>> line.get_yscale()
        'log'
    """
    others = ("layers", "global_norm")
    history = history_of(logger, "GradientNormLogger", ("step",), others)
    line = timeline(history["step"], "step", "observation")
    layers = history["layers"]
    heights = [height_of(len(layers))] if layers else []
    heights += [_PANEL] * (2 if "update_ratio" in history else 1)
    with style():
        figure = new_figure(8.5, sum(heights) + _REST, title)
        panels = figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        if layers:
            _draw_rows(panels[0], layers, history, line, "layer")
        _draw_norms(panels[1 if layers else 0], history, line)
        if "update_ratio" in history:
            _draw_ratios(panels[-1], history, line)
        first = _first_nonfinite(logger, history["step"])
        if first is not None:
            _draw_first(panels, first, history, line)
        for axes in panels:
            legend_above(axes)
        whole_numbers(panels[-1].xaxis)
        panels[-1].set(xlabel=line.name, xlim=line.edges[[0, -1]])
    return figure


def gradient_heat_map(logger: Any, by: str = "layer", title: str = "") -> Any:
    """Draws the gradient norm of every layer, or variable, at every observed step.

    The uppermost panel of `gradient_norms` alone: a heat map, layers from top to
    bottom, log color; zeros are grey, and what is not finite vermilion. A vertical line
    marks the first number that was not finite, if the logger is given.

    Args:
        logger: a `GradientNormLogger`, or anything with such a `.history`.
        by: a row for each `"layer"` or for each `"variable"`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if the history is empty, or another callback's, or `by` is none of
            these.
        ImportError: if matplotlib is not installed.

    Example:
        >>> norms = {"dense": np.array([0.1, 2.0]), "dense_1": np.array([1.0, 3.0])}
        >>> history = {"step": [0, 10], "layers": norms, "global_norm": [1.0, 3.6]}
        >>> (axes,) = gradient_heat_map(history).axes
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['dense', 'dense_1']
    """
    key = f"{check_choice('by', by, ('layer', 'variable'))}s"
    filled = ("step", key)
    history = history_of(logger, "GradientNormLogger", filled, ("global_norm",))
    line = timeline(history["step"], "step", "observation")
    rows = history[key]
    with style():
        figure = new_figure(8.5, height_of(len(rows)) + _REST, title)
        axes = figure.subplots()
        _draw_rows(axes, rows, history, line, by)
        first = _first_nonfinite(logger, history["step"])
        if first is not None:
            _draw_first([axes], first, {"layers": rows}, line)
        legend_above(axes)
        axes.set(xlabel=line.name, xlim=line.edges[[0, -1]])
    return figure


def _draw_rows(
    axes: Any,
    rows: Mapping[str, Any],
    history: Mapping[str, Any],
    line: Timeline,
    by: str,
) -> None:
    whole = np.asarray(history["global_norm"], dtype="float64")
    # A number that breaks breaks the global norm, too.
    absent = np.isnan(rows_of(rows)) & np.isfinite(whole)
    mesh = heat_map(axes, rows, line, absent=absent, reason="not trained")
    label_rows(axes, rows)
    axes.set_ylabel(by + axes.get_ylabel().removeprefix("layer"))
    color_bar(axes, mesh, "gradient norm")
    axes.set_title(f"Gradient norm by {by}", loc="left")


def _draw_norms(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    lines = {
        "global_norm": ("as computed", BLUE, "-"),
        "clipped_global_norm": ("after clipping", VERMILION, "--"),
    }
    shown = {key: look for key, look in lines.items() if key in history}
    for key, (label, color, dashes) in shown.items():
        axes.plot(
            line.at,
            np.asarray(history[key], dtype="float64"),
            color=color,
            linestyle=dashes,
            marker=dots(len(line.at)),
            label=label if len(shown) > 1 else None,
        )
    log_scale(axes, "y")
    axes.set_ylabel("norm")
    axes.set_title("Global gradient norm", loc="left")


def _draw_ratios(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    """Draws ‖Δw‖/‖w‖ of the model, and within which range that of the layers lies."""
    by_layer = rows_of(history["update_ratios"])
    if len(by_layer):
        known = np.ma.masked_invalid(by_layer)
        low, high = known.min(axis=0), known.max(axis=0)
        axes.fill_between(line.at, low, high, color=GREY, label="from layer to layer")
    ratio = np.asarray(history["update_ratio"], dtype="float64")
    axes.plot(line.at, ratio, color=BLUE, marker=dots(len(ratio)), label="whole model")
    axes.axhline(_HEALTHY, color="black", linestyle=":", linewidth=1, label="usual")
    log_scale(axes, "y")
    axes.set_ylabel("ratio")
    axes.set_title("Update-to-weight ratio", loc="left")


class _First(NamedTuple):
    """Where the first number that is not finite was found."""

    column: int
    path: str


def _first_nonfinite(logger: Any, steps: Any) -> _First | None:
    """Returns where the logger found the first one, if that step was observed."""
    found = getattr(logger, "first_nonfinite", None)
    at = np.flatnonzero(np.asarray(steps) == getattr(found, "step", None))
    return _First(int(at[0]), found.path) if found is not None and len(at) else None


def _draw_first(
    panels: Any, first: _First, history: Mapping[str, Any], line: Timeline
) -> None:
    """Marks the first number that is not finite: the time in all panels, the layer."""
    at = line.at[first.column]
    paths = list(history["layers"])
    where = shortened(first.path)
    if first.path in paths:
        row = paths.index(first.path)
        where = labels_of(paths)[1][row]
        panels[0].plot(at, row, "X", markersize=9, color="black", markeredgecolor="w")
    text = f"first: {where}, {line.name} {at:.0f}"
    for axes in panels:
        label = text if axes is panels[0] else None
        axes.axvline(at, color="black", linestyle="--", linewidth=1, label=label)
