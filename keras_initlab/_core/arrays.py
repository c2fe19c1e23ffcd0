"""Tensors of any backend as NumPy arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a copy of a tensor or Keras variable as a NumPy array."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    values = np.asarray(keras.ops.convert_to_numpy(tensor))
    # Keras copies already, but on PyTorch.
    return values if values.flags.owndata and not _is_torch() else values.copy()


def as_numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor's or Keras variable's values to be read, not written.

    Where they lie in the host's memory, they are not copied.
    """
    if isinstance(tensor, keras.Variable):
        tensor = as_tensor(tensor)  # TensorFlow copies variables
    if _is_torch():
        return np.asarray(keras.ops.convert_to_numpy(tensor))
    return np.asarray(tensor)


def as_tensor(variable: keras.Variable) -> Any:
    """Returns a variable's value as a tensor without gradient, not copied."""
    value: Any = variable.value
    # TensorFlow's own way to read a variable takes half the time of `stop_gradient`.
    read = getattr(value, "value", None)
    return keras.ops.stop_gradient(value) if read is None else read()


def kept(variable: keras.Variable) -> np.ndarray:
    """Returns a variable's values as they are now, to be read whenever."""
    # PyTorch writes new values where the old ones were, the others beside them.
    return to_numpy(variable) if _is_torch() else as_numpy(variable)


def is_on_host(tensor: Any) -> bool:
    """Whether `as_numpy` need not copy a tensor from another device."""
    return "cpu" in str(tensor.device).lower()


def _is_torch() -> bool:
    return keras.backend.backend() == "torch"
