"""The calibrated policy: the signal policy's choices, their scale then measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from .._keras.batch import Batch
from .._keras.kinds import Kernel
from ..calibration import CalibratedKernel, Wanted, one_pass, reasons_to_leave
from ..inspection import Inspection
from ._choice import Choice
from ._row import Row

MOST_EXAMPLES = 256
_REFERENCE = "Mishkin and Matas 2016, 1511.06422, alg. 1"

Values = Sequence[tuple[Any, Any]]


def thinned(batch: Batch) -> Any:
    """Returns the inputs to run on: of longer arrays, examples evenly spread."""
    step = -(-batch.examples // MOST_EXAMPLES)
    return keras.tree.map_structure(lambda leaf: leaf[::step], batch.x)


def measured_choices(
    model: keras.Model, inspection: Inspection, choices: Sequence[Choice]
) -> list[Choice]:
    """Returns the choices with what `apply` does about their scale in their reasons."""
    reasons = reasons_to_leave(model, [record.kernel for record in inspection.kernels])
    return [
        choice
        if choice.initializer is None or record.role == "recurrent"
        else _measured(choice, reasons.get(id(record.variable)))
        for record, choice in zip(inspection.kernels, choices, strict=True)
    ]


def calibrated(
    model: keras.Model, rows: Sequence[Row], fresh: Values, batch: Any
) -> tuple[list[tuple[Any, Any]], list[CalibratedKernel]]:
    """Returns drawn values, those of kernels scaled, and what became of the kernels.

    The model runs once. Dropout does nothing, and batch normalization goes by the
    batch: its moving statistics know nothing of new weights.

    Args:
        model: the model; it is not changed.
        rows: the recommendations that were drawn.
        fresh: the values drawn, of kernels and biases.
        batch: the inputs.
    """
    rows = [row for row in rows if row.role != "recurrent"]
    row_of = {id(row.kernel.variable): row for row in rows}
    kernels = [row.kernel.kernel for row in rows]

    def wanted(kernel: Kernel) -> Wanted:
        return _wanted(row_of[id(kernel.variable)])

    reasons = reasons_to_leave(model, kernels)
    starts = {id(variable): value for variable, value in fresh}
    run = one_pass(
        model, batch, kernels, wanted, reasons, starts, normalizes_by_batch=True
    )
    values = {id(variable): (variable, value) for variable, value in fresh}
    values |= {id(variable): (variable, value) for variable, value in run.changed()}
    return list(values.values()), [run.rows[key] for key in row_of]


def _measured(choice: Choice, reason: str | None) -> Choice:
    if reason is not None:
        return replace(choice, reason=f"{choice.reason}; not calibrated: {reason}")
    return replace(
        choice,
        reason=f"{choice.reason}; then scaled to a std of {choice.std:.3g} on the data",
        reference="; ".join(filter(None, (choice.reference, _REFERENCE))),
    )


def _wanted(row: Row) -> Wanted:
    """The std is that of the product alone; a bias that centers is scaled with it."""
    is_centered = row.centered_mean is not None and row.bias_offset is None
    return Wanted(row.std, is_alone=True, scales_bias=is_centered)
