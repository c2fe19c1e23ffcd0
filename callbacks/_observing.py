"""What all callbacks that observe training share."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from rich.console import Console

import keras_initlab.plots as plots
from keras_initlab._core.errors import check_verbose, message
from keras_initlab._core.pandas import load_pandas
from keras_initlab.diagnosis import Finding
from keras_initlab.observing import (
    Measured,
    Recipe,
    Training,
    TrainingObserver,
    calling_list,
)

from ._alerts import Alerts
from ._copying import Copied
from ._logs import Log, Logs
from ._schedule import Schedule, schedule


class NothingToWatchError(Exception):
    """A model has nothing that a callback could watch, which stops no training."""


class ObservingCallback(Copied, keras.callbacks.Callback):
    """Base of the callbacks that observe training steps.

    Args:
        every: observe every n-th train step (an int), or the steps for which a
            function `step -> bool` says so. The first step of every epoch is always
            observed.
        layers: paths, names or layer objects to watch; None for all that apply.
        log_to: a function of `(metrics, step)`, or several, that receives every
            figure: `CSVLog`, `wandb.log`, `mlflow.log_metrics`, …. One that raises an
            error is warned of once and does not end training.
        verbose: 1, 2 or "auto" for a line an epoch, 0 for none.
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
        verbose: int | str = 0,
        alerts: bool | Callable[[str], Any] = True,
    ):
        super().__init__()
        self._schedule = schedule(every)
        self.layers = layers
        self.logs = Logs(log_to)
        self.verbose = check_verbose(verbose)
        self._alerts = Alerts(alerts)
        self._seen_model: Any = None
        self._observer: Any = None  # kept for a later fit
        self._training: Training | None = None
        self._outer: list[Training] = []  # within which that one runs
        self._is_aside = False  # while a model is trained within another's training
        self._is_idle = False  # in a training without anything to watch
        self._summary: tuple[dict[str, float], str] | None = None
        self.reset()

    def wants(self, step: int) -> bool:
        """Whether to observe this step; the first of every epoch always is."""
        return bool(self._schedule(step))

    def prepare(self, model: Any) -> Recipe:
        """Returns what to measure in this model; called when a fit begins.

        Raises:
            NothingToWatchError: if there is nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def reset(self) -> None:
        """Drops the history; called when a fit of another model begins."""

    def begin_epoch(self, epoch: int) -> None:
        """Forgets what an epoch that did not end may have left."""
        self._summary = None

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Takes what an observed step measured."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the epoch's summary for Keras's logs, and a line to print."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    def set_model(self, model: Any) -> None:
        """Takes the model that is to be trained.

        Not if a `fit` of another one is under way, which called what calls this.
        """
        training = self._training
        self._is_aside = (
            training is not None
            and model is not self._seen_model
            and training.is_under_way
        )
        if self._is_aside:
            warnings.warn(_trained_within(model, self._seen_model), stacklevel=2)
        else:
            super().set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Takes what the training is to be like."""
        if not self._is_aside:
            super().set_params(params)

    def _is_not_ours(self) -> bool:
        """Whether the list that is calling belongs to a training that is not observed.

        One that failed has not said that it ended.
        """
        if self._is_aside and self._training is not None:
            callbacks, _ = calling_list(sys._getframe(2))
            self._is_aside = not self._training.is_of(callbacks)
        return self._is_aside

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts to observe."""
        if self._is_not_ours():
            return
        callbacks, is_of_fit = calling_list(sys._getframe(1))
        _move_to_front(callbacks)
        model: Any = self.model
        if self._seen_model is not model:
            self.reset()
            self._alerts.found.clear()
            self._seen_model = model
        self._alerts.begin()
        outer = [*self._outer, self._training]
        self._outer = [one for one in outer if one is not None and one.is_under_way]
        self._training = self._summary = None
        try:
            self.recipe = self.prepare(model)
        except NothingToWatchError as nothing:
            self._is_idle = True
            warnings.warn(str(nothing), stacklevel=2)
            return
        self._is_idle = False
        self._observer = TrainingObserver.of(model)
        self._training = self._observer.attach(self, callbacks, is_of_fit)

    def _begun(self) -> Training | None:
        """The training, None if there is nothing to watch in it.

        A loop of the user's own may not have said that it begins.
        """
        if self._is_not_ours():
            return None
        if self._training is None and not self._is_idle:
            self.on_train_begin()
        return self._training

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        training = self._begun()
        if training is not None:
            training.begin_epoch(epoch, (self.params or {}).get("steps"))

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Notes the step of a loop of the user's own."""
        super().on_train_batch_begin(batch, logs)
        training = self._begun()
        if training is not None:
            training.begin_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the summary to Keras's logs."""
        training = self._begun()
        if training is None:
            return
        is_first = self._summary is None  # not if the list holds this callback twice
        summary, line = self._summary or self.finish_epoch(epoch)
        self._summary = summary, line
        training.end_epoch()
        self._tell_if_unseen(training)
        self._alerts.send()
        if logs is not None:
            logs.update(summary)
        if self.verbose and line and is_first:
            Console(emoji=False).print(
                line, highlight=False, markup=False, soft_wrap=True
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stops observing."""
        if self._is_not_ours():
            self._is_aside = False
            return
        training = self._training
        self._training = self._outer.pop() if self._outer else None
        self._is_idle = False
        if training is not None:
            self._observer.detach(training, self)
            if not training.is_fit:
                self._tell_if_unseen(training)
        self.logs.end()

    def _tell_if_unseen(self, training: Training) -> None:
        """Warns once of a training whose steps pass us by."""
        if not (training.has_run or training.is_told):
            training.is_told = True
            text = message(
                "Training is observed in `fit` and `train_on_batch`.",
                f"a training of {self.model.name!r} that has called neither of them",
                "Call `model.train_on_batch` in the loop, or leave the callbacks out.",
            )
            warnings.warn(text, stacklevel=3)

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
            NotImplementedError: if there is no picture of it.
        """
        if not self._picture:
            name = type(self).__name__
            raise NotImplementedError(f"`{name}` draws no picture: use `.to_frame()`.")
        return getattr(plots, self._picture)(self)

    def _columns(self) -> dict[str, Any]:
        """The columns of the frame by name, that of the index among them."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing.")

    @property
    def alerts(self) -> list[Finding]:
        """Everything that the rules have found, also where no line was sent of it."""
        return list(self._alerts.found)

    def alert(self, alert: Finding, urgent: bool = False) -> None:
        """Notes a finding, to be sent when the epoch ends, or at once."""
        self._alerts.note(alert)
        if urgent:
            self._alerts.send()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Hands metrics to every log."""
        self.logs(metrics, step)


def _trained_within(model: Any, outer: Any) -> str:
    return message(
        "A callback observes one training at a time.",
        f"a training of {model.name!r} within one of {outer.name!r}, which goes on to "
        "be observed",
        "Pass a second callback to the inner `fit`.",
    )


def _move_to_front(callbacks: Any) -> None:
    """Moves all observing callbacks to the front of a list of callbacks.

    Callbacks see `logs` in list order, so that what ours write there would miss an
    `EarlyStopping` that the user put before them. The list is replaced, not changed: it
    is being iterated over.
    """
    if callbacks is not None:
        callbacks.callbacks = sorted(
            callbacks.callbacks, key=lambda c: not isinstance(c, ObservingCallback)
        )
