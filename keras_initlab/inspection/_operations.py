"""What an operation does to the signal that passes it."""

from __future__ import annotations

import enum
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
