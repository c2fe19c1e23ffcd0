"""Saying once, in a line, that something is wrong, where, and what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from keras_initlab._core.errors import message

NOT_FINITE = "not finite"  # the one rule that cannot wait for the epoch's end
_LINES_PER_RULE = 5


@dataclass(frozen=True)
class Alert:
    """One finding.

    Attributes:
        rule: which rule found it.
        path: the layer.
        step: the observed step.
        value: the number that the rule is about.
        text: what was found, in words.
        cure: what to do about it.

    Example:
        >>> found = "has 3 of 4 units dead (75%)"
        >>> alert = Alert("dead units", "dense", 9, 0.75, found, "Lower the rate.")
        >>> alert.line()
        'dead units, step 9: dense has 3 of 4 units dead (75%). Lower the rate.'
    """

    rule: str
    path: str
    step: int
    value: float
    text: str
    cure: str

    def line(self, others: int = 0) -> str:
        """The alert in one line.

        Args:
            others: how many other layers the rule has found at the same time.
        """
        layers = "layer" if others == 1 else "layers"
        more = f" (and {others} more {layers})" if others else ""
        found = f"{self.path} {self.text}{more}"
        return f"{self.rule}, step {self.step}: {found}. {self.cure}"


class Alerts:
    """Gathers findings and sends few lines.

    A rule speaks of each layer once a fit, in one line an epoch, in five a fit. A line
    that the function cannot send becomes a warning.

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
        self.found: list[Alert] = []
        self.begin()

    def begin(self) -> None:
        """Lets every rule speak anew; called when a fit begins."""
        self._known: set[tuple[str, str]] = set()
        self._waiting: dict[str, list[Alert]] = {}
        self._lines: dict[str, int] = {}

    def note(self, alert: Alert) -> None:
        """Keeps a finding that is new, for the end of the epoch."""
        if (alert.rule, alert.path) in self._known:
            return
        self._known.add((alert.rule, alert.path))
        self.found.append(alert)
        self._waiting.setdefault(alert.rule, []).append(alert)

    def send(self) -> None:
        """Sends a line for each rule that has found something."""
        waiting, self._waiting = self._waiting, {}
        for rule, alerts in waiting.items():
            self._lines[rule] = self._lines.get(rule, 0) + 1
            if not self._is_silent and self._lines[rule] <= _LINES_PER_RULE:
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
