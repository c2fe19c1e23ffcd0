"""What all initializers here share: a layout, a seed, a working precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .. import _seeds
from .._fans import KernelAxes, read_axes

PACKAGE = "keras_initlab"


class LayoutInitializer(keras.initializers.VarianceScaling):
    """Base of the initializers that ask which axes of a kernel are inputs.

    Args:
        seed: an int (the same values at every call with one shape), a
            `keras.random.SeedGenerator` (new values at every call), or None for a
            random int kept for the initializer's life.
        input_axes: the axes of the kernel whose product is fan_in. None for Keras's
            layout, `(inputs, outputs)` or `(*window, inputs, outputs)`.
        output_axes: the axes whose product is fan_out. An axis named on both sides is
            a convolution's window, one named on neither a batch axis: each of its
            indices gets a kernel of its own.
    """

    # `EinsumDense`, and so `MultiHeadAttention`, tells the axes of its kernel only to
    # subclasses of `VarianceScaling`. That is all this base is for: the scale, mode
    # and distribution it brings are not used unless a subclass says so.

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed=seed)
        self.input_axes = None if input_axes is None else tuple(input_axes)
        self.output_axes = None if output_axes is None else tuple(output_axes)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a kernel of this shape, drawn in at least float32."""
        shape = tuple(shape)
        dtype = keras.utils.standardize_dtype(dtype or keras.config.floatx())
        working = dtype if dtype == "float64" else "float32"
        axes = read_axes(len(shape), self.input_axes, self.output_axes)
        if 0 in shape:
            return ops.zeros(shape, dtype)
        return ops.cast(self._draw(shape, axes, working), dtype)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not draw anything.")

    def _normal(self, shape: Sequence[int], dtype: str, std: float = 1.0) -> Any:
        return keras.random.normal(shape, stddev=std, dtype=dtype, seed=self.seed)

    def _streams(self, count: int) -> list[Any]:
        """Seeds for `count` independent draws within one call."""
        if isinstance(self.seed, int):
            return [_seeds.derive(self.seed, draw) for draw in range(count)]
        return [self.seed] * count  # a generator advances by itself

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "seed": super().get_config()["seed"],
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={value['class_name'] if isinstance(value, dict) else repr(value)}"
            for name, value in self.get_config().items()
            if value is not None
        )
        return f"{type(self).__name__}({arguments})"
