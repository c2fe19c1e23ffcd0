"""The signal through a model and its gradient, layer by layer, on one batch."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core.errors import message
from ._layers import height_of, label_rows
from ._profiles import draw_profiles, profile, std_of
from ._style import GREEN, SKY, VERMILION, legend_above, new_figure, style

_WIDTH, _REST = 10.0, 1.5  # inches
_HEALTHY = (0.1, 10.0)  # a decade on either side of 1
_NOTED, _LINE = 3, 150  # sentences below the panels, and characters of a line


def signal_report(report: Any, title: str = "") -> Any:
    """Draws what `probe` measured, the first layer on top, all panels side by side.

    Standard deviation before and after the activation, on a log axis, with a band from
    0.1 to 10; how each layer keeps the variance, ideally 1, on a log axis; the standard
    deviation of the gradient with respect to what each layer returns, on a log axis;
    the share of zeros, and of dead units, as bars. What cannot be drawn on a log axis,
    a 0, lies at the left end as a cross; what is not finite is a triangle at the right
    end. Below stand the first sentences of the diagnosis.

    Args:
        report: a `SignalReport`, or anything like it.
        title: title of the figure; the model's name if empty.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if it is no report, or one that holds no layer that ran.
        ImportError: if matplotlib is not installed.

    Example:
        >>> layers = [keras.layers.Dense(8, "relu") for _ in range(3)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> report = keras_initlab.probe(model, np.ones((8, 4), "float32"))
        >>> [axes.get_title() for axes in signal_report(report).axes]
        ['Signal', 'Variance kept', 'Gradient', 'Zeros and dead units']
    """
    if not hasattr(report, "model_name"):
        raise ValueError(
            message(
                "`report` must be a `SignalReport`.",
                f"report={report!r}",
                "`keras_initlab.probe` returns one.",
            )
        )
    layers = [one for one in report if one.output is not None]
    if not layers:
        raise ValueError(
            message(
                "`report` must hold a layer that ran.",
                f"{type(report).__name__} with {len(report)} layers, none of which ran",
                "Watch a model whose layers have weights or activations.",
            )
        )
    draw: list[Callable[[Any, Sequence[Any]], None]]
    draw = [_draw_signal, _draw_kept, _draw_gradient, _draw_shares]
    with style():
        height = height_of(len(layers)) + _REST
        figure = new_figure(_WIDTH, height, title, report.model_name)
        panels = figure.subplots(1, len(draw), sharey=True)
        for axes, one in zip(panels, draw, strict=True):
            one(axes, layers)
            axes.tick_params(axis="y", length=0)
        label_rows(panels[0], [one.path for one in layers])
        panels[0].set_ylim(len(layers) - 0.5, -0.5)
        _note(figure, report)
    return figure


def _draw_signal(axes: Any, layers: Sequence[Any]) -> None:
    axes.axvspan(*_HEALTHY, color=GREEN, alpha=0.12, linewidth=0)
    before = [std_of(one.preactivation) for one in layers]
    after = [std_of(one.output) for one in layers]
    _draw_lines(axes, [before, after], ["before activation", "after"])
    axes.set_xlabel("standard deviation")
    axes.set_title("Signal", pad=20)
    legend_above(axes)


def _draw_kept(axes: Any, layers: Sequence[Any]) -> None:
    axes.axvline(1, color="black", linestyle=":", linewidth=1.2)
    _draw_lines(axes, [[one.variance_preservation for one in layers]])
    axes.set_xlabel("std / std received")
    axes.set_title("Variance kept", pad=20)


def _draw_gradient(axes: Any, layers: Sequence[Any]) -> None:
    _draw_lines(axes, [[std_of(one.gradient) for one in layers]])
    axes.set_xlabel("std of the gradient")
    axes.set_title("Gradient", pad=20)


def _draw_lines(
    axes: Any,
    values: Sequence[Sequence[float | None]],
    labels: Sequence[str | None] = (None,),
) -> None:
    profiles = [profile(list(enumerate(each))) for each in values]
    draw_profiles(axes, profiles, labels, is_log=True, is_down=True)


def _draw_shares(axes: Any, layers: Sequence[Any]) -> None:
    depth = np.arange(len(layers))
    zeros = [100 * one.output.zero_share for one in layers]
    dead = [100 * one.dead_share for one in layers]
    axes.barh(depth, zeros, height=0.8, color=SKY, label="zeros")
    axes.barh(depth, dead, height=0.4, color=VERMILION, label="dead units")
    axes.set_xlim(0, 103)
    axes.set_xlabel("share [%]")
    axes.set_title("Zeros and dead units", pad=20)
    legend_above(axes)


def _note(figure: Any, report: Any) -> None:
    """The diagnosis in a few lines below the panels."""
    sentences = list(report.diagnosis[:_NOTED])
    more = len(report.diagnosis) - len(sentences)
    sentences += [f"and {more} more"] if more > 0 else []
    text = "\n".join(map(_wrapped, sentences)) or "nothing unusual"
    figure.supxlabel(text, fontsize=9, x=0.01, ha="left")


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, _LINE, subsequent_indent="    ")
