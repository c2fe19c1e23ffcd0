"""The look that all pictures share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core.errors import message, not_installed

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
BLUE, VERMILION, GREEN = COLORS[:3]
SKY = COLORS[5]
GREY = "#BBBBBB"
_FEW = 40  # so many points of a line get a marker each
_DECADES = 100  # less than two decades are few
_COLUMNS = 4  # of panels of one kind


def style() -> Any:
    """A context in which what is drawn has this package's look."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise not_installed("Pictures need matplotlib.", "plot") from error
    return mpl.rc_context(
        {
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "font.size": 10,
            "grid.alpha": 0.25,
            "legend.fontsize": 9,
            "legend.framealpha": 0.9,
            "lines.linewidth": 1.8,
            "lines.markersize": 4,
        }
    )


def new_figure(width: float, height: float, title: str = "", usual: str = "") -> Any:
    """An empty figure of so many inches, with the usual title if none is given.

    Raises:
        ValueError: if the title is no text.
    """
    if not isinstance(title, str):
        raise ValueError(message("`title` must be text.", f"title={title!r}"))
    from ._figure import NotebookFigure  # loads matplotlib

    figure = NotebookFigure(figsize=(width, height), dpi=150, layout="constrained")
    if title or usual:
        figure.suptitle(title or usual, fontsize=13, fontweight="bold")
    return figure


def new_panels(
    count: int, size: tuple[float, float], rest: float, title: str, least: float = 0.0
) -> tuple[Any, list[Any]]:
    """A figure of panels in rows of four, and the panels.

    Args:
        count: how many panels.
        size: width and height of each, in inches.
        rest: inches above and below all.
        title: title of the figure.
        least: inches that the figure is wide at least.
    """
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    width, height = size
    figure = new_figure(max(least, width * columns), height * rows + rest, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def color(index: int) -> str:
    """The color of a line."""
    return COLORS[index % len(COLORS)]


def dashes(index: int) -> str:
    """The kind of a line: beyond the seven colors, another one."""
    return ("-", "-.", ":")[(index // len(COLORS)) % 3]


def marker(index: int) -> str:
    """The marker of a line."""
    return MARKERS[index % len(MARKERS)]


def dots(count: int) -> str:
    """The marker of a line of so many points: only few can be told apart."""
    return "o" if count <= _FEW else ""


def legend_above(axes: Any) -> None:
    """A legend above a panel, to the right, if there is anything to explain."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(handles),
            frameon=False,
            borderaxespad=0.1,
            columnspacing=1.2,
            handletextpad=0.5,
        )


def legend_below(figure: Any, axes: Any, most: int = 8, **more: Any) -> None:
    """One legend for all panels, of what is labelled in some of them.

    Args:
        figure: the figure.
        axes: the panels that are asked.
        most: columns at most.
        **more: what else matplotlib's `legend` takes.
    """
    handles = [one for each in axes for one in each.get_legend_handles_labels()[0]]
    place = {"loc": "outside lower center", "frameon": False}
    figure.legend(handles=handles, ncols=min(len(handles), most), **place, **more)


def legend_beside(axes: Any) -> None:
    """A legend to the right of a panel, if there is anything to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            handlelength=2.8,
        )


def log_scale(axes: Any, name: str) -> None:
    """Makes "x" or "y" a log axis over a factor of four at least, data drawn before.

    Else the axis would make a mountain of a flat line.
    """
    if not np.isfinite(axes.dataLim.minpos["xy".index(name)]):
        axes.set(**{f"{name}lim": (0.1, 1.0)})  # nothing positive to show
    axes.set(**{f"{name}scale": "log"})
    low, high = getattr(axes, f"get_{name}lim")()
    middle, factor = (low * high) ** 0.5, max(2.0, (high / low) ** 0.5)
    axes.set(**{f"{name}lim": (middle / factor, middle * factor)})
    plain_ticks(getattr(axes, f"{name}axis"))


def plain_ticks(axis: Any) -> None:
    """Keeps the labels of a short log axis from running into each other.

    Matplotlib writes 2 × 10⁻¹ and the like at every tick between few decades.
    """
    low, high = sorted(axis.get_view_interval())
    axis.set_minor_formatter("")
    if high < _DECADES * low:
        axis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.set_major_formatter("{x:g}")


def color_bar(axes: Any, mesh: Any, label: str = "") -> Any:
    """Explains the colors of a panel to its right; returns matplotlib's color bar."""
    # Inside the panel's own axes: else all bars of a figure lie right of all legends.
    beside = axes.inset_axes((1.015, 0.0, 0.025, 1.0))
    beside.grid(False)
    bar = axes.figure.colorbar(mesh, cax=beside, label=label)
    if mesh.norm.vmin > 0:  # a log scale
        plain_ticks(bar.ax.yaxis)
    return bar


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
