"""One forward and one backward pass on TensorFlow, eagerly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Backward:
    """A pass whose gradients are handed over as they are computed."""

    def __init__(self) -> None:
        self._tape: Any = None

    def run(
        self, function: Callable[[list[Any]], Any], values: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        """Returns a loss and its gradients, as `_backward_jax`."""
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(value) for value in values]
        with tf.GradientTape(watch_accessed_variables=False) as self._tape:
            self._tape.watch(tensors)
            loss = function(tensors)
        return loss, [_dense(g) for g in self._tape.gradient(loss, tensors)]

    def numbers(self, value: Any) -> Any:
        """The tensor without what is needed to differentiate by it."""
        return value

    def is_readable(self, value: Any) -> bool:
        """Whether a tensor holds numbers, and is no placeholder of a graph."""
        import tensorflow as tf

        return not tf.is_symbolic_tensor(value)

    def tapped(self, value: Any, on_gradient: Callable[[Any], None]) -> Any:
        """The same tensor; the gradient with respect to it is handed over."""
        import tensorflow as tf

        def backward(gradient: Any) -> Any:
            on_gradient(gradient)
            return gradient

        # Also where nothing before it is differentiated, as behind frozen layers.
        self._tape.watch(value)
        return tf.custom_gradient(lambda same: (tf.identity(same), backward))(value)


def _dense(gradient: Any) -> Any:
    import tensorflow as tf

    return None if gradient is None else tf.convert_to_tensor(gradient)
