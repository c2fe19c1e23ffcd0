"""Which axes of what a kernel computes are its channels, and where the kernel has them.

A factor for each channel can be multiplied on the kernel instead of on its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._keras.kinds import Kernel


@dataclass(frozen=True)
class Channels:
    """The channels of a kernel's output.

    Attributes:
        in_output: the output's axes that count them.
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


def channels_of(kernel: Kernel) -> Channels:
    """The channels of a kernel of one of Keras's layers."""
    layer, axes = kernel.layer, kernel.axes
    if hasattr(layer, "equation"):
        return _einsum_channels(layer.equation)
    in_output = (-1,)
    if getattr(layer, "data_format", None) == "channels_first":
        in_output = (-1 - layer.rank,)
    if "embeddings" in kernel.name:
        return Channels(in_output, axes.outputs)
    summed = axes.input_axes  # a depthwise kernel has two axes that count channels
    rank = len(kernel.shape)
    return Channels(in_output, tuple(i for i in range(rank) if i not in summed))


def _einsum_channels(equation: str) -> Channels:
    operands, output = equation.replace(" ", "").split("->")
    weight = operands.split(",")[1]
    # What dots stand for is counted from their other end.
    labels = output.replace("...", "")
    start = -len(labels) if output.startswith("...") else 0
    kept = [axis for axis, label in enumerate(weight) if label in labels]
    places = tuple(start + labels.index(weight[axis]) for axis in kept)
    return Channels(places, tuple(kept))
