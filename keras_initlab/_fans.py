"""Which axes of a kernel are inputs, outputs or window, and the fans they give.

Keras computes fans from a shape and never sees the layer, so the kernels of
depthwise, transposed, grouped and gated layers get the wrong scale. Here the layer
decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from ._errors import UnbuiltModelError, message


class Fans(NamedTuple):
    """The fans of a kernel.

    Attributes:
        fan_in: how many products one output unit sums.
        fan_out: how many output units one input unit reaches.
    """

    fan_in: float
    fan_out: float


@dataclass(frozen=True)
class KernelAxes:
    """What each axis of a kernel means; an axis named nowhere is a batch axis.

    Attributes:
        inputs: axes that count input units.
        outputs: axes that count output units.
        window: axes of a convolution's window, which count on both sides.
        groups: how many blocks of outputs read a block of inputs each.
        stride: product of a transposed convolution's strides: each output position
            meets only one `stride`-th of the window. 1 elsewhere.
        gates: how many kernels of their own lie side by side on the last output axis.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: tuple[int, ...] = ()
    groups: int = 1
    stride: int = 1
    gates: int = 1

    def fans(self, shape: Sequence[int]) -> Fans:
        """Returns the fans of a kernel of this `shape`."""
        window = math.prod(shape[axis] for axis in self.window)
        inputs = math.prod(shape[axis] for axis in self.inputs)
        outputs = math.prod(shape[axis] for axis in self.outputs)
        fan_in = window * inputs / self.stride
        fan_out = window * outputs / (self.groups * self.gates)
        return Fans(_whole(fan_in), _whole(fan_out))

    @property
    def input_axes(self) -> tuple[int, ...]:
        """The axes whose product is fan_in, as the initializers take them."""
        return tuple(sorted((*self.inputs, *self.window)))

    @property
    def output_axes(self) -> tuple[int, ...]:
        """The axes whose product is fan_out, as the initializers take them."""
        return tuple(sorted((*self.outputs, *self.window)))


class Kernel(NamedTuple):
    """A kernel variable, the layer that owns it and what its axes mean."""

    variable: Any
    layer: Any
    name: str
    axes: KernelAxes


def read_axes(
    rank: int,
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> KernelAxes:
    """Returns what the axes of a kernel mean when only its rank is known.

    Axes named on both sides are the window. Without names, Keras's layout holds:
    `(inputs, outputs)`, or `(*window, inputs, outputs)` for more than two axes.

    Args:
        rank: number of axes of the kernel.
        input_axes: axes whose product is fan_in; negative ones count from the end.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: if only one of the two is given, or an axis does not exist.
    """
    if (input_axes is None) != (output_axes is None):
        raise ValueError(
            message(
                "`input_axes` and `output_axes` must be given together.",
                f"input_axes={input_axes}, output_axes={output_axes}",
                "Leave out both for Keras's layout.",
            )
        )
    if input_axes is None or output_axes is None:
        return _layout_of_rank(rank)
    inputs, outputs = _positive(input_axes, rank), _positive(output_axes, rank)
    return KernelAxes(
        inputs=tuple(axis for axis in inputs if axis not in outputs),
        outputs=tuple(axis for axis in outputs if axis not in inputs),
        window=tuple(axis for axis in inputs if axis in outputs),
    )


def kernels(layer: keras.Layer) -> list[Kernel]:
    """Returns all kernels of a layer and of the layers inside it, in fixed order."""
    found = [
        Kernel(variable, layer, name, axes)
        for name, axes in _axes_by_name(layer).items()
        if (variable := _variable(layer, name)) is not None
    ]
    for inner in layer._layers:
        found += [
            kernel
            for kernel in kernels(inner)
            if all(kernel.variable is not other.variable for other in found)
        ]
    return found


def fans(layer: keras.Layer) -> dict[str, Fans]:
    """Returns the true fans of every kernel of a built layer.

    fan_in is the number of products that one output unit sums, fan_out the number of
    output units that one input unit reaches, so that a kernel drawn N(0, 1/fan_in)
    keeps the variance of a signal with independent units. Holds away from the borders
    of padded convolutions, and on average over positions for strides that do not
    divide the window of a transposed convolution.

    Args:
        layer: a built Keras layer or model.

    Returns:
        A dict `{variable path: Fans(fan_in, fan_out)}`. A layer of a class that is
        not known (a custom layer) gets Keras's rule for the shape of its kernel.

    Raises:
        UnbuiltModelError: if the layer has no weights yet.

    Example:
        >>> layer = keras.layers.DepthwiseConv2D(3, name="depthwise")
        >>> layer.build((None, 8, 8, 64))
        >>> fans(layer)
        {'depthwise/kernel': Fans(fan_in=9, fan_out=9)}

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep
        feedforward neural networks", equations 5 and 6, for the two fans.
    """
    if not layer.built:
        raise UnbuiltModelError(
            message(
                "`layer` must be built.",
                f"layer={layer.name!r} ({type(layer).__name__}), not built",
                "Call it on data, or call its `build` with an input shape.",
            )
        )
    return {
        kernel.variable.path: kernel.axes.fans(kernel.variable.shape)
        for kernel in kernels(layer)
    }


def keras_fans(shape: Sequence[int]) -> Fans:
    """Returns the fans that Keras's own initializers compute from a shape."""
    return _layout_of_rank(len(shape)).fans(shape)


def _axes_by_name(layer: keras.Layer) -> Mapping[str, KernelAxes]:
    for layer_class in type(layer).__mro__:
        is_keras = layer_class.__module__.startswith("keras.")
        if is_keras and layer_class.__name__ in _RULES:
            return _RULES[layer_class.__name__](layer)
    return _keras_rule(layer)


def _keras_rule(layer: keras.Layer) -> dict[str, KernelAxes]:
    is_custom = not type(layer).__module__.startswith("keras.")
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return {
        variable.name: _layout_of_rank(len(variable.shape))
        for variable in own
        if ("kernel" in variable.name or is_custom) and len(variable.shape) >= 2
    }


def _dense(layer: Any) -> dict[str, KernelAxes]:
    return {"kernel": KernelAxes(inputs=(0,), outputs=(1,))}


def _einsum_dense(layer: Any) -> dict[str, KernelAxes]:
    operands, output = layer.equation.replace(" ", "").split("->")
    data, weight = operands.split(",")
    return {
        "kernel": KernelAxes(
            inputs=tuple(
                axis
                for axis, label in enumerate(weight)
                if label in data and label not in output
            ),
            outputs=tuple(
                axis
                for axis, label in enumerate(weight)
                if label in output and label not in data
            ),
        )
    }


def _conv(layer: Any) -> dict[str, KernelAxes]:
    return {"kernel": _conv_axes(layer.rank, groups=layer.groups)}


def _depthwise_conv(layer: Any) -> dict[str, KernelAxes]:
    return {"kernel": _depthwise_axes(layer.rank)}


def _separable_conv(layer: Any) -> dict[str, KernelAxes]:
    return {
        "depthwise_kernel": _depthwise_axes(layer.rank),
        "pointwise_kernel": _conv_axes(layer.rank),
    }


def _conv_transpose(layer: Any) -> dict[str, KernelAxes]:
    rank = layer.rank
    return {
        "kernel": KernelAxes(
            inputs=(rank + 1,),
            outputs=(rank,),
            window=tuple(range(rank)),
            stride=math.prod(_per_axis(layer.strides, rank)),
        )
    }


def _embedding(layer: Any) -> dict[str, KernelAxes]:
    # A row is looked up, not summed: one product an output unit.
    return {"embeddings": KernelAxes(inputs=(), outputs=(1,))}


def _reversible_embedding(layer: Any) -> dict[str, KernelAxes]:
    # Only an untied one has the second kernel, which is a dense layer's.
    return {**_embedding(layer), "reverse_embeddings": _dense(layer)["kernel"]}


def _gated_cell(gates: int) -> Callable[[Any], dict[str, KernelAxes]]:
    axes = KernelAxes(inputs=(0,), outputs=(1,), gates=gates)
    return lambda layer: {"kernel": axes, "recurrent_kernel": axes}


def _conv_lstm_cell(layer: Any) -> dict[str, KernelAxes]:
    axes = KernelAxes(
        inputs=(layer.rank,),
        outputs=(layer.rank + 1,),
        window=tuple(range(layer.rank)),
        gates=4,
    )
    return {"kernel": axes, "recurrent_kernel": axes}


def _conv_axes(rank: int, groups: int = 1) -> KernelAxes:
    return KernelAxes(
        inputs=(rank,), outputs=(rank + 1,), window=tuple(range(rank)), groups=groups
    )


def _depthwise_axes(rank: int) -> KernelAxes:
    return KernelAxes(inputs=(), outputs=(rank + 1,), window=tuple(range(rank)))


def _layout_of_rank(rank: int) -> KernelAxes:
    if rank < 2:
        axes = tuple(range(rank))
        return KernelAxes(inputs=(), outputs=(), window=axes)
    return KernelAxes(
        inputs=(rank - 2,), outputs=(rank - 1,), window=tuple(range(rank - 2))
    )


def _positive(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(
            message(
                f"The axes of a kernel of rank {rank} must lie in "
                f"[{-rank}, {rank - 1}].",
                f"axes={tuple(axes)}",
            )
        )
    positive = tuple(axis % rank for axis in axes)
    if len(set(positive)) < len(positive):
        raise ValueError(
            message("An axis must be named once on each side.", f"axes={tuple(axes)}")
        )
    return positive


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _variable(layer: Any, name: str) -> keras.Variable | None:
    # `layer.kernel` may be a sum with a LoRA update; the variable is `_kernel`.
    for attribute in (f"_{name}", name):
        value = getattr(layer, attribute, None)
        if isinstance(value, keras.Variable):
            return value
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return next((variable for variable in own if variable.name == name), None)


_RULES: dict[str, Callable[[Any], Mapping[str, KernelAxes]]] = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible_embedding,
    "SimpleRNNCell": _gated_cell(1),
    "GRUCell": _gated_cell(3),
    "LSTMCell": _gated_cell(4),
    "ConvLSTMCell": _conv_lstm_cell,
    "BaseConv": _conv,
    "BaseDepthwiseConv": _depthwise_conv,
    "BaseSeparableConv": _separable_conv,
    "BaseConvTranspose": _conv_transpose,
}
