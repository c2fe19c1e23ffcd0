"""Observing training: the gradients that train the model, and what its units do.

A model's trainer reads `train_function` anew at every step. While callbacks observe,
that attribute holds a dispatcher, which sends most steps to the user's own compiled
function, untouched, and the scheduled ones to a second function compiled from the same
`train_step` with reductions of the gradients and activations beside its logs. No
second backward pass is run and nothing is added to the model, the optimizer or a
checkpoint.

What depends on the backend is in one adapter module a backend:

- `check(model)` raises if the model trains in a way whose figures would be wrong;
- `observing_step(model, train_step, recipe)` returns a train step that also measures;
- `making(model, arguments)` is a context in which the model makes its observing train
  function, which is about to be called with these arguments;
- `take(result, step)` splits what the train function returned from what was measured;
- `data_source(arguments, caller)` returns what `fit` draws its batches from, or None
  if the frame that calls the train function belongs to something else;
- `is_end_of_data(error)` tells an epoch's ordinary end from a failure;
- `keep_state(model, arguments, result)` saves what a failure would lose: the state
  that a step was given, or, where `result` is not None, the one that it returned.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from .._errors import message
from ._recipe import Measured, Recipe
from ._record import replaced

_ADAPTERS = {
    "jax": "_observe_jax",
    "tensorflow": "_observe_tensorflow",
    "torch": "_observe_torch",
}


class Subscriber(Protocol):
    """What takes part in an observation: the callbacks."""

    recipe: Recipe

    def wants(self, step: int) -> bool:
        """Whether to observe this step; the first of every epoch always is."""
        ...

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Takes what an observed step measured."""
        ...


class TrainingObserver:
    """Observes one model for all subscribers of a fit.

    `TrainingObserver.of(model)` returns the one that all callbacks of a fit share. It
    lives as long as one of them holds it, and keeps the observing train function for
    the next fit.
    """

    @classmethod
    def of(cls, model: keras.Model) -> TrainingObserver:
        """Returns the model's observer."""
        observer = _observers.get(id(model))
        if observer is None or observer._model() is not model:
            observer = _observers[id(model)] = cls(model)
        return observer

    def __init__(self, model: keras.Model):
        self._adapter = _adapter()
        self._model = weakref.ref(model)
        self._subscribers: list[Subscriber] = []
        self._fit: Any = None  # the callback list of the fit that is observed
        self._history: Any = None  # and its History, which another fit replaces
        self._plain: Any = None
        self._observed: _Observed | None = None
        self._source: Any = None  # what this epoch's batches come from
        self._epoch: int | None = None
        self._epoch_ends: int | None = None  # the step at which it does, if known
        self._steps = self._epoch_start = 0

    @property
    def steps_in_epoch(self) -> int:
        """How many train steps the epoch has had so far, observed or not."""
        return self._steps - self._epoch_start

    def attach(self, subscriber: Subscriber, fit: Any) -> None:
        """Adds a subscriber; to be called when a fit begins.

        Args:
            subscriber: who wants to observe.
            fit: an object that tells this fit from others: its callback list.
        """
        model: Any = self._model()
        self._adapter.check(model)
        self._source = self._epoch = None
        if self._fit is not fit or self._history is not model.history:
            self.stop()  # a fit that failed may have left its subscribers
            self._fit, self._history = fit, model.history
            self._plain = model.train_function
            model.train_function = self._dispatch
        if all(known is not subscriber for known in self._subscribers):
            self._subscribers = [*self._subscribers, subscriber]

    def begin_epoch(self, epoch: int, steps: int | None) -> None:
        """Notes that an epoch begins; every subscriber of the fit says so.

        Args:
            epoch: its number.
            steps: how many train steps it has, if known.
        """
        if epoch == self._epoch:
            return
        if self._epoch is None and epoch == 0:
            self._steps = 0
        elif self._epoch is None and self._steps == 0:
            self._steps = epoch * (
                steps or 0
            )  # `initial_epoch`, seen for the first time
        self._epoch, self._epoch_start = epoch, self._steps
        self._epoch_ends = self._steps + steps if steps else None
        self._source = None

    def detach(self, subscriber: Subscriber) -> None:
        """Takes a subscriber out; the last one restores the model's own function."""
        self._subscribers = [s for s in self._subscribers if s is not subscriber]
        if not self._subscribers:
            self.stop()

    def stop(self) -> None:
        """Takes all subscribers out and restores the model's own train function."""
        model: Any = self._model()
        if model is not None and model.train_function == self._dispatch:
            model.train_function = self._plain
        self._subscribers = []
        self._fit = self._history = self._plain = self._source = self._epoch = None

    def _dispatch(self, *arguments: Any) -> Any:
        """Stands in for the model's train function."""
        model: Any = self._model()
        plain = self._plain
        if self._history is not model.history:  # another fit, without callbacks of ours
            self.stop()
            return plain(*arguments)
        source = self._adapter.data_source(arguments, sys._getframe(1))
        is_first = self._source is None
        if source is None or not (is_first or source is self._source):
            return plain(*arguments)  # `train_on_batch` from within a callback
        self._source = source
        end = self._steps + model.steps_per_execution
        if self._epoch_ends is not None:  # the last execution may have fewer steps
            end = max(self._steps + 1, min(end, self._epoch_ends))
        group = range(self._steps, end)
        observers = [
            subscriber
            for subscriber in self._subscribers
            if is_first or any(subscriber.wants(step) for step in group)
        ]
        try:
            if not observers:
                result, measured = plain(*arguments), None
            else:
                result, measured = self._observe(model, arguments)
        except BaseException as error:
            if not self._adapter.is_end_of_data(error):
                self.stop()
                if observers:
                    self._adapter.keep_state(model, arguments, None)
            raise
        self._steps = group.stop
        if measured is not None and self._epoch is not None:
            try:
                for subscriber in observers:
                    subscriber.receive(group[-1], self._epoch, measured)
            except BaseException:  # in the user's log
                self._adapter.keep_state(model, arguments, result)
                raise
        return result

    def _observe(self, model: Any, arguments: Sequence[Any]) -> tuple[Any, Measured]:
        observed = self._compiled(model, arguments)
        # PyTorch looks the train step up at every call, the others when they compile.
        with replaced(model, "train_step", observed.train_step):
            result = observed.train_function(*arguments)
        return self._adapter.take(result, observed.train_step)

    def _compiled(self, model: Any, arguments: Sequence[Any]) -> _Observed:
        """The observing train function, compiled anew only if something changed."""
        if self._observed is not None and self._observed.is_of is self._subscribers:
            return self._observed
        recipe = Recipe()
        for subscriber in self._subscribers:
            recipe = recipe.joined(subscriber.recipe)
        basis = (self._plain, recipe)
        if self._observed is None or self._observed.basis != basis:
            step = self._adapter.observing_step(model, model.train_step, recipe)
            try:
                making = self._adapter.making(model, arguments)
                with replaced(model, "train_step", step), making:
                    model.make_train_function(force=True)
                self._observed = _Observed(model.train_function, step, basis)
            finally:
                model.train_function = self._dispatch
        self._observed.is_of = self._subscribers
        return self._observed


@dataclass
class _Observed:
    """An observing train function, its train step, and what they were made for."""

    train_function: Any
    train_step: Any
    basis: tuple[Any, ...]
    is_of: list[Subscriber] | None = None


_observers: weakref.WeakValueDictionary[int, TrainingObserver] = (
    weakref.WeakValueDictionary()
)


def _adapter() -> Any:
    backend = keras.backend.backend()
    if backend not in _ADAPTERS:
        raise RuntimeError(
            message(
                f"Training is observed on these backends: {', '.join(_ADAPTERS)}.",
                f"backend={backend!r}",
                "Set KERAS_BACKEND before Keras is imported.",
            )
        )
    return importlib.import_module(f".{_ADAPTERS[backend]}", __package__)
