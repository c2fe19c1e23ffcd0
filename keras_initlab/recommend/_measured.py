"""What signals really are where no kernel is before them that is to be drawn.

Theory knows the scale of what a model is given. What preprocessing makes of that only a
run can tell, and what frozen kernels give: they fit what they read, and of a trained
body the features are larger than independent inputs would make them, by ten times and
more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel, is_of_known_kind, steps_of
from .._keras.private import all_layers, takes_training
from .._keras.replacing import all_replaced
from .._keras.running import (
    Listener,
    OperationEvent,
    Product,
    bias_of,
    listening,
    normalizing_by_batch,
    recording,
)
from ..inspection import (
    Edge,
    Effect,
    Inspection,
    KernelRecord,
    Merge,
    Transform,
    all_built,
    operations_in_sight,
)

# Behind these, the scale of an input is known.
_KNOWN = (Effect.SAME_UNITS, Effect.REARRANGE, Effect.NORMALIZATION)


@dataclass(frozen=True)
class Measured:
    """What was measured on data.

    Attributes:
        given: root mean square of what a frozen kernel gives, by position.
        read: mean square of what a kernel reads, by position.
    """

    given: Mapping[int, float] = field(default_factory=dict)
    read: Mapping[int, float] = field(default_factory=dict)
    _returned: Mapping[int, float] = field(default_factory=dict)

    def after(self, step: Transform | Merge) -> float | None:
        """Mean square of what an operation returned, None if it was not measured."""
        return self._returned.get(id(step.operation))


@dataclass(frozen=True)
class UnknownSignals:
    """What theory only estimates, and one run can tell whatever is drawn.

    Attributes:
        frozen: kernels whose outputs count.
        readers: those whose inputs count.
        operations: those whose outputs count.
    """

    frozen: tuple[KernelRecord, ...]
    readers: tuple[KernelRecord, ...]
    operations: tuple[Any, ...]

    def __bool__(self) -> bool:
        return bool(self.frozen or self.readers or self.operations)


def unknown_signals(model: keras.Model, inspection: Inspection) -> UnknownSignals:
    """Returns what is worth a run of a model on data."""
    early = _Early(inspection)
    steps: list[Transform | Merge] = []
    readers = []
    for record in inspection.kernels:
        edges = [edge for edge in record.edges if early.is_early(edge)]
        steps += _steps(edges)
        is_alone = record.trainable and record.role not in ("embedding", "recurrent")
        is_whole = len(edges) == len(record.edges) and not all(map(_is_given, edges))
        if is_alone and is_whole and is_of_known_kind(record.layer):
            readers.append(record)
    for merge in inspection.merges:
        steps += _steps(edge for edge in merge.edges if early.is_early(edge))
    in_sight = {id(operation) for _, operation in operations_in_sight(model)}
    operations = {
        id(step.operation): step.operation
        for step in steps
        if id(step.operation) in in_sight
    }
    frozen = tuple(record for record in inspection.kernels if not record.trainable)
    return UnknownSignals(frozen, tuple(readers), tuple(operations.values()))


def measure(model: keras.Model, unknown: UnknownSignals, batch: Any) -> Measured:
    """Returns what a model's early signals are on data.

    The model runs once, or until all is measured. Dropout does nothing, and batch
    normalization that trains goes by the batch. What runs inside a loop or traced
    function is left out, as is what is zero or not finite.

    Args:
        model: a built model.
        unknown: what to measure.
        batch: what the model is called on.
    """
    given = _Given([record.kernel for record in unknown.frozen])
    recorder = _Recorder(model, unknown)
    mode = {"training": False} if takes_training(model) else {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(all_built(model))
        stack.enter_context(contextlib.suppress(_Complete))
        stack.enter_context(keras.StatelessScope())  # moving averages stay
        stack.enter_context(all_replaced(normalizing_by_batch(model)))
        stack.enter_context(listening(model, given))
        recorded = recording(
            recorder.all(), recorder.on_return, on_call=recorder.on_call
        )
        stack.enter_context(recorded)
        model(batch, **mode)
    return Measured(
        _usable((r.position, given.sizes.get(id(r.variable))) for r in unknown.frozen),
        _usable((r.position, recorder.read(r)) for r in unknown.readers),
        _usable((id(one), recorder.returned(one)) for one in unknown.operations),
    )


class _Complete(BaseException):
    """Ends a run of which the rest says nothing; no error that a model may catch."""


class _Given(Listener):
    """Notes the size of what kernels give, each one's at its last call."""

    def __init__(self, kernels: Iterable[Kernel]):
        super().__init__(list(kernels))
        self.sizes: dict[int, float] = {}

    def on_product(self, product: Product) -> Any:
        if not self.is_in_loop:
            bias = bias_of(product, self.value, product.meets_bias)
            values = ops.convert_to_tensor(bias.values, "float32")
            given = ops.add(ops.cast(product.output, "float32"), values)
            self.sizes[id(product.kernel.variable)] = _mean_square(given) ** 0.5
        return product.output


class _Recorder:
    """Notes the mean squares of what operations read and return."""

    def __init__(self, model: keras.Model, unknown: UnknownSignals):
        self._steppers = _steppers(model)
        self._operations = list(unknown.operations)
        self._waiting = {("returned", id(one)): 1 for one in unknown.operations}
        for record in unknown.readers:
            self._operations.append(self._called(record))
            self._waiting["read", id(self._operations[-1])] = record.calls
        self._values: dict[tuple[str, int], list[float]] = {
            k: [] for k in self._waiting
        }
        self._goes_on = bool(unknown.frozen)

    def all(self) -> list[Any]:
        """Returns what is to be recorded."""
        return list({id(one): one for one in self._operations}.values())

    def on_call(self, call: OperationEvent) -> None:
        self._record(("read", id(call.operation)), call.inputs)

    def on_return(self, call: OperationEvent) -> None:
        self._record(("returned", id(call.operation)), call.output)

    def read(self, record: KernelRecord) -> float | None:
        """Returns the mean square of what a kernel reads, over its calls."""
        return _mean(self._values["read", id(self._called(record))])

    def returned(self, operation: Any) -> float | None:
        """Returns the mean square of what an operation returns."""
        return _mean(self._values["returned", id(operation)])

    def _record(self, key: tuple[str, int], value: Any) -> None:
        if key not in self._waiting:
            return
        # In a traced function there are no numbers: each backend raises its own.
        with contextlib.suppress(Exception):
            self._values[key].append(_mean_square(value))
        self._waiting[key] -= 1
        if not self._goes_on and max(self._waiting.values()) <= 0:
            raise _Complete

    def _called(self, record: KernelRecord) -> Any:
        """The layer that is called on all that a kernel reads."""
        return self._steppers.get(id(record.layer), record.layer)


class _Early:
    """Tells which edges come before every kernel that trains."""

    def __init__(self, inspection: Inspection):
        self._kernels = inspection.kernels
        self._known: dict[int, bool] = {}

    def is_early(self, edge: Edge) -> bool:
        """Whether the signal is the same whatever is drawn."""
        source = edge.source
        if source is None:
            return True
        key = source if isinstance(source, int) else id(source)
        if key not in self._known:
            self._known[key] = self._starts_early(source)
        return self._known[key]

    def _starts_early(self, source: int | Merge) -> bool:
        if isinstance(source, Merge):
            return bool(source.edges) and all(map(self.is_early, source.edges))
        record = self._kernels[source]
        return not record.trainable and all(map(self.is_early, record.edges))


def _steps(edges: Iterable[Edge]) -> list[Transform | Merge]:
    """The steps on edges, and their sums, that the input's scale does not determine."""
    found: list[Transform | Merge] = []
    for edge in edges:
        if isinstance(edge.source, Merge):
            found.append(edge.source)
        if not _is_given(edge):
            found += edge.transforms
    return found


def _is_given(edge: Edge) -> bool:
    """Whether the scale of the model's input determines what an edge carries."""
    return edge.source is None and all(p.effect in _KNOWN for p in edge.transforms)


def _steppers(model: keras.Model) -> dict[int, Any]:
    """The layers that run others step by step, by the id of the one they run first."""
    return {
        id(inner): layer for layer in all_layers(model) for inner in steps_of(layer)[:1]
    }


def _mean_square(value: Any) -> float:
    return float(to_numpy(ops.mean(ops.square(ops.cast(value, "float32")))))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _usable(found: Iterable[tuple[int, float | None]]) -> dict[int, float]:
    return {
        key: value
        for key, value in found
        if value is not None and np.isfinite(value) and value > 0
    }
