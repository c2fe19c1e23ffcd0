"""One call of one operation, as a model's graph is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._keras.kinds import Kernel


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation.

    Attributes:
        operation: the Keras layer or operation that is called. A shared layer has
            several calls. None for a learned signal, as a token or a table of places.
        inputs: indices of the calls whose output it reads; −1, −2, … are the model's
            first, second, … input.
        key: tells the call from all others by its place in the graph upstream alone,
            so that it outlives layers added elsewhere. Seeds rest on it.
        scope: names of the nested models around it, outermost first.
        kernels: those of a layer, or what a custom layer hands to a raw operation.
        arguments: for each input, the name of the layer's argument.
        shapes: for each input, its shape.
        is_output: whether the model returns what it returns.
    """

    operation: Any
    inputs: tuple[int, ...]
    key: int = 0
    scope: tuple[str, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    arguments: tuple[str, ...] = ()
    shapes: tuple[tuple[int | None, ...], ...] = ()
    is_output: bool = False
