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
    seeded = _seeded(initializer, seed, layer, axes, len(shape))
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


def _seeded(initializer: Any, seed: int, layer: Any, axes: Any, rank: int) -> Any:
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config:
        return initializer
    axes = handed_axes(layer, axes, rank, config)
    return type(initializer).from_config({**config, "seed": seed, **axes})


def handed_axes(
    layer: Any, axes: Any, rank: int, config: dict[str, Any]
) -> dict[str, Any]:
    """The axes that a layer's `build` adds to the config of its initializer."""
    is_open = "input_axes" in config and config["input_axes"] is None
    if axes is None or not is_open or not kind_of(layer).hands_axes:
        return {}
    others = tuple(axis for axis in range(rank) if axis not in axes.inputs)
    return {"input_axes": axes.inputs, "output_axes": others}


def _name(initializer: Any) -> str:
    return getattr(initializer, "__name__", type(initializer).__name__)
