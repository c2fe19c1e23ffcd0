"""Embeddings: tables whose rows are looked up, and learned tokens and places.

A looked-up row has fan_in 1, so its scale is its output's, and what reads it makes up
for that, as far as the rows do not soon outgrow it. It is small: a step moves a row by
the rate, however large it is, and most rows are looked up in few steps. Summed ones
share the variance; one that is added to what a kernel computes, as places to the
patches of an image, has to weigh as much as that. One that is also the output's kernel
has to serve there too, as a matrix that reads d units; those it is added to follow it,
so that words and places weigh the same.
"""

from __future__ import annotations

import math

import keras

from ..inspection import Effect, Inspection, KernelRecord, Merge
from ._choice import ESTIMATE, VARIANCE, Choice, tidy

EMBEDDED_STD = 0.03
_REASON = (
    f"a row is looked up, not summed (fan_in 1): std {EMBEDDED_STD:g}, so that the few "
    "steps that move it tell; what reads it makes up for its scale"
)
_LECUN = "LeCun et al. 1998, Efficient BackProp, eq. 16"
_TIED = "Press and Wolf 2017, 1608.05859; LeCun et al. 1998, eq. 16"
_CLOSING = ("attention output", "residual branch")
_TIED_LOGITS = 0.3  # their std, where a unit signal is read


class Embeddings:
    """Decides the scale of every embedding."""

    def __init__(self, inspection: Inspection):
        self._inspection = inspection

    def choice(self, kernel: KernelRecord) -> Choice:
        """Returns the choice for a kernel in the role of an embedding."""
        group = self._summed_with(kernel)
        tied = [k for k in (kernel, *group) if is_tied(k)]
        if tied:
            std = _tied_std(tied[0].shape[0], tied[0].shape[-1])
            return _choice(std, _tied_reason(kernel, std), _TIED)
        if any(k.role != "embedding" for k in group):
            return _choice(1 / math.sqrt(1 + len(group)), _beside(group), _LECUN)
        if group:
            count = 1 + len(group)
            reason = (
                f"{_REASON}; 1 of {count} that are added: 1/{count} of its variance"
            )
            return _choice(EMBEDDED_STD / math.sqrt(count), reason, _LECUN)
        return _choice(EMBEDDED_STD, _REASON, _LECUN)

    def _summed_with(self, kernel: KernelRecord) -> list[KernelRecord]:
        """The kernels whose outputs are added to an embedding's right away."""
        found: list[KernelRecord] = []
        for merge in self._inspection.readers[kernel.position]:
            if isinstance(merge, Merge) and merge.effect is Effect.ADD:
                found += self._operands(merge)
        return [k for k in found if k is not kernel and k.role not in _CLOSING]

    def _operands(self, merge: Merge) -> list[KernelRecord]:
        """A kernel for each signal that is added; of tokens side by side, the most."""
        found: list[KernelRecord] = []
        for edge in merge.edges:
            source = edge.source
            while isinstance(source, Merge) and source.effect is Effect.CONCATENATE:
                shares = source.shares or [1.0] * len(source.edges)
                largest = max(shares, default=0.0)
                source = next(
                    (
                        edge.source
                        for edge, share in zip(source.edges, shares, strict=True)
                        if share == largest
                    ),
                    None,
                )
            if isinstance(source, int):
                found.append(self._inspection.kernels[source])
        return found


def _beside(group: list[KernelRecord]) -> str:
    count = 1 + len(group)
    return f"1 of {count} signals that are added: variance 1/{count} each, to weigh one"


def is_tied(kernel: KernelRecord) -> bool:
    """Whether a table of rows is also the kernel of the model's output."""
    return kernel.role == "embedding" and kernel.is_tied


def _tied_std(rows: int, units: int) -> float:
    """The std of a table whose rows are looked up and read back as logits.

    A unit signal gives small logits. A signal that is still the row that was looked up
    gives that row a logit of up to `std · units`, which is to add to the loss no more
    than a quarter of the classes would.
    """
    return min(_TIED_LOGITS / math.sqrt(units), math.log(max(8.0, rows) / 4) / units)


def _tied_reason(kernel: KernelRecord, std: float) -> str:
    units = kernel.shape[-1]
    if is_tied(kernel):
        return (
            f"looked up and, transposed, the output's kernel of {units} units: "
            f"std {std:.3g} gives small logits, also for the row that was looked up; "
            "what reads the rows is normalized or follows their scale"
        )
    return f"added to a tied embedding: its std, {std:.3g}, so that both weigh one"


def _choice(std: float, reason: str, reference: str) -> Choice:
    return Choice(
        initializer=keras.initializers.RandomNormal(stddev=tidy(std)),
        reason=reason,
        reference=reference,
        confidence=VARIANCE if std == EMBEDDED_STD else ESTIMATE,
        alternatives=("random_uniform",),
        forward_gain=std,
    )
