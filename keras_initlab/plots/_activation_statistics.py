"""What the signal looks like over the layers, and how training changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._histories import Timeline, history_of, rows_of, timeline
from ._layers import heat_map, height_of, label_rows
from ._style import (
    BLUE,
    GREEN,
    SKY,
    VERMILION,
    color_bar,
    dots,
    legend_below,
    log_scale,
    new_figure,
    style,
)

_MANY = 3  # from so many observations on, two of them do not tell it all
_PANEL, _REST = 2.4, 1.6  # inches
_PLACES = {
    "preactivation_std": ("before the activation", BLUE),
    "std": ("after it", VERMILION),
}
_FIRST, _LAST = {"dashes": "--", "fill": "w"}, {"dashes": "-", "fill": ""}
_OTHERS = ("preactivation_std", "variance_preservation", "mean", "zero_share")


def activation_statistics(logger: Any, title: str = "") -> Any:
    """Draws the signal over depth, the first layer on top, all panels side by side.

    Standard deviation before and after the activation, on a log axis; the variance
    preservation, ideally 1, on a log axis; the share of zeros, or, where there are
    none, the mean: each at the first and at the last observation with a finite figure.
    Then the standard deviation at every step as a heat map, if there are more than two
    observations, and, if counted, the histograms of that last observation: heights go
    by the root of the density, so that a peak at 0 does not flatten the rest, and the
    bins at both ends hold all beyond.

    Args:
        logger: an `ActivationStatsLogger`, or anything with such a `.history`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if the history is empty, or another callback's.
        ImportError: if matplotlib is not installed.

    Example:
        >>> kinds = ("std", "preactivation_std", "variance_preservation", "zero_share")
        >>> layers = {"dense": np.array([0.7, 0.6]), "dense_1": np.array([0.5, 0.6])}
        >>> history = {"step": [0, 10], "mean": layers} | dict.fromkeys(kinds, layers)
        >>> std, preservation, zeros = activation_statistics(history).axes
        >>> preservation.get_xscale()
        'log'
    """
    history = history_of(logger, "ActivationStatsLogger", ("step", "std"), _OTHERS)
    line = timeline(history["step"], "step", "observation")
    has_zeros = bool(np.any(rows_of(history["zero_share"]) > 0))
    draw: list[Callable[[Any, Mapping[str, Any], Timeline], None]]
    draw = [_draw_stds, _draw_preservation, _draw_zeros if has_zeros else _draw_means]
    if len(line.at) >= _MANY:
        draw.append(_draw_map)
    if "histogram" in history:
        draw.append(_draw_ridges)
    paths = list(history["std"])
    with style():
        figure = new_figure(
            _PANEL * len(draw) + 0.8, height_of(len(paths)) + _REST, title
        )
        panels = figure.subplots(1, len(draw), sharey=True)
        for axes, one in zip(panels, draw, strict=True):
            one(axes, history, line)
            axes.tick_params(axis="y", length=0)
        label_rows(panels[0], paths)
        panels[0].set_ylim(len(paths) - 0.5, -0.5)
        _explain(figure, history, line)
    return figure


def _ends(history: Mapping[str, Any]) -> dict[int, dict[str, str]]:
    """The first and the last observation with a finite figure; how they look."""
    is_finite = np.isfinite(rows_of(history["std"])).any(axis=0)
    seen = np.flatnonzero(is_finite if is_finite.any() else np.ones_like(is_finite))
    return {int(seen[0]): _FIRST, int(seen[-1]): _LAST}  # one, if they are the same


def _draw_profile(axes: Any, history: Mapping[str, Any], kind: str, color: str) -> None:
    """Two lines over the layers, from top to bottom: first and last observation."""
    values = rows_of(history[kind])
    depth = np.arange(len(values))
    for index, look in _ends(history).items():
        mark = {"marker": dots(len(depth)), "markerfacecolor": look["fill"] or color}
        axes.plot(
            values[:, index], depth, color=color, linestyle=look["dashes"], **mark
        )


def _draw_stds(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    for kind, (_, color) in _PLACES.items():
        _draw_profile(axes, history, kind, color)
    log_scale(axes, "x")
    axes.set_xlabel("standard deviation")
    axes.set_title("Signal")


def _draw_preservation(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    axes.axvline(1, color="black", linestyle=":", linewidth=1.2)
    _draw_profile(axes, history, "variance_preservation", GREEN)
    log_scale(axes, "x")
    axes.set_xlabel("std / std of the input")
    axes.set_title("Variance preservation")


def _draw_zeros(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    percent = {path: 100 * np.asarray(s) for path, s in history["zero_share"].items()}
    _draw_profile(axes, {**history, "zero_share": percent}, "zero_share", VERMILION)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("zeros [%]")
    axes.set_title("Zero share")


def _draw_means(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    _draw_profile(axes, history, "mean", VERMILION)
    axes.set_xlabel("mean")
    axes.set_title("Mean")


def _draw_map(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    absent = np.isnan(rows_of(history["zero_share"]))
    mesh = heat_map(axes, history["std"], line, absent=absent)
    color_bar(axes, mesh)
    axes.set_xlabel(line.name)
    axes.set_title("Std after activation")


def _draw_ridges(axes: Any, history: Mapping[str, Any], line: Timeline) -> None:
    edges = np.asarray(history["edges"], dtype="float64")
    last = max(_ends(history))
    for row, counts in enumerate(history["histogram"].values()):
        heights = np.sqrt(np.asarray(counts[last], dtype="float64") / np.diff(edges))
        if np.nanmax([0.0, *heights]) > 0:
            top = row + 0.5 - 0.92 * heights / heights.max()
            axes.stairs(top, edges, baseline=row + 0.5, fill=True, color=SKY)
            axes.stairs(top, edges, baseline=None, color=BLUE, linewidth=0.7)
    axes.grid(False, axis="y")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(f"value at {line.name} {line.at[last]:.0f}")
    axes.set_title("Distribution")


def _explain(figure: Any, history: Mapping[str, Any], line: Timeline) -> None:
    """One legend for all panels."""
    axes = figure.axes[0]
    for label, color in _PLACES.values():
        axes.plot([], [], color=color, label=label)
    for index, look in _ends(history).items():
        mark = {"marker": "o", "markerfacecolor": look["fill"] or "k"}
        label = f"{line.name} {line.at[index]:.0f}"
        axes.plot([], [], color="k", linestyle=look["dashes"], label=label, **mark)
    legend_below(figure, figure.axes)
