"""Where in a tensor the units of a layer lie, and how layers move them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_initlab._keras.kinds import Units, channel_axis, kind_of


@dataclass(frozen=True)
class UnitAxis:
    """The axis along which units lie.

    Attributes:
        number: −1 for the last axis, 1 for the first one after the batch.
        is_blocked: where a flattened axis holds each unit several times, whether these
            entries are neighbors, as in `(channels, height, width)`; else the units
            follow one another again and again, as in `(height, width, channels)`.

    Example:
        >>> UnitAxis(-1).entries(6, 2).tolist()
        [[0, 2, 4], [1, 3, 5]]
        >>> UnitAxis(-1, is_blocked=True).entries(6, 2).tolist()
        [[0, 1, 2], [3, 4, 5]]
    """

    number: int
    is_blocked: bool = False

    def entries(self, size: int, units: int) -> np.ndarray:
        """The indices `(units, copies)` of each unit on an axis of this size."""
        indices = np.arange(size)
        if self.is_blocked:
            return indices.reshape(units, -1)
        return indices.reshape(-1, units).T


def normalized_axis(layer: Any) -> int:
    """The axis of a built batch normalization, −1 if it is the last one."""
    last = layer.input_spec.ndim - 1
    return -1 if layer.axis in (-1, last) else layer.axis % (last + 1)


def after(operation: Any, axis: UnitAxis) -> UnitAxis | None:
    """Where units lie after an operation of Keras's; None if it may mix them."""
    units = kind_of(operation).units
    if units is Units.SAME:
        return axis
    if units is Units.FLAT:
        return _flattened(operation, axis)
    if units is None or channel_axis(operation) != axis.number:
        return None
    is_kept = units is Units.CHANNELS or getattr(operation, "keepdims", False)
    return axis if is_kept else UnitAxis(-1)


def _flattened(layer: Any, axis: UnitAxis) -> UnitAxis | None:
    if channel_axis(layer) == 1:  # it moves axis 1 to the end before it flattens
        return UnitAxis(-1) if axis.number == 1 else None
    return UnitAxis(-1, axis.is_blocked or axis.number == 1)
