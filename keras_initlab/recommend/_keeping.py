"""Kernels that keep the initializer that their layer has.

A scale that is a little off adds up over many kernels in a row, and over few it does
not: a normalization, or the end of a model, comes before. Where one layer's own
initializer gives what is near to what is meant, no rule expects another to train
better, and it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .._weights.theory import initializer_of, std_by_formula
from ..inspection import Edge, Effect, Inspection, KernelRecord, Merge
from ._choice import Choice, tidy
from ._input_moments import InputMoment
from ._labels import initializer_label
from ._variance import random_reason

# Kernels in a row that nothing normalizes, chosen between 3 and 5 on the fitted half of
# `tests/benchmarks/networks`; and a factor on the std, of which no other was tried.
FEW, NEAR = 3, 2.0

_ROLES = (
    "hidden",
    "gate",
    "query",
    "key",
    "value",
    "qkv",
    "attention output",
)
_BOUNDED = ("embedding", "recurrent", "recurrent input")  # whatever is before them


class Keeping:
    """Tells which kernels keep their layer's initializer.

    Args:
        inspection: the model's kernels.
    """

    def __init__(self, inspection: Inspection):
        self._kernels = inspection.kernels
        self._readers: dict[int, list[tuple[Edge, KernelRecord | Merge]]] = {}
        for reader in (*inspection.kernels, *inspection.merges):
            for edge in reader.edges:
                self._readers.setdefault(_key(edge.source), []).append((edge, reader))
        self._behind: dict[int, int] = {}
        self._ahead: dict[int, int] = {}
        # The last ones first: none then waits for more than its own readers.
        for kernel in reversed(inspection.kernels):
            self._kernels_ahead(kernel)

    def instead_of(
        self, choice: Choice, kernel: KernelRecord, std: float, read: InputMoment
    ) -> tuple[Choice, float]:
        """Returns what is chosen for a kernel, and the std that its output has.

        Args:
            choice: what the policy would choose.
            kernel: the kernel, which closes no branch and gives no output.
            std: that the choice gives.
            read: the mean square of what the kernel reads.
        """
        initializer = initializer_of(kernel.kernel)
        given = self._std_of(initializer, kernel, read.moment)
        # Logits are products of two.
        near = math.sqrt(NEAR) if kernel.role in ("query", "key", "qkv") else NEAR
        is_near = std / near <= given <= std * near
        if not is_near or kernel.role not in _ROLES or self.in_a_row(kernel) > FEW:
            return choice, std
        forward, backward = choice.forward_gain, choice.backward_gain
        return replace(
            choice,
            initializer=_without_seed(initializer),
            reason=f"{random_reason(kernel, read)}: keeps "
            f"{initializer_label(initializer)}, whose std of {given:.3g} is near to "
            f"{std:.3g}",
            forward_gain=None if forward is None else forward * given / std,
            backward_gain=None if backward is None else backward * given / std,
            is_kept=True,
        ), given

    def _std_of(self, initializer: Any, kernel: KernelRecord, moment: float) -> float:
        """The std that an initializer gives an output; 0 where that is not known."""
        entries = initializer and std_by_formula(initializer, kernel.kernel)
        size = math.sqrt(max(1.0, kernel.fans.fan_in) * moment)
        return tidy((entries or 0.0) * size)

    def in_a_row(self, kernel: KernelRecord) -> int:
        """How many kernels there are between one normalization and the next."""
        return self._kernels_behind(kernel) + 1 + self._kernels_ahead(kernel)

    def _kernels_behind(self, reader: KernelRecord | Merge) -> int:
        if _key(reader) not in self._behind:
            counts = (self._behind_on(edge) for edge in reader.edges)
            self._behind[_key(reader)] = max(counts, default=0)
        return self._behind[_key(reader)]

    def _behind_on(self, edge: Edge) -> int:
        if edge.source is None or edge.has(Effect.NORMALIZATION):
            return 0
        if isinstance(edge.source, Merge):
            return self._kernels_behind(edge.source)
        source = self._kernels[edge.source]
        return 0 if source.role in _BOUNDED else 1 + self._kernels_behind(source)

    def _kernels_ahead(self, source: KernelRecord | Merge) -> int:
        if _key(source) not in self._ahead:
            self._ahead[_key(source)] = max(self._counts_ahead(source), default=0)
        return self._ahead[_key(source)]

    def _counts_ahead(self, source: KernelRecord | Merge) -> Iterator[int]:
        for edge, reader in self._readers.get(_key(source), ()):
            if not edge.has(Effect.NORMALIZATION):
                is_kernel = isinstance(reader, KernelRecord)
                yield is_kernel + self._kernels_ahead(reader)


def _key(one: KernelRecord | Merge | int | None) -> int:
    """A kernel by its position, as edges name it; a merge by its id, below zero."""
    if isinstance(one, KernelRecord):
        return one.position
    return -id(one) if isinstance(one, Merge) else -1 if one is None else one


def _without_seed(initializer: Any) -> Any:
    config = initializer.get_config()
    if "seed" in config:
        config["seed"] = None
    return type(initializer).from_config(config)
