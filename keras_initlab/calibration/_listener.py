"""What is told of a model's kernels while the model runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from .._keras.kinds import Kernel, variable_of


class Listener:
    """Hears what kernels compute, and hands it on as it is.

    Args:
        kernels: those that are listened to.
    """

    def __init__(self, kernels: Sequence[Kernel]):
        self._open = {id(kernel.variable): kernel for kernel in kernels}
        self._loops = 0

    def fitted(self, layer: Any, name: str, output: Any, has_bias: bool = True) -> Any:
        """What a layer's kernel computes, as the model shall go on with it.

        Args:
            layer: the layer that is running.
            name: its name of the kernel.
            output: what the kernel computes.
            has_bias: whether the layer's bias, if it has one, is in that.
        """
        return output

    def refitted(
        self, layer: Any, name: str, hear: Callable[[], tuple[Any, Any]]
    ) -> Any:
        """What a layer returns that must run once more to go on with a new kernel.

        Args:
            layer: the layer that is running.
            name: its name of the kernel.
            hear: runs its `call`; gives what that returns and what the kernel
                computes, None if that was not heard.
        """
        output, value = hear()
        if value is not None:
            self.fitted(layer, name, value)
        return output

    def leave(self, layer: Any, name: str, note: str) -> None:
        """Is told that a kernel is left as it is, and why."""

    def keep(self, layer: Any, name: str, note: str) -> None:
        """Is told that a kernel is not listened to, and why."""

    def value(self, variable: Any) -> Any:
        """What the model runs with in a variable's place, in the variable's dtype."""
        return variable.value

    def is_open(self, layer: Any, name: str) -> bool:
        """Whether a kernel is still listened to."""
        return id(variable_of(layer, name)) in self._open

    def has_open(self, layer: Any) -> bool:
        """Whether some kernel in a layer is still listened to."""
        return any(id(variable) in self._open for variable in layer.variables)

    def rehearsal(self) -> AbstractContextManager[Any]:
        """Has what is computed in the block change nothing but kernels."""
        return contextlib.nullcontext()

    @property
    def is_in_loop(self) -> bool:
        """Whether a loop over time is running."""
        return self._loops > 0

    @contextlib.contextmanager
    def loop(self) -> Iterator[None]:
        """Has kernels that run within the block left alone."""
        self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1
