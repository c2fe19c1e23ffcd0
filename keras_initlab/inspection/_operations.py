"""What an operation does to the signal that passes it."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any

import keras

from .._activations import name_of, resolve

_ACTIVATION_LAYERS = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
)
_ACTIVATION_OPERATIONS = {
    "Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh",
    "LeakyRelu", "LogSigmoid", "LogSoftmax", "Mish", "ReLU", "Relu", "Relu6", "Selu",
    "Sigmoid", "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SparsePlus",
    "SparseSigmoid", "Squareplus", "Tanh", "TanhShrink", "Threshold",
}  # fmt: skip
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)
_NORMALIZATION_NAMES = {
    "BatchNorm", "LayerNorm", "Normalize", "RMSNorm", "RMSNormalization",
}  # fmt: skip
_KEEPS_UNITS = {
    "ActivityRegularization", "AlphaDropout", "Cast", "ConvertToTensor", "Copy",
    "Dropout", "GaussianDropout", "GaussianNoise", "Identity", "Masking",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "StopGradient",
}  # fmt: skip
_LINEAR_PER_CHANNEL = (
    "AveragePooling", "Cropping", "GlobalAveragePooling", "Mean", "Pad", "UpSampling",
    "ZeroPadding",
)  # fmt: skip
_REARRANGES = (
    "BroadcastTo", "ExpandDims", "Flatten", "Flip", "GetItem", "Moveaxis", "Permute",
    "Ravel", "Repeat", "Reshape", "Roll", "Split", "Squeeze", "Swapaxes", "Tile",
    "Transpose", "Unstack",
)  # fmt: skip
# Keras's own models close their scaled residual branches by a layer.
_SUMS = ("Add", "Subtract", "CustomScaleLayer")
_POOLS = ("GlobalMaxPooling", "MaxPooling", "AdaptiveMaxPooling")


class Effect(enum.Enum):
    """What an operation without kernels does to the units of a signal."""

    SAME_UNITS = "keeps every unit, in training up to noise"
    CHANNEL_LINEAR = "linear, the same for all channels"
    REARRANGE = "moves units to other axes"
    POOL = "nonlinear choice among positions"
    ACTIVATION = "acts on every unit alone"
    NORMALIZATION = "sets mean and scale anew"
    ADD = "adds signals"
    CONCATENATE = "puts channels side by side"
    OTHER = "anything else"


def effect_of(operation: Any) -> Effect:
    """Returns what an operation does to the signal that passes it."""
    name = type(operation).__name__
    if is_activation(operation):
        return Effect.ACTIVATION
    if isinstance(operation, _NORMALIZATIONS) or name in _NORMALIZATION_NAMES:
        return Effect.NORMALIZATION
    if name in _KEEPS_UNITS:
        return Effect.SAME_UNITS
    if name.startswith(_LINEAR_PER_CHANNEL):
        return Effect.CHANNEL_LINEAR
    if name.startswith(_REARRANGES):
        return Effect.REARRANGE
    if name.startswith(_POOLS):
        return Effect.POOL
    if name in _SUMS:
        return Effect.ADD
    if name in ("Concatenate", "Concat", "Stack", "Hstack", "Vstack"):
        return Effect.CONCATENATE
    return Effect.OTHER


def normalized_mean_square(operation: Any, shape: Sequence[int | None]) -> float:
    """Returns the mean square of what a normalization gives for inputs of a shape.

    1 for those that divide by a standard deviation; of a vector of length 1, one over
    the number of its entries.
    """
    is_unit = isinstance(operation, keras.layers.UnitNormalization)
    if not is_unit and type(operation).__name__ != "Normalize":
        return 1.0
    axis, rank = operation.axis, len(shape)
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    sizes = [shape[one] for one in axes if -rank <= one < rank]
    return 1 / math.prod(size or 1 for size in sizes)


def shares(operation: Any, shapes: Sequence[Sequence[int | None]]) -> tuple[float, ...]:
    """Returns the share of the units that each signal has of those put side by side.

    The same for all where their sizes are not known.
    """
    sizes = [1.0] * len(shapes)
    axis = getattr(operation, "axis", None)
    if "Concat" in type(operation).__name__ and isinstance(axis, int):
        found = [shape[axis] for shape in shapes if -len(shape) <= axis < len(shape)]
        known = [float(size) for size in found if size]
        sizes = known if len(known) == len(shapes) else sizes
    return tuple(size / sum(sizes) for size in sizes)


def is_activation(operation: Any) -> bool:
    """Whether an operation is an activation of its own, as a layer or a raw op."""
    if isinstance(operation, _ACTIVATION_LAYERS):
        return True
    is_raw = not isinstance(operation, keras.Layer)
    return is_raw and type(operation).__name__ in _ACTIVATION_OPERATIONS


def activation_of(operation: Any) -> Any:
    """Returns the activation an operation applies to its output, None for linear.

    For an activation layer or raw activation the operation itself (or its function);
    for any other layer its `activation` argument.
    """
    if isinstance(operation, keras.layers.Activation):
        activation = operation.activation
    elif is_activation(operation):
        return operation
    else:
        activation = getattr(operation, "activation", None)
    if activation is None or not callable(activation):
        return None
    return None if name_of(activation) == "linear" else activation


def activation_name(activation: Any) -> str:
    """Returns the name to print for an activation, `linear` for None."""
    return resolve(activation)[0]
