"""What layers of several kernels tell about each: its role, its heads, its steps."""

from __future__ import annotations

from typing import Any

import keras

from .._keras.kinds import kind_of, steps_of
from .._keras.private import all_layers, build_shapes


def heads(operation: Any, role: str) -> int:
    """How many heads of an attention layer a kernel in this role serves, 0 outside."""
    kind = kind_of(operation)
    if kind.heads is None or role not in kind.roles.values():
        return 0
    return kind.heads(operation, role)


def time_steps(operation: Any, cell: Any) -> int | None:
    """How many steps of its sequences a cell's layer was built for."""
    layers = all_layers(operation) if isinstance(operation, keras.Layer) else ()
    for layer in layers:
        inner = steps_of(layer) if kind_of(layer).is_loop else ()
        if any(cell in all_layers(one) for one in inner):
            shapes = build_shapes(layer)
            sequences = next(iter(shapes.values()), ())
            return sequences[1] if len(sequences) > 1 else None
    return None
