"""Leaving layers as they were, whatever ran them symbolically."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

try:
    from keras.src.backend.common import global_state as _global_state
except ImportError:  # a Keras that keeps it elsewhere: later names count on
    _global_state = None


@contextlib.contextmanager
def unchanged(layers: Sequence[Any]) -> Iterator[None]:
    """Takes back all that running these layers symbolically leaves behind."""
    metrics = [metric for layer in layers for metric in layer._metrics]
    owners = list({id(owner): owner for owner in (*layers, *metrics)}.values())
    attributes = [(vars(owner), dict(vars(owner))) for owner in owners]
    lists = [
        (found, len(found))
        for layer in layers
        for found in (layer._inbound_nodes, layer._outbound_nodes)
    ]
    names = _names()
    former = dict(names)
    try:
        yield
    finally:
        for current, before in attributes:
            current.clear()
            current.update(before)
        for found, length in lists:
            del found[length:]
        names.clear()
        names.update(former)


def _names() -> dict[str, int]:
    """How often Keras has given each automatic name."""
    if _global_state is None:
        return {}
    return _global_state.get_global_attribute("object_name_uids") or {}
