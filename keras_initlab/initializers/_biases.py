"""Biases that know what kernel they stand beside, or which gate they open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._core import seeds as _seeds
from .._core.errors import check_count, check_finite, check_positive, message
from .._keras.kinds import Kernel, Placement, kernels, placement
from .._keras.private import own_trainable
from ._base import PACKAGE, SeededInitializer, checked_dtype, checked_shape


@keras.saving.register_keras_serializable(PACKAGE)
class FanInBias(SeededInitializer, keras.initializers.RandomUniform):
    """A uniform bias whose scale follows from its kernel's fan_in.

    U(−l, l) with l = scale/√fan_in. With `scale=1` this is what PyTorch's linear and
    convolution layers start with. Left to itself it asks the layer that is being
    built: the fan_in is the true one of the kernel whose output the bias is added to
    (the pointwise one of a separable convolution, the input's in a recurrent layer).

    Args:
        scale: factor on the limit, positive.
        fan_in: the kernel's fan_in, positive. None to ask the layer, which is not
            possible for a shape alone.
        seed: see `SeededInitializer`.

    Raises:
        ValueError: for an argument out of range; when it draws, if there is neither
            a `fan_in` nor a layer to ask.

    Example:
        >>> layer = keras.layers.Dense(8, bias_initializer=FanInBias(seed=0))
        >>> layer.build((None, 100))
        >>> bool(abs(keras.ops.convert_to_numpy(layer.bias)).max() <= 0.1)
        True

    References:
        LeCun et al. 1998, "Efficient BackProp", section 4.6, for scales that follow
        from the fan_in.
    """

    def __init__(
        self, scale: float = 1.0, fan_in: float | None = None, seed: Any = None
    ):
        super().__init__(seed=seed)
        self.scale = check_positive("scale", scale, usual=1.0)
        self.fan_in = fan_in if fan_in is None else _checked_fan_in(fan_in)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a bias of this shape, drawn in at least float32."""
        shape = checked_shape(shape)
        fan_in = _fan_in_here(shape) if self.fan_in is None else self.fan_in
        limit = self.scale / math.sqrt(max(1.0, fan_in))
        working, dtype = self._dtypes(dtype)
        seed = self._stream()
        if isinstance(seed, int):  # an LSTM asks for its gates in two parts
            seed = _seeds.derive(seed, *shape)
        return ops.cast(
            keras.random.uniform(shape, -limit, limit, working, seed), dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        seed = super().get_config()["seed"]
        return {"scale": self.scale, "fan_in": self.fan_in, "seed": seed}


@keras.saving.register_keras_serializable(PACKAGE)
class ForgetGateBias(keras.initializers.Initializer):
    """A bias that is zero but for one gate, which starts open.

    With a bias of one on the forget gate an LSTM's cell keeps about 73 % of its state
    a step at the start, where zero would keep half, so gradients reach further back.
    Keras's `unit_forget_bias=True` does so for LSTM, with the value 1; this class is
    for other values and other cells: a layer that uses it takes
    `unit_forget_bias=False`.

    Args:
        value: the gate's bias, finite.
        gates: how many gates lie side by side on the last axis: 4 for LSTM and
            ConvLSTM, 3 for GRU.
        gate: which of them is meant, from 0: 1 for an LSTM's forget gate, 0 for a
            GRU's update gate (which in Keras keeps the old state).

    Raises:
        ValueError: for an argument out of range, or a last axis that does not divide
            into `gates`; in an LSTM that sets its forget gate itself, for a `value`
            other than 1.

    Example:
        >>> keras.ops.convert_to_numpy(ForgetGateBias(2.0)((8,)))
        array([0., 0., 2., 2., 0., 0., 0., 0.], dtype=float32)

    References:
        Jozefowicz et al. 2015, "An empirical exploration of recurrent network
        architectures", section 5.1.
    """

    def __init__(self, value: float = 1.0, gates: int = 4, gate: int = 1):
        self.value = check_finite("value", value, usual=1.0)
        self.gates = check_count("gates", gates, usual=4)
        self.gate = check_count("gate", gate, usual=1, least=0)
        if self.gate >= self.gates:
            raise ValueError(
                message(
                    "`gate` must be less than `gates`.", f"gate={gate}, gates={gates}"
                )
            )

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a bias of this shape."""
        shape, dtype = checked_shape(shape), checked_dtype(dtype)
        place = placement()
        if place is not None and getattr(place.layer, "unit_forget_bias", False):
            return self._beside_kerass_own(shape, dtype)
        *leading, units = shape or (1,)
        if not shape or units % self.gates:
            raise ValueError(
                message(
                    "The last axis of the bias must divide into `gates`.",
                    f"shape={shape}, gates={self.gates}",
                )
            )
        block = (*leading, units // self.gates)
        blocks = [ops.zeros(block, dtype) for _ in range(self.gates)]
        blocks[self.gate] = ops.full(block, self.value, dtype=dtype)
        return ops.concatenate(blocks, axis=-1)

    def _beside_kerass_own(self, shape: Sequence[int], dtype: Any) -> Any:
        """Zeros: Keras asks for the other gates and sets the forget gate to one."""
        if self.value != 1:
            raise ValueError(
                message(
                    "`ForgetGateBias` needs a layer that leaves the forget gate to it.",
                    f"value={self.value} and unit_forget_bias=True",
                    "Pass `unit_forget_bias=False` to the layer.",
                )
            )
        return ops.zeros(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {"value": self.value, "gates": self.gates, "gate": self.gate}


def _checked_fan_in(fan_in: float) -> float:
    value = check_positive("fan_in", fan_in, usual=128)
    return int(value) if value == int(value) else value


def _fan_in_here(shape: Sequence[int]) -> float:
    """The fan_in of the kernel beside the bias that is being drawn."""
    place = placement()
    beside = [] if place is None else _kernels_before(place)
    if not beside:
        raise ValueError(
            message(
                "`FanInBias` needs a fan_in where no layer can tell it.",
                f"fan_in=None for a bias of shape {tuple(shape)}",
                "Pass the `fan_in` that `keras_initlab.fans(layer)` tells.",
            )
        )
    return beside[-1].fans.fan_in


def _kernels_before(place: Placement) -> list[Kernel]:
    """The layer's own kernels that bring a bias and were there before this one."""
    own = [id(variable) for variable in own_trainable(place.layer)]
    bias = id(place.variable)
    before = own[: own.index(bias)] if bias in own else own
    return [
        kernel
        for kernel in kernels(place.layer)
        if id(kernel.variable) in before and kernel.part.bias is not None
    ]
