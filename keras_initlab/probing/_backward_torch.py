"""One forward and one backward pass on PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._keras.private import stands_for_another


class Backward:
    """A pass whose gradients are handed over as they are computed."""

    def __init__(self) -> None:
        self._begun: list[Any] = []

    def run(
        self, function: Callable[[list[Any]], Any], values: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        """Returns a loss and its gradients, as `_backward_jax`."""
        import torch  # pyright: ignore[reportMissingImports]

        # Not the parameters themselves, whose `.grad` would be filled.
        leaves = [value.detach().requires_grad_() for value in values]
        with torch.enable_grad():
            loss = function(leaves)
        wanted = [*leaves, *self._begun]
        if not (loss.requires_grad and wanted):
            return loss, [None] * len(leaves)
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        return loss, list(found[: len(leaves)])

    def numbers(self, value: Any) -> Any:
        """The tensor without what is needed to differentiate by it."""
        return value.detach()

    def is_readable(self, value: Any) -> bool:
        """Whether a tensor holds numbers: always, but inside `torch.func`."""
        return not stands_for_another(value)

    def tapped(self, value: Any, on_gradient: Callable[[Any], None]) -> Any:
        """The same tensor; the gradient with respect to it is handed over."""
        import torch  # pyright: ignore[reportMissingImports]

        if not torch.is_grad_enabled():
            return value
        if not value.requires_grad:  # nothing before it is differentiated
            value = value.detach().requires_grad_()
            self._begun.append(value)
        value.register_hook(on_gradient)
        return value
