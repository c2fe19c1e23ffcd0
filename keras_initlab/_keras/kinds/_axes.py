"""What each axis of a kernel means, and the fans that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..._core.errors import message


class Fans(NamedTuple):
    """The fans of a kernel.

    Attributes:
        fan_in: how many products one output unit sums.
        fan_out: how many output units one input unit reaches.

    Example:
        >>> fan_in, fan_out = Fans(9, 9)
        >>> Fans(0.25, 4).at_least_one()
        Fans(fan_in=1.0, fan_out=4)
    """

    fan_in: float
    fan_out: float

    def at_least_one(self) -> Fans:
        """The fans to scale by: what reads less than one product reads one."""
        return Fans(max(1.0, self.fan_in), max(1.0, self.fan_out))


@dataclass(frozen=True)
class KernelAxes:
    """What each axis of a kernel means; an axis named nowhere is a batch axis.

    Attributes:
        inputs: axes that count input units.
        outputs: axes that count output units.
        window: axes of a convolution's window, which count on both sides.
        groups: how many blocks of outputs read a block of inputs each.
        stride: product of a convolution's strides: each input position is met by only
            one `stride`-th of the window. 1 elsewhere.
        upsampling: product of a transposed convolution's strides: each output position
            meets only one `upsampling`-th of the window. 1 elsewhere.
        gates: how many kernels of their own lie side by side on the last output axis.

    Example:
        >>> axes = KernelAxes(inputs=(2,), outputs=(3,), window=(0, 1))
        >>> axes.fans((3, 3, 16, 32))
        Fans(fan_in=144, fan_out=288)
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: tuple[int, ...] = ()
    groups: int = 1
    stride: int = 1
    upsampling: int = 1
    gates: int = 1

    def __post_init__(self) -> None:
        named = (*self.inputs, *self.outputs, *self.window)
        counts = (self.groups, self.stride, self.upsampling, self.gates)
        if len(set(named)) < len(named) or min(counts) < 1:
            rule = "`KernelAxes` must name an axis once, and count from 1."
            raise ValueError(message(rule, repr(self)))

    def fans(self, shape: Sequence[int]) -> Fans:
        """Returns the fans of a kernel of this `shape`."""
        window = math.prod(shape[axis] for axis in self.window)
        inputs = math.prod(shape[axis] for axis in self.inputs)
        outputs = math.prod(shape[axis] for axis in self.outputs)
        fan_in = window * inputs / self.upsampling
        fan_out = window * outputs / (self.groups * self.gates * self.stride)
        return Fans(_whole(fan_in), _whole(fan_out))

    def fits(self, rank: int) -> bool:
        """Whether a kernel of this rank has all these axes."""
        return max((*self.inputs, *self.outputs, *self.window), default=-1) < rank

    @property
    def input_axes(self) -> tuple[int, ...]:
        """The axes whose product is fan_in, as the initializers take them."""
        return tuple(sorted((*self.inputs, *self.window)))

    @property
    def output_axes(self) -> tuple[int, ...]:
        """The axes whose product is fan_out, as the initializers take them."""
        return tuple(sorted((*self.outputs, *self.window)))

    @property
    def blocks(self) -> int:
        """How many kernels lie side by side on the last output axis."""
        return self.groups * self.gates


def read_axes(
    rank: int,
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> KernelAxes:
    """Returns what the axes of a kernel mean when only its rank is known.

    Axes named on both sides are the window. Without names, Keras's layout holds:
    `(inputs, outputs)`, or `(*window, inputs, outputs)` for more than two axes.

    Args:
        rank: number of axes of the kernel.
        input_axes: axes whose product is fan_in; negative ones count from the end.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: if only one of the two is given, or an axis does not exist.
    """
    if (input_axes is None) != (output_axes is None):
        raise ValueError(
            message(
                "`input_axes` and `output_axes` must be given together.",
                f"input_axes={input_axes}, output_axes={output_axes}",
                "Leave out both for the layer's or Keras's layout.",
            )
        )
    if input_axes is None or output_axes is None:
        return keras_axes(rank)
    inputs, outputs = _positive(input_axes, rank), _positive(output_axes, rank)
    return KernelAxes(
        inputs=tuple(axis for axis in inputs if axis not in outputs),
        outputs=tuple(axis for axis in outputs if axis not in inputs),
        window=tuple(axis for axis in inputs if axis in outputs),
    )


def einsum_axes(subscripts: str, number: int) -> KernelAxes | None:
    """Returns the axes of one operand of an einsum, seen as a kernel for the others.

    None where they cannot be told: without an arrow, or behind dots.

    Args:
        subscripts: as `"abc,cd->abd"`.
        number: which operand it is, from 0.
    """
    operands, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or "." in terms[number]:
        return None
    others = "".join(terms[:number] + terms[number + 1 :])
    own = list(enumerate(terms[number]))
    return KernelAxes(
        inputs=tuple(axis for axis, label in own if label not in output),
        outputs=tuple(
            axis for axis, label in own if label in output and label not in others
        ),
    )


def keras_axes(rank: int) -> KernelAxes:
    """Returns what Keras takes the axes of a kernel of this rank for."""
    if rank < 2:
        return KernelAxes(inputs=(), outputs=(), window=tuple(range(rank)))
    return KernelAxes(
        inputs=(rank - 2,), outputs=(rank - 1,), window=tuple(range(rank - 2))
    )


def keras_fans(shape: Sequence[int]) -> Fans:
    """Returns the fans that Keras's own initializers compute from a shape."""
    return keras_axes(len(shape)).fans(shape)


def _positive(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(
            message(
                f"The axes of a kernel of rank {rank} must lie in "
                f"[{-rank}, {rank - 1}].",
                f"axes={tuple(axes)}",
            )
        )
    positive = tuple(axis % rank for axis in axes)
    if len(set(positive)) < len(positive):
        raise ValueError(
            message("An axis must be named once on each side.", f"axes={tuple(axes)}")
        )
    return positive


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
