"""Which units are dead, and the life of each that ever was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._histories import Timeline, history_of, labels_of, rows_of, timeline
from ._layers import heat_map, height_of, label_rows
from ._lives import EVENTS, Lives, draw_lives, lives_of, rows_for
from ._style import (
    color,
    color_bar,
    dots,
    legend_above,
    legend_beside,
    marker,
    new_figure,
    style,
    whole_numbers,
)

_FEW = 6  # layers whose lines can be told apart
_LOW = 10.0  # percent: the end of a scale, at least
_LINES, _LEAST, _EVENTS, _REST = 2.4, 0.4, 1.3, 0.9  # inches


def dead_units(logger: Any, title: str = "") -> Any:
    """Draws the dead share of every layer by epoch, and the life of every unit.

    Above, the share of dead units, and of saturated ones if there are any: a line a
    layer, or a heat map where the layers are many. Below, every unit that was ever dead
    is a thin horizontal line, colored while it is dead, with its events marked; units
    of a layer lie together, those that die first on top. Where the units are too many
    for that, neighbors share a line, colored by how many of them are dead, and a third
    panel counts the events.

    Args:
        logger: a `DeadReLULogger`, or anything with such a `.history`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if the history is empty, or another callback's.
        ImportError: if matplotlib is not installed.

    Example:
        >>> history = {
        ...     "epoch": [0, 1],
        ...     "dead_fraction": {"dense": [0.25, 0.5]},
        ...     "saturated_fraction": {"dense": [0.0, 0.0]},
        ...     "dead_units": {"dense": [np.array([3]), np.array([1, 3])]},
        ... }
        >>> shares, lives = dead_units(history).axes
        >>> shares.get_lines()[0].get_ydata()
        array([25., 50.])
    """
    filled = ("epoch", "dead_fraction", "dead_units")
    history = history_of(logger, "DeadReLULogger", filled)
    epochs = np.asarray(history["epoch"]) + 1  # as Keras counts when it prints
    line = timeline(epochs, "epoch", "epoch, over all fits")
    shares = {"dead": history["dead_fraction"]}
    saturated = history.get("saturated_fraction", {})
    if any(np.nanmax([0.0, *share]) > 0 for share in saturated.values()):
        shares["saturated"] = saturated
    lives = lives_of(history["dead_units"], history["dead_fraction"])
    with style():
        return _draw(shares, lives, line, title)


def _draw(
    shares: Mapping[str, Mapping[str, Any]],
    lives: Mapping[str, Lives],
    line: Timeline,
    title: str,
) -> Any:
    layers = len(shares["dead"])
    maps = [] if layers <= _FEW else list(shares)
    rows = rows_for(lives)
    heights = [height_of(layers) for _ in maps] or [_LINES]
    heights.append(max(_LEAST, rows.height))
    if rows.share > 1:
        heights.append(_EVENTS)
    figure = new_figure(8.5, sum(heights) + _REST, title)
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    for axes, kind in zip(panels, maps, strict=False):
        _draw_map(axes, kind, shares[kind], line)
    if not maps:
        _draw_shares(panels[0], shares, line)
    draw_lives(panels[len(maps) or 1], lives, rows, line)
    if rows.share > 1:
        _draw_events(panels[-1], lives, line)
    for axes in (*panels[: len(maps)], *panels[len(panels) - (rows.share > 1) :]):
        legend_above(axes)
    whole_numbers(panels[-1].xaxis)
    panels[-1].set(xlabel=line.name, xlim=line.edges[[0, -1]])
    return figure


def _draw_map(axes: Any, kind: str, share: Mapping[str, Any], line: Timeline) -> None:
    percent = {path: 100 * np.asarray(each) for path, each in share.items()}
    top = np.nanmax([_LOW, *rows_of(percent).flat])
    mesh = heat_map(axes, percent, line, span=(0.0, top))
    label_rows(axes, share)
    color_bar(axes, mesh, f"{kind} units [%]")
    axes.set_title(f"{kind.capitalize()} units by layer", loc="left")


def _draw_shares(
    axes: Any, shares: Mapping[str, Mapping[str, Any]], line: Timeline
) -> None:
    """A line for each layer; a dashed one for its saturated units, if it had any."""
    top = _LOW
    for kind, dashes in (("dead", "-"), ("saturated", "--")):
        rows = rows_of(shares.get(kind, {}))
        _, labels = labels_of(shares.get(kind, {}))
        for index, (label, row) in enumerate(zip(labels, 100 * rows, strict=True)):
            highest = np.nanmax([0.0, *row])
            if kind == "dead" or highest > 0:
                axes.plot(
                    line.at,
                    row,
                    color=color(index),
                    linestyle=dashes,
                    marker=marker(index) if dots(len(row)) else "",
                    label=label if kind == "dead" else f"{label}, {kind}",
                )
            top = max(top, 1.08 * highest)
    axes.set_ylim(-0.03 * top, top)
    axes.set_ylabel(f"{' and '.join(shares)} units [%]")
    axes.set_title(f"{' and '.join(shares).capitalize()} units by layer", loc="left")
    legend_beside(axes)


def _draw_events(axes: Any, lives: Mapping[str, Lives], line: Timeline) -> None:
    """Bars of how many units died, and, downwards, of how many were revived."""
    base = np.zeros(len(line.at))
    for kind, (_, shade) in EVENTS.items():
        epochs = [e for one in lives.values() for _, e in one.events()[kind]]
        count = np.bincount(epochs, minlength=len(base)).astype("float64")
        if kind == "revived":
            count, base = -count, np.zeros(len(base))
        if count.any():
            widths = 0.8 * np.diff(line.edges)
            axes.bar(line.at, count, widths, base, color=shade, label=kind)
        base = base + count
    axes.axhline(0, color="black", linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda count, _: f"{abs(count):.0f}")
    axes.set_ylabel("units")
    axes.set_title("Events", loc="left")
