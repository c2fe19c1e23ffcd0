"""What an operation does with a weight that a custom layer hands it itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._keras.kinds import KernelAxes, Use, kind_of

_TURNS = ("Transpose", "Swapaxes", "Moveaxis")
_PLAIN = ("Cast", "ConvertToTensor", "StopGradient", "Identity")


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
    if name in _PLAIN:
        return only
    is_matrix = len(variables[0].shape) == 2 and name in _TURNS
    return Weight(variables, is_plain=False, is_turned=is_matrix)


def use_of(operation: Any, weight: Weight) -> Use:
    """What an operation on a signal does with a weight beside it."""
    return kind_of(operation).use or Use.SIGNAL


def is_vector(weight: Weight) -> bool:
    """Whether a weight has values along its last axis alone."""
    return all(math.prod(v.shape[:-1]) == 1 for v in weight.variables)


def axes_of(operation: Any, weight: Weight, number: int) -> KernelAxes | None:
    """The axes of a weight used as a kernel, None where they cannot be told.

    Args:
        operation: what multiplies it with a signal.
        weight: the weight.
        number: which of the operation's tensors it is.
    """
    tell, rank = kind_of(operation).weight_axes, len(weight.variables[0].shape)
    if tell is None or not (weight.is_plain or weight.is_turned):
        return None
    axes = tell(operation, rank, number)
    if axes is None or weight.is_plain:
        return axes
    return KernelAxes(axes.outputs, axes.inputs) if _is_matrix(axes) else None


def _is_matrix(axes: KernelAxes) -> bool:
    return len(axes.inputs) == len(axes.outputs) == 1 and not axes.window
