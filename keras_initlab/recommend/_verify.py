"""What a recommendation means for each kernel, beside what the kernel really does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from rich.console import Group
from rich.text import Text

from .._core.reports import Record, Report, new_table, printable
from .._keras.kinds import Kernel
from ..calibration import Wanted, one_pass
from ..inspection import Edge, Merge
from ._row import Row

_FACTOR = 2.0
_NEEDS_DATA = "reads inputs that are preprocessed: hand some over as `x`"


@dataclass(frozen=True)
class VerifiedKernel(Record):
    """What one kernel was meant to do, and what it does.

    Attributes:
        path: the kernel's path, unique in the model.
        meant: the std that its output is meant to have, its bias left out.
        measured: the std of its output when the model ran; None if that was not heard.
        note: why it was not, or what else was found.
        ratio: `measured` over `meant`; None where nothing was heard.
    """

    _derived: ClassVar[tuple[str, ...]] = ("ratio",)

    path: str
    meant: float
    measured: float | None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as large as meant the output is."""
        return None if self.measured is None else self.measured / self.meant

    @property
    def is_met(self) -> bool | None:
        """Whether it is within a factor of 2 of what was meant; None if not heard."""
        if self.ratio is None:
            return None
        return 1 / _FACTOR <= self.ratio <= _FACTOR


class Verification(Report[VerifiedKernel]):
    """The std that each kernel's output was meant to have, and the one it has.

    A sequence of `VerifiedKernel`s in the order of the model; printed, it is a table.

    Attributes:
        model_name: the model's name.
        on: what the model ran on: `data`, or `synthetic inputs`.
    """

    def __init__(self, model_name: str, on: str, kernels: Sequence[VerifiedKernel]):
        self.model_name, self.on = model_name, on
        self._records = tuple(kernels)

    @property
    def missed(self) -> tuple[VerifiedKernel, ...]:
        """The kernels whose output is more than a factor of 2 from what was meant."""
        return tuple(kernel for kernel in self if kernel.is_met is False)

    def _values(self) -> dict[str, Any]:
        return {"model": self.model_name, "on": self.on, "kernels": self._records}

    def __rich__(self) -> Any:
        heard = [kernel for kernel in self if kernel.measured is not None]
        met = len(heard) - len(self.missed)
        title = (
            f"{printable(self.model_name)}, run on {self.on}: {met} of {len(heard)} "
            f"kernels within a factor of {_FACTOR:g} of what is meant"
        )
        table = new_table("")
        table.add_column("kernel", overflow="fold")
        for heading in ("meant std", "measured", "ratio"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for kernel in self:
            table.add_row(
                printable(kernel.path),
                f"{kernel.meant:.3g}",
                _number(kernel.measured),
                _number(kernel.ratio),
                "" if kernel.is_met else kernel.note or "more than twice off",
            )
        return Group(Text(title, style="table.title"), table)


def verified(
    model: keras.Model, rows: Sequence[Row], batch: Any, on: str
) -> Verification:
    """Runs a model on a batch and returns what its kernels give beside their rows."""
    rows = [row for row in rows if row.initializer is not None]
    rows = [row for row in rows if row.role != "recurrent"]
    row_of = {id(row.kernel.variable): row for row in rows}

    def wanted(kernel: Kernel) -> Wanted:
        row = row_of[id(kernel.variable)]
        is_centered = row.centered_mean is not None and row.bias_offset is None
        # Those behind it read what they would if the inputs were as they were told.
        is_made_up = on != "data" and _reads_inputs(row.kernel.edges)
        spare = _FACTOR if is_made_up else math.inf
        return Wanted(row.std, is_alone=True, scales_bias=is_centered, spare=spare)

    run = one_pass(
        model,
        batch,
        [row.kernel.kernel for row in rows],
        wanted,
        {},
        {},
        normalizes_by_batch=True,
        looked_at={},
    )
    found = []
    for key, row in row_of.items():
        heard = run.rows[key]
        is_scaled = heard.std_after != heard.std_before
        measured = None if is_scaled else heard.std_before
        note = _NEEDS_DATA if is_scaled else heard.note
        found.append(VerifiedKernel(row.path, row.std, measured, note))
    return Verification(model.name, on, found)


def _reads_inputs(edges: Sequence[Edge]) -> bool:
    """Whether a signal is one of the model's inputs, or made of them alone."""
    return bool(edges) and all(
        _reads_inputs(edge.source.edges)
        if isinstance(edge.source, Merge)
        else edge.source is None
        for edge in edges
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
