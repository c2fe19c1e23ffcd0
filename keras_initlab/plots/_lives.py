"""The lives of units as lines, or as bands of neighbors where the units are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._histories import Timeline
from ._layers import label_rows
from ._style import COLORS, GREY, VERMILION, color_bar, legend_beside

MOST = 160  # lines that can be told apart
_PANEL = 4.6  # inches for the lines of all units
_TALL = 1.0  # inches: room for the axis's label
_THICK, _LABEL, _GAP = 0.12, 0.13, 0.04  # inches: a line at most; a layer at least
EVENTS = {  # kind: (marker, color), as `DeadReLULogger` calls them
    "dead at start": ("s", "#000000"),
    "died": ("X", COLORS[0]),
    "revived": ("o", COLORS[2]),
}


class Lives(NamedTuple):
    """The units of one layer that were ever dead, those that die first on top.

    Attributes:
        units: their indices, `(units,)`.
        dead: 1 where dead, 0 where not, NaN where not seen, `(units, epochs)`.
    """

    units: np.ndarray
    dead: np.ndarray

    def events(self) -> dict[str, list[tuple[int, int]]]:
        """`(row, epoch)` of every event: the first epoch in which a unit is so."""
        found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in EVENTS}
        seen = np.flatnonzero(~np.isnan(self.dead[0]))
        before: Any = None
        for epoch in seen:
            now = self.dead[:, epoch] == 1
            was = np.zeros_like(now) if before is None else before
            kind = "dead at start" if before is None else "died"
            for name, rows in ((kind, now & ~was), ("revived", was & ~now)):
                found[name] += [(int(row), int(epoch)) for row in np.flatnonzero(rows)]
            before = now
        return found


def lives_of(
    dead_units: Mapping[str, Sequence[Any]], shares: Mapping[str, Any]
) -> dict[str, Lives]:
    """The lives of the units of every layer that had a dead one.

    Args:
        dead_units: `{layer path: dead units, an int array an epoch}`.
        shares: `{layer path: their share (epochs,)}`, NaN where not seen.
    """
    found = {}
    for path, each in dead_units.items():
        units = np.unique(np.concatenate([*each, np.zeros(0, dtype="int64")]))
        dead = np.array([np.isin(units, epoch) for epoch in each], dtype="float64").T
        first = np.argmax(dead, axis=1) if len(units) else units
        order = np.lexsort((units, -dead.sum(axis=1), first))
        dead[:, np.isnan(np.asarray(shares[path], dtype="float64"))] = np.nan
        if len(units):
            found[path] = Lives(units[order], dead[order])
    return found


class Rows(NamedTuple):
    """Where the lines of the layers lie, in inches from above.

    Attributes:
        edges: of the lines of each layer, `{path: array (lines + 1,)}`.
        thick: how far the lines are apart.
        share: how many units share a line.
    """

    edges: dict[str, np.ndarray]
    thick: float
    share: int

    @property
    def height(self) -> float:
        """Of all lines."""
        return max((float(e[-1]) for e in self.edges.values()), default=_LABEL) + _GAP


def rows_for(lives: Mapping[str, Lives]) -> Rows:
    """Gives every layer room for its lines and for its label."""
    share = max(1, -(-sum(len(one.units) for one in lives.values()) // MOST))
    counts = {path: -(-len(one.units) // share) for path, one in lives.items()}
    thick = min(_THICK, _PANEL / max(1, sum(counts.values())))
    label = min(_LABEL, _PANEL / max(1, len(lives)))
    gap = min(_GAP, _PANEL / 2 / max(1, len(lives)))
    edges, top = {}, _GAP
    for path, count in counts.items():
        room = max(label, count * thick)
        each = min(_THICK, room / count)
        edges[path] = top + (room - count * each) / 2 + each * np.arange(count + 1)
        top += room + gap
    return Rows(edges, thick, share)


def draw_lives(
    axes: Any, lives: Mapping[str, Lives], rows: Rows, line: Timeline
) -> None:
    """Draws the lives in rows made for them."""
    if rows.share == 1:
        _draw_lines(axes, lives, rows, line)
        _draw_marks(axes, lives, rows, line)
        legend_beside(axes)
    else:
        _draw_bands(axes, lives, rows, line)
    label_rows(axes, lives, [float(np.mean(e)) for e in rows.edges.values()])
    axes.set_ylim(rows.height, 0)
    axes.grid(False)
    count = sum(len(one.units) for one in lives.values())
    if rows.height < _TALL:
        axes.set_ylabel("")
    shared = f", {rows.share} to a line" if rows.share > 1 else ""
    units = f"{count:,} unit{'s' * (count != 1)}"
    title = f"Lives of the {units} ever dead{shared}"
    axes.set_title(title if count else "No unit was ever dead", loc="left")


def _draw_lines(
    axes: Any, lives: Mapping[str, Lives], rows: Rows, line: Timeline
) -> None:
    """A line for each unit: thin and grey while it lives, colored while it is dead."""
    looks = ((0.0, GREY, 0.8, "alive"), (1.0, VERMILION, 48 * rows.thick, "dead"))
    for state, color, width, label in looks:
        found = [
            (y, line.edges[start], line.edges[stop])
            for path, one in lives.items()
            for y, row in zip(_middles(rows.edges[path]), one.dead, strict=True)
            for start, stop in _runs(row == state)
        ]
        if found:
            y, start, stop = zip(*found, strict=True)
            axes.hlines(y, start, stop, color=color, linewidth=width, label=label)


def _draw_marks(
    axes: Any, lives: Mapping[str, Lives], rows: Rows, line: Timeline
) -> None:
    for kind, (marker, color) in EVENTS.items():
        found = [
            (line.edges[epoch], _middles(rows.edges[path])[row])
            for path, one in lives.items()
            for row, epoch in one.events()[kind]
        ]
        if found:
            x, y = zip(*found, strict=True)
            size = min(5.0, 60 * rows.thick)
            look = {"color": color, "markeredgecolor": "w", "markeredgewidth": 0.4}
            axes.plot(x, y, marker, markersize=size, clip_on=False, label=kind, **look)


def _draw_bands(
    axes: Any, lives: Mapping[str, Lives], rows: Rows, line: Timeline
) -> None:
    """A line for several neighbors, colored by their dead share in percent."""
    mesh: Any = None
    for path, one in lives.items():
        starts = np.arange(0, len(one.dead), rows.share)
        sizes = np.diff(starts, append=len(one.dead))
        shares = 100 * np.add.reduceat(one.dead, starts) / sizes[:, None]
        mesh = axes.pcolormesh(
            line.edges, rows.edges[path], np.ma.masked_invalid(shares), cmap="Oranges"
        )
        mesh.set(clim=(0, 100), rasterized=True)
    color_bar(axes, mesh, "dead units of a line [%]")


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2


def _runs(holds: np.ndarray) -> list[tuple[int, int]]:
    """`(start, stop)` of every stretch in which something holds."""
    steps = np.diff(np.concatenate([[0], holds.astype("int8"), [0]]))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
