"""Statistics of activations while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_initlab._core.errors import message
from keras_initlab._keras.kinds import looks_up
from keras_initlab._keras.paths import own_variables
from keras_initlab.diagnosis import NOT_FINITE, SignalRules
from keras_initlab.inspection import activation_of
from keras_initlab.observing import (
    Measured,
    Place,
    Recipe,
    Reduction,
    histogram,
    statistics,
)

from ._layer_statistics import LOGGED, UNSEEN, signal_of, summary
from ._logs import Log
from ._observing import NothingToWatchError, ObservingCallback
from ._phases import Rows
from ._schedule import Schedule
from ._watchable import select, visible_operations

_EDGES = np.linspace(-5.0, 5.0, 51)


class ActivationStatsLogger(ObservingCallback):
    """Logs what the signal looks like in every layer, and how it changes with depth.

    Watched are all layers with a kernel or an activation. Of what each returns in the
    observed train steps themselves: mean, standard deviation, smallest and largest
    value, and the share of exact zeros, over all examples, positions and units that
    no mask takes out; mean and standard deviation also of its pre-activations; and the
    variance preservation, the standard deviation of its pre-activations divided by that
    of its input, ideally 1 (0 if the input is constant, NaN if it is integers).

    Keras's logs get nothing. Logs given in `log_to` get, per observed step,
    `activation_mean/<layer path>` and in the same way `activation_std`,
    `activation_min`, `activation_max`, `activation_zero_share`, `preactivation_mean`,
    `preactivation_std` and `variance_preservation`. A log that has a method
    `log_histograms(histograms, step)`, as `TensorBoardLog`, gets the histograms too.

    Alerts name the first layer in which a signal is not finite, the one at which it
    blows up or dies out, and layers that stay the same for every example and unit.

    What cannot be seen, as `DeadReLULogger` says, is NaN; also what is no single
    tensor, and the pre-activations of recurrent layers. In a layer with a `call` of its
    own, pre-activations are NaN as well if that does not call the layer's `activation`,
    if this is compiled (as by `jax.jit`), or under a profiler such as `cProfile`.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to watch; None for all.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1, 2 or "auto" for a line an epoch, 0 for none.
        alerts: True to print what goes wrong, in few lines, to the error output; False
            for silence; or a function that receives each line, as `logging.warning`.
        histograms: True to count what each layer returns in 50 bins from −5 to 5, of
            which the first and last are open; or the rising edges of other bins.

    Attributes:
        history: a dict, filled while training. `"step"`, `"epoch"`: arrays
            `(observations,)`. `"mean"`, `"std"`, `"min"`, `"max"`, `"zero_share"`,
            `"preactivation_mean"`, `"preactivation_std"`, `"variance_preservation"`:
            `{layer path: array (observations,)}`, layers in the order in which they
            run. With `histograms` also `"edges"`, array `(bins + 1,)`, and
            `"histogram"`: `{layer path: array (observations, bins)}` of counts.
        alerts: everything that the rules have found.

    Raises:
        ValueError: for an argument out of range, or layers that the model lacks.

    Example:
        >>> layers = [keras.layers.Dense(3, "relu"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> model.compile("sgd", "mse")
        >>> stats = ActivationStatsLogger(every=1)
        >>> x, y = np.ones((8, 4)), np.zeros((8, 1))
        >>> _ = model.fit(x, y, verbose=0, callbacks=[stats])
        >>> float(stats.history["min"][model.layers[0].path][0]) >= 0
        True

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep
        feedforward neural networks", section 3, figures 2 to 6.
    """

    _picture = "activation_statistics"

    def __init__(
        self,
        every: int | Schedule = 10,
        layers: Sequence[Any] | None = None,
        log_to: Log | Iterable[Log] = (),
        verbose: int | str = 0,
        alerts: bool | Callable[[str], Any] = True,
        histograms: bool | Sequence[float] = False,
    ):
        self.edges = _checked_edges(histograms)
        super().__init__(every, layers, log_to, verbose, alerts)

    def reset(self) -> None:
        """Drops the history."""
        self._steps: list[int] = []
        self._epochs: list[int] = []
        self._rows, self._counts = Rows(), Rows()  # figures, and counts of bins
        self._stds: dict[str, float] = {}  # in the last step of this epoch
        self._watched: dict[Reduction, str] = {}
        self._rules = SignalRules()
        self._is_named = False

    def _unbound(self) -> dict[str, Any]:
        return {**super()._unbound(), "_watched": {}}

    def prepare(self, model: Any) -> Recipe:
        """Asks for the statistics of every layer with a kernel or an activation."""
        found = {
            path: operation
            for path, operation in visible_operations(model)
            if _is_of_interest(operation)
        }
        kind = "layers with a kernel or an activation"
        if not found and self.layers is None:
            raise NothingToWatchError(_nothing(model))
        chosen = select(model, found, self.layers, kind)
        self._watched = {
            reduction: path
            for path, operation in chosen.items()
            for reduction in self._reductions_of(operation)
        }
        self._is_named = bool(model.built)
        return Recipe(reductions=tuple(self._watched))

    def _reductions_of(self, operation: Any) -> Iterator[Reduction]:
        for place in _places(operation):
            yield statistics(operation, place)
        if self.edges is not None:
            yield histogram(operation, self.edges)

    def begin_epoch(self, epoch: int) -> None:
        """Notes where the epoch's observations begin."""
        super().begin_epoch(epoch)
        self._stds = {}

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Keeps, judges and logs the statistics of a step."""
        if not self._is_named:  # the step may have built the model and set paths
            self.prepare(self._seen_model)
            self._is_named = True
        places: dict[str, dict[Place, np.ndarray]] = {}
        counts: dict[str, np.ndarray] = {}
        for reduction, figure in measured.figures.items():
            path = self._watched.get(reduction)
            if path is not None and reduction.name == "statistics":
                places.setdefault(path, {})[reduction.place] = figure
            elif path is not None:
                counts[path] = figure
        for reduction, path in self._watched.items():
            if path in places and reduction.name == "statistics":
                places[path].setdefault(reduction.place, UNSEEN)
        row = {path: summary(found) for path, found in places.items()}
        self._steps.append(step)
        self._epochs.append(epoch)
        self._rows.add(row)
        self._counts.add(counts)
        column = list(LOGGED).index("std")
        stds = {path: figures[column] for path, figures in row.items()}
        self._stds = {path: std for path, std in stds.items() if not math.isnan(std)}
        self._judge(step, places)
        self._log_row(step, row, counts)

    def _judge(self, step: int, places: dict[str, dict[Place, np.ndarray]]) -> None:
        seen = {path: signal_of(found) for path, found in places.items()}
        seen = {path: one for path, one in seen.items() if one.count > 0}
        for alert in self._rules.judge(step, seen):
            self.alert(alert, urgent=alert.kind == NOT_FINITE)

    def _log_row(
        self, step: int, row: dict[str, list[float]], counts: dict[str, np.ndarray]
    ) -> None:
        if self.logs:
            metrics = {
                f"{name}/{path}": value
                for path, figures in row.items()
                for name, value in zip(LOGGED.values(), figures, strict=True)
            }
            self.log(metrics, step)
        found = {f"activation/{path}": (c, self.edges) for path, c in counts.items()}
        if found:
            self.logs.log_histograms(found, step)

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the spread of the signal over the layers."""
        stds = self._stds
        if not stds:
            return {}, ""
        low, high = (best(stds, key=stds.__getitem__) for best in (min, max))
        return {}, (
            f"epoch {epoch + 1}: activation std from {stds[low]:.3g} ({low}) to "
            f"{stds[high]:.3g} ({high})"
        )

    @property
    def history(self) -> dict[str, Any]:
        """The statistics as arrays; see the class."""
        figures = self._rows.columns()
        found: dict[str, Any] = {
            "step": np.array(self._steps, dtype="int64"),
            "epoch": np.array(self._epochs, dtype="int64"),
        }
        for index, kind in enumerate(LOGGED):
            found[kind] = {path: each[:, index] for path, each in figures.items()}
        if self.edges is not None:
            found["edges"] = self.edges
            # Those of a layer that was never counted are NaN, too.
            unseen = np.full((len(self._steps), len(self.edges) - 1), np.nan)
            found["histogram"] = dict.fromkeys(figures, unseen) | self._counts.columns()
        return found

    def _columns(self) -> dict[str, Any]:
        history = self.history
        columns = {key: history[key] for key in ("step", "epoch")}
        for kind, name in LOGGED.items():
            columns |= {f"{name}/{path}": a for path, a in history[kind].items()}
        return columns


def _is_of_interest(operation: Any) -> bool:
    # Before it is built a layer does not say whether it has a kernel.
    is_open = not getattr(operation, "built", True)
    return is_open or activation_of(operation) is not None or _has_kernel(operation)


def _has_kernel(operation: Any) -> bool:
    return any(len(variable.shape) > 1 for variable in own_variables(operation))


def _places(operation: Any) -> tuple[Place, ...]:
    """Where statistics are taken; each tensor once."""
    if looks_up(operation):
        return ("output",)  # token numbers are no signal, whatever their dtype
    if activation_of(operation) is None:
        return ("input", "output")
    return ("input", "preactivation", "output")


def _nothing(model: Any) -> str:
    return message(
        "`ActivationStatsLogger` needs a model with kernels or activations.",
        f"model={model.name!r} without any",
        "Leave the callback out.",
    )


def _checked_edges(histograms: bool | Sequence[float]) -> np.ndarray | None:
    if isinstance(histograms, (bool, np.bool_)):
        return _EDGES if histograms else None
    try:
        edges = np.asarray(histograms, dtype="float64")
    except (TypeError, ValueError):
        edges = np.zeros(0)
    is_rising = edges.ndim == 1 and len(edges) > 1 and bool(np.all(np.diff(edges) > 0))
    if not (is_rising and np.all(np.isfinite(edges))):
        raise ValueError(
            message(
                "`histograms` must be True, False or rising, finite edges of bins.",
                f"histograms={histograms!r}",
                "Pass e.g. `np.linspace(-3, 3, 31)`.",
            )
        )
    return edges
