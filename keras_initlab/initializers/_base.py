"""What all initializers here share: a layout, a seed, a working precision."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._core import seeds as _seeds
from .._core.errors import message
from .._keras.kinds import KernelAxes, Placement, kind_of, placement, read_axes

PACKAGE = "keras_initlab"


class SeededInitializer(keras.initializers.Initializer):
    """Base of the initializers that draw.

    Args:
        seed: an int in [0, 2³²) (the same values at every call with one shape), a
            `keras.random.SeedGenerator` (new values at every call), or None for a
            random int kept for the initializer's life. Within one layer that holds
            several kernels (attention, both directions of a recurrent layer) each
            kernel gets a seed of its own, derived from this one.
    """

    seed: Any

    def __init__(self, seed: Any = None):
        super().__init__(seed=checked_seed(seed))

    def _stream(self) -> Any:
        """The seed for one draw at the place that is being drawn for."""
        place = placement()
        if place is None or place.is_first:
            return self.seed
        if isinstance(self.seed, int):
            return _seeds.derive(self.seed, *place.position)
        return self._generator_at(place)

    def _streams(self, count: int) -> list[Any]:
        """Seeds for `count` independent draws within one call."""
        seed = self._stream()
        if isinstance(seed, int):
            return [_seeds.derive(seed, draw) for draw in range(count)]
        return [seed] * count  # a generator advances by itself

    def _generator_at(self, place: Placement) -> Any:
        # Copies of one generator (attention rebuilds its initializers from their
        # config) all start at the same state.
        generators = self.__dict__.setdefault("_generators", {})
        if place.position not in generators:
            start = self.seed.get_config()["seed"] or 0
            generators[place.position] = keras.random.SeedGenerator(
                _seeds.derive(start, *place.position)
            )
        return generators[place.position]

    @staticmethod
    def _dtypes(dtype: Any) -> tuple[str, str]:
        """The dtype to draw in, at least float32, and the one that is asked for."""
        dtype = checked_dtype(dtype)
        return (dtype if dtype == "float64" else "float32"), dtype

    def _normal(self, shape: Sequence[int], dtype: str, std: float = 1.0) -> Any:
        return keras.random.normal(shape, stddev=std, dtype=dtype, seed=self._stream())

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={value['class_name'] if isinstance(value, dict) else repr(value)}"
            for name, value in self.get_config().items()
            if value is not None
        )
        return f"{type(self).__name__}({arguments})"


class LayoutInitializer(SeededInitializer, keras.initializers.VarianceScaling):
    """Base of the initializers that ask which axes of a kernel are inputs.

    While a layer is built, the layer says what the axes of its kernel mean, how many
    gates or groups lie side by side and which stride divides the window. That holds
    for Keras's layers and for those known by `register_fans`. Where the initializer is
    called on a shape alone, the two arguments below say it, or else Keras's layout is
    assumed.

    Args:
        seed: see `SeededInitializer`.
        input_axes: the axes of the kernel whose product is fan_in. None for the
            layer's layout, or else Keras's, `(inputs, outputs)` or
            `(*window, inputs, outputs)`.
        output_axes: the axes whose product is fan_out. An axis named on both sides is
            a convolution's window, one named on neither a batch axis: each of its
            indices gets a kernel of its own.
    """

    # `EinsumDense` asks only subclasses of `VarianceScaling` for the arguments above.
    # That is all this base is for: the scale, mode and distribution it brings are not
    # used unless a subclass says so.

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed=seed)
        self.input_axes = _axes("input_axes", input_axes)
        self.output_axes = _axes("output_axes", output_axes)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a kernel of this shape, drawn in at least float32."""
        shape = checked_shape(shape)
        working, dtype = self._dtypes(dtype)
        axes = self._axes_for(len(shape))
        if 0 in shape:
            return ops.zeros(shape, dtype)
        return ops.cast(self._draw(shape, axes, working), dtype)

    def _axes_for(self, rank: int) -> KernelAxes:
        given = read_axes(rank, self.input_axes, self.output_axes)
        place = placement()
        if place is None or place.axes is None:
            return given
        # An `EinsumDense` hands over axes that count its batch labels as outputs.
        is_einsum = kind_of(place.layer).hands_axes
        return place.axes if self.input_axes is None or is_einsum else given

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not draw anything.")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "seed": super().get_config()["seed"],
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Returns a shape as a tuple of ints, or raises if it is none."""
    sizes = _whole_numbers(shape)
    if sizes is None or any(size < 0 for size in sizes):
        raise ValueError(
            message(
                "`shape` must be a sequence of whole numbers of at least 0.",
                f"shape={shape!r}",
            )
        )
    return sizes


def checked_dtype(dtype: Any) -> str:
    """Returns a dtype's name, Keras's `floatx` for None; raises if it is no float."""
    dtype = keras.utils.standardize_dtype(dtype or keras.config.floatx())
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            message(
                "`dtype` must be one of floating-point numbers.", f"dtype={dtype!r}"
            )
        )
    return dtype


def checked_seed(seed: Any) -> Any:
    # Keras hands ints to JAX as uint32, and restores a generator from a dict.
    is_int = isinstance(seed, int) and not isinstance(seed, bool)
    if (is_int and 0 <= seed < 2**32) or isinstance(
        seed, (keras.random.SeedGenerator, dict, type(None))
    ):
        return seed
    raise ValueError(
        message(
            "`seed` must be an int in [0, 2**32), a `keras.random.SeedGenerator` or "
            "None.",
            f"seed={seed!r}",
        )
    )


def _axes(name: str, axes: Any) -> tuple[int, ...] | None:
    if axes is None:
        return None
    numbers = _whole_numbers(axes)
    if numbers is None:
        raise ValueError(
            message(
                f"`{name}` must be a sequence of whole numbers.", f"{name}={axes!r}"
            )
        )
    return numbers


def _whole_numbers(values: Any) -> tuple[int, ...] | None:
    """The values as ints, or None if they are no sequence of whole numbers."""
    try:
        values = tuple(values)
        numbers = tuple(operator.index(value) for value in values)
    except TypeError:
        return None
    return None if any(isinstance(value, bool) for value in values) else numbers
