"""What is told of a model's kernels while the model runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from keras import ops

from ..kinds import Kernel, cell_product, part_of, variable_of
from ._channels import Channels


@dataclass(frozen=True, eq=False)
class Product:
    """What a kernel computes, before a bias or activation.

    Attributes:
        kernel: the kernel.
        output: what the operation returned that multiplies by it.
        channels: which axes of that are its channels.
        meets_bias: whether its bias, if it has one, is added to that next.
        read: the signal that it is multiplied by; None where that cannot be told.
    """

    kernel: Kernel
    output: Any
    channels: Channels
    meets_bias: bool
    read: Any = None


class Listener:
    """Hears what kernels compute, and hands it on as it is.

    Args:
        kernels: those that are listened to.
    """

    def __init__(self, kernels: Sequence[Kernel]):
        self._open = {id(kernel.variable): kernel for kernel in kernels}
        self._loops = 0
        self._is_in_cell = False

    def on_product(self, product: Product) -> Any:
        """What the model shall go on with in the place of a product."""
        return product.output

    def on_recurrent(self, layer: Any, name: str) -> None:
        """Is told of a cell's kernel for its state, which is not listened to."""

    def value(self, variable: Any) -> Any:
        """What the model runs with in a variable's place, in the variable's dtype."""
        return variable.value

    def kernel_of(self, operand: Any) -> Kernel | None:
        """The kernel, still listened to, whose variable is an operand, or None."""
        return self._open.get(id(operand))

    def kernel_with(self, operand: Any) -> Kernel | None:
        """The kernel, still listened to, whose very value is an operand, or None."""
        return None

    def is_open(self, layer: Any, name: str) -> bool:
        """Whether a kernel is still listened to."""
        return id(variable_of(layer, name)) in self._open

    def has_open(self, layer: Any) -> bool:
        """Whether some kernel in a layer is still listened to."""
        return any(id(variable) in self._open for variable in layer.variables)

    def heard(
        self, kernel: Kernel, output: Any, channels: Channels, read: Any = None
    ) -> Any:
        """What the model goes on with when a kernel has computed something."""
        meets_bias = kernel.is_known and not self._is_in_cell
        return self.on_product(Product(kernel, output, channels, meets_bias, read))

    def hear_cell(self, cell: Any, inputs: Any) -> None:
        """Hears a recurrent cell on inputs of all steps, `(batch·steps, …)`."""
        if part_of(cell, "kernel").role != "recurrent input":
            return
        if self.is_open(cell, "kernel"):
            self._is_in_cell = True
            try:
                kernel = variable_of(cell, "kernel")
                cell_product(cell, ops.cast(inputs, cell.compute_dtype), kernel)
            finally:
                self._is_in_cell = False
        self.on_recurrent(cell, "recurrent_kernel")

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
