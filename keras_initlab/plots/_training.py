"""How several initializations of one model trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core.errors import message
from ._histories import rows_of
from ._style import color, marker, new_figure, style, whole_numbers

_TINY = 1e-30


def training_comparison(
    histories: Mapping[str, Any],
    gradient_norms: Mapping[str, Any] | None = None,
    dead_relus: Mapping[str, Any] | None = None,
    metric: str = "val_accuracy",
    title: str = "",
) -> Any:
    """Draws how several initializations of one model trained.

    Up to three panels: the learning curves, the gradient norm by depth (log axis) at
    the first and at the last observed step, and the dead share of each ReLU layer in
    the last epoch by depth.

    Args:
        histories: `{label: history}`, what `fit` returned (or its `.history` dict).
        gradient_norms: `{label: logger}` with `GradientNormLogger`s, or None.
        dead_relus: `{label: logger}` with `DeadReLULogger`s, or None.
        metric: the key of the learning curves.
        title: title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if there is no history, or one lacks the metric.
        ImportError: if matplotlib is not installed.

    Example:
        >>> figure = training_comparison(
        ...     {"he": {"val_accuracy": [0.1]}, "ours": {"val_accuracy": [0.8]}}
        ... )
        >>> len(figure.axes)
        1
    """
    loggers = {"gradient_norms": gradient_norms, "dead_relus": dead_relus}
    for name, given in {"histories": histories, **loggers}.items():
        _check_labelled(name, given, is_optional=name in loggers)
    curves = {label: _metric(h, metric, label) for label, h in histories.items()}
    if not curves:
        raise ValueError(message("`histories` must hold a history.", "{}"))
    panels = 1 + bool(gradient_norms) + bool(dead_relus)
    with style():
        figure = new_figure(4.6 * panels, 4.2, title)
        axes = iter(figure.subplots(1, panels, squeeze=False)[0])
        _draw_curves(next(axes), curves, metric)
        if gradient_norms:
            _draw_norms(next(axes), gradient_norms)
        if dead_relus:
            _draw_dead(next(axes), dead_relus)
    return figure


def _check_labelled(name: str, given: Any, is_optional: bool) -> None:
    """Raises if an argument is not `{label: something with a history}`."""
    if given is None and is_optional:
        return
    kinds = {}
    if isinstance(given, Mapping):
        kinds = {label: getattr(one, "history", one) for label, one in given.items()}
    is_right = isinstance(given, Mapping) and all(
        isinstance(history, Mapping) for history in kinds.values()
    )
    if not is_right:
        what = "`fit` returned" if name == "histories" else "observed a `fit`"
        raise ValueError(
            message(f"`{name}` must be {{label: what {what}}}.", f"{name}={given!r}")
        )


def _draw_curves(axes: Any, curves: Mapping[str, np.ndarray], metric: str) -> None:
    for index, (label, curve) in enumerate(curves.items()):
        epochs = np.arange(1, len(curve) + 1)
        axes.plot(
            epochs,
            curve,
            color=color(index),
            marker=marker(index),
            label=f"{label}: {curve[-1]:.3f}",
        )
    axes.set(xlabel="epoch", ylabel=metric.replace("val_", "test "))
    if "accuracy" in metric:
        axes.set_ylim(-0.02, 1.02)
    _finish(axes)
    axes.set_title("Learning curve")


def _draw_norms(axes: Any, loggers: Mapping[str, Any]) -> None:
    for index, (label, logger) in enumerate(loggers.items()):
        layers = rows_of(logger.history["layers"])
        if not layers.size:
            continue  # it has observed nothing
        depth = np.arange(1, len(layers) + 1)
        for observation, dashes in ((0, "--"), (-1, "-")):
            axes.plot(
                depth,
                np.maximum(layers[:, observation], _TINY),
                color=color(index),
                linestyle=dashes,
                label=f"{label}, {'first' if observation == 0 else 'last'} step",
            )
    axes.set_yscale("log")
    axes.set(xlabel="layer", ylabel="gradient norm")
    _finish(axes)
    axes.set_title("Gradient norm by depth")


def _draw_dead(axes: Any, loggers: Mapping[str, Any]) -> None:
    for index, (label, logger) in enumerate(loggers.items()):
        shares = [s[-1] for s in logger.history["dead_fraction"].values() if len(s)]
        depth = np.arange(1, len(shares) + 1)
        axes.plot(
            depth,
            100 * np.array(shares),
            color=color(index),
            marker=marker(index),
            markersize=3,
            linewidth=1.2,
            label=label,
        )
    axes.set(xlabel="ReLU layer", ylabel="dead units in the last epoch [%]")
    axes.set_ylim(-2, 102)
    _finish(axes)
    axes.set_title("Dead ReLUs by depth")


def _finish(axes: Any) -> None:
    """Whole numbers below, and a legend that covers nothing."""
    whole_numbers(axes.xaxis)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def _metric(history: Any, metric: str, label: str) -> np.ndarray:
    values = getattr(history, "history", history)
    if not isinstance(metric, str) or metric not in values:
        raise ValueError(
            message(
                "`metric` must be a key of every history.",
                f"metric={metric!r}, and {label!r} has {sorted(values)}",
            )
        )
    return np.asarray(values[metric], dtype="float64")
