"""Drawing one variable's values anew, from a seed and for its place in its layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._core.errors import message
from .._keras.kinds import Placement, kind_of, placed


def draw(
    initializer: Any, variable: Any, seed: int, layer: Any, axes: Any = None
) -> np.ndarray:
    """Returns values for a variable without writing them.

    Args:
        initializer: what draws: a Keras initializer or any function of shape and
            dtype. One that takes a seed gets `seed` in place of its own.
        variable: the variable to be filled.
        seed: the seed.
        layer: the layer that owns the variable.
        axes: the `KernelAxes` of a kernel, None for other variables.

    Raises:
        ValueError: if it draws NaN or Inf, or another shape.
    """
    shape = tuple(variable.shape)
    seeded = _seeded(initializer, seed, layer, axes)
    with placed(Placement(layer, axes, variable=variable)):
        values = to_numpy(seeded(shape, dtype=variable.dtype))
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad or values.shape != shape:
        raise ValueError(
            message(
                "An initializer must draw finite values of the variable's shape.",
                f"{bad} NaN or Inf and shape {values.shape} from "
                f"{_name(initializer)} for {variable.path!r} of shape {shape}",
            )
        )
    return values


def draw_bias(layer: Any, bias: Any, seed: int) -> np.ndarray:
    """Returns values for a layer's bias, by its own initializer."""
    own = getattr(layer, "bias_initializer", None) or keras.initializers.Zeros()
    values = draw(own, bias, seed, layer)
    if getattr(layer, "unit_forget_bias", False):  # as an LSTM's `build` does
        units = values.shape[-1] // 4
        values[..., units : 2 * units] = 1
    return values


def _seeded(initializer: Any, seed: int, layer: Any, axes: Any) -> Any:
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config:
        return initializer
    config = {**config, "seed": seed}
    if kind_of(layer).hands_axes and axes is not None:
        # Its `build` hands the axes over, too.
        told = {"input_axes": axes.input_axes, "output_axes": axes.output_axes}
        config |= {key: told[key] for key in told if config.get(key, 0) is None}
    return type(initializer).from_config(config)


def _name(initializer: Any) -> str:
    return getattr(initializer, "__name__", type(initializer).__name__)
