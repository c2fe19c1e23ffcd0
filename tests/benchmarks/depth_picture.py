"""The picture of `depth.py`: how deep networks still train, by where they start from.

A panel for each start, a row an activation, a column a depth; every cell holds the mean
test accuracy in percent over the seeds that ended with a finite one, × where none did,
nothing where there was no run. Activations that do best from the last start lie on top.
"""

from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure

ROW, CELL, NAMES, REST = 0.24, 0.62, 2.2, 1.5  # inches
BRIGHT = 60  # percent: from there on, black is read better than white


def cells_of(runs):
    """`{(activation, depth, arm): accuracy in percent}`, NaN where all runs failed."""
    found = defaultdict(list)
    for run in runs:
        cell = found[run["activation"], run["depth"], run["arm"]]
        if run["accuracy"] is not None:
            cell.append(100 * run["accuracy"])
    return {cell: np.mean(each) if each else np.nan for cell, each in found.items()}


def ordered(cells, arm):
    """The activations, those first that do best from one start."""

    def rank(activation):
        own = [cells[cell] for cell in cells if (cell[0], cell[2]) == (activation, arm)]
        return -np.nanmean(own) if np.isfinite(own).any() else 1.0

    return sorted(dict.fromkeys(activation for activation, _, _ in cells), key=rank)


def depth_picture(runs, headings, title):
    """The figure of runs, with the starts `{arm: heading}` from left to right."""
    cells = cells_of(runs)
    rows = ordered(cells, list(headings)[-1])
    depths = sorted({depth for _, depth, _ in cells})
    width = NAMES + max(1.6, CELL * len(depths)) * len(headings)
    size = (width, ROW * len(rows) + REST)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    panels = figure.subplots(1, len(headings), sharey=True, squeeze=False)[0]
    for axes, (arm, heading) in zip(panels, headings.items(), strict=True):
        image = draw(axes, [[cells.get((a, d, arm)) for d in depths] for a in rows])
        axes.set_title(heading, fontsize=11, fontweight="bold")
        axes.set_xticks(range(len(depths)), [f"{depth:,}" for depth in depths])
    panels[0].set_yticks(range(len(rows)), rows)
    bar = figure.colorbar(image, ax=panels, label="test accuracy [%]", aspect=30)
    bar.outline.set_visible(False)
    figure.supxlabel("hidden layers", fontsize=10)
    return figure


def draw(axes, rows):
    """Draws and writes a table of accuracies; returns the image that a bar explains."""
    values = np.array(rows, "float64")  # None becomes NaN
    image = axes.imshow(values, vmin=0, vmax=100, aspect="auto")
    for place, value in np.ndenumerate(np.array(rows, object)):
        if value is not None:
            write(axes, place, value)
    edges = [np.arange(size + 1) - 0.5 for size in values.shape]
    axes.vlines(edges[1], edges[0][0], edges[0][-1], color="white", linewidth=1)
    axes.hlines(edges[0], edges[1][0], edges[1][-1], color="white", linewidth=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def write(axes, place, value):
    look = {"fontsize": 8, "ha": "center", "va": "center_baseline"}
    if np.isnan(value):
        axes.text(*place[::-1], "×", color="#D55E00", **look)
    else:
        color = "white" if value < BRIGHT else "black"
        axes.text(*place[::-1], f"{value:.0f}", color=color, **look)
