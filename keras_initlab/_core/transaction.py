"""Doing as a whole what must not stop half-way, whatever is raised meanwhile."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np

from .arrays import kept

_Result = TypeVar("_Result")
_TRIES = 5  # to bring one variable back

Change = tuple[Any, np.ndarray, np.ndarray]


def assign_all(changes: Iterable[Change]) -> None:
    """Gives variables new values. After an error all of them have their former ones.

    Signals, as that of Ctrl-C, wait until all is written. If what they then raise stops
    the writing, that is taken back, too.

    Args:
        changes: `(variable, former value, new value)`. A generator may compute them
            while the first are written already.
    """
    uninterrupted(lambda tell: _assign_all(changes, tell))


def uninterrupted(action: Callable[[Callable[[], None]], _Result]) -> _Result:
    """Runs a function to its end before any signal that comes meanwhile is handled.

    Python runs handlers in the main thread alone, so that only there they must wait:
    elsewhere the function is called as it is. What is set is the handler, and not the
    thread's mask of signals: another thread would receive them.

    Args:
        action: receives a function that handles the signals that wait, earlier than at
            the end.
    """
    known = {number: signal.getsignal(number) for number in signal.valid_signals()}
    # The others' are the system's, or of the program that Python is embedded in.
    handlers: dict[int, Any] = {n: one for n, one in known.items() if callable(one)}
    waiting: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        waiting[number] = frame

    def tell() -> None:
        if waiting:
            number, frame = waiting.popitem()
            try:
                handlers[number](number, frame)
            finally:  # one that raises does not keep the others from theirs
                tell()

    # Twice, for what may be raised in between; what is back already is left alone.
    try:
        try:
            _handle(handlers, note)
            return action(tell)
        finally:
            _restore(handlers, note)
    finally:
        _restore(handlers, note)
        tell()


def within(
    contexts: Iterable[AbstractContextManager[Any]], action: Callable[[], _Result]
) -> _Result:
    """Runs a function within contexts that are left whatever signals come meanwhile."""
    stack = contextlib.ExitStack()
    try:  # twice, for a signal that comes before signals wait
        try:
            uninterrupted(lambda _: [stack.enter_context(one) for one in contexts])
            return action()
        finally:
            uninterrupted(lambda _: stack.close())
    finally:
        uninterrupted(lambda _: stack.close())


def _handle(handlers: dict[int, Any], note: Callable[..., None]) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in handlers:
            signal.signal(number, note)


def _restore(handlers: dict[int, Any], note: Callable[..., None]) -> None:
    # A signal that is handled again may raise: Ctrl-C, the likeliest, comes last.
    for number in sorted(handlers, key=lambda one: one == signal.SIGINT):
        if signal.getsignal(number) is note:
            signal.signal(number, handlers[number])


def _assign_all(changes: Iterable[Change], tell: Callable[[], None]) -> None:
    done: list[tuple[Any, np.ndarray]] = []
    try:
        for variable, former, value in changes:
            done.append((variable, former))
            variable.assign(value)
        tell()
    except BaseException as error:
        lost = _bring_back(done)
        if lost:
            paths = ", ".join(variable.path for variable in lost)
            error.add_note(f"These variables could not be brought back: {paths}.")
        raise


def _bring_back(done: list[tuple[Any, np.ndarray]]) -> list[Any]:
    """Gives variables their former values; returns those that do not take them."""
    lost, tries = [], 0
    while done:
        try:
            variable, former = done[-1]
            variable.assign(former)
            done.pop()
            tries = 0
        except BaseException:  # the first error is the one that is told
            tries += 1
            if tries == _TRIES:
                lost.append(done.pop())
                tries = 0
    return [variable for variable, former in lost if not _holds(variable, former)]


def _holds(variable: Any, value: np.ndarray) -> bool:
    return kept(variable).tobytes() == value.tobytes()
