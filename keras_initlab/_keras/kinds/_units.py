"""Along which axis of a tensor the units of an operation lie."""

from __future__ import annotations

from typing import Any

import keras

from ..private import all_layers, inbound_nodes
from ._records import own_kernels


def channel_axis(operation: Any) -> int:
    """The axis along which an operation's units lie: −1, or 1 for channels first.

    An operation that keeps the shape, as an activation does, has that of what it reads.
    """
    while not hasattr(operation, "data_format"):
        source = _unchanged_source(operation)
        if source is None:
            return -1
        operation = source
    layout = operation.data_format or keras.config.image_data_format()
    return 1 if layout == "channels_first" else -1


def _unchanged_source(operation: Any) -> Any:
    """The operation whose units this one hands on, None if they are its own."""
    nodes = inbound_nodes(operation)
    if len(nodes) != 1 or len(nodes[0].parent_nodes) != 1:
        return None
    node, (parent,) = nodes[0], nodes[0].parent_nodes
    has_own = any(own_kernels(part) for part in all_layers(operation))
    shapes = {tuple(one.shape) for one in (*node.input_tensors, *node.outputs)}
    return None if has_own or len(shapes) > 1 else parent.operation
