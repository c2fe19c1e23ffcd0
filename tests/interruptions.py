"""Stopping a function at any point, in the ways in which Python code is stopped."""

import contextlib
import itertools
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import keras

ROOT = Path(__file__).parent.parent
ERRORS = (KeyboardInterrupt, SystemExit, MemoryError, RuntimeError)
TRACED = (str(ROOT / "keras_initlab"), str(ROOT / "callbacks"))


@dataclass
class Lines:
    """Raises an error at some line, call or return of our own code, or counts them.

    Where values are written, at some operation of the interpreter.

    Attributes:
        at: the number of the event that raises; None for none.
        error: the type of what is raised.
        seen: the events so far.
    """

    at: int | None
    error: type = KeyboardInterrupt
    seen: int = 0

    def __enter__(self):
        self._former = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self._former)

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        if frame.f_code.co_filename.endswith("_transaction.py"):
            frame.f_trace_opcodes = True
        self.seen += 1
        if self.at is not None and self.seen > self.at:
            self.at = None
            raise self.error(f"at {frame.f_code.co_qualname}:{frame.f_lineno}")
        return self._trace


@contextlib.contextmanager
def failing_assigns(numbers, error, is_late):
    """Has some assignments raise, by their number; if late, after they took place."""
    assign, count = keras.Variable.assign, itertools.count()

    def failing(variable, value):
        number = next(count)
        if number in numbers and not is_late:
            raise error(f"before assignment {number}")
        result = assign(variable, value)
        if number in numbers:
            raise error(f"after assignment {number}")
        return result

    with mock.patch.object(keras.Variable, "assign", failing):
        yield


def killed(action, delays):
    """Runs a function while real SIGINTs arrive, some of them maybe after its end."""

    def run():
        action()

    def interrupt(_, frame):
        # One that comes late would stop the test.
        while frame is not None:
            if "_pytest" in frame.f_code.co_filename:  # reports what Python collects
                return
            if frame.f_code is run.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    def send():
        for delay in delays:
            time.sleep(delay)
            signal.raise_signal(signal.SIGINT)

    sender = threading.Thread(target=send)
    former = signal.signal(signal.SIGINT, interrupt)
    sender.start()
    # NumPy and others make errors of their own of what is raised within them.
    with contextlib.suppress(KeyboardInterrupt, Exception):
        run()
    sender.join()
    assert signal.getsignal(signal.SIGINT) is interrupt
    signal.signal(signal.SIGINT, former)
