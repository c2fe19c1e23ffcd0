"""Saying once, in a line, that something is wrong, where, and what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from rich.console import Console

from keras_initlab._core.errors import message
from keras_initlab.diagnosis import Finding

_LINES_PER_KIND = 5


class Alerts:
    """Gathers findings and sends few lines.

    A kind of finding is told of each layer once a fit, in one line an epoch and in five
    a fit. A line that the function cannot send becomes a warning.

    Args:
        send: True to print lines to the error output, False for silence, or a function
            that receives each line.
    """

    def __init__(self, send: bool | Callable[[str], Any] = True):
        if not (callable(send) or send in (True, False)):
            raise ValueError(
                message(
                    "`alerts` must be True, False or a function of a line.",
                    f"alerts={send!r}",
                    "Pass e.g. `logging.warning`.",
                )
            )
        self.send_line: Callable[[str], Any] = send if callable(send) else _print
        self._is_silent = send is False or send == 0
        self.found: list[Finding] = []
        self.begin()

    def begin(self) -> None:
        """Lets every kind be told anew; called when a fit begins."""
        self._known: set[tuple[str, str]] = set()
        self._waiting: dict[str, list[Finding]] = {}
        self._lines: dict[str, int] = {}

    def note(self, alert: Finding) -> None:
        """Keeps a finding that is new, for the end of the epoch."""
        if (alert.kind, alert.path) in self._known:
            return
        self._known.add((alert.kind, alert.path))
        self.found.append(alert)
        self._waiting.setdefault(alert.kind, []).append(alert)

    def send(self) -> None:
        """Sends a line for each kind that was found."""
        waiting, self._waiting = self._waiting, {}
        for kind, alerts in waiting.items():
            self._lines[kind] = self._lines.get(kind, 0) + 1
            if not self._is_silent and self._lines[kind] <= _LINES_PER_KIND:
                self._hand(alerts[0].line(len(alerts) - 1))

    def _hand(self, line: str) -> None:
        try:
            self.send_line(line)
        except Exception as error:  # it must not end training, nor the line be lost
            warnings.warn(
                message(
                    f"{line} (This alert could not be sent.)",
                    f"{type(error).__name__}: {error}",
                    "Training goes on; mend the function `alerts`.",
                ),
                stacklevel=2,
            )


def _print(line: str) -> None:
    # The error output: a progress bar on the other one stays whole.
    Console(stderr=True).print(
        line,
        style="yellow",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
