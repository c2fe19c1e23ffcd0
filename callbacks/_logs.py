"""Where numbers go: any callable `(metrics, step)`, of which some are files."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from keras_initlab._core.errors import message

Log = Callable[[dict[str, float], int], Any]


class Logs:
    """The logs of a callback, none of which can end a training run.

    A log that raises an error (a full disk, no network) is warned of once. It gets the
    later rows all the same, and a second warning says at the end of training how many
    it did not take. The other logs get every row. `KeyboardInterrupt` and `SystemExit`
    pass: they are meant to end the run. Every log gets a copy of the metrics, so that
    one that changes them changes nothing else.

    Args:
        log_to: a function of `(metrics, step)`, or several.

    Raises:
        ValueError: if one is none.

    Example:
        >>> rows = []
        >>> logs = Logs([lambda metrics, step: 1 / 0, lambda *row: rows.append(row)])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     logs({"loss": 0.5}, 0)
        ...     logs({"loss": 0.25}, 10)
        ...     logs.end()
        >>> rows
        [({'loss': 0.5}, 0), ({'loss': 0.25}, 10)]
        >>> len(caught)
        2
    """

    def __init__(self, log_to: Log | Iterable[Log]):
        self._logs = _checked(log_to)
        self._begin()

    def _begin(self) -> None:
        self._handed = [0] * len(self._logs)
        self._lost = [0] * len(self._logs)

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs)

    def __bool__(self) -> bool:
        return bool(self._logs)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Hands a row to every log."""
        for index, log in enumerate(self._logs):
            self._hand(index, log, dict(metrics), step)

    def log_histograms(self, histograms: Mapping[str, Any], step: int) -> None:
        """Hands histograms to every log that has a function of this name."""
        for index, log in enumerate(self._logs):
            write = getattr(log, "log_histograms", None)
            if write is not None:
                self._hand(index, write, dict(histograms), step)

    def _hand(self, index: int, write: Log, row: dict[str, Any], step: int) -> None:
        self._handed[index] += 1
        try:
            write(row, step)
        except Exception as error:
            self._lost[index] += 1
            if self._lost[index] == 1:
                _warn_of(self._logs[index], step, error)

    def end(self) -> None:
        """Says which logs did not take all rows, and forgets it."""
        counts = list(zip(self._logs, self._lost, self._handed, strict=True))
        self._begin()
        found = [f"{lost} of {n} by {_name(log)}" for log, lost, n in counts if lost]
        if found:
            warnings.warn(
                message(
                    "A log should take every row.",
                    f"rows not taken: {', '.join(found)}",
                    "They are not in that log; `callback.history` holds them.",
                ),
                stacklevel=3,
            )


def _warn_of(log: Log, step: int, error: Exception) -> None:
    warnings.warn(
        message(
            "A log that fails does not end training; its row is lost.",
            f"{type(error).__name__}: {error}, from {_name(log)} at step {step}",
            "Later rows are tried all the same; those lost are counted at the end.",
        ),
        stacklevel=4,
    )


def _name(log: Log) -> str:
    name = getattr(log, "__qualname__", None)
    return f"{log.__module__}.{name}" if name else repr(log)


def _checked(log_to: Log | Iterable[Log]) -> tuple[Log, ...]:
    many: Any = log_to if isinstance(log_to, Iterable) else (log_to,)
    logs = (log_to,) if callable(log_to) else tuple(many)
    for log in logs:
        if not _takes_a_row(log):
            raise ValueError(
                message(
                    "`log_to` must hold functions of (metrics, step).",
                    f"log_to={log_to!r}",
                    "Pass e.g. `CSVLog('norms.csv')` or `wandb.log`.",
                )
            )
    return logs


def _takes_a_row(log: Any) -> bool:
    if not callable(log):
        return False
    try:
        inspect.signature(log).bind({}, 0)
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not tell their arguments
        return True
    return True
