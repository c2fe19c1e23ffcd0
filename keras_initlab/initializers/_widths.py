"""Kernels whose scale follows from both widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._core.errors import check_non_negative, check_positive
from .._keras.kinds import KernelAxes
from ._base import PACKAGE, LayoutInitializer


@keras.saving.register_keras_serializable(PACKAGE)
class WidthAware(LayoutInitializer):
    """A normal kernel whose scale depends on how the width changes.

    N(0, std²) with std = target_std·√(fan_out/(fan_in + fan_out))/√fan_in: LeCun's
    scale where the layer widens strongly, 1/√2 of it at constant width, less where the
    layer narrows.

    Args:
        target_std: factor on the std, positive.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: if `target_std` is not a positive, finite number.

    Example:
        >>> round(WidthAware().std(fan_in=100, fan_out=100), 4)
        0.0707
    """

    def __init__(
        self,
        target_std: float = 1.0,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.target_std = check_positive("target_std", target_std, usual=1.0)

    def std(self, fan_in: float, fan_out: float) -> float:
        """Returns the standard deviation for these fans."""
        return self.target_std * math.sqrt(fan_out / (fan_in + fan_out) / fan_in)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        std = self.std(*axes.fans(shape).at_least_one())
        return self._normal(shape, dtype, std)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {"target_std": self.target_std, **super().get_config()}


@keras.saving.register_keras_serializable(PACKAGE)
class ScaledNoise(LayoutInitializer):
    """Glorot's uniform kernel, rescaled, plus a little Gaussian noise.

    U(−l, l) with l = √(6/((fan_in + fan_out)·scale)), plus N(0, noise_std²). The
    variance is 2/((fan_in + fan_out)·scale) + noise_std²: note that a larger `scale`
    makes the kernel smaller.

    Args:
        scale: divides the variance of the uniform part, positive.
        noise_std: std of the noise, not negative; 0 for none.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> layer = keras.layers.Dense(16, kernel_initializer=ScaledNoise(seed=0))
        >>> layer(keras.ops.ones((2, 8))).shape == (2, 16)
        True

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep
        feedforward neural networks", equation 16, for the uniform part.
    """

    def __init__(
        self,
        scale: float = 1.0,
        noise_std: float = 0.01,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.scale = check_positive("scale", scale, usual=1.0)
        self.noise_std = check_non_negative("noise_std", noise_std, usual=0.01)

    def limit(self, fan_in: float, fan_out: float) -> float:
        """Returns the largest magnitude of the uniform part for these fans."""
        return math.sqrt(6 / ((fan_in + fan_out) * self.scale))

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        limit = self.limit(*axes.fans(shape).at_least_one())
        uniform_seed, noise_seed = self._streams(2)
        uniform = keras.random.uniform(shape, -limit, limit, dtype, uniform_seed)
        noise = keras.random.normal(shape, 0.0, self.noise_std, dtype, noise_seed)
        return ops.add(uniform, noise)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "scale": self.scale,
            "noise_std": self.noise_std,
            **super().get_config(),
        }
