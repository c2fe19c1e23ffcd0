"""Tensors of any backend as NumPy arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a copy of a tensor or Keras variable as a NumPy array."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    return np.array(keras.ops.convert_to_numpy(tensor))
