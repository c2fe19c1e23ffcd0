"""Layers and operations that have no kernels: what they do to a signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._axes import KernelAxes, einsum_axes
from ._convolutions import conv_axes, depthwise_axes, transposed_axes
from ._kind import Effect, Kind, Units, Use

_ROLES = ("query", "key", "value")
_ATTENTION = {role: role for role in _ROLES} | {"attention_output": "attention output"}


def _of_all(names: str, kind: Kind) -> dict[str, Kind]:
    """One record for several names; `#` stands for 1D, 2D and 3D."""
    found = {}
    for name in names.split():
        ranks = ("1D", "2D", "3D") if name.endswith("#") else ("",)
        found |= {name.rstrip("#") + rank: kind for rank in ranks}
    return found


def _norm_over_units(operation: Any, shape: Sequence[int | None]) -> float:
    """Of a vector of length 1, the mean square is one over the count of its entries."""
    axis, rank = operation.axis, len(shape)
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    sizes = [shape[one] for one in axes if -rank <= one < rank]
    return 1 / math.prod(size or 1 for size in sizes)


def _matrix(operation: Any, rank: int, number: int) -> KernelAxes | None:
    if rank < 2:
        return None
    inputs, outputs = (rank - 2, rank - 1) if number else (rank - 1, rank - 2)
    return KernelAxes(inputs=(inputs,), outputs=(outputs,))


def _tensordot(operation: Any, rank: int, number: int) -> KernelAxes | None:
    axes = operation.axes
    if isinstance(axes, int):
        summed = tuple(range(axes)) if number else tuple(range(rank - axes, rank))
    else:
        given = axes[number]
        summed = (given,) if isinstance(given, int) else tuple(given)
    summed = tuple(axis % rank for axis in summed)
    return KernelAxes(summed, tuple(i for i in range(rank) if i not in summed))


_NORM = Kind(effect=Effect.NORMALIZATION, use=Use.SCALE)
_UNIT_NORM = Kind(effect=Effect.NORMALIZATION, mean_square=_norm_over_units)
_ACTIVATION = Kind(effect=Effect.ACTIVATION, activation=lambda operation: operation)
_SAME = Kind(effect=Effect.SAME_UNITS)
_SAME_PLACE = Kind(effect=Effect.SAME_UNITS, units=Units.SAME)
_LINEAR = Kind(effect=Effect.CHANNEL_LINEAR)
_LINEAR_MAP = Kind(effect=Effect.CHANNEL_LINEAR, units=Units.CHANNELS)
_MOVE = Kind(effect=Effect.REARRANGE)
_SUM = Kind(effect=Effect.ADD, use=Use.SHIFT)
_JOIN = Kind(effect=Effect.CONCATENATE)
_PRODUCT = Kind(multiplies=True, use=Use.KERNEL, weight_axes=_matrix)
_KERNELS = {
    "Tensordot": _tensordot,
    "Take": lambda _, rank, __: KernelAxes((), tuple(range(1, rank))),
    "Conv": lambda _, rank, __: conv_axes(rank - 2),
    "DepthwiseConv": lambda _, rank, __: depthwise_axes(rank - 2),
    "ConvTranspose": lambda _, rank, __: transposed_axes(rank - 2),
}

RECORDS = {
    **_of_all(
        "BatchNormalization GroupNormalization LayerNormalization RMSNormalization "
        "BatchNorm LayerNorm RMSNorm",
        _NORM,
    ),
    **_of_all("UnitNormalization Normalize", _UNIT_NORM),
    "Activation": Kind(effect=Effect.ACTIVATION),
    # Layers and raw operations.
    **_of_all(
        "Celu ELU Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyReLU "
        "LeakyRelu LogSigmoid LogSoftmax Mish PReLU ReLU Relu Relu6 Selu Sigmoid Silu "
        "SoftShrink Softmax Softplus Softsign SparsePlus SparseSigmoid Squareplus Tanh "
        "TanhShrink Threshold",
        _ACTIVATION,
    ),
    **_of_all("Cast ConvertToTensor Copy Masking StopGradient", _SAME),
    # Not `Masking`, which masks where all units have one value.
    **_of_all(
        "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise "
        "Identity SpatialDropout#",
        _SAME_PLACE,
    ),
    **_of_all("Mean Pad", _LINEAR),
    **_of_all("AveragePooling# Cropping# UpSampling# ZeroPadding#", _LINEAR_MAP),
    **_of_all(
        "GlobalAveragePooling#", Kind(effect=Effect.CHANNEL_LINEAR, units=Units.LAST)
    ),
    **_of_all("MaxPooling#", Kind(effect=Effect.POOL, units=Units.CHANNELS)),
    **_of_all("GlobalMaxPooling#", Kind(effect=Effect.POOL, units=Units.LAST)),
    **_of_all("AdaptiveMaxPooling#", Kind(effect=Effect.POOL)),
    "Flatten": Kind(effect=Effect.REARRANGE, units=Units.FLAT),
    **_of_all(
        "BroadcastTo ExpandDims Flip Fliplr Flipud GetItem Moveaxis Permute Ravel "
        "Repeat RepeatVector Reshape Roll Split Squeeze Swapaxes Tile Transpose "
        "Unstack",
        _MOVE,
    ),
    **_of_all("Add Subtract", _SUM),
    # Keras's own models close their scaled residual branches by it.
    "CustomScaleLayer": Kind(effect=Effect.ADD),
    **_of_all("Concatenate Concat Stack Hstack Vstack", _JOIN),
    "Multiply": Kind(multiplies=True, use=Use.SCALE),
    **_of_all("TopK Argmax", Kind(effect=Effect.POOL, chooses=True)),
    **_of_all("Divide TrueDivide", Kind(use=Use.SCALE)),
    **_of_all("FloorDivide Power", Kind(use=Use.BEND)),
    **_of_all("Matmul Dot", _PRODUCT),
    "Einsum": Kind(
        multiplies=True,
        use=Use.KERNEL,
        weight_axes=lambda one, _, number: einsum_axes(one.subscripts, number),
    ),
    **{n: Kind(use=Use.KERNEL, weight_axes=axes) for n, axes in _KERNELS.items()},
    **_of_all("MultiHeadAttention GroupedQueryAttention", Kind(roles=_ATTENTION)),
    **_of_all("Attention AdditiveAttention", Kind(operands=("query", "value", "key"))),
    "DotProductAttention": Kind(operands=("query", "key", "value")),
}
