"""What a calibration did, as a table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from .._core.reports import Record, new_table, printable
from .._weights.writing import Applied


@dataclass(frozen=True)
class CalibratedKernel(Record):
    """What became of one kernel.

    Attributes:
        path: its variable's path.
        shape: its shape.
        std_before: standard deviation of what it computed, its bias added, on the
            batch and behind kernels that were calibrated already; of the input
            projection in a recurrent layer. None where it was not measured.
        std_after: the same with the new values.
        is_changed: whether it has new values.
        note: why it was left as it is, or what else was done.
    """

    path: str
    shape: tuple[int, ...]
    std_before: float | None
    std_after: float | None
    is_changed: bool
    note: str = ""


class Calibrated(Applied):
    """What `calibrate` wrote into a model, and the way back.

    Printed, it is a table. It iterates over its kernels.

    Attributes:
        kernels: a `CalibratedKernel` for each kernel of the model, in its order.
        changed: paths of the variables that were written.
        nbytes: size of the copy of the former values that `undo` holds.
        seed: the base seed of what was drawn, also where none was given.
    """

    def __init__(self, applied: Applied, kernels: Sequence[CalibratedKernel]):
        vars(self).update(vars(applied))
        self.kernels = self._records = tuple(kernels)

    @property
    def skipped(self) -> tuple[CalibratedKernel, ...]:
        """The kernels that were left as they were; each has its reason as `note`."""
        return tuple(kernel for kernel in self.kernels if not kernel.is_changed)

    def _values(self) -> dict[str, Any]:
        return {**super()._values(), "kernels": self.kernels}

    def __rich__(self) -> Any:
        count = len(self) - len(self.skipped)
        title = self._title(f"{count} of {len(self)} kernels", "calibrated")
        return _table(title, self.kernels)


def _table(title: str, kernels: Sequence[CalibratedKernel]) -> Table:
    table = new_table(title)
    table.add_column("kernel", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("std before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("note")
    for kernel in kernels:
        note = kernel.note if kernel.is_changed else f"left as it was: {kernel.note}"
        shape = "×".join(map(str, kernel.shape))
        before, after = _number(kernel.std_before), _number(kernel.std_after)
        table.add_row(printable(kernel.path), shape, before, after, note)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
