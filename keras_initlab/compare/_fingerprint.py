"""What makes a model the same one in another process."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras

from .._keras.private import all_layers, own_non_trainable, own_trainable

# Names count up from process to process; seeds and rates of a schedule's state do too.
_LEFT_OUT = ("name", "seed", "build_config", "registered_name")


def model_fingerprint(model: keras.Model) -> str:
    """Returns a digest of a compiled model: layers, shapes, loss and optimizer.

    Names and initializers do not count, nor does which layer reads which other.
    """
    layers = [
        (type(layer).__name__, _settings(layer), _shapes(layer))
        for layer in all_layers(model)
        if not isinstance(layer, keras.Model)
    ]
    parts = layers, _serialized(model.optimizer), _serialized(model.loss)
    text = json.dumps(parts, sort_keys=True, default=_named)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings(layer: Any) -> Any:
    try:
        return _plain(layer.get_config())
    except Exception:  # a custom layer without one
        return None


def _shapes(layer: Any) -> list[Any]:
    own = [*own_trainable(layer), *own_non_trainable(layer)]
    return [(tuple(v.shape), str(v.dtype), bool(v.trainable)) for v in own]


def _serialized(value: Any) -> Any:
    try:
        return _plain(keras.saving.serialize_keras_object(value))
    except Exception:  # a function of the user's own
        return _named(value)


def _plain(value: Any) -> Any:
    """Values without what differs between processes or runs."""
    if isinstance(value, dict):
        return {
            str(key): _plain(inner)
            for key, inner in value.items()
            if key not in _LEFT_OUT and not str(key).endswith("initializer")
        }
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _named(value: Any) -> str:
    """What tells an object from others without its address."""
    return getattr(value, "__qualname__", type(value).__qualname__)
