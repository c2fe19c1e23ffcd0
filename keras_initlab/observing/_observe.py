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
- `data_source(arguments, caller)` returns what `fit`, the frame that calls the train
  function, draws an epoch's batches from;
- `is_end_of_data(error)` tells an epoch's ordinary end from a failure;
- `keep_state(model, arguments, result)` saves what a failure would lose: the state
  that a step was given, or, where `result` is not None, the one that it returned.
"""

from __future__ import annotations

import importlib
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from .._core.errors import message
from .._keras.replacing import all_replaced, held, replaced
from ._recipe import Measured, Recipe
from ._training import Subscriber, Training, callbacks_of, is_fit, running_here

_ADAPTERS = {
    "jax": "_observe_jax",
    "tensorflow": "_observe_tensorflow",
    "torch": "_observe_torch",
}


class TrainingObserver:
    """Observes one model in all its trainings.

    `TrainingObserver.of(model)` returns the one that all callbacks of a model share. It
    lives as long as one of them holds it, and keeps the observing train function for
    the next training.
    """

    @classmethod
    def of(cls, model: keras.Model) -> TrainingObserver:
        """Returns the model's observer."""
        observer = _observers.get(id(model))
        if observer is None or observer._model_ref() is not model:
            observer = _observers[id(model)] = cls(model)
        return observer

    def __init__(self, model: keras.Model):
        self._adapter = _adapter()
        self._model_ref = weakref.ref(model)
        self._trainings: tuple[Training, ...] = ()
        self._plain: Any = None  # the model's own train function, None if not made yet
        self._observed: _Observed | None = None
        self._steps = 0  # of the last training
        self._lock = threading.RLock()

    def attach(self, subscriber: Subscriber, callbacks: Any, is_fit: bool) -> Training:
        """Adds a subscriber; to be called when a training begins.

        Args:
            subscriber: who wants to observe.
            callbacks: the list of callbacks that begins it, None for none.
            is_fit: whether Keras's `fit` has called that list.
        """
        self._adapter.check(self._model_ref())
        with self._lock:
            self._stop_failed(callbacks)
            known = (one for one in self._trainings if one.is_of(callbacks))
            training = next((one for one in known if one.is_here), None)
            if training is not None and training.has_begun:  # and come to no end
                self.stop(training)
                training = None
            if training is None:
                training = Training(self, callbacks, is_fit, self._steps)
            if all(one is not subscriber for one in training.subscribers):
                training.subscribers = (*training.subscribers, subscriber)
            self.resume(training)
        return training

    def resume(self, training: Training) -> None:
        """Observes a training, also one that something else has interrupted."""
        model: Any = self._model_ref()
        with self._lock:
            if all(one is not training for one in self._trainings):
                self._trainings = (*self._trainings, training)
            if training.is_fit and model.train_function is None:
                return  # compiled within the `fit`, which is about to fail
            if model.train_function != self._dispatch:  # or the model was compiled
                self._plain = model.train_function
                model.train_function = self._dispatch

    def detach(self, training: Training, subscriber: Subscriber) -> None:
        """Takes a subscriber out; the last one ends the observation."""
        rest = tuple(one for one in training.subscribers if one is not subscriber)
        training.subscribers = rest
        if not rest:
            self.stop(training)

    def stop(self, training: Training) -> None:
        """Ends an observation; the last one restores the model's train function."""
        model: Any = self._model_ref()
        with self._lock:
            rest = tuple(one for one in self._trainings if one is not training)
            self._trainings = rest
            if rest or model is None:
                return
            if model.train_function == self._dispatch:
                model.train_function = self._plain
            self._plain = None

    def _stop_failed(self, callbacks: Any) -> None:
        """Ends what is not under way in this thread, as a `fit` that failed.

        A loop goes on to be observed when it next announces an epoch or a step.

        Args:
            callbacks: the list of a training that is under way, too.
        """
        running = [callbacks, *running_here()]
        for one in self._trainings:
            is_running = any(map(one.is_of, running))
            if not one.thread.is_alive() or (one.is_here and not is_running):
                self.stop(one)

    def _dispatch(self, *arguments: Any) -> Any:
        """Stands in for the model's train function."""
        model: Any = self._model_ref()
        plain = self._own_function(model)
        training = self._training_of(arguments, sys._getframe(1))
        if training is None or not training.takes():
            return plain(*arguments)
        count = model.steps_per_execution if training.is_fit else 1
        group, observers = training.observers(count)
        run = self._observe if observers else _unobserved
        try:
            result, measured = run(model, plain, training, arguments)
        except BaseException as error:
            if not self._adapter.is_end_of_data(error):
                self.stop(training)
                if observers:
                    self._keep_state(training, arguments, None)
            raise
        training.advance(group)
        self._steps = training.steps
        try:
            for subscriber in observers:
                subscriber.receive(group[-1], training.epoch or 0, measured)
        except BaseException:  # in the user's log
            self._keep_state(training, arguments, result)
            raise
        return result

    def _training_of(self, arguments: Sequence[Any], caller: Any) -> Training | None:
        """The training that a call of the train function belongs to, if any."""
        if not is_fit(caller):  # `train_on_batch`, in a loop or in a callback
            here = [one for one in self._trainings if one.is_here]
            return here[-1] if here and not here[-1].is_fit else None
        fits = [one for one in self._trainings if one.is_fit]
        source = self._adapter.data_source(arguments, caller)
        for one in fits:
            if one.source is source:
                return one
        callbacks = callbacks_of(caller)
        for one in fits:
            if one.source is None and one.is_of(callbacks):
                one.source = source
                return one
        with self._lock:  # a `fit` without callbacks of ours
            self._stop_failed(callbacks)
        return None

    def _own_function(self, model: Any) -> Any:
        """The model's own train function, made here if it was never called."""
        with self._lock:
            if self._plain is None:
                self._plain = self._made(model)
            return self._plain

    def _made(self, model: Any) -> Any:
        """A train function of the model as it is."""
        former = model.train_function
        try:
            model.make_train_function(force=True)
            return model.train_function
        finally:
            model.train_function = former

    def _keep_state(self, training: Training, arguments: Any, result: Any) -> None:
        model: Any = self._model_ref()
        self._adapter.keep_state(model, arguments, result)
        if not training.is_fit:  # which would sync it, as nobody else does
            getattr(model, "jax_state_sync", lambda: None)()

    def _observe(
        self, model: Any, plain: Any, training: Training, arguments: Sequence[Any]
    ) -> tuple[Any, Measured]:
        observed = self._compiled(model, plain, training, arguments)
        # PyTorch looks the train step up at every call, the others when they compile.
        step = (model, "train_step", observed.train_step)
        with all_replaced([step], only_here=True):
            result = observed.train_function(*arguments)
        try:
            return self._adapter.take(result, observed.train_step)
        except BaseException:  # Ctrl-C: here is where JAX waits for the device
            self._adapter.keep_state(model, arguments, result)
            raise

    def _compiled(
        self, model: Any, plain: Any, training: Training, arguments: Sequence[Any]
    ) -> _Observed:
        """The observing train function, compiled anew only if something changed."""
        with self._lock:
            observed, subscribers = self._observed, training.subscribers
            if observed is not None and observed.is_for(subscribers, plain):
                return observed
            recipe = Recipe()
            for subscriber in subscribers:
                recipe = recipe.joined(subscriber.recipe)
            basis = (plain, recipe)
            if observed is None or observed.basis != basis:
                step = held(model, "train_step")
                step = self._adapter.observing_step(model, step, recipe)
                making = self._adapter.making(model, arguments)
                with replaced(model, "train_step", step), making:
                    observed = _Observed(self._made(model), step, basis)
                self._observed = observed
            observed.is_of = subscribers
            return observed


@dataclass
class _Observed:
    """An observing train function, its train step, and what they were made for."""

    train_function: Any
    train_step: Any
    basis: tuple[Any, ...]
    is_of: tuple[Subscriber, ...] = ()

    def is_for(self, subscribers: tuple[Subscriber, ...], plain: Any) -> bool:
        """Whether it was looked up last for just these subscribers and this model."""
        return self.is_of is subscribers and self.basis[0] is plain


def _unobserved(
    model: Any, plain: Any, training: Training, arguments: Sequence[Any]
) -> tuple[Any, Measured]:
    return plain(*arguments), Measured()


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
