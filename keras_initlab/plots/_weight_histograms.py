"""How the weights of kernels are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._histories import shortened
from ._style import BLUE, SKY, VERMILION, legend_below, new_panels, style
from ._weights_given import Weights, spaced, weights_given

_SIZE, _REST = (2.5, 1.9), 0.8  # inches of a panel, and around them
_WITHIN = 12.0  # widths that differ by less are drawn to one scale
_BEYOND = 6.0  # so many standard deviations from the mean, the last bin begins
_ROOM = 0.1  # on either side, in widths
_BINS = 61  # odd: a constant lies in the middle of one
_TITLE = 26  # characters


def weight_histograms(
    weights: Any, shape: Any = None, most: int = 12, title: str = ""
) -> Any:
    """Draws how the weights of each initializer or kernel are distributed.

    Lines mark the mean and one standard deviation on either side, and one of those that
    the initializer draws by its formula, where it has one: for a kernel of a trained
    model, that from which it started. Panels share their axis unless the narrowest
    would be a spike: then each has its own, which the figure says. The bins at both
    ends hold all beyond six standard deviations; what is not finite is counted in the
    title.

    Args:
        weights: what `weights` takes: a built model or layer, a sequence of them, or
            `{label: value}` of layers, initializers, their names and arrays.
        shape: of the kernels that initializers draw, as (inputs, outputs).
        most: how many kernels to show at most, evenly spaced from the first to the
            last.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if `weights` is nothing of that kind, holds no kernel, or holds
            initializers without a `shape`.
        UnbuiltModelError: if a layer has no weights yet.
        ImportError: if matplotlib is not installed.

    Example:
        >>> figure = weight_histograms({"ones": "ones", "mine": [[1.0, 3.0]]}, (4, 4))
        >>> print(figure.axes[1].get_title())
        mine
        mean 2, std 1
    """
    shown, remark = spaced(weights_given("weights", weights, shape), most)
    spans = _spans(shown)
    with style():
        figure, panels = new_panels(len(shown), _SIZE, _REST, title, least=5.0)
        for axes, one, span in zip(panels, shown, spans, strict=True):
            _draw(axes, one, span)
        figure.supylabel("share of the weights [%]", fontsize=9)
        scales = "" if len(set(spans)) == 1 else "each on an axis of its own"
        note = " · ".join(filter(None, ["weight", scales, remark]))
        _explain(figure, note)
    return figure


def _spans(shown: Sequence[Weights]) -> list[tuple[float, float]]:
    """From where to where each panel goes: the same for all if one suits them."""
    spans = [_span(one) for one in shown]
    joint = min(low for low, _ in spans), max(high for _, high in spans)
    narrowest = min((4 * one.std for one in shown if one.std > 0), default=math.inf)
    is_one_scale = joint[1] - joint[0] < _WITHIN * narrowest
    return [joint] * len(spans) if is_one_scale else spans


def _span(one: Weights) -> tuple[float, float]:
    """All values, but for those far out; never empty."""
    if not one.finite.size:
        return -1.0, 1.0
    mean = float(one.finite.mean())
    if not one.std:
        room = max(1.0, abs(mean)) / 2
        return mean - room, mean + room
    low = max(float(one.finite.min()), mean - _BEYOND * one.std)
    high = min(float(one.finite.max()), mean + _BEYOND * one.std)
    room = _ROOM * (high - low)
    return low - room, high + room


def _draw(axes: Any, one: Weights, span: tuple[float, float]) -> None:
    facts = ""
    if one.finite.size:
        mean = float(one.finite.mean())
        _draw_bins(axes, one.finite, span)
        _draw_lines(axes, mean, one.std, one.theory)
        facts = f"mean {_short(mean, one.std)}, std {one.std:.3g}"
    axes.set_xlim(*span)
    axes.tick_params(labelsize=7)
    axes.xaxis.get_major_locator().set_params(nbins=4)
    lines = [shortened(one.label, _TITLE), facts, one.broken]
    axes.set_title("\n".join(filter(None, lines)), fontsize=8, fontweight="normal")


def _draw_bins(axes: Any, finite: np.ndarray, span: tuple[float, float]) -> None:
    bins = int(np.clip(math.sqrt(finite.size), 10, _BINS)) | 1
    counts, edges = np.histogram(np.clip(finite, *span), bins, span)
    shares = 100 * counts / finite.size
    axes.stairs(shares, edges, fill=True, color=SKY)
    axes.stairs(shares, edges, color=BLUE, linewidth=0.7)
    axes.set_ylim(0, 1.08 * shares.max())


def _draw_lines(axes: Any, mean: float, std: float, theory: float | None) -> None:
    axes.axvline(mean, color="black", linewidth=1.2)
    for sign in (-1, 1):
        axes.axvline(mean + sign * std, color=VERMILION, linestyle="--", linewidth=1.5)
        if theory is not None:
            axes.axvline(
                mean + sign * theory, color="black", linestyle=":", linewidth=1.5
            )


def _explain(figure: Any, note: str) -> None:
    """One legend for all panels, below what their axes are."""
    axes = figure.axes[0]
    for label, color, dashes in (
        ("mean", "black", "-"),
        ("mean ± std", VERMILION, "--"),
        ("by the initializer's formula", "black", ":"),
    ):
        axes.plot([], [], color=color, linestyle=dashes, label=label)
    legend_below(figure, [axes], title=note, title_fontsize=9)


def _short(mean: float, std: float) -> str:
    """A mean to the digits that its standard deviation leaves of interest."""
    if not std or abs(mean) >= std:
        return f"{mean:.3g}"
    return f"{mean:.1g}" if abs(mean) >= 1e-3 * std else "0"
