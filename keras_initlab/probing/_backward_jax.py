"""One forward and one backward pass on JAX, operation by operation.

`jax.vjp` without a `jax.jit` around it runs the rule of a `jax.custom_vjp` in Python
when the gradient is computed, with its numbers; no output need be kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._keras.private import trace_of


class Backward:
    """A pass whose gradients are handed over as they are computed."""

    def __init__(self) -> None:
        self._anchor: Any = None
        self._traces: set[int] = set()

    def run(
        self, function: Callable[[list[Any]], Any], values: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        """Returns what `function` makes of the values: a loss, and its gradients.

        Args:
            function: of a list of tensors to a scalar.
            values: what to differentiate by; None stands in the result for what the
                loss does not depend on.
        """
        import jax  # pyright: ignore[reportMissingImports]
        from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

        def differentiated(values: list[Any], anchor: Any) -> Any:
            self._anchor, self._traces = anchor, _traces((values, anchor))
            return function(values)

        arrays = [jnp.asarray(value) for value in values]
        loss, pull_back = jax.vjp(differentiated, arrays, jnp.zeros(()))
        gradients, _ = pull_back(jnp.ones_like(loss))
        return loss, gradients

    def numbers(self, value: Any) -> Any:
        """The tensor without what is needed to differentiate by it."""
        import jax  # pyright: ignore[reportMissingImports]

        return jax.lax.stop_gradient(value)

    def is_readable(self, value: Any) -> bool:
        """Whether a value may leave the pass: not one from inside a loop or `jit`."""
        return _traces(value) <= self._traces

    def tapped(self, value: Any, on_gradient: Callable[[Any], None]) -> Any:
        """The same tensor; the gradient with respect to it is handed over."""
        import jax  # pyright: ignore[reportMissingImports]
        from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

        def backward(_: None, gradient: Any) -> tuple[Any, Any]:
            on_gradient(gradient)
            return gradient, jnp.zeros(())

        # The anchor is differentiated by, where nothing before the tensor is.
        same = jax.custom_vjp(lambda value, anchor: value)
        same.defvjp(lambda value, anchor: (value, None), backward)
        return same(value, self._anchor)


def _traces(tree: Any) -> set[int]:
    import jax  # pyright: ignore[reportMissingImports]
    from jax.core import Tracer  # pyright: ignore[reportMissingImports]

    return {
        id(trace_of(leaf)) for leaf in jax.tree.leaves(tree) if isinstance(leaf, Tracer)
    }
