"""What the axes of a layer's kernels mean, layer by layer.

Keras computes fans from a shape and never sees the layer, so the kernels of
depthwise, transposed, grouped and gated layers get the wrong scale. Here the layer
decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from ..._core.errors import message
from ..paths import own_variables
from ..private import own_trainable
from ._axes import KernelAxes, keras_axes

Layouts = Mapping[str, KernelAxes]
_registered: dict[type, Callable[[Any], Layouts]] = {}


class OwnKernels(NamedTuple):
    """What the kernels are that a layer itself creates.

    Attributes:
        layouts: the axes, by name of the variable.
        is_known: False if the layer is of no known class and the axes are only
            Keras's rule for the shape.
    """

    layouts: Layouts
    is_known: bool = True


def register(layer_class: type, function: Callable[[Any], Layouts]) -> None:
    """Has `function` tell the kernels of a layer class and of its subclasses."""
    _registered[layer_class] = function


def own_kernels(layer: Any) -> OwnKernels:
    """Returns the kernels that a layer itself creates, in the order of creation.

    The layer need not be built, except where it is of no known class.
    """
    for layer_class in type(layer).__mro__:
        if layer_class in _registered:
            return OwnKernels(_checked(layer_class, _registered[layer_class](layer)))
        is_keras = layer_class.__module__.startswith("keras.")
        if is_keras and layer_class.__name__ in _RULES:
            return OwnKernels(_RULES[layer_class.__name__](layer))
    return OwnKernels(_by_shape(layer), is_known=False)


def variable_of(layer: Any, name: str) -> keras.Variable | None:
    """Returns a layer's own variable of this name, or None if there is none yet."""
    # `layer.kernel` may be a sum with a LoRA update; the variable is `_kernel`.
    for attribute in (f"_{name}", name):
        value = getattr(layer, attribute, None)
        if isinstance(value, keras.Variable):
            return value
    own = own_variables(layer)
    return next((variable for variable in own if variable.name == name), None)


def _checked(layer_class: type, layouts: Any) -> Layouts:
    is_right = isinstance(layouts, Mapping) and all(
        isinstance(name, str) and isinstance(axes, KernelAxes)
        for name, axes in layouts.items()
    )
    if not is_right:
        raise TypeError(
            message(
                "A function given to `register_fans` must return a dict "
                "{name of the variable: KernelAxes}.",
                f"{layouts!r} for {layer_class.__name__}",
            )
        )
    return layouts


def _by_shape(layer: Any) -> Layouts:
    is_custom = not type(layer).__module__.startswith("keras.")
    return {
        variable.name: keras_axes(len(variable.shape))
        for variable in own_trainable(layer)
        if ("kernel" in variable.name or is_custom) and len(variable.shape) >= 2
    }


def _dense(layer: Any) -> Layouts:
    return {"kernel": KernelAxes(inputs=(0,), outputs=(1,))}


def _einsum_dense(layer: Any) -> Layouts:
    operands, output = layer.equation.replace(" ", "").split("->")
    data, weight = operands.split(",")
    return {
        "kernel": KernelAxes(
            inputs=tuple(
                axis for axis, label in enumerate(weight) if label not in output
            ),
            outputs=tuple(
                axis
                for axis, label in enumerate(weight)
                if label in output and label not in data
            ),
        )
    }


def _conv(layer: Any) -> Layouts:
    axes = _conv_axes(layer.rank, groups=layer.groups, stride=_stride(layer))
    return {"kernel": axes}


def _depthwise_conv(layer: Any) -> Layouts:
    return {"kernel": _depthwise_axes(layer.rank, _stride(layer))}


def _separable_conv(layer: Any) -> Layouts:
    return {
        "depthwise_kernel": _depthwise_axes(layer.rank, _stride(layer)),
        "pointwise_kernel": _conv_axes(layer.rank),
    }


def _conv_transpose(layer: Any) -> Layouts:
    rank = layer.rank
    return {
        "kernel": KernelAxes(
            inputs=(rank + 1,),
            outputs=(rank,),
            window=tuple(range(rank)),
            upsampling=_stride(layer),
        )
    }


def _embedding(layer: Any) -> Layouts:
    # A row is looked up, not summed: one product an output unit.
    return {"embeddings": KernelAxes(inputs=(), outputs=(1,))}


def _reversible_embedding(layer: Any) -> Layouts:
    # Only an untied one has the second kernel, which is a dense layer's.
    return {**_embedding(layer), "reverse_embeddings": _dense(layer)["kernel"]}


def _gated_cell(gates: int) -> Callable[[Any], Layouts]:
    axes = KernelAxes(inputs=(0,), outputs=(1,), gates=gates)
    return lambda layer: {"kernel": axes, "recurrent_kernel": axes}


def _conv_lstm_cell(layer: Any) -> Layouts:
    # Only the input is strided over: the state has the output's size.
    return {
        "kernel": _conv_axes(layer.rank, gates=4, stride=_stride(layer)),
        "recurrent_kernel": _conv_axes(layer.rank, gates=4),
    }


def _conv_axes(rank: int, **others: int) -> KernelAxes:
    window = tuple(range(rank))
    return KernelAxes(inputs=(rank,), outputs=(rank + 1,), window=window, **others)


def _depthwise_axes(rank: int, stride: int) -> KernelAxes:
    window = tuple(range(rank))
    return KernelAxes(inputs=(), outputs=(rank + 1,), window=window, stride=stride)


def _stride(layer: Any) -> int:
    """The product of a convolution's strides."""
    strides = layer.strides
    return strides**layer.rank if isinstance(strides, int) else math.prod(strides)


_RULES: dict[str, Callable[[Any], Layouts]] = {
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
    "STFTSpectrogram": lambda layer: {},  # Fourier's sines, not to be drawn
}
