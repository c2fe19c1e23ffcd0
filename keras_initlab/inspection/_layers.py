"""What layers of several kernels tell about each: its role, its heads, its steps."""

from __future__ import annotations

from typing import Any

import keras

from .._keras.kinds import kind_of
from .._keras.private import all_layers, build_shapes


def heads(operation: Any, role: str) -> int:
    """How many heads of an attention layer a kernel in this role serves, 0 outside."""
    if role not in kind_of(operation).roles.values():
        return 0
    names = ["num_heads", "num_query_heads"]
    if role in ("key", "value"):
        names.insert(0, "num_key_value_heads")
    return next((getattr(operation, n) for n in names if hasattr(operation, n)), 0)


def steps(operation: Any, cell: Any) -> int | None:
    """How many steps of its sequences a cell's layer was built for."""
    layers = all_layers(operation) if isinstance(operation, keras.Layer) else ()
    for layer in layers:
        if isinstance(layer, keras.layers.RNN) and cell in all_layers(layer.cell):
            shapes = build_shapes(layer)
            sequences = next(iter(shapes.values()), ())
            return sequences[1] if len(sequences) > 1 else None
    return None
