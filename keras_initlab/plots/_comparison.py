"""How one network trained from several initializers, over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._core.errors import message
from ._histories import shortened
from ._style import (
    color,
    dashes,
    legend_below,
    log_scale,
    new_figure,
    style,
    whole_numbers,
)

_MANY_BARS = 4  # more labels than these are written at an angle
_NAMES = {
    "loss": "Training loss",
    "test_loss": "Test loss",
    "accuracy": "Training accuracy [%]",
    "test_accuracy": "Test accuracy [%]",
    "gradient_norm": "Gradient norm",
}


def comparison(compared: Any, title: str = "") -> Any:
    """Draws how one network trained from several initializers.

    Four panels: training loss (log axis), test accuracy, global gradient norm (log
    axis), and bars of the final accuracy beside the epochs to convergence with their
    values. Lines are means over seeds; a band reaches from the lowest seed to the
    highest, and a whisker is one standard error. Without an accuracy the test loss
    takes its place. Lines have gaps where a figure is not finite.

    Args:
        compared: a `Comparison`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if it is no comparison.
        ImportError: if matplotlib is not installed.

    Example:
        >>> from keras_initlab.compare import Comparison, Run
        >>> curves = {
        ...     name: np.array([1.0, 0.5])
        ...     for name in ("loss", "test_loss", "gradient_norm")
        ... }
        >>> runs = [Run("he_normal", 0, curves, 1.0)]
        >>> figure = comparison(Comparison(["he_normal"], [0], runs, 2, 32))
        >>> [axes.get_yscale() for axes in figure.axes[:3]]
        ['log', 'log', 'log']
    """
    main = _main(compared)
    tested = "test_accuracy" if main == "final_accuracy" else "test_loss"
    with style():
        figure = new_figure(10, 7.2, title)
        panels = figure.subplots(2, 2)
        for axes, name in zip(
            panels.flat, ("loss", tested, "gradient_norm"), strict=False
        ):
            _draw_curves(axes, compared, name)
        _draw_bars(panels[1, 1], compared, main)
        legend_below(figure, [panels[0, 0]], most=5)
    return figure


def learning_curves(compared: Any, title: str = "") -> Any:
    """Draws test accuracy over epochs, the final one of each initializer in the legend.

    Solid lines are test accuracies, dashed ones training accuracies, means over seeds;
    a band reaches from the lowest seed's test accuracy to the highest. Without an
    accuracy they are losses, on a log axis.

    Args:
        compared: a `Comparison`.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if it is no comparison.
        ImportError: if matplotlib is not installed.

    Example:
        >>> from keras_initlab.compare import Comparison, Run
        >>> names = ("loss", "test_loss", "gradient_norm", "accuracy", "test_accuracy")
        >>> runs = [Run("he_normal", 0, {name: np.array([20.0, 90]) for name in names})]
        >>> compared = Comparison(["he_normal"], [0], runs, 2, 32)
        >>> (axes,) = learning_curves(compared).axes
        >>> axes.get_legend().get_texts()[0].get_text()
        'he_normal: 90.0 %'
    """
    main = _main(compared)
    name = main.removeprefix("final_")
    finals = {score.label: score for score in compared.ranking(main)}
    with style():
        figure = new_figure(7.5, 4.4, title)
        axes = figure.subplots()
        _draw_curves(axes, compared, f"test_{name}", finals)
        for index, _, curves in _finished_curves(compared, name):
            look = {"color": color(index), "linewidth": 1, "alpha": 0.7}
            axes.plot(_epochs(curves), _mean(curves), "--", **look)
        axes.plot([], [], "--", color="black", linewidth=1, label="in training")
        _legend(axes, finals)
    return figure


def _draw_curves(
    axes: Any, compared: Any, name: str, finals: dict[str, Any] | None = None
) -> None:
    """Draws the mean curve of every initializer, with a band over its seeds."""
    for index, label, curves in _finished_curves(compared, name):
        text = label if finals is None else f"{label}: {_final(finals[label], name)}"
        look = {"color": color(index), "linestyle": dashes(index), "label": text}
        axes.plot(_epochs(curves), _mean(curves), **look)
        if len(curves) > 1:
            ends = _masked(curves).min(axis=0), _masked(curves).max(axis=0)
            band = {"color": color(index), "alpha": 0.18, "linewidth": 0}
            axes.fill_between(_epochs(curves), *ends, **band)
    if name.endswith("accuracy"):
        axes.set_ylim(0, 102)
    else:
        log_scale(axes, "y")
    whole_numbers(axes.xaxis)
    axes.set_xlabel("epoch")
    axes.set_title(_NAMES[name], loc="left")


def _draw_bars(axes: Any, compared: Any, main: str) -> None:
    """Draws final figures as bars to the left, epochs to convergence to the right."""
    is_accuracy = main == "final_accuracy"
    epochs = axes.twinx()
    names = [label for _, label in _finished(compared)]
    final = {score.label: score for score in compared.ranking(main)}
    first = {score.label: score for score in compared.ranking("convergence_epoch")}
    for place, (index, label) in enumerate(_finished(compared)):
        look = {
            "width": 0.38,
            "color": color(index),
            "edgecolor": "black",
            "linewidth": 0.5,
        }
        _draw_bar(
            axes,
            place - 0.2,
            final[label],
            "{:.1f}" if is_accuracy else "{:.3g}",
            look,
        )
        hatched = {**look, "alpha": 0.45, "hatch": "///"}
        _draw_bar(epochs, place + 0.2, first[label], "{:.3g}", hatched)
    slope: dict[str, Any] = {}
    if len(names) > _MANY_BARS:
        slope = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
    texts = [shortened(name, 20) for name in names]
    axes.set_xticks(range(len(names)), texts, **slope)
    axes.set_ylabel("final test accuracy [%]" if is_accuracy else "final test loss")
    epochs.set_ylabel("epochs to 90 % (hatched)")
    for side in (axes, epochs):
        side.set_ylim(0, 1.12 * side.get_ylim()[1])
    epochs.grid(False)
    axes.set_title("Final figure and convergence", loc="left")
    whole_numbers(epochs.yaxis)


def _draw_bar(
    axes: Any, at: float, score: Any, text: str, look: dict[str, Any]
) -> None:
    error = None if math.isnan(score.standard_error) else score.standard_error
    is_finite = math.isfinite(score.mean)
    height = score.mean if is_finite else 0.0
    bars = axes.bar(at, height, yerr=error, capsize=2, **look)
    value = text.format(score.mean) if is_finite else "–"
    axes.bar_label(bars, [value], padding=2, fontsize=8)


def _main(compared: Any) -> str:
    """The metric that decides; raises if this is no comparison."""
    if not hasattr(compared, "ranking") or not hasattr(compared, "runs"):
        raise ValueError(
            message(
                "`compared` must be a `Comparison`.",
                f"compared={type(compared).__name__}",
                "`keras_initlab.compare` returns one.",
            )
        )
    return compared.metrics[0]


def _finished(compared: Any) -> list[tuple[int, str]]:
    """Number and label of the initializers of which a run finished.

    The number is that among all: colors stay with initializers.
    """
    has = {run.label for run in compared.runs if run.error is None}
    return [(i, label) for i, label in enumerate(compared.labels) if label in has]


def _finished_curves(compared: Any, name: str) -> Iterator[tuple[int, str, np.ndarray]]:
    """The same with the curves of all seeds, `(seeds, epochs)`."""
    for index, label in _finished(compared):
        runs = [run for run in compared.runs if run.label == label]
        yield index, label, np.array([r.curves[name] for r in runs if r.error is None])


def _masked(curves: np.ndarray) -> Any:
    return np.ma.masked_invalid(curves)


def _mean(curves: np.ndarray) -> Any:
    """The mean over seeds, masked where that of one is not finite."""
    return _masked(curves.mean(axis=0))


def _epochs(curves: np.ndarray) -> np.ndarray:
    return np.arange(curves.shape[1])


def _final(score: Any, name: str) -> str:
    return f"{score.mean:.1f} %" if name.endswith("accuracy") else f"{score.mean:.3g}"


def _legend(axes: Any, finals: dict[str, Any]) -> None:
    """Explains the lines beside the panel, the best first, and others last."""
    handles, texts = axes.get_legend_handles_labels()
    place = {label: number for number, label in enumerate(finals)}
    order = sorted(
        range(len(texts)),
        key=lambda i: place.get(texts[i].rpartition(": ")[0], len(place)),
    )
    axes.legend(
        [handles[i] for i in order],
        [texts[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
    )
