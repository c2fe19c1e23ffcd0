"""Panels with a row for each layer, the first on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._histories import Timeline, labels_of, rows_of, shortened
from ._style import GREY, VERMILION, whole_numbers

_ROW, _LOW, _HIGH = 0.13, 1.4, 6.5  # inches
_LABELS = int(_HIGH / _ROW)  # how many fit below each other


def height_of(layers: int) -> float:
    """How many inches a panel with so many rows should have."""
    return float(np.clip(_ROW * layers, _LOW, _HIGH))


def label_rows(
    axes: Any, paths: Iterable[str], at: Sequence[float] | None = None
) -> None:
    """Writes layers beside their rows; every second or third where they are many."""
    scope, labels = labels_of(paths)
    places = np.arange(len(labels)) if at is None else np.asarray(at)
    step = max(1, -(-len(labels) // _LABELS))
    size = 9 if len(labels) <= 20 else 7
    axes.set_yticks(places[::step], labels[::step], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel(f"layer of {shortened(scope)}" if scope else "layer")


def heat_map(
    axes: Any,
    by_layer: Mapping[str, Any],
    line: Timeline,
    span: tuple[float, float] | None = None,
    absent: np.ndarray | None = None,
    reason: str = "not seen",
) -> Any:
    """Draws layer × time as colors: a log scale, or a linear one over a span.

    On a log scale zeros are grey, and what is not finite vermilion; on a linear one,
    that of shares, what was not seen is grey.

    Args:
        axes: where to draw.
        by_layer: a row for each layer.
        line: when.
        span: that of a linear scale.
        absent: where there is nothing to show, `(layers, observations)`: left white.
        reason: why there is nothing.

    Returns:
        The mesh that a color bar explains.
    """
    values = rows_of(by_layer)
    edges = np.arange(len(values) + 1) - 0.5
    is_log = span is None
    low, high = log_span(values) if span is None else span
    mesh = axes.pcolormesh(
        line.edges,
        edges,
        np.ma.masked_invalid(values),
        norm="log" if is_log else "linear",
        cmap="viridis" if is_log else "magma_r",
    )
    mesh.set(clim=(low, high), rasterized=True)  # a picture within an SVG or a PDF
    axes.set_facecolor(GREY)
    broken = ~np.isfinite(values)
    if absent is not None:
        broken &= ~absent
        _mark(axes, mesh, line.edges, edges, absent, "white", reason)
    if is_log:
        label = "NaN or infinite"
        _mark(axes, mesh, line.edges, edges, broken, VERMILION, label)
    if np.any((values == 0) if is_log else broken):
        explain(axes, GREY, "0" if is_log else "not seen")
    axes.grid(False)
    axes.set_ylim(len(values) - 0.5, -0.5)
    whole_numbers(axes.xaxis)
    return mesh


def _mark(
    axes: Any,
    mesh: Any,
    x: np.ndarray,
    y: np.ndarray,
    where: np.ndarray,
    color: str,
    label: str,
) -> None:
    """Paints some of the gaps that numbers which are not finite leave."""
    if not where.any():
        return
    axes.pcolormesh(
        x,
        y,
        np.ma.masked_array(np.ones(where.shape), ~where),
        cmap=mesh.get_cmap().with_extremes(over=color),
        vmin=-1,
        vmax=0,
        rasterized=True,
    )
    explain(axes, color, label)


def explain(axes: Any, color: str, label: str) -> None:
    """Has a panel's legend say what a color means."""
    edge = "black" if color == "white" else color
    look = {"color": color, "markeredgecolor": edge, "markersize": 8}
    axes.plot([], [], linestyle="", marker="s", label=label, **look)


def log_span(values: np.ndarray) -> tuple[float, float]:
    """From the smallest to the largest positive, finite value; never empty."""
    shown = values[np.isfinite(values) & (values > 0)]
    if not len(shown):
        return 0.1, 1.0
    low, high = float(shown.min()), float(shown.max())
    return (low, high) if high > 2 * low else (low / 2, 2 * high)
