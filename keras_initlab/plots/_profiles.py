"""Lines over depth, also of what a log axis cannot show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ._style import color, dashes, dots, log_scale, marker, whole_numbers


class Profile(NamedTuple):
    """Figures over depth.

    Attributes:
        at: the places of the layers, from 1.
        values: a figure each; infinite where it is not finite, NaN where there is none.
    """

    at: np.ndarray
    values: np.ndarray


def profile(pairs: Sequence[tuple[int, float | None]]) -> Profile:
    """Returns the profile of `(place, figure)` pairs, without those that are None."""
    known = [(at, value) for at, value in pairs if value is not None]
    at, values = zip(*known, strict=True) if known else ((), ())
    return Profile(np.array(at, dtype=int), np.array(values, dtype="float64"))


def std_of(figures: Any) -> float | None:
    """A standard deviation; None where there is none, infinite where it is broken."""
    if figures is None:
        return None
    return math.inf if getattr(figures, "not_finite", 0) else figures.std


def draw_profiles(
    axes: Any,
    profiles: Sequence[Profile],
    labels: Sequence[str | None],
    is_log: bool,
    is_down: bool = False,
) -> None:
    """Draws a line for each profile; on a log axis, what it cannot show at its ends.

    There a 0 is a cross at the lower end. What is not finite is a triangle at the
    upper end, on any axis.

    Args:
        axes: where to draw.
        profiles: what to draw.
        labels: a label for each.
        is_log: whether figures lie on a log axis.
        is_down: whether layers lie from top to bottom and not from left to right.
    """
    turn = -1 if is_down else 1
    most = max(len(one.at) for one in profiles)
    for index, (one, label) in enumerate(zip(profiles, labels, strict=True)):
        shown = np.isfinite(one.values) & ((one.values > 0) | (not is_log))
        axes.plot(
            *(one.at[shown], one.values[shown])[::turn],
            color=color(index),
            linestyle=dashes(index),
            marker=marker(index) if dots(most) else "",
            label=label,
        )
    if is_log:
        log_scale(axes, "x" if is_down else "y")
    for index, one in enumerate(profiles):
        broken = (~np.isfinite(one.values), 1.0, ">" if is_down else "^")
        zero = ((one.values == 0) & is_log, 0.0, "x")
        for where, end, mark in (zero, broken):
            if where.any():
                at = (one.at[where], np.full(where.sum(), end))[::turn]
                _mark(axes, at, mark, color(index), is_down)
    if not is_down:
        last = max((one.at[-1] for one in profiles if len(one.at)), default=1)
        axes.set_xlim(0.5, max(last + 0.5, axes.get_xlim()[1]))
        whole_numbers(axes.xaxis)


def _mark(axes: Any, at: Any, mark: str, shade: str, is_down: bool) -> None:
    """Marks what lies beyond an axis, whose ends are 0 and 1."""
    across = axes.get_yaxis_transform() if is_down else axes.get_xaxis_transform()
    look = {"marker": mark, "markersize": 6, "color": shade, "clip_on": False}
    axes.plot(*at, linestyle="", transform=across, **look)
