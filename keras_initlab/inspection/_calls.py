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
        tensors: for each input, the symbolic tensor.
        use: what it uses its kernels for, where calls of its layer differ in that.
        taken: for each input, which of the outputs of the call that it is from.
        node: Keras's record of the call, None if there is none.
        is_output: whether the model returns what it returns.
    """

    operation: Any
    inputs: tuple[int, ...]
    key: int = 0
    scope: tuple[str, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    arguments: tuple[str, ...] = ()
    tensors: tuple[Any, ...] = ()
    taken: tuple[int, ...] = ()
    use: str = ""
    node: Any = None
    is_output: bool = False

    @property
    def shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """For each input, its shape."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)
