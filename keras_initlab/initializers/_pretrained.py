"""New kernels beside pretrained ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._core.errors import check_finite, check_flag, check_positive, message
from .._keras.kinds import KernelAxes, check_built, kernels
from ._base import PACKAGE, LayoutInitializer


@keras.saving.register_keras_serializable(PACKAGE)
class MatchPretrained(LayoutInitializer):
    """A normal kernel with the scale of a pretrained one.

    N(mean, std²): what a new layer draws that is put beside trained ones, so that its
    weights start at their size. With `fan_in`, at what they make of a signal instead:
    a kernel that sums other than `fan_in` products is drawn √(fan_in/its own) times as
    large. `from_kernel` measures all that.

    Args:
        std: standard deviation, positive.
        mean: mean, finite.
        seed: see `LayoutInitializer`, as for the axes.
        fan_in: the fan_in at which a kernel has this std and mean; None for any.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> pretrained = np.random.default_rng(0).normal(0, 0.05, (64, 32))
        >>> head = keras.layers.Dense(
        ...     10, kernel_initializer=MatchPretrained.from_kernel(pretrained)
        ... )
        >>> round(head.kernel_initializer.std, 2)
        0.05
        >>> backbone = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256)])
        >>> matched = MatchPretrained.from_kernel(backbone.layers[0])
        >>> matched.fan_in  # as large again for 256 inputs: half of it
        64.0
    """

    def __init__(
        self,
        std: float,
        mean: float = 0.0,
        seed: Any = None,
        fan_in: float | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.std = check_positive("std", std, usual=0.05)
        self.mean = check_finite("mean", mean, usual=0.0)
        self.fan_in = None
        if fan_in is not None:
            self.fan_in = check_positive("fan_in", fan_in, usual=256)

    @classmethod
    def from_kernel(
        cls,
        kernel: Any,
        match_mean: bool = False,
        seed: Any = None,
        fan_in: float | None = None,
    ) -> MatchPretrained:
        """Returns the initializer that matches a kernel's scale.

        Args:
            kernel: an array, tensor or Keras variable of at least two weights, whose
                standard deviation is matched; or a built layer or model, of which the
                gain std·√fan_in on its true fans is, the median if it has several
                kernels. Embeddings, and kernels that do not vary, do not count.
            match_mean: whether to take over a single kernel's mean too; without, the
                mean is 0.
            seed: see `SeededInitializer`.
            fan_in: the fan_in of an array, to match its gain and not its std.

        Raises:
            UnbuiltModelError: if a layer or model has no weights yet.
            ValueError: if the kernel is no array of numbers, holds NaN or Inf, or
                does not vary; if a layer or model has no such kernel, the mean is to
                be matched of several, or a `fan_in` is given for a layer or model.
        """
        match_mean = check_flag("match_mean", match_mean)
        if isinstance(kernel, keras.Layer):
            if fan_in is not None:
                raise ValueError(
                    message(
                        "`fan_in` must be left out for a layer, which has its own.",
                        f"fan_in={fan_in!r} for {kernel.name!r}",
                        "Pass the layer's kernel to count by another fan_in.",
                    )
                )
            return cls._from_layer(kernel, match_mean, seed)
        values = _as_array(kernel)
        if not _varies(values):
            broken = np.count_nonzero(~np.isfinite(values))
            raise ValueError(
                message(
                    "`kernel` must hold finite weights that vary.",
                    f"kernel of shape {values.shape} with {broken} NaN or Inf"
                    + ("" if broken or not values.size else " and std 0"),
                )
            )
        mean = float(values.mean()) if match_mean else 0.0
        return cls(float(values.std()), mean, seed, fan_in)

    @classmethod
    def _from_layer(
        cls, layer: keras.Layer, match_mean: bool, seed: Any
    ) -> MatchPretrained:
        check_built("kernel", layer)
        found = [
            (values, kernel.fans.at_least_one().fan_in)
            for kernel in kernels(layer)
            if "embeddings" not in kernel.name
            and keras.backend.is_float_dtype(kernel.variable.dtype)
            and _varies(values := to_numpy(kernel.variable).astype("float64"))
        ]
        if not found or (match_mean and len(found) > 1):
            raise ValueError(
                message(
                    "`kernel` must be a layer with a kernel that varies, and with "
                    "only one if its mean is to be matched.",
                    f"kernel={layer.name!r} ({type(layer).__name__}) with "
                    f"{len(found)} of them",
                )
            )
        if len(found) > 1:
            gains = [float(v.std()) * math.sqrt(fan_in) for v, fan_in in found]
            return cls(float(np.median(gains)), 0.0, seed, 1.0)
        ((values, fan_in),) = found
        mean = float(values.mean()) if match_mean else 0.0
        return cls(float(values.std()), mean, seed, fan_in)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        factor = 1.0
        if self.fan_in is not None:
            own = axes.fans(shape).at_least_one().fan_in
            factor = math.sqrt(self.fan_in / own)
        drawn = self._normal(shape, dtype, factor * self.std)
        return factor * self.mean + drawn

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        config = {"std": self.std, "mean": self.mean, "fan_in": self.fan_in}
        return {**config, **super().get_config()}


def _varies(values: np.ndarray) -> bool:
    is_finite = bool(values.size) and bool(np.all(np.isfinite(values)))
    return is_finite and bool(values.std() > 0)


def _as_array(kernel: Any) -> np.ndarray:
    try:
        values = to_numpy(kernel)
        if np.iscomplexobj(values):
            raise TypeError("complex")
        return values.astype("float64")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            message("`kernel` must be an array of numbers.", f"kernel={kernel!r}")
        ) from error
