"""Keras's truncated normal kernels, drawn where that is cheapest.

Most recommended kernels are `he_normal` or `lecun_normal`, and applying takes as long
as drawing them does. NumPy draws them faster than Keras's backends.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from .._fans import keras_fans
from ..inspection import KernelRecord

PLAIN = (
    keras.initializers.HeNormal,
    keras.initializers.LecunNormal,
    keras.initializers.VarianceScaling,
)
_CUT = 2.0  # in units of the uncut std, as Keras has it
_STD_LEFT = 0.87962566103423978  # of a standard normal cut there
_BLOCK = 2**15  # numbers that stay in a processor's cache


def truncated_std(initializer: Any, kernel: KernelRecord) -> float | None:
    """Returns the std that a kernel gets, if it is for `truncated_normal` to draw.

    That is so for Keras's own initializers of that kind, of float32 kernels, whose
    fans are those of the shape.
    """
    if type(initializer) not in PLAIN or kernel.variable.dtype != "float32":
        return None
    # An `EinsumDense` tells them fans of its own.
    if isinstance(kernel.layer, keras.layers.EinsumDense):
        return None
    if initializer.distribution != "truncated_normal":
        return None
    fan_in, fan_out = keras_fans(kernel.shape)
    mean = (fan_in + fan_out) / 2
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": mean}[initializer.mode]
    return math.sqrt(initializer.scale / max(1.0, fan))


def truncated_normal(shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    """Draws float32 numbers of this std from a normal distribution cut at two.

    Args:
        shape: of any rank.
        std: of the numbers that are returned, not of the distribution before it is cut.
        seed: the same seed gives the same numbers on every backend.
    """
    generator = np.random.Generator(np.random.SFC64(seed))
    values = np.empty(math.prod(shape), "float32")
    block = np.empty(min(_BLOCK, values.size), "float32")
    filled = 0
    while filled < values.size:
        generator.standard_normal(out=block, dtype="float32")
        kept = block[np.abs(block) <= _CUT][: values.size - filled]
        values[filled : filled + kept.size] = kept
        filled += kept.size
    values *= np.float32(std / _STD_LEFT)
    return values.reshape(shape)
