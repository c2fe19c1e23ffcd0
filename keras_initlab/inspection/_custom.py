"""Which layers Keras knows from inside, and which their own code decides."""

from __future__ import annotations

from typing import Any

import keras

from .._keras.private import functional_of, has_nodes, is_of_keras


def is_opened(operation: Any) -> bool:
    """Whether an operation is a model whose graph Keras keeps."""
    if not isinstance(operation, keras.Model) or not is_of_keras(_giver(operation)):
        return False
    if isinstance(operation, keras.Sequential):
        return functional_of(operation) is not None
    return has_nodes(operation)


def is_custom(operation: Any) -> bool:
    """Whether an operation is a layer whose own code decides what happens inside."""
    if isinstance(operation, keras.layers.Lambda):
        return True
    if not isinstance(operation, keras.Layer) or is_opened(operation):
        return False
    return isinstance(operation, keras.Sequential) or not is_of_keras(_giver(operation))


def has_call(layer: Any) -> bool:
    """Whether a layer says what it does when it is called."""
    return _giver(layer) not in (keras.Layer, keras.Model)


def _giver(layer: Any) -> type:
    """The class that gives a layer its `call`."""
    return next(base for base in type(layer).__mro__ if "call" in vars(base))
