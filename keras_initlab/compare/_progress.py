"""Which run, which epoch, how long it will take."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ._run import Run
from ._training import Task
from ._words import figure


class Reporter:
    """Shows a bar while runs go on, and prints a line for each that ends.

    Args:
        runs: how many runs there are to do.
        epochs: how long each is.
        done: how many more were found in a file.
        verbose: 0 for no output at all, 2 for lines without a bar.
        clock: what tells seconds.
        console: where to print; None for the standard output.
    """

    def __init__(
        self,
        runs: int,
        epochs: int,
        done: int = 0,
        verbose: int = 1,
        clock: Callable[[], float] = time.perf_counter,
        console: Console | None = None,
    ):
        self._console = console or Console(quiet=not verbose, highlight=False)
        self._runs, self._epochs, self._found = runs, epochs, done
        self._clock, self._began = clock, clock()
        self._ended = self._epoch = 0
        is_alive = self._console.is_terminal or self._console.is_jupyter
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._console,
            transient=True,
            disable=not (verbose == 1 and is_alive),
        )
        self._name = f"{runs} runs"
        self._task = self._bar.add_task(self._name, total=runs * epochs, left="")

    def __enter__(self) -> Reporter:
        if self._found:
            self._print(f"{self._found} runs found in the file, {self._runs} to do")
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def begin(self, task: Task) -> None:
        """Notes which run begins."""
        self._name, self._epoch = f"{task.label}, seed {task.seed}", 0
        self._show()

    def epoch(self) -> None:
        """Notes the end of an epoch of the run that was begun."""
        self._epoch += 1
        self._show()

    def end(self, run: Run) -> None:
        """Notes the end of a run: of the one that was begun, or one elsewhere."""
        self._ended, self._epoch = self._ended + 1, 0
        self._show()
        left = f", {self.left()}" if self._ended < self._runs else ""
        self._print(f"[{self._ended}/{self._runs}] {_summary(run)}{left}")

    def left(self) -> str:
        """The time left, by what the epochs so far have taken."""
        done = self._ended * self._epochs + self._epoch
        if not done:
            return ""
        rest = self._runs * self._epochs - done
        seconds = round((self._clock() - self._began) / done * rest)
        return f"about {datetime.timedelta(seconds=seconds)} left"

    def _show(self) -> None:
        epoch = f", epoch {self._epoch}/{self._epochs}" if self._epoch else ""
        self._bar.update(
            self._task,
            completed=self._ended * self._epochs + self._epoch,
            description=f"{self._name}{epoch}",
            left=self.left(),
        )

    def _print(self, line: str) -> None:
        self._bar.console.print(line, markup=False, emoji=False, soft_wrap=True)


def _summary(run: Run) -> str:
    """What became of a run, in a line."""
    name = f"{run.label}, seed {run.seed}"
    if run.error is not None:
        return f"{name}: failed, {run.error}"
    if run.has_accuracy:
        reached = f"test accuracy {run.metrics['final_accuracy']:.1f} %"
    else:
        reached = f"test loss {figure(run.metrics['final_loss'])}"
    return f"{name}: {reached} after {run.seconds:.1f} s"
