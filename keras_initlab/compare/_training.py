"""Training one model from one initializer, wherever this runs."""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._core import seeds as _seeds
from .._core.errors import message
from .._keras.private import drawing_seeds_from
from ..observing import Measured, Recipe, TrainingObserver, calling_list
from ._data import Batches, Data, first_inputs, load_once
from ._starts import built, start, takes_initializer
from ._tracing import expecting_traces

# All threads of a process share Keras's global seed; a Dask worker has several.
_ALONE = threading.Lock()
_PERCENT = 100.0


@dataclass(frozen=True)
class Task:
    """One run, as it is sent to where it runs.

    Attributes:
        label: the initializer, as the comparison calls it.
        initializer: the initializer.
        seed: the seed.
        build: what builds the model.
        data: what it trains and is tested on.
        backend: the Keras backend of the process that asks for it.
        epochs: for how long.
        batch_size: in batches of how many examples.
        accuracy: the name of the metric that counts as accuracy; None to find it.
    """

    label: str
    initializer: Any
    seed: int
    build: Callable[..., Any]
    data: Data | Callable[[], Any]
    backend: str
    epochs: int
    batch_size: int
    accuracy: str | None


def carry_out(task: Task, on_epoch: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Runs a task and returns plain values: its curves, or what went wrong."""
    with _ALONE, expecting_traces():
        try:
            return _trained(task, on_epoch)
        except Exception as error:  # of the user's function, of Keras, of a backend
            return {"error": told(error)}


def told(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trained(task: Task, on_epoch: Callable[[], Any]) -> dict[str, Any]:
    check_backend(keras.backend.backend(), task.backend)
    data = load_once(task.data) if callable(task.data) else task.data
    base = _seeds.derive(task.seed, 0)
    keras.utils.set_random_seed(base)
    batch = first_inputs(data, task.batch_size)
    is_handed = takes_initializer(task.build)
    # Keras takes default seeds, of dropout say, from Python's generator, from which a
    # Dask worker's other threads draw at any time.
    with drawing_seeds_from(random.Random(base)):
        model = built(task.build, task.initializer)
        start(model, task.initializer, task.seed, batch, is_handed)
    # Anew: what `fit` draws must not depend on how much an initializer has drawn.
    keras.utils.set_random_seed(_seeds.derive(task.seed, 1))
    return _fitted(model, data, task, on_epoch)


def _fitted(
    model: Any, data: Data, task: Task, on_epoch: Callable[[], Any]
) -> dict[str, Any]:
    recorder = _Recorder(task.accuracy, on_epoch)
    began = time.perf_counter()
    model.fit(
        Batches(data[0], task.batch_size, task.seed),
        shuffle=False,  # they are
        validation_data=data[1],
        validation_batch_size=task.batch_size,
        epochs=task.epochs,
        verbose=0,
        callbacks=[recorder],
    )
    seconds = round(time.perf_counter() - began, 3)
    return {"seconds": seconds, "curves": recorder.curves}


def check_backend(here: str, asked: str) -> None:
    """Raises if a worker's backend is not that of the process that asks."""
    if here != asked:
        raise RuntimeError(
            message(
                "All processes of a comparison must use the same Keras backend.",
                f"{here!r} in a worker, {asked!r} here",
                "Set KERAS_BACKEND in the workers' environment.",
            )
        )


class _Recorder(keras.callbacks.Callback):
    """Writes down the curves of one fit: a callback, and a subscriber of gradients."""

    recipe = Recipe(gradients=True)

    def __init__(self, accuracy: str | None, on_epoch: Callable[[], Any]):
        super().__init__()
        self.curves: dict[str, list[float]] = {}
        self._accuracy = accuracy
        self._on_epoch = on_epoch
        self._norms: list[float] = []
        self._training: Any = None

    def wants(self, step: int) -> bool:
        return True

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        assert measured.gradient_norms is not None  # it is in the recipe
        norms = measured.gradient_norms[list(measured.reached)].astype("float64")
        self._norms.append(math.sqrt(float(np.sum(np.square(norms)))))

    def on_train_begin(self, logs: Any = None) -> None:
        observer = TrainingObserver.of(self.model)
        self._training = observer.attach(self, *calling_list(sys._getframe(1)))

    def begin_epoch(self, epoch: int) -> None:
        self._norms = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._training.begin_epoch(epoch, (self.params or {}).get("steps"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        found = {"loss": logs.get("loss"), "test_loss": logs.get("val_loss")}
        name = _accuracy_in(logs, self._accuracy)
        if name is not None:
            found["accuracy"] = _PERCENT * logs[name]
            found["test_accuracy"] = _PERCENT * logs[f"val_{name}"]
        found["gradient_norm"] = np.mean(self._norms) if self._norms else None
        for curve, value in found.items():
            value = math.nan if value is None else float(value)
            self.curves.setdefault(curve, []).append(value)
        self._training.end_epoch()
        self._on_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        self._training.observer.detach(self._training, self)


def _accuracy_in(logs: dict[str, Any], asked: str | None) -> str | None:
    """The name of the metric that counts as accuracy, None if there is none."""
    names = [name for name in logs if f"val_{name}" in logs]
    if asked is None:
        is_one = (name for name in names if name.endswith(("accuracy", "acc")))
        return next(is_one, None)
    if asked not in names:
        raise ValueError(
            message(
                "`accuracy` must be one of the model's metrics.",
                f"accuracy={asked!r}",
                f"It has {sorted(names)}.",
            )
        )
    return asked
