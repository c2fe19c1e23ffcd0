"""Which axes of what a kernel computes are its channels, and where the kernel has them.

A factor for each channel can be multiplied on the kernel instead of on its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class Channels:
    """The channels of a kernel's output.

    Attributes:
        in_output: the output's axes that count them, from the end; none if not known.
        in_kernel: the kernel's axes that count them, in the same order.
    """

    in_output: tuple[int, ...]
    in_kernel: tuple[int, ...]

    def others(self, rank: int) -> tuple[int, ...]:
        """The axes of an output of this rank that count no channels."""
        own = [axis % rank for axis in self.in_output]
        return tuple(axis for axis in range(rank) if axis not in own)

    def on_kernel(self, factors: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Factors that multiply the output, as those that multiply the kernel.

        Args:
            factors: as many axes as the output; 1 long where it has no channels.
            shape: the kernel's shape.
        """
        if factors.size == 1:
            return factors.reshape(())
        own = [axis % factors.ndim for axis in self.in_output]
        by_channel = factors.reshape([factors.shape[axis] for axis in sorted(own)])
        by_channel = by_channel.transpose([sorted(own).index(axis) for axis in own])
        sizes = [n if i in self.in_kernel else 1 for i, n in enumerate(shape)]
        return by_channel.reshape(sizes)


@dataclass(frozen=True)
class Operands:
    """A kernel among the arguments of an operation.

    Attributes:
        arguments: all of them, in order.
        number: which of them is the kernel.
        rank: the kernel's.
        rank_of_output: the output's.
    """

    arguments: Sequence[Any]
    number: int
    rank: int
    rank_of_output: int

    def last(self, summed: Sequence[int]) -> Channels:
        """The kernel's axes that are not summed, as the last ones of the output."""
        kept = [axis for axis in range(self.rank) if axis not in summed]
        return Channels(tuple(range(-len(kept), 0)), tuple(kept))

    def first(self, summed: Sequence[int]) -> Channels:
        """The same, as the first ones of the output."""
        kept = [axis for axis in range(self.rank) if axis not in summed]
        places = (number - self.rank_of_output for number in range(len(kept)))
        return Channels(tuple(places), tuple(kept))


def _matmul(given: Operands) -> Channels:
    rank, is_right = given.rank, given.number == 1
    summed = max(rank - 2, 0) if is_right else rank - 1
    kept = tuple(axis for axis in range(rank) if axis != summed)
    # A vector has no axis in the output; what lies before a matrix keeps its place.
    return Channels(tuple(axis - rank for axis in kept), kept)


def _dot(given: Operands) -> Channels:
    if given.number == 1:
        return given.last([max(given.rank - 2, 0)])
    return given.first([given.rank - 1])


def _tensordot(given: Operands) -> Channels:
    axes, rank = given.arguments[2], given.rank
    if isinstance(axes, int):
        summed = range(axes) if given.number else range(rank - axes, rank)
    else:
        own = axes[given.number]
        summed = [axis % rank for axis in ([own] if isinstance(own, int) else own)]
    return given.last(summed) if given.number else given.first(summed)


def _einsum(given: Operands) -> Channels:
    operands, output = given.arguments[0].replace(" ", "").split("->")
    weight = operands.split(",")[given.number - 1]
    if "." in weight or len(set(weight)) < len(weight):
        return Channels((), ())  # which axes are its own cannot be told
    # What dots stand for is counted from their other end.
    labels = output.replace("...", "")
    start = 0 if output.endswith("...") else -len(labels)
    kept = [axis for axis, label in enumerate(weight) if label in labels]
    places = tuple(start + labels.index(weight[axis]) for axis in kept)
    return Channels(places, tuple(kept))


def _take(given: Operands) -> Channels | None:
    is_lookup = given.number == 0 and given.arguments[2:] == (0,)
    return given.last([0]) if is_lookup else None


def _conv(*from_end: int, number: int = 1) -> Callable[[Operands], Channels | None]:
    def channels(given: Operands) -> Channels | None:
        if given.number != number:
            return None
        kept = tuple(sorted(given.rank + axis for axis in from_end))
        layouts = ("channels_first", "channels_last")
        told = [one for one in given.arguments if isinstance(one, str)]
        layout = next((one for one in told if one in layouts), None)
        is_first = (layout or keras.config.image_data_format()) == layouts[0]
        return Channels((-1 - (given.rank - 2),) if is_first else (-1,), kept)

    return channels


# The operations that multiply a signal by a kernel, by the backend's module. None for
# an argument that is no kernel of theirs.
OPERATIONS: dict[str, dict[str, Callable[[Operands], Channels | None]]] = {
    "numpy": {
        "matmul": _matmul,
        "dot": _dot,
        "tensordot": _tensordot,
        "einsum": _einsum,
        "take": _take,
    },
    "nn": {
        "conv": _conv(-1),
        "depthwise_conv": _conv(-1, -2),
        "separable_conv": _conv(-1, number=2),
        "conv_transpose": _conv(-2),
    },
}
