"""One training under observation: whose it is, and how its steps are counted."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

import keras

from ._recipe import Measured, Recipe


class Subscriber(Protocol):
    """What takes part in an observation: the callbacks."""

    recipe: Recipe

    def wants(self, step: int) -> bool:
        """Whether to observe this step; the first of every epoch always is."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Notes that an epoch begins."""
        ...

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Takes what an observed step measured."""
        ...


class Training:
    """One `fit`, or one loop of the user's own, and its count of epochs and steps.

    A loop says as much as it likes of its epochs and steps. Steps that it does not
    announce count on from the last one; epochs that it does not announce begin with
    their first step.

    Args:
        observer: what observes the model.
        callbacks: the list of callbacks that tells this training from others; None if
            the loop calls its callbacks by itself.
        is_fit: whether it is Keras's `fit`.
        steps: how many steps the training before has had, which `initial_epoch` may
            continue.

    Attributes:
        subscribers: who observes it.
        thread: in which it runs.
        source: what this epoch's batches come from, in a `fit`.
        has_run: whether a step of it has been seen.
        is_told: whether the user has been told that none has.
    """

    def __init__(self, observer: Any, callbacks: Any, is_fit: bool, steps: int):
        self.observer = observer
        self.is_fit = is_fit
        self.subscribers: tuple[Subscriber, ...] = ()
        self.thread = threading.current_thread()
        self.source: Any = None
        self.has_run = self.is_told = False
        self.epoch: int | None = None
        self._is_open = False  # whether the epoch is under way
        self._announces = False  # whether the loop says when an epoch begins
        self._is_fresh = True  # whether the epoch has had no step yet
        self._epoch_ends: int | None = None  # the step at which it does, if known
        self.steps = self._epoch_start = steps
        # A training that failed is over when nobody holds its list any more.
        self._callbacks = callbacks and weakref.ref(callbacks, self._on_gone)

    def _on_gone(self, reference: Any) -> None:
        self.observer.stop(self)

    def is_of(self, callbacks: Any) -> bool:
        """Whether this is the training of a list of callbacks."""
        own = self._callbacks and self._callbacks()
        return own is callbacks

    @property
    def is_here(self) -> bool:
        """Whether it runs in this thread."""
        return self.thread is threading.current_thread()

    @property
    def is_under_way(self) -> bool:
        """Whether it is a `fit` that has called what runs now."""
        return self.is_fit and any(map(self.is_of, running_here()))

    @property
    def steps_in_epoch(self) -> int:
        """How many train steps the epoch has had so far, observed or not."""
        return self.steps - self._epoch_start

    def begin_epoch(self, epoch: int, steps: int | None) -> None:
        """Notes that an epoch begins; every subscriber says so.

        Args:
            epoch: its number.
            steps: how many train steps it has, if known.
        """
        self.observer.resume(self)
        self._announces = True
        if not (self._is_open and epoch == self.epoch):
            self._begin(epoch, steps)

    def _begin(self, epoch: int, steps: int | None) -> None:
        if self.epoch is None and epoch == 0:
            self.steps = 0
        elif self.epoch is None and self.steps == 0:
            self.steps = epoch * (steps or 0)  # `initial_epoch`, for the first time
        self.epoch, self._epoch_start = epoch, self.steps
        self._epoch_ends = self.steps + steps if steps else None
        self._is_open = self._is_fresh = True
        self.source = None
        for subscriber in self.subscribers:
            subscriber.begin_epoch(epoch)

    def begin_batch(self, batch: int) -> None:
        """Notes that a loop begins a step: which one of the epoch's."""
        if not self.is_fit:
            self.observer.resume(self)
            if not self._is_open:
                self._begin(self._next_epoch, None)
            self.steps = self._epoch_start + batch

    def end_epoch(self) -> None:
        """Notes that the epoch ends; every subscriber says so."""
        self._is_open = False

    @property
    def _next_epoch(self) -> int:
        return 0 if self.epoch is None else self.epoch + 1

    @property
    def has_begun(self) -> bool:
        """Whether it has come further than its callbacks' `on_train_begin`."""
        return self.has_run or self.epoch is not None

    def takes(self) -> bool:
        """Whether the step that is about to run is one of this training's.

        Between two epochs that a loop announces, it may use the model for other things.
        """
        if self.is_fit or self._is_open:
            return self._is_open
        if self._announces:
            return False
        self._begin(self._next_epoch, None)
        return True

    def observers(self, count: int) -> tuple[range, list[Subscriber]]:
        """The steps that are about to run, and who wants to observe them.

        Args:
            count: how many there are, if the epoch does not end before.
        """
        end = self.steps + count
        if self._epoch_ends is not None:  # the last execution may have fewer steps
            end = max(self.steps + 1, min(end, self._epoch_ends))
        group = range(self.steps, end)
        found = [
            subscriber
            for subscriber in self.subscribers
            if self._is_fresh or any(subscriber.wants(step) for step in group)
        ]
        return group, found

    def advance(self, group: range) -> None:
        """Notes that these steps have run."""
        self.steps = group.stop
        self._is_fresh, self.has_run = False, True


def is_fit(frame: Any) -> bool:
    """Whether a frame is Keras's own `fit`."""
    module = frame.f_globals.get("__name__", "")
    return frame.f_code.co_name == "fit" and module.startswith("keras.")


def callbacks_of(frame: Any) -> Any:
    """The list of callbacks of a frame of `fit`."""
    return frame.f_locals.get("callbacks")


def running_here() -> list[Any]:
    """The lists of callbacks of every `fit` that runs in this thread."""
    return [callbacks_of(one) for one in _stack(sys._getframe(1)) if is_fit(one)]


def calling_list(frame: Any) -> tuple[Any, bool]:
    """The list of callbacks that is calling, and whether Keras's `fit` has called it.

    Keras gives a callback no way to its list but the frame that calls it. None if the
    callback is called without a list.
    """
    found = None
    for one in _stack(frame):
        owner = _self_of(one)
        if found is not None and owner is not found:
            return found, is_fit(one)
        if isinstance(owner, keras.callbacks.CallbackList):
            found = owner
    return found, False


def _self_of(frame: Any) -> Any:
    """The object whose method a frame runs, None for other functions.

    A look at a frame's variables keeps them alive as long as it runs, up to Python
    3.12, so it is spared others.
    """
    is_method = frame.f_code.co_varnames[:1] == ("self",)
    return frame.f_locals.get("self") if is_method else None


def _stack(frame: Any) -> Iterator[Any]:
    while frame is not None:
        yield frame
        frame = frame.f_back
