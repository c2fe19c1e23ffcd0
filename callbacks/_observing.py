"""What all callbacks that observe training share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from rich.console import Console

import keras_initlab.plots as plots
from keras_initlab._errors import check_choice, message
from keras_initlab._pandas import load_pandas
from keras_initlab._paths import own_variables
from keras_initlab.inspection import (
    activation_of,
    operation_paths,
    operations_in_sight,
)
from keras_initlab.signal import Measured, Recipe, TrainingObserver

from ._alerts import Alert, Alerts
from ._logs import Log, Logs
from ._schedule import Schedule, schedule


class ObservingCallback(keras.callbacks.Callback):
    """Base of the callbacks that observe training steps.

    Args:
        every: observe every n-th train step (an int), or the steps for which a
            function `step -> bool` says so. The first step of every epoch is always
            observed.
        layers: paths, names or layer objects to watch; None for all that apply.
        log_to: a function of `(metrics, step)`, or several, that receives every
            figure: `CSVLog`, `wandb.log`, `mlflow.log_metrics`, …. One that raises an
            error is warned of once and does not end training.
        verbose: 1 for a line an epoch, 0 for none.
        alerts: True to print what goes wrong, in few lines, to the error output; False
            for silence; or a function that receives each line, as `logging.warning`.
    """

    recipe = Recipe()
    _index = "step"  # what a row of the frame stands for
    _picture = ""  # the function of `plots` that draws this callback

    def __init__(
        self,
        every: int | Schedule = 10,
        layers: Sequence[Any] | None = None,
        log_to: Log | Iterable[Log] = (),
        verbose: int = 0,
        alerts: bool | Callable[[str], Any] = True,
    ):
        super().__init__()
        self._schedule = schedule(every)
        self.layers = layers
        self.logs = Logs(log_to)
        self.verbose = int(check_choice("verbose", str(int(verbose)), ("0", "1")))
        self._alerts = Alerts(alerts)
        self._seen_model: Any = None
        self._observer: Any = None
        self._summary: tuple[dict[str, float], str] | None = None
        self.reset()

    def wants(self, step: int) -> bool:
        """Whether to observe this step; the first of every epoch always is."""
        return bool(self._schedule(step))

    def prepare(self, model: Any) -> Recipe:
        """Returns what to measure in this model; called when a fit begins."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def reset(self) -> None:
        """Drops the history; called when a fit of another model begins."""

    def begin_epoch(self, epoch: int) -> None:
        """Forgets what an epoch that did not end may have left."""

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Takes what an observed step measured."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the epoch's summary for Keras's logs, and a line to print."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts to observe."""
        fit = _move_to_front(sys._getframe(1))
        model: Any = self.model
        if self._seen_model is not model:
            self.reset()
            self._alerts.found.clear()
            self._seen_model = model
        self._alerts.begin()
        self.recipe = self.prepare(model)
        self._observer = TrainingObserver.of(model)
        self._observer.attach(self, fit)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self.begin_epoch(epoch)
        self._summary = None
        self._observer.begin_epoch(epoch, (self.params or {}).get("steps"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the summary to Keras's logs."""
        is_first = self._summary is None  # not if the list holds this callback twice
        summary, line = self._summary or self.finish_epoch(epoch)
        self._summary = summary, line
        self._alerts.send()
        if logs is not None:
            logs.update(summary)
        if self.verbose and line and is_first:
            Console(emoji=False).print(
                line, highlight=False, markup=False, soft_wrap=True
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stops observing."""
        self._observer.detach(self)
        self.logs.end()

    def to_frame(self) -> Any:
        """The history as a pandas DataFrame: a row an observation, or an epoch.

        The columns have the names that logs get.

        Raises:
            ImportError: if pandas is not installed.
        """
        pd = load_pandas(instead=".history")
        return pd.DataFrame(self._columns()).set_index(self._index)

    def plot(self) -> Any:
        """The history as a matplotlib Figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        return getattr(plots, self._picture)(self)

    def _columns(self) -> dict[str, Any]:
        """The columns of the frame by name, that of the index among them."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    @property
    def alerts(self) -> list[Alert]:
        """Everything that the rules have found, also where no line was sent of it."""
        return list(self._alerts.found)

    def alert(self, alert: Alert, urgent: bool = False) -> None:
        """Notes a finding, to be sent when the epoch ends, or at once."""
        self._alerts.note(alert)
        if urgent:
            self._alerts.send()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Hands metrics to every log."""
        self.logs(metrics, step)


def visible_operations(model: Any) -> list[tuple[str, Any]]:
    """Every operation whose calls can be seen, with its path.

    Layers inside recurrent ones run in a loop; models only pass on what their layers
    return.
    """
    found = operations_in_sight(model)
    return [(path, one) for path, one in found if not isinstance(one, keras.Model)]


def can_break(operation: Any) -> bool:
    """Whether finite numbers may go in and others come out.

    Not of what Keras's own layers without weights or activation do: they move numbers,
    add, average or drop them.
    """
    if not isinstance(operation, keras.layers.Layer):
        return type(operation).__name__ not in _MOVING
    is_own = type(operation).__module__.startswith("keras.src.layers")
    is_lambda = isinstance(operation, keras.layers.Lambda)
    has_activation = activation_of(operation) is not None
    return not is_own or is_lambda or bool(own_variables(operation)) or has_activation


_MOVING = {"Add", "Concatenate", "GetItem", "Reshape", "Subtract", "Transpose"}


def select(
    model: Any, found: dict[str, Any], layers: Sequence[Any] | None, kind: str
) -> dict[str, Any]:
    """Returns those of the layers found that were asked for, or lie inside one.

    Args:
        model: the model.
        found: layers or operations by path.
        layers: paths, names or layer objects; None for all.
        kind: what the layers must be, for the error.
    """
    if layers is None:
        return found
    is_one = isinstance(layers, str) or not isinstance(layers, Iterable)
    asked = [layers] if is_one else list(layers)
    chosen: dict[str, Any] = {}
    unknown: list[Any] = []
    for one in asked:
        inside = {
            id(inner)
            for path, layer in operation_paths(model)
            if layer is one or one in (path, layer.name)
            for inner in (*getattr(layer, "_flatten_layers", list)(), layer)
        }
        hits = {path: layer for path, layer in found.items() if id(layer) in inside}
        chosen.update(hits)
        if not hits:
            unknown.append(one if isinstance(one, str) else getattr(one, "name", one))
    if unknown:
        raise ValueError(
            message(
                f"`layers` must name {kind} of the model.",
                f"layers={unknown}",
                f"It has {list(found)[:8]}.",
            )
        )
    return {path: layer for path, layer in found.items() if path in chosen}


def _move_to_front(frame: Any) -> Any:
    """Moves all observing callbacks to the front of the list that is calling.

    Returns that list.

    Callbacks see `logs` in list order, so that what ours write there would miss an
    `EarlyStopping` that the user put before them. Keras gives a callback no way to its
    list but the frame that calls it. The list is replaced, not changed: it is being
    iterated over.
    """
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            owner.callbacks = sorted(
                owner.callbacks, key=lambda c: not isinstance(c, ObservingCallback)
            )
            return owner
        frame = frame.f_back
    return None
