"""Statistics of activations while a model trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initlab._errors import message
from keras_initlab.inspection import activation_of
from keras_initlab.signal import (
    STATISTICS,
    Measured,
    Place,
    Recipe,
    Reduction,
    histogram,
    statistics,
)

from ._alerts import Alert
from ._log import Log
from ._observing import ObservingCallback, select, visible_operations
from ._schedule import Schedule

KINDS = ("mean", "std", "min", "max", "zero_share")
_EDGES = np.linspace(-5.0, 5.0, 51)


class ActivationStatsLogger(ObservingCallback):
    """Logs what the signal looks like in every layer, and how it changes with depth.

    Watched are all layers with a kernel or an activation. Of what each returns in the
    observed train steps themselves: mean, standard deviation, smallest and largest
    value, and the share of exact zeros, over all examples, positions and units that
    no mask takes out; mean and standard deviation also of its pre-activations; and the
    variance preservation, the standard deviation of its pre-activations divided by that
    of its input, ideally 1 (0 if the input is constant).

    Keras's logs get nothing. Logs given in `log_to` get, per observed step,
    `activation_mean/<layer path>` and in the same way `activation_std`,
    `activation_min`, `activation_max`, `activation_zero_share`, `preactivation_mean`,
    `preactivation_std` and `variance_preservation`. A log that has a method
    `log_histograms(histograms, step)`, as `TensorBoardLog`, gets the histograms too.

    Alerts name the first layer in which a signal is not finite, blows up, dies out or
    is the same for every example and unit.

    What cannot be seen, as `DeadReLULogger` says, is NaN.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to watch; None for all.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1 for a line an epoch, 0 for none.
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
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input((4,)),
        ...         keras.layers.Dense(3, "relu"),
        ...         keras.layers.Dense(1),
        ...     ]
        ... )
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
        verbose: int = 0,
        alerts: bool | Callable[[str], Any] = True,
        histograms: bool | Sequence[float] = False,
    ):
        self.edges = _checked_edges(histograms)
        super().__init__(every, layers, log_to, verbose, alerts)

    def reset(self) -> None:
        """Drops the history."""
        self._steps: list[int] = []
        self._epochs: list[int] = []
        self._rows: list[dict[str, dict[str, float]]] = []
        self._counts: list[dict[str, np.ndarray]] = []
        self._watched: dict[str, Any] = {}
        self._path_of: dict[int, str] = {}
        self._epoch_start = 0
        self._is_named = False

    def prepare(self, model: Any) -> Recipe:
        """Asks for the statistics of every layer with a kernel or an activation."""
        found = {
            path: operation
            for path, operation in visible_operations(model)
            if _is_of_interest(operation)
        }
        kind = "layers with a kernel or an activation"
        self._watched = select(model, found, self.layers, kind)
        self._path_of = {id(one): path for path, one in self._watched.items()}
        self._is_named = bool(model.built)
        each = (self._reductions_of(one) for one in self._watched.values())
        return Recipe(reductions=tuple(itertools.chain.from_iterable(each)))

    def _reductions_of(self, operation: Any) -> Iterator[Reduction]:
        for place in _places(operation):
            yield statistics(operation, place)
        if self.edges is not None:
            yield histogram(operation, self.edges)

    def begin_epoch(self, epoch: int) -> None:
        """Notes where the epoch's observations begin."""
        self._epoch_start = len(self._rows)

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Keeps, judges and logs the statistics of a step."""
        if not self._is_named:  # the step may have built the model and set paths
            self.prepare(self._seen_model)
            self._is_named = True
        places: dict[str, dict[Place, np.ndarray]] = {}
        counts: dict[str, np.ndarray] = {}
        for reduction, figure in measured.figures.items():
            path = self._path_of.get(id(reduction.operation))
            if path is not None and reduction.name == "statistics":
                places.setdefault(path, {})[reduction.place] = figure
            elif path is not None and reduction.name.startswith("histogram"):
                counts[path] = figure
        row = {path: _summary(found) for path, found in places.items()}
        self._steps.append(step)
        self._epochs.append(epoch)
        self._rows.append(row)
        self._counts.append(counts)
        for alert in _judge(step, row):
            self.alert(alert, urgent=alert.rule == NOT_FINITE)
        self._log_row(step, row, counts)

    def _log_row(
        self,
        step: int,
        row: dict[str, dict[str, float]],
        counts: dict[str, np.ndarray],
    ) -> None:
        if self.logs:
            self.log(
                {
                    f"{_LOGGED[kind]}/{path}": value
                    for path, figures in row.items()
                    for kind, value in figures.items()
                },
                step,
            )
        found = {f"activation/{path}": (c, self.edges) for path, c in counts.items()}
        for log in self.logs if found else ():
            write = getattr(log, "log_histograms", None)
            if write is not None:
                write(found, step)

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the spread of the signal over the layers."""
        rows = self._rows[self._epoch_start :]
        last = rows[-1] if rows else {}
        stds = {path: figures["std"] for path, figures in last.items()}
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
        paths = list(dict.fromkeys(path for row in self._rows for path in row))
        found: dict[str, Any] = {
            "step": np.array(self._steps, dtype="int64"),
            "epoch": np.array(self._epochs, dtype="int64"),
        }
        for kind in _LOGGED:
            found[kind] = {
                path: np.array([row.get(path, _UNSEEN)[kind] for row in self._rows])
                for path in paths
            }
        if self.edges is not None:
            unseen = np.full(len(self.edges) - 1, np.nan)
            found["edges"] = self.edges
            found["histogram"] = {
                path: np.array([counts.get(path, unseen) for counts in self._counts])
                for path in paths
            }
        return found

    def _columns(self) -> dict[str, Any]:
        history = self.history
        columns = {key: history[key] for key in ("step", "epoch")}
        for kind, name in _LOGGED.items():
            columns |= {f"{name}/{path}": a for path, a in history[kind].items()}
        return columns


NOT_FINITE = "not finite"
# A layer that keeps its variance multiplies the signal by about 1; a factor of 100 at
# one layer, or of 1e4 in either direction over all, is far out of what trains.
LEAP, SPAN = 100.0, 1e4
_LOGGED = {
    **{kind: f"activation_{kind}" for kind in KINDS},
    "preactivation_mean": "preactivation_mean",
    "preactivation_std": "preactivation_std",
    "variance_preservation": "variance_preservation",
}
_UNSEEN = dict.fromkeys(_LOGGED, np.nan)


def _is_of_interest(operation: Any) -> bool:
    return activation_of(operation) is not None or _has_kernel(operation)


def _has_kernel(operation: Any) -> bool:
    own = getattr(operation, "_trainable_variables", [])
    own = [*own, *getattr(operation, "_non_trainable_variables", [])]
    return any(len(variable.shape) > 1 for variable in own)


def _places(operation: Any) -> tuple[Place, ...]:
    """Where statistics are taken; each tensor once."""
    if isinstance(operation, keras.layers.Embedding):
        return ("output",)  # token numbers are no signal, whatever their dtype
    # What a recurrent layer activates, it does in a loop.
    is_recurrent = isinstance(operation, keras.layers.RNN)
    if is_recurrent or activation_of(operation) is None:
        return ("input", "output")
    return ("input", "preactivation", "output")


def _summary(found: dict[Place, np.ndarray]) -> dict[str, float]:
    """The statistics of one layer from what was reduced."""
    unseen = np.full(len(STATISTICS), np.nan)
    after = _named(found.get("output", unseen))
    before = _named(found.get("preactivation", found.get("output", unseen)))
    given = _named(found.get("input", unseen))
    preserved = before["std"] / given["std"] if given["std"] != 0 else 0.0
    return {
        **{kind: after[kind] for kind in KINDS},
        "preactivation_mean": before["mean"],
        "preactivation_std": before["std"],
        "variance_preservation": preserved,
    }


def _named(figure: np.ndarray) -> dict[str, float]:
    raw = dict(zip(STATISTICS, figure.astype("float64"), strict=True))
    count = raw["count"] if raw["count"] > 0 else np.nan
    return {
        "mean": raw["mean"] if raw["count"] > 0 else np.nan,
        "std": float(np.sqrt(raw["squares"] / count)),
        "min": raw["min"] if raw["count"] > 0 else np.nan,
        "max": raw["max"] if raw["count"] > 0 else np.nan,
        "zero_share": float(raw["zeros"] / count),
    }


def _judge(step: int, row: dict[str, dict[str, float]]) -> Iterator[Alert]:
    """What is wrong with the signal in a step, by the first layer that shows it."""
    seen = {p: f for p, f in row.items() if not np.isnan(list(f.values())).all()}
    for path, figures in seen.items():
        if not np.isfinite(figures["std"]):
            text = f"returns numbers that are not finite (mean {figures['mean']:.3g})"
            cure = "Look at its weights and its input; lower the learning rate."
            yield Alert(NOT_FINITE, path, step, figures["std"], text, cure)
            return
    for path, figures in seen.items():
        factor = figures["variance_preservation"]
        if factor > LEAP:
            text = f"makes the signal {factor:.3g} times larger"
            yield Alert("exploding signal", path, step, factor, text, _CURE)
        elif 0 < factor < 1 / LEAP:
            text = f"makes the signal {1 / factor:.3g} times smaller"
            yield Alert("vanishing signal", path, step, factor, text, _CURE)
        elif figures["std"] == 0:
            text = f"returns {figures['mean']:.3g} for every example and unit"
            yield Alert("constant signal", path, step, 0.0, text, _CURE)
    yield from _judge_depth(step, {path: f["std"] for path, f in seen.items()})


def _judge_depth(step: int, stds: dict[str, float]) -> Iterator[Alert]:
    stds = {path: std for path, std in stds.items() if std > 0}
    if len(stds) < 2:
        return
    first, last = next(iter(stds)), list(stds)[-2]  # the last layer's scale is free
    span = stds[last] / stds[first]
    if not 1 / SPAN < span < SPAN:
        name = "exploding" if span > 1 else "vanishing"
        text = f"returns a signal of std {stds[last]:.3g}, {first} of {stds[first]:.3g}"
        yield Alert(f"{name} signal", last, step, span, text, _CURE)


_CURE = "Start from `keras_initlab.recommend(model).apply()`."


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
