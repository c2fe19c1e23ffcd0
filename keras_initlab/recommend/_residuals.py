"""Residual branches: what share of the stream's variance each of them adds.

N branches that each add 1/N of the variance at most double it, however many they are,
and the gradient of the stream grows by no more, as long as a branch hands back what it
was handed. One that starts with a normalization hands back more: attention and gated
units are products, whose gradients add up. There each adds 1/(2N). A branch that ends
in a normalization has its scale from there, and no kernel can change it. A stream that
starts below what a normalization's epsilon hides, as latents of std 0.02 before an
epsilon of 0.001, counts as if it started above: branches as small as it learn slowly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..inspection import Edge, Effect, Inspection, KernelRecord, Merge
from ._input_moments import InputMoments

_MANY = "Hanin and Rolnick 2018, 1803.01719, thm. 6; Fixup, 1901.09321, sec. 3"
_GPT = "Radford et al. 2019, GPT-2, sec. 2.3"
_T_FIXUP = "Huang et al. 2020, T-Fixup, sec. 3.2; Hanin and Rolnick 2018, thm. 6"
_DEEPNORM = "Wang et al. 2022, DeepNorm, 2203.00555, sec. 4"
_BEYOND = 100.0  # times a normalization's epsilon: there it counts for a hundredth
_ATTENTION = ("query", "key", "value", "qkv", "attention output")


@dataclass(frozen=True)
class Share:
    """What a residual branch adds to its stream.

    Attributes:
        variance: of its last kernel's output.
        reason: why.
        reference: the paper it rests on.
    """

    variance: float
    reason: str
    reference: str


class Residuals:
    """Finds for every kernel that closes a residual branch what it may add."""

    def __init__(self, inspection: Inspection, input_moments: InputMoments):
        self._inspection = inspection
        self._input_moments = input_moments
        self._origins: dict[int, float] = {}
        self._readers: dict[int, list[Merge]] = {}
        for merge in inspection.merges:
            for edge in merge.edges:
                self._readers.setdefault(id(edge.source), []).append(merge)
        self._has_attention = any(k.role in _ATTENTION for k in inspection.kernels)
        edges = [
            edge
            for reader in (*inspection.kernels, *inspection.merges)
            for edge in reader.edges
            if edge.has(Effect.NORMALIZATION)
        ]
        self._is_normalized = bool(edges)
        # Of less, an epsilon is a part of what a normalization divides by, so that it
        # hands on how small that is.
        epsilons = (
            getattr(transform.operation, "epsilon", None) or 0.0
            for edge in edges
            for transform in edge.transforms
            if isinstance(edge.source, Merge) and edge.source.effect is Effect.ADD
        )
        self._least_origin = _BEYOND * max(epsilons, default=0.0)

    def share(self, kernel: KernelRecord) -> Share | None:
        """Returns the share of a kernel's branch; None if it closes none by itself."""
        count = kernel.branches
        if not count or kernel.normalization:
            return None
        merge = self._sum_of(kernel)
        origin = self._origin(merge) if merge else 1.0
        if merge and self._is_post_normalized(merge):
            relative = (0.5 * count**-0.75) ** 2
            reason = (
                f"closes 1 of {count} residual branches, normalized after their sum: "
                f"std 1/(2·{count}^¾) of the stream's, as DeepNorm scales it"
            )
            return Share(relative * origin, reason, _DEEPNORM)
        parts = count * (2 if self._is_normalized else 1)
        return Share(
            origin / parts,
            f"closes 1 of {count} residual branches: 1/{parts} of the stream's "
            "variance each keeps their sum bounded",
            self._reference(),
        )

    def _reference(self) -> str:
        if not self._is_normalized:
            return _T_FIXUP if self._has_attention else _MANY
        return _GPT if self._has_attention else _MANY

    def _sum_of(self, kernel: KernelRecord) -> Merge | None:
        """The addition that a kernel's branch ends in."""
        waiting = [
            reader
            for reader in self._inspection.readers[kernel.position]
            if isinstance(reader, Merge)
        ]
        while waiting:
            merge = waiting.pop(0)
            if merge.effect is Effect.ADD:
                return merge
            waiting += self._readers.get(id(merge), [])
        return None

    def _origin(self, merge: Merge) -> float:
        """The mean square of the stream that a sum adds to, before its first branch."""
        if id(merge) not in self._origins:
            edges = [edge for edge in merge.edges if not self._is_branch(edge)]
            moments = [self._origin_of(edge) for edge in edges]
            largest = max(moments, default=1.0) or 1.0
            self._origins[id(merge)] = max(largest, self._least_origin)
        return self._origins[id(merge)]

    def _origin_of(self, edge: Edge) -> float:
        source = edge.source
        is_plain = not edge.has(Effect.NORMALIZATION)
        if isinstance(source, Merge) and is_plain and self._is_residual(source):
            return self._origin(source)
        return self._input_moments.on_edge(edge).moment

    def _is_residual(self, merge: Merge) -> bool:
        return merge.effect is Effect.ADD and any(map(self._is_branch, merge.edges))

    def _is_branch(self, edge: Edge) -> bool:
        """Whether a kernel that closes a branch is the source of an edge."""
        return any(kernel.branches for kernel in self._starts(edge))

    def _starts(self, edge: Edge) -> Iterator[KernelRecord]:
        if isinstance(edge.source, int):
            yield self._inspection.kernels[edge.source]
        elif isinstance(edge.source, Merge) and edge.source.effect is not Effect.ADD:
            for inner in edge.source.edges:
                yield from self._starts(inner)

    def _is_post_normalized(self, merge: Merge) -> bool:
        """Whether the stream is normalized between one sum and the next."""
        after = self._readers.get(id(merge), [])
        return any(map(_is_normalized_sum, merge.edges)) or any(
            edge.source is merge and _is_normalized_sum(edge)
            for reader in after
            if reader.effect is Effect.ADD
            for edge in reader.edges
        )


def _is_normalized_sum(edge: Edge) -> bool:
    is_sum = isinstance(edge.source, Merge) and edge.source.effect is Effect.ADD
    return is_sum and edge.has(Effect.NORMALIZATION)
