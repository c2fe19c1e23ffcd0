"""Whether a model's graph is what runs."""

from __future__ import annotations

from typing import Any

import keras

from keras_initlab._core.errors import UnsupportedModelError, message
from keras_initlab._keras.private import all_layers, has_nodes, is_of_keras


def check_graph(model: Any) -> None:
    """Raises if the graph of a model, or of one inside, is not what runs."""
    parts = [part for part in all_layers(model) if isinstance(part, keras.Model)]
    graphs = [part for part in parts if part is model or _has_graph(part)]
    for part in graphs:
        owner = next(kind for kind in type(part).__mro__ if "call" in vars(kind))
        is_plain = _has_graph(part) and is_of_keras(owner)
        if not is_plain:
            raise UnsupportedModelError(
                message(
                    "`DormantUnitRecycler` needs the graph of a Sequential or "
                    "Functional model, to find what reads a unit.",
                    f"model={part.name!r} ({type(part).__name__}), which has a `call` "
                    "of its own",
                    "Build it from `keras.Input` with layers called on tensors.",
                )
            )


def _has_graph(model: Any) -> bool:
    return isinstance(model, keras.Sequential) or has_nodes(model)


def described(operation: Any) -> str:
    """An operation's name and kind, for messages."""
    return f"{operation.name!r} ({type(operation).__name__})"
