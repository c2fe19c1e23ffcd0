"""Normal and uniform kernels whose scale follows from fans and depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._activations import gain, resolve
from .._errors import check_choice, check_count, check_non_negative, check_positive
from .._fans import Fans, KernelAxes
from ._base import PACKAGE, LayoutInitializer

_MODES = ("fan_avg", "fan_in", "fan_out")
_DISTRIBUTIONS = ("truncated_normal", "uniform", "untruncated_normal")
# std of a standard normal truncated at two standard deviations
_TRUNCATED_STD = 0.87962566103423978


@keras.saving.register_keras_serializable(PACKAGE)
class AdaptiveHe(LayoutInitializer):
    """He's scale, damped with depth.

    std = gain(activation) / √fan / √(1 + decay·depth), which for ReLU and decay 0.1 is
    √(2/fan_in) / √(1 + 0.1·depth). With `decay=0` it is He's initialization for any
    activation. The damping makes deep signals shrink, on purpose: it suits networks
    whose residual connections or normalization carry the signal past the kernel.

    Args:
        depth: number of the layer, counted from 1 for the first; 0 for no damping.
        activation: what the kernel's output meets: a name, a callable or an
            activation layer. A leaky ReLU's slope lowers the gain.
        decay: damping per layer, not negative.
        mode: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"untruncated_normal"`, `"truncated_normal"` or `"uniform"`, all
            with the std above.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range or an activation without a gain.

    Example:
        >>> layer = keras.layers.Dense(
        ...     64, activation="relu", kernel_initializer=AdaptiveHe(depth=3, seed=0)
        ... )
        >>> layer(keras.ops.ones((8, 32))).shape == (8, 64)
        True

    References:
        He et al. 2015, "Delving deep into rectifiers", 1502.01852, equation 10, for
        the scale at depth 0.
    """

    def __init__(
        self,
        depth: int = 1,
        activation: Any = "relu",
        decay: float = 0.1,
        mode: str = "fan_in",
        distribution: str = "untruncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.depth = check_count("depth", depth, usual=1, least=0)
        self.decay = check_non_negative("decay", decay, usual=0.1)
        self.mode = check_choice("mode", mode, _MODES)
        self.distribution = check_choice("distribution", distribution, _DISTRIBUTIONS)
        self.activation = _loaded(activation)
        self._gain = gain(self.activation)

    def std(self, fan_in: float, fan_out: float) -> float:
        """Returns the standard deviation for these fans."""
        fan = {
            "fan_in": fan_in,
            "fan_out": fan_out,
            "fan_avg": (fan_in + fan_out) / 2,
        }[self.mode]
        return self._gain / math.sqrt(fan * (1 + self.decay * self.depth))

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        std = self.std(*_at_least_one(axes.fans(shape)))
        return _sample(shape, std, self.distribution, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "depth": self.depth,
            "activation": _saved(self.activation),
            "decay": self.decay,
            "mode": self.mode,
            "distribution": self.distribution,
            **super().get_config(),
        }


@keras.saving.register_keras_serializable(PACKAGE)
class LayerSequential(LayoutInitializer):
    """He's or LeCun's scale, shrunk by a constant factor per layer.

    N(0, std²) with std = √(2/fan_in)·decay^(index − 1) for ReLU and
    √(1/fan_in)·decay^(index − 1) for every other activation.

    Args:
        index: number of the layer, from 1.
        decay: factor per layer, positive; 1 for none.
        activation: what the kernel's output meets.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> LayerSequential(index=2, activation="tanh", seed=0)((4, 3)).shape == (4, 3)
        True
    """

    def __init__(
        self,
        index: int = 1,
        decay: float = 0.95,
        activation: Any = "relu",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.index = check_count("index", index, usual=1)
        self.decay = check_positive("decay", decay, usual=0.95)
        self.activation = _loaded(activation)
        self._scale = 2.0 if resolve(self.activation)[0] == "relu" else 1.0

    def std(self, fan_in: float) -> float:
        """Returns the standard deviation for this fan_in."""
        return math.sqrt(self._scale / fan_in) * self.decay ** (self.index - 1)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        fan_in, _ = _at_least_one(axes.fans(shape))
        return self._normal(shape, dtype, self.std(fan_in))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "index": self.index,
            "decay": self.decay,
            "activation": _saved(self.activation),
            **super().get_config(),
        }


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
        std = self.std(*_at_least_one(axes.fans(shape)))
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
        limit = self.limit(*_at_least_one(axes.fans(shape)))
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


def _sample(
    shape: tuple[int, ...], std: float, distribution: str, dtype: str, seed: Any
) -> Any:
    if distribution == "uniform":
        limit = math.sqrt(3) * std
        return keras.random.uniform(shape, -limit, limit, dtype, seed)
    if distribution == "truncated_normal":
        wider = std / _TRUNCATED_STD
        return keras.random.truncated_normal(shape, 0.0, wider, dtype, seed)
    return keras.random.normal(shape, 0.0, std, dtype, seed)


def _at_least_one(fans: Fans) -> Fans:
    return Fans(max(1.0, fans.fan_in), max(1.0, fans.fan_out))


def _loaded(activation: Any) -> Any:
    """The activation as given, or as restored from a config."""
    if isinstance(activation, dict):
        restored = keras.saving.deserialize_keras_object(activation)
        return restored if callable(restored) else keras.activations.get(activation)
    resolve(activation)  # raises for what is no activation
    if callable(activation):
        return activation
    return keras.activations.get(activation)


def _saved(activation: Any) -> Any:
    if isinstance(activation, keras.Layer):
        return keras.saving.serialize_keras_object(activation)
    return keras.activations.serialize(activation)
