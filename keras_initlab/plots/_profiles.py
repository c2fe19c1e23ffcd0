"""Lines over depth, also of what a log axis cannot show."""

from __future__ import annotations

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


def draw_profiles(
    axes: Any, profiles: Sequence[Profile], labels: Sequence[str], is_log: bool
) -> None:
    """Draws a line for each profile; on a log axis, what it cannot show at its ends.

    There a 0 is a cross at the lower end. What is not finite is a triangle at the
    upper end, on any axis.
    """
    most = max(len(one.at) for one in profiles)
    for index, (one, label) in enumerate(zip(profiles, labels, strict=True)):
        shown = np.isfinite(one.values) & ((one.values > 0) | (not is_log))
        axes.plot(
            one.at[shown],
            one.values[shown],
            color=color(index),
            linestyle=dashes(index),
            marker=marker(index) if dots(most) else "",
            label=label,
        )
    if is_log:
        log_scale(axes, "y")
    for index, one in enumerate(profiles):
        if is_log:
            _mark(axes, one.at[one.values == 0], 0.0, "x", color(index))
        _mark(axes, one.at[~np.isfinite(one.values)], 1.0, "^", color(index))
    last = max((one.at[-1] for one in profiles if len(one.at)), default=1)
    axes.set_xlim(0.5, max(last + 0.5, axes.get_xlim()[1]))
    whole_numbers(axes.xaxis)


def _mark(axes: Any, at: np.ndarray, height: float, mark: str, shade: str) -> None:
    if len(at):
        axes.plot(
            at,
            np.full(len(at), height),
            linestyle="",
            marker=mark,
            markersize=6,
            color=shade,
            transform=axes.get_xaxis_transform(),  # y from 0 to 1
            clip_on=False,
        )
