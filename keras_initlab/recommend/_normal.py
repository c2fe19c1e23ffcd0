"""Keras's normal kernels, drawn by NumPy.

Most recommended kernels are `he_normal`, `lecun_normal` or normal of a given std, and
applying takes as long as drawing them does. NumPy draws normal numbers faster than
TensorFlow, the same ones on every backend, and inverting the truncated distribution by
a table is faster still.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
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
_PLACE_BITS = 18  # of a number's 32 bits, that choose the place within a strip
_PLACES = 2**_PLACE_BITS
_STRIPS = 2 ** (32 - _PLACE_BITS)  # equally likely
_POOL = 1_048_573  # a prime, so that no two rows or columns of a kernel are the same

Draw = Callable[[tuple[int, ...], float, int], np.ndarray]


def quick_draw(initializer: Any, kernel: KernelRecord) -> tuple[Draw, float] | None:
    """Returns what draws a kernel and with which std; None if only Keras does.

    That is so for Keras's own normal initializers of float32 kernels.
    """
    if kernel.variable.dtype != "float32":
        return None
    if type(initializer) is keras.initializers.RandomNormal:
        return (normal, initializer.stddev) if initializer.mean == 0 else None
    std = _truncated_std(initializer, kernel)
    return None if std is None else (truncated_normal, std)


def _truncated_std(initializer: Any, kernel: KernelRecord) -> float | None:
    """The std of a truncated normal kernel whose fans are those of the shape."""
    if type(initializer) not in PLAIN:
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
    bits = np.random.SFC64(seed)
    lows, widths = _strips()
    values = np.empty(math.prod(shape), "float32")
    strip = np.empty(_BLOCK, np.intp)
    low, width, place = np.empty((3, _BLOCK), "float32")
    for start in range(0, values.size, _BLOCK):
        drawn = bits.random_raw(_BLOCK // 2).view("uint32")
        np.right_shift(drawn, np.uint32(_PLACE_BITS), out=strip, casting="unsafe")
        place[:] = np.bitwise_and(drawn, np.uint32(_PLACES - 1), out=drawn)
        np.take(lows, strip, out=low, mode="clip")
        np.take(widths, strip, out=width, mode="clip")
        low += np.multiply(width, place, out=width)
        part = values[start : start + _BLOCK]
        np.multiply(low[: part.size], np.float32(std / TRUNCATED_STD), out=part)
    return values.reshape(shape)


def normal(shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    """Draws float32 normal numbers; arguments as for `truncated_normal`."""
    generator = np.random.Generator(np.random.SFC64(seed))
    values = generator.standard_normal(shape, "float32")
    return np.multiply(values, np.float32(std), out=values)


def from_pool(shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    """Takes numbers for a run that only measures; arguments as for the others.

    They are the same ones each time, from another place on.
    """
    pool, size = _pool(), math.prod(shape)
    values = np.empty(size, "float32")
    done, place = 0, seed % _POOL
    while done < size:
        part = pool[place : place + size - done]
        np.multiply(part, np.float32(std), out=values[done : done + part.size])
        done, place = done + part.size, 0
    return values.reshape(shape)


@functools.cache
def _pool() -> np.ndarray:
    return truncated_normal((_POOL,), 1.0, seed=0)


@functools.cache
def _strips() -> tuple[np.ndarray, np.ndarray]:
    """Where each strip begins, and how far one place reaches in it.

    Within a strip the density is held constant. It changes by at most 0.22 % there,
    and the std of all numbers is right to seven digits.
    """
    points = np.linspace(-_CUT, _CUT, 4 * _STRIPS + 1)
    density = np.exp(-(points**2) / 2)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    shares = np.linspace(0.0, below[-1], _STRIPS + 1)
    edges = np.interp(shares, below, points)
    widths = np.diff(edges) / _PLACES
    # In the middle of its place, so that the mean is 0.
    return (edges[:-1] + widths / 2).astype("float32"), widths.astype("float32")
