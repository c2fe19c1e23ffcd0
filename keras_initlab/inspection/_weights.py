"""What an operation does with a weight that a custom layer hands it itself."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

from .._keras.kinds import KernelAxes

_MATRIX = ("Matmul", "Dot")
_CONVOLUTIONS = ("Conv", "DepthwiseConv", "ConvTranspose")
_SHIFTS = ("Add", "Subtract")
_SCALES = ("Multiply", "Divide", "TrueDivide", "FloorDivide", "Power")
_TURNS = ("Transpose", "Swapaxes", "Moveaxis")


class Use(enum.Enum):
    """What a weight is to the signal that meets it."""

    KERNEL = "sums products of the signal with it"
    SIGNAL = "is a signal itself, as a learned token"
    SHIFT = "is added to each unit, as a bias"
    SCALE = "scales each unit"


@dataclass(frozen=True)
class Weight:
    """A tensor computed from weights alone.

    Attributes:
        variables: the weights.
        is_plain: whether it is the one weight as it is, but for its dtype.
        is_turned: whether it is the one weight with its last two axes exchanged.
    """

    variables: tuple[Any, ...]
    is_plain: bool = True
    is_turned: bool = False


def after(operation: Any, weights: list[Weight]) -> Weight:
    """What an operation on weights alone makes of them."""
    variables = tuple({id(v): v for one in weights for v in one.variables}.values())
    name = type(operation).__name__
    only = weights[0] if len(weights) == 1 else None
    if only is None or not only.is_plain:
        return Weight(variables, is_plain=False)
    if name in ("Cast", "ConvertToTensor", "StopGradient", "Identity"):
        return only
    is_matrix = len(variables[0].shape) == 2 and name in _TURNS
    return Weight(variables, is_plain=False, is_turned=is_matrix)


def use_of(operation: Any, weight: Weight) -> Use:
    """What an operation on a signal does with a weight beside it."""
    name = type(operation).__name__
    if name in _SCALES:
        return Use.SCALE
    if name in _SHIFTS:
        is_bias = all(math.prod(v.shape[:-1]) == 1 for v in weight.variables)
        return Use.SHIFT if is_bias else Use.SIGNAL
    is_product = name in (*_MATRIX, *_CONVOLUTIONS, "Tensordot", "Einsum", "Take")
    return Use.KERNEL if is_product else Use.SIGNAL


def axes_of(operation: Any, weight: Weight, number: int) -> KernelAxes | None:
    """The axes of a weight used as a kernel, None where they cannot be told.

    Args:
        operation: what multiplies it with a signal.
        weight: the weight.
        number: which of the operation's tensors it is.
    """
    if not (weight.is_plain or weight.is_turned):
        return None
    rank, name = len(weight.variables[0].shape), type(operation).__name__
    if name in _MATRIX and rank >= 2:
        is_last = (number == 1) != weight.is_turned
        ends = (rank - 2, rank - 1)
        inputs, outputs = ends if is_last else reversed(ends)
        return KernelAxes(inputs=(inputs,), outputs=(outputs,))
    if not weight.is_plain:
        return None
    if name == "Einsum":
        return _einsum_axes(operation.subscripts, number)
    if name == "Take":
        return KernelAxes(inputs=(), outputs=tuple(range(1, rank)))
    if name == "Conv":
        window = tuple(range(rank - 2))
        return KernelAxes(inputs=(rank - 2,), outputs=(rank - 1,), window=window)
    return None


def _einsum_axes(subscripts: str, number: int) -> KernelAxes | None:
    operands, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or "." in subscripts:
        return None
    others = "".join(terms[:number] + terms[number + 1 :])
    own = list(enumerate(terms[number]))
    return KernelAxes(
        inputs=tuple(axis for axis, label in own if label not in output),
        outputs=tuple(
            axis for axis, label in own if label in output and label not in others
        ),
    )
