"""Keras's truncated normal kernels, drawn by NumPy.

Most recommended kernels are `he_normal` or `lecun_normal`, and applying takes as long
as drawing them does. Keras's backends take two to three times as long as NumPy here,
and JAX compiles its draw for every shape: a ResNet50 takes 7 s there at first.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from .._keras.kinds import keras_fans, kind_of
from ..initializers import TRUNCATED_STD
from ..inspection import KernelRecord

PLAIN = (
    keras.initializers.HeNormal,
    keras.initializers.LecunNormal,
    keras.initializers.VarianceScaling,
)
_CUT = 2.0  # in units of the uncut std, as Keras has it
_BLOCK = 2**15  # numbers that stay in a processor's cache


def truncated_std(initializer: Any, kernel: KernelRecord) -> float | None:
    """Returns the std that a kernel gets, if it is for `truncated_normal` to draw.

    That is so for Keras's own initializers of that kind, of float32 kernels, whose
    fans are those of the shape.
    """
    if type(initializer) not in PLAIN or kernel.variable.dtype != "float32":
        return None
    # An `EinsumDense` tells them fans of its own.
    if kind_of(kernel.layer).hands_axes:
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
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        generator.standard_normal(out=part, dtype="float32")
        while (beyond := np.flatnonzero(np.abs(part) > _CUT)).size:
            part[beyond] = generator.standard_normal(beyond.size, "float32")
    values *= np.float32(std / TRUNCATED_STD)
    return values.reshape(shape)
