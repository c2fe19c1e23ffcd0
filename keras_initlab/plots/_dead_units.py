"""Which share of units is dead, and when each that ever was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._histories import Timeline, history_of, labels_of, rows_of, timeline
from ._layers import explain, heat_map, height_of, label_rows
from ._style import (
    GREY,
    VERMILION,
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
_LINES, _REST = 2.4, 0.9  # inches
_LABELS = 40  # of layers that fit below each other, however few their units are


def dead_units(logger: Any, title: str = "") -> Any:
    """Draws the dead share of every layer by epoch, and when each unit was dead.

    Above, the share of dead units, and of saturated ones if there are any: a line a
    layer, or a heat map where the layers are many. Below, a row for every unit that was
    ever dead, colored while it is dead; units of a layer lie together, those that die
    first on top.

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
        >>> shares, units = dead_units(history).axes
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
    units = _states(history["dead_units"], history["dead_fraction"])
    with style():
        return _draw(shares, units, line, title)


def _states(
    dead_units: Mapping[str, Sequence[Any]], shares: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The units of every layer that had a dead one, those that die first on top.

    1 where a unit is dead, 0 where not, NaN where not seen, arrays `(units, epochs)`.
    """
    found = {}
    for path, each in dead_units.items():
        units = np.unique(np.concatenate([*each, np.zeros(0, dtype="int64")]))
        if len(units):
            dead = np.array([np.isin(units, epoch) for epoch in each], "float64").T
            order = np.lexsort((units, -dead.sum(axis=1), np.argmax(dead, axis=1)))
            dead[:, np.isnan(np.asarray(shares[path], dtype="float64"))] = np.nan
            found[path] = dead[order]
    return found


def _draw(
    shares: Mapping[str, Mapping[str, Any]],
    units: Mapping[str, np.ndarray],
    line: Timeline,
    title: str,
) -> Any:
    layers = len(shares["dead"])
    maps = [] if layers <= _FEW else list(shares)
    heights = [height_of(layers) for _ in maps] or [_LINES]
    heights.append(height_of(sum(map(len, units.values()))))
    figure = new_figure(8.5, sum(heights) + _REST, title)
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    for axes, kind in zip(panels, maps, strict=False):
        _draw_map(axes, kind, shares[kind], line)
    if not maps:
        _draw_shares(panels[0], shares, line)
    _draw_units(panels[-1], units, line)
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
    legend_above(axes)


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


def _draw_units(axes: Any, units: Mapping[str, np.ndarray], line: Timeline) -> None:
    """A row for every unit, colored while it is dead; a layer has room for its name."""
    count = sum(map(len, units.values()))
    top, middles = 0.0, []
    for states in units.values():
        room = max(len(states), count / _LABELS)
        rows = np.linspace(top, top + room, len(states) + 1)
        mesh = axes.pcolormesh(line.edges, rows, np.ma.masked_invalid(states))
        colors = mesh.get_cmap().with_extremes(under=GREY, over=VERMILION)
        mesh.set(cmap=colors, clim=(0.4, 0.6), rasterized=True)
        middles.append(top + room / 2)
        top += room
        axes.axhline(top, color="white", linewidth=2)
    for shade, state in ((GREY, "alive"), (VERMILION, "dead")):
        explain(axes, shade, state)
    label_rows(axes, units, middles)
    axes.set_ylim(top or 1.0, 0)
    axes.grid(False)
    ever = f"The {count:,} unit{'s' * (count != 1)} ever dead"
    axes.set_title(ever if count else "No unit was ever dead", loc="left")
    legend_above(axes)
