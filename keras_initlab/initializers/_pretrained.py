"""New kernels beside pretrained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arrays import to_numpy
from .._errors import check_finite, check_flag, check_positive, message
from ._base import PACKAGE, SeededInitializer, checked_shape


@keras.saving.register_keras_serializable(PACKAGE)
class MatchPretrained(SeededInitializer, keras.initializers.RandomNormal):
    """A normal kernel with the scale of a pretrained one.

    N(mean, std²): what a new layer draws that is put beside trained ones, so that its
    weights start at their size. `from_kernel` measures the std.

    Args:
        std: standard deviation, positive.
        mean: mean, finite.
        seed: see `SeededInitializer`.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> pretrained = np.random.default_rng(0).normal(0, 0.05, (64, 32))
        >>> head = keras.layers.Dense(
        ...     10, kernel_initializer=MatchPretrained.from_kernel(pretrained)
        ... )
        >>> round(head.kernel_initializer.std, 2)
        0.05
    """

    def __init__(self, std: float, mean: float = 0.0, seed: Any = None):
        super().__init__(seed=seed)
        self.std = check_positive("std", std, usual=0.05)
        self.mean = check_finite("mean", mean, usual=0.0)

    @classmethod
    def from_kernel(
        cls, kernel: Any, match_mean: bool = False, seed: Any = None
    ) -> MatchPretrained:
        """Returns the initializer that matches a kernel's standard deviation.

        Args:
            kernel: an array, tensor or Keras variable of at least two weights.
            match_mean: whether to take over its mean too; without, the mean is 0.
            seed: see `SeededInitializer`.

        Raises:
            ValueError: if the kernel is no array of numbers, holds NaN or Inf, or
                does not vary.
        """
        values = _as_array(kernel)
        if not values.size or not np.all(np.isfinite(values)) or not values.std() > 0:
            raise ValueError(
                message(
                    "`kernel` must hold finite weights that vary.",
                    f"kernel of shape {values.shape} with "
                    f"{np.count_nonzero(~np.isfinite(values))} NaN or Inf"
                    + (f" and std {values.std():.3g}" if values.size else ""),
                )
            )
        mean = float(values.mean()) if check_flag("match_mean", match_mean) else 0.0
        return cls(float(values.std()), mean, seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a kernel of this shape, drawn in at least float32."""
        shape = checked_shape(shape)
        working, dtype = self._dtypes(dtype)
        return ops.cast(self.mean + self._normal(shape, working, self.std), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        seed = super().get_config()["seed"]
        return {"std": self.std, "mean": self.mean, "seed": seed}


def _as_array(kernel: Any) -> np.ndarray:
    try:
        return to_numpy(kernel).astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            message("`kernel` must be an array of numbers.", f"kernel={kernel!r}")
        ) from error
