"""The recommendation for one kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._core.reports import Record
from .._keras.kinds import Fans
from ..inspection import KernelRecord
from ._choice import ESTIMATE, Choice
from ._labels import initializer_label

_UNKNOWN = "; fans by Keras's rule for the shape, unless `register_fans` tells more"


@dataclass(frozen=True)
class Row(Record):
    """The recommendation for one kernel.

    Attributes:
        path: the kernel's path, unique in the model.
        role: `hidden`, `output`, `residual branch`, `recurrent`, `embedding`, ….
        initializer: a Keras initializer, ready for `kernel_initializer=`; None for a
            frozen kernel, which stays as it is.
        reason: why, in one sentence.
        reference: the paper and equation it rests on.
        confidence: in [0, 1]: how often the kernel's output comes within a quarter of
            the std that is meant, counted on 48 models of many kinds
            (`tests/benchmarks/confidence.py`). 0.95 for a construction that is exact
            for this surrounding, 0.75 where theory knows what it reads, 0.65 where a
            run of the model has told, 0.55 where neither could (too few to be counted).
            The rule table has its own scale.
        alternatives: names of initializers that come next.
        forward_gain: expected std of the pre-activation relative to the one before
            (to the input's for the first kernel), None where theory has no answer.
        backward_gain: the same for gradients, from this pre-activation to the one
            before.
        activation: name of the activation that the output really meets.
        shape: the kernel's shape.
        fans: its true fans.
        depth: number of kernels on the longest path from an input, itself included.
    """

    path: str
    role: str
    initializer: Any
    reason: str
    reference: str
    confidence: float
    alternatives: tuple[str, ...]
    forward_gain: float | None
    backward_gain: float | None
    activation: str
    shape: tuple[int, ...]
    fans: Fans
    depth: int
    kernel: KernelRecord = field(repr=False, compare=False)
    centered_mean: float | None = field(repr=False, default=None)
    bias_offset: tuple[float, ...] | None = field(repr=False, default=None)
    std: float = field(repr=False, default=1.0)
    moving_variance: float | None = field(repr=False, default=None)

    def _values(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "role": self.role,
            "initializer": None
            if self.initializer is None
            else {
                "name": initializer_label(self.initializer),
                "class_name": type(self.initializer).__name__,
                "config": self.initializer.get_config(),
            },
            "reason": self.reason,
            "reference": self.reference,
            "confidence": self.confidence,
            "alternatives": self.alternatives,
            "forward_gain": self.forward_gain,
            "backward_gain": self.backward_gain,
            "centered_mean": self.centered_mean,
            "bias_offset": self.bias_offset,
            "moving_variance": self.moving_variance,
            "activation": self.activation,
            "shape": self.shape,
            "fan_in": self.fans.fan_in,
            "fan_out": self.fans.fan_out,
            "depth": self.depth,
        }


def make_row(kernel: KernelRecord, choice: Choice) -> Row:
    """Joins what inspection found and what a policy chose."""
    is_known = kernel.kernel.is_known or choice.initializer is None
    return Row(
        path=kernel.path,
        role=kernel.role,
        initializer=choice.initializer,
        reason=choice.reason + ("" if is_known else _UNKNOWN),
        reference=choice.reference,
        confidence=choice.confidence if is_known else min(choice.confidence, ESTIMATE),
        alternatives=choice.alternatives,
        forward_gain=choice.forward_gain,
        backward_gain=choice.backward_gain,
        activation=kernel.activation_name,
        shape=kernel.shape,
        fans=kernel.fans,
        depth=kernel.depth,
        kernel=kernel,
        centered_mean=choice.centered_mean,
        bias_offset=choice.bias_offset,
        std=choice.std,
        moving_variance=choice.moving_variance,
    )
