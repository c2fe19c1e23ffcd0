"""How the signal fares over depth: several networks in the same panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._core.errors import message
from ._profiles import Profile, draw_profiles, profile, std_of
from ._style import legend_below, new_figure, style

_LARGE = 10.0  # a mean beyond which small ones need a log axis
_COLUMNS = 5  # of a legend


def activations_over_depth(reports: Any, title: str = "") -> Any:
    """Draws the signal over the depth of one or several networks, in four panels.

    The standard deviation before and after the activation, on log axes; the share of
    dead units, or, where no layer has any, the mean after the activation; and how each
    kernel keeps the variance, on a log axis with a line at 1, the ideal. The first
    three show the layers that apply an activation, or all layers of a network without
    one. Layers are counted in the order in which they run. On a log axis a 0 is a
    cross at the lower end; what is not finite is a triangle at the upper end.

    Unlike `signal_report`, which shows all about one model, layer by layer with their
    names, this sets models beside each other, which may differ in depth.

    Args:
        reports: a `SignalReport`, or `{label: SignalReport}`.
        title: title of the figure; for a single report, the model's name if empty.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if there is no report, or one holds no layer that ran.
        ImportError: if matplotlib is not installed.

    Example:
        >>> def deep(name):
        ...     one = {"activation": "relu", "kernel_initializer": name}
        ...     hidden = [keras.layers.Dense(32, **one) for _ in range(9)]
        ...     return keras.Sequential([keras.Input((16,)), *hidden])
        >>> x = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
        >>> names = ("he_normal", "glorot_normal")
        >>> found = {name: keras_initlab.probe(deep(name), x) for name in names}
        >>> panels = activations_over_depth(found).axes
        >>> [axes.get_yscale() for axes in panels]
        ['log', 'log', 'linear', 'log']
    """
    labelled = _labelled(reports)
    has_dead = any(one.dead_units for one in _ran(labelled.values()))
    third = _draw_dead if has_dead else _draw_mean
    with style():
        name = getattr(reports, "model_name", "")
        figure = new_figure(9.0, 6.0, title, name)
        panels = figure.subplots(2, 2, sharex=True)
        draw = (_draw_before, _draw_after, third, _draw_preservation)
        for axes, one in zip(panels.flat, draw, strict=True):
            one(axes, labelled)
        for axes in panels[1]:
            axes.set_xlabel("layer, in the order of execution")
        if len(labelled) > 1:  # a single line needs no legend
            legend_below(figure, figure.axes[:1], most=_COLUMNS)
    return figure


def activation_comparison(reports: Any, title: str = "") -> Any:
    """Draws what activations make of the signal under one initializer, in three panels.

    The standard deviation before the activation and after it, on log axes, and the mean
    after it; over depth, for the layers that apply an activation. On a log axis a 0 is
    a cross at the lower end; what is not finite is a triangle at the upper end. Means
    have a log axis beyond ±1 where one of them exceeds 10.

    Args:
        reports: `{activation: SignalReport}`.
        title: title of the figure; name the initializer here.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if there is no report, or one holds no layer that ran.
        ImportError: if matplotlib is not installed.

    Example:
        >>> def deep(activation):
        ...     hidden = [keras.layers.Dense(32, activation) for _ in range(9)]
        ...     return keras.Sequential([keras.Input((16,)), *hidden])
        >>> x = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
        >>> found = {a: keras_initlab.probe(deep(a), x) for a in ("relu", "tanh")}
        >>> axes = activation_comparison(found, "glorot_uniform").axes[0]
        >>> [line.get_label() for line in axes.get_lines()]
        ['relu', 'tanh']
    """
    labelled = _labelled(reports)
    with style():
        figure = new_figure(11.0, 3.9, title)
        panels = figure.subplots(1, 3, sharex=True)
        draw = (_draw_before, _draw_after, _draw_mean)
        for axes, one in zip(panels, draw, strict=True):
            one(axes, labelled)
            axes.set_xlabel("layer")
        if len(labelled) > 1:  # a single line needs no legend
            legend_below(figure, figure.axes[:1], most=_COLUMNS)
    return figure


def _draw_before(axes: Any, reports: Mapping[str, Any]) -> None:
    _draw(axes, reports, _activating, lambda one: std_of(one.preactivation), True)
    axes.set_title("Std before the activation", loc="left")


def _draw_after(axes: Any, reports: Mapping[str, Any]) -> None:
    _draw(axes, reports, _activating, lambda one: std_of(one.output), True)
    axes.set_title("Std after the activation", loc="left")


def _draw_dead(axes: Any, reports: Mapping[str, Any]) -> None:
    _draw(axes, reports, _activating, _dead, False)
    axes.set_ylim(-3, 103)
    axes.set_title("Dead units [%]", loc="left")


def _draw_mean(axes: Any, reports: Mapping[str, Any]) -> None:
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    largest = _draw(axes, reports, _activating, lambda one: _mean(one.output), False)
    if largest > _LARGE:
        axes.set_yscale("symlog", linthresh=1.0)
    axes.set_title("Mean after the activation", loc="left")


def _draw_preservation(axes: Any, reports: Mapping[str, Any]) -> None:
    axes.axhline(1, color="black", linestyle=":", linewidth=1.2)
    _draw(axes, reports, enumerate, lambda one: one.variance_preservation, True)
    axes.set_title("Variance preservation: std / std received", loc="left")


def _draw(
    axes: Any,
    reports: Mapping[str, Any],
    layers_of: Callable[[Sequence[Any]], Any],
    figure_of: Callable[[Any], float | None],
    is_log: bool,
) -> float:
    """Draws a figure of the layers of each report; returns its largest size."""
    profiles: list[Profile] = [
        profile([(at + 1, figure_of(one)) for at, one in layers_of(_ran([report]))])
        for report in reports.values()
    ]
    draw_profiles(axes, profiles, list(reports), is_log)
    values = np.concatenate([one.values for one in profiles])
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def _ran(reports: Any) -> list[Any]:
    """The layers that ran, of all reports."""
    return [one for report in reports for one in report if one.output is not None]


def _activating(layers: Sequence[Any]) -> list[tuple[int, Any]]:
    """Layers that apply an activation, with their number; all, if none does."""
    numbered = list(enumerate(layers))
    return [p for p in numbered if p[1].activation != "linear"] or numbered


def _mean(figures: Any) -> float:
    return math.inf if figures.not_finite else figures.mean


def _dead(layer: Any) -> float | None:
    """Percent of its units; None where what is not finite hides them."""
    return None if layer.output.not_finite else 100 * layer.dead_share


def _labelled(reports: Any) -> Mapping[str, Any]:
    """Reports by label; raises if there is nothing to draw."""
    if not isinstance(reports, Mapping):
        reports = {getattr(reports, "model_name", "model"): reports}
    kinds = [type(report).__name__ for report in reports.values()]
    if not kinds or not all(hasattr(r, "model_name") for r in reports.values()):
        raise ValueError(
            message(
                "`reports` must be {label: SignalReport}.",
                f"{{{', '.join(map('{!r}: {}'.format, reports, kinds))}}}",
                "`keras_initlab.probe` returns a report.",
            )
        )
    silent = [label for label, report in reports.items() if not _ran([report])]
    if silent:
        raise ValueError(
            message(
                "Each of `reports` must hold a layer that ran.",
                f"none in {', '.join(map(repr, silent))}",
                "Watch a model whose layers have weights or activations.",
            )
        )
    return reports
