"""He's scale and its relatives: what depth and residual branches make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from .._activations import gain, resolve
from .._core.errors import (
    check_choice,
    check_count,
    check_flag,
    check_non_negative,
    check_positive,
)
from .._keras.kinds import KernelAxes
from ._base import PACKAGE, LayoutInitializer

_MODES = ("fan_avg", "fan_in", "fan_out")
_DISTRIBUTIONS = ("truncated_normal", "uniform", "untruncated_normal")
# std of a standard normal truncated at two standard deviations
TRUNCATED_STD = 0.87962566103423978


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
        std = self.std(*axes.fans(shape).at_least_one())
        return _sample(shape, std, self.distribution, dtype, self._stream())

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
class ResidualAware(LayoutInitializer):
    """He's scale, lowered on residual branches so that their sums stay bounded.

    N(0, g²·share/fan_in), where g² = 1/E[φ(z)²] is He's factor (2 for ReLU). Off the
    branches `share` is 1. On a branch it is 1/`branches`: a sum of that many branches
    adds at most one unit of variance to the signal. With `branches=None` it is 1/2,
    so that ReLU's branch draws N(0, 1/fan_in): right for a block or two, while N
    blocks let the variance grow as 1.5ᴺ.

    Args:
        residual: whether the kernel stands on a residual branch; only the last kernel
            of each branch need be told so.
        branches: number of residual branches whose outputs are summed, at least 1.
            Off the branches it may be given and does not count.
        activation: what the kernel's output meets.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range or an activation without a gain.

    Example:
        >>> round(ResidualAware().std(fan_in=100), 4)
        0.1
        >>> round(ResidualAware(branches=8).std(fan_in=100), 4)
        0.05

    References:
        Hanin and Rolnick 2018, "How to start training", 1803.01719, theorem 6, for
        the sum over branches.
    """

    def __init__(
        self,
        residual: bool = True,
        branches: int | None = None,
        activation: Any = "relu",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.residual = check_flag("residual", residual)
        self.branches = (
            None if branches is None else check_count("branches", branches, usual=8)
        )
        self.activation = _loaded(activation)
        self._gain = gain(self.activation)

    def std(self, fan_in: float) -> float:
        """Returns the standard deviation for this fan_in."""
        share = 1 / (self.branches or 2) if self.residual else 1.0
        return self._gain * math.sqrt(share / fan_in)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        fan_in, _ = axes.fans(shape).at_least_one()
        return self._normal(shape, dtype, self.std(fan_in))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "residual": self.residual,
            "branches": self.branches,
            "activation": _saved(self.activation),
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
        fan_in, _ = axes.fans(shape).at_least_one()
        return self._normal(shape, dtype, self.std(fan_in))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "index": self.index,
            "decay": self.decay,
            "activation": _saved(self.activation),
            **super().get_config(),
        }


def _sample(
    shape: tuple[int, ...], std: float, distribution: str, dtype: str, seed: Any
) -> Any:
    if distribution == "uniform":
        limit = math.sqrt(3) * std
        return keras.random.uniform(shape, -limit, limit, dtype, seed)
    if distribution == "truncated_normal":
        wider = std / TRUNCATED_STD
        return keras.random.truncated_normal(shape, 0.0, wider, dtype, seed)
    return keras.random.normal(shape, 0.0, std, dtype, seed)


def _loaded(activation: Any) -> Any:
    """The activation as given, or as restored from a config."""
    if isinstance(activation, dict) and "class_name" in activation:
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
