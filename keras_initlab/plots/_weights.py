"""Weight matrices as images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._histories import shortened
from ._images import KernelImage, image_of
from ._style import color_bar, new_panels, style
from ._weights_given import Weights, spaced, weights_given

_SIZE, _REST = (2.5, 2.35), 0.7  # inches of a panel, and around them
_MOST_OF = 0.995  # of the weights lie between the ends of the colors
_PIXELS = 1000  # more than a panel has on a side
_TITLE = 24  # characters


def weights(model: Any, shape: Any = None, most: int = 12, title: str = "") -> Any:
    """Draws every kernel as an image, inputs from top to bottom, outputs to the right.

    Negative weights are blue, positive ones red, zeros white. Each kernel has colors of
    its own, symmetric about 0, between whose ends 99.5 % of its weights lie: an image
    shows structure, the standard deviation above it the size. A convolution's kernel is
    a grid of tiles, a window each, input channels from top to bottom and output
    channels to the right; a depthwise kernel, or one with a single input channel, is a
    strip of tiles, broken into rows. Of more than 12 × 12 tiles the first are shown,
    which the title says. What is not finite is black.

    Args:
        model: a built model or layer, a sequence of them, or `{label: value}` where a
            value is a built layer, an initializer, its name or an array, whose axes are
            `(inputs, outputs)` or `(*window, inputs, outputs)`.
        shape: of the kernels that initializers draw, as (inputs, outputs).
        most: how many kernels to show at most, evenly spaced from the first to the
            last.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if `model` is nothing of that kind, holds no kernel, or holds
            initializers without a `shape`.
        UnbuiltModelError: if a layer has no weights yet.
        ImportError: if matplotlib is not installed.

    Example:
        >>> figure = weights({"he": "he_normal", "mine": np.eye(8)}, shape=(64, 32))
        >>> [axes.images[0].get_array().shape for axes in figure.axes]
        [(64, 32), (8, 8)]
    """
    shown, remark = spaced(weights_given("model", model, shape), most)
    with style():
        figure, panels = new_panels(len(shown), _SIZE, _REST, title)
        for axes, one in zip(panels, shown, strict=True):
            _draw(axes, one)
        figure.supylabel("inputs", fontsize=9)
        figure.supxlabel(f"outputs{remark and f' · {remark}'}", fontsize=9)
    return figure


def _draw(axes: Any, one: Weights) -> None:
    image = image_of(one.values, one.axes)
    is_tiled = image.tile != (1, 1)
    limit = _limit(one.finite)
    colors = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    aspect = "equal" if is_tiled else "auto"
    picture = _show(axes, np.ma.masked_invalid(image.values), aspect=aspect, **colors)
    _blacken(axes, image)
    axes.grid(False)
    _tick(axes, image)
    bar = color_bar(axes, picture)
    bar.set_ticks([-limit, 0, limit], labels=[f"{-limit:.2g}", "0", f"{limit:.2g}"])
    bar.ax.tick_params(labelsize=7, length=2)
    axes.set_title(_title(one, image), fontsize=8, fontweight="normal")


def _blacken(axes: Any, image: KernelImage) -> None:
    broken = np.ma.masked_array(np.ones(image.values.shape))
    broken.mask = np.isfinite(image.values.filled(0))
    if not broken.mask.all():
        _show(axes, broken, aspect=axes.get_aspect(), cmap="gray_r", vmin=0, vmax=1)


def _show(axes: Any, values: np.ma.MaskedArray, **look: Any) -> Any:
    """Draws an image; of a very large one, as many rows and columns as can be seen.

    It takes some of the weights and not the mean of neighbors: that of noise is pale.
    """
    rows, columns = values.shape
    some = values[:: -(-rows // _PIXELS), :: -(-columns // _PIXELS)]
    place = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    return axes.imshow(some, extent=place, interpolation="nearest", **look)


def _tick(axes: Any, image: KernelImage) -> None:
    """Counts inputs and outputs, or draws the borders of tiles."""
    axes.spines[:].set_visible(True)
    axes.tick_params(labelsize=7, length=2)
    for axis, side, size in zip(
        (axes.yaxis, axes.xaxis), image.tile, image.values.shape, strict=True
    ):
        if image.tile == (1, 1):
            axis.get_major_locator().set_params(nbins=3, integer=True)
            continue
        axis.set_ticks([])
        axis.set_ticks(np.arange(side, size, side) - 0.5, minor=True)
        axis.set_tick_params(which="minor", length=0)
    if image.tile != (1, 1):
        axes.grid(True, which="minor", color="black", linewidth=0.5, alpha=1.0)


def _title(one: Weights, image: KernelImage) -> str:
    shape = " × ".join(map(str, one.values.shape))
    std = f"std {one.std:.3g}" if one.finite.size else ""
    facts = ", ".join(text for text in (shape, std, one.broken) if text)
    return "\n".join(filter(None, [shortened(one.label, _TITLE), facts, image.note]))


def _limit(finite: np.ndarray) -> float:
    """The end of the colors: all but the rarest sizes; never 0."""
    if not finite.size:
        return 1.0
    sizes = np.abs(finite)
    return float(np.quantile(sizes, _MOST_OF) or sizes.max() or 1.0)
