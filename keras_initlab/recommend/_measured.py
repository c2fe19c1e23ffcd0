"""What kernels really read, where theory does not know it: one run of the model.

The model runs once on the kernels that theory would draw, and each of which theory is
not sure is scaled as it comes by, so that those behind it read what they will read.
What it is multiplied by then is what it reads. A kernel that
theory is sure of is left as it is, unless the run says otherwise by far.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from .._keras.kinds import Kernel
from .._keras.running import OperationEvent, recording
from ..calibration import Wanted, mean_square, one_pass
from ..inspection import (
    Edge,
    Effect,
    Inspection,
    KernelRecord,
    Merge,
    Transform,
    operations_in_sight,
)

_OFF = 0.1  # a constraint that leaves so much less is worth a word
_FAR = 1.5  # a sample and the draw of a narrow kernel stay within it


@dataclass(frozen=True)
class Measured:
    """What a run has told.

    Attributes:
        read: mean square of what a kernel reads, by position.
        given: root mean square of what a frozen kernel gives, by position.
        returned: mean square of what an operation returns, by its id.
        left: the std that a constraint leaves of what a kernel gives, by position.
    """

    read: dict[int, float] = field(default_factory=dict)
    given: dict[int, float] = field(default_factory=dict)
    returned: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)

    def after(self, step: Transform | Merge) -> float | None:
        """Mean square of what an operation returned, None if it was not measured."""
        return self.returned.get(id(step.operation))


@dataclass(frozen=True)
class Expected:
    """What theory expects of a kernel's output.

    Attributes:
        std: its standard deviation.
        moment: mean square of what the kernel reads.
        is_sure: whether theory knows that.
        needs_data: whether a run on inputs that are made up says nothing of that.
        scales_bias: whether its bias is scaled with it.
        is_made: whether its values are made for what it reads, as those of pairs: then
            what it gives tells how much of that counts.
    """

    std: float
    moment: float
    is_sure: bool
    needs_data: bool = False
    scales_bias: bool = False
    is_made: bool = False


def measure(
    model: keras.Model,
    inspection: Inspection,
    batch: Any,
    starts: Mapping[int, Any],
    expect: Callable[[KernelRecord], Expected],
    measured: Measured,
    constrained: Collection[int] = (),
    is_doubted: bool = True,
) -> None:
    """Runs a model and notes what its kernels read.

    Args:
        model: a built model; it is left as it is.
        inspection: its kernels.
        batch: what it is called on.
        starts: the values to run with, by the variable's id.
        expect: tells what theory expects of a kernel, in the light of what has been
            measured before it in the run.
        measured: where what is found is noted, while the model runs.
        constrained: positions of kernels that obey a constraint.
        is_doubted: whether a run that is far off overrules theory.
    """
    records = {id(record.variable): record for record in inspection.kernels}
    reads: dict[int, list[float]] = {}
    heard = [record for record in inspection.kernels if _is_heard(record)]
    first = {record.position: expect(record) for record in heard}

    def wanted(kernel: Kernel) -> Wanted:
        record = records[id(kernel.variable)]
        now = expect(record)
        known = float(np.mean(reads.get(id(kernel.variable), 0.0)))
        is_plain = not now.is_made and record.position not in constrained
        if known and is_plain and not (now.is_sure or now.needs_data):
            # What it is meant to give may depend on what it reads.
            measured.read[record.position] = known
            now = expect(record)
        spare = 1.0
        if now.is_sure:
            spare = _FAR if is_doubted else math.inf
        return Wanted(
            now.std,
            is_alone=True,
            scales_bias=now.scales_bias,
            spare=spare if record.trainable else math.inf,
        )

    recorder = _Recorder(measured)
    with recording(_unsure_operations(model, inspection), recorder.on_return):
        run = one_pass(
            model,
            batch,
            [record.kernel for record in heard],
            wanted,
            {},
            starts,
            normalizes_by_batch=True,
            looked_at=reads,
        )
    for record in heard:
        row, theory = run.rows[id(record.variable)], first[record.position]
        if not row.std_before or not np.isfinite(row.std_before):
            continue
        if not record.trainable:
            if not theory.needs_data:
                measured.given[record.position] = row.std_before
            continue
        has_factor = row.std_after is not None and row.std_after != row.std_before
        is_bound = record.position in constrained
        if has_factor and (is_bound or not theory.needs_data):
            read = reads.get(id(record.variable))
            # What a constraint has changed does not give what was drawn for.
            if read is None or is_bound or theory.is_made:
                read = [(row.std_before / theory.std) ** 2 * theory.moment]
            measured.read[record.position] = float(np.mean(read))
        after = row.std_after or row.std_before
        is_off = abs(after / wanted(record.kernel).std - 1) > _OFF
        if is_bound and is_off:
            measured.left[record.position] = after


def _is_heard(record: KernelRecord) -> bool:
    is_signal = record.role not in ("embedding", "recurrent", "bias")
    return is_signal and not _is_quantized(record.layer)


def _is_quantized(layer: Any) -> bool:
    return getattr(layer, "quantization_mode", None) is not None


def _unsure_operations(model: keras.Model, inspection: Inspection) -> list[Any]:
    """Operations before sums of which theory does not know what they return."""
    in_sight = {id(operation) for _, operation in operations_in_sight(model)}
    sums = [merge for merge in inspection.merges if merge.effect is Effect.ADD]
    steps = _steps(edge for merge in sums for edge in merge.edges)
    found = {
        id(step.operation): step.operation
        for step in steps
        if id(step.operation) in in_sight
    }
    return list(found.values())


def _steps(edges: Iterable[Edge]) -> Iterator[Transform | Merge]:
    unsure = (Effect.POOL, Effect.OTHER, Effect.CHANNEL_LINEAR, Effect.CONCATENATE)
    for edge in edges:
        if isinstance(edge.source, Merge) and edge.source.effect in unsure:
            yield edge.source
        if any(transform.effect in unsure for transform in edge.transforms):
            yield edge.transforms[-1]


class _Recorder:
    """Notes the mean squares of what operations return."""

    def __init__(self, measured: Measured):
        self._measured = measured

    def on_return(self, event: OperationEvent) -> None:
        # In a traced function there are no numbers: each backend raises its own.
        with contextlib.suppress(Exception):
            found = mean_square(event.output)
            if np.isfinite(found) and found > 0:
                self._measured.returned[id(event.operation)] = found
