"""Convolutions and dense layers: kernels that slide, or that are one matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ._axes import KernelAxes, einsum_axes
from ._kind import Kind, Part


def conv_axes(rank: int, **others: int) -> KernelAxes:
    """The axes of `(*window, inputs, outputs)` with a window of this rank."""
    window = tuple(range(rank))
    return KernelAxes(inputs=(rank,), outputs=(rank + 1,), window=window, **others)


def depthwise_axes(rank: int, stride: int = 1) -> KernelAxes:
    """The axes of `(*window, inputs, multiplier)`: each output reads one input."""
    window = tuple(range(rank))
    return KernelAxes(inputs=(), outputs=(rank + 1,), window=window, stride=stride)


def transposed_axes(rank: int, upsampling: int = 1) -> KernelAxes:
    """The axes of `(*window, outputs, inputs)`."""
    window = tuple(range(rank))
    return KernelAxes((rank + 1,), (rank,), window, upsampling=upsampling)


def stride_of(layer: Any) -> int:
    """The product of a convolution's strides."""
    strides = layer.strides
    return strides**layer.rank if isinstance(strides, int) else math.prod(strides)


def _dense(layer: Any) -> Mapping[str, KernelAxes]:
    return {"kernel": KernelAxes(inputs=(0,), outputs=(1,))}


def _einsum_dense(layer: Any) -> Mapping[str, KernelAxes]:
    axes = einsum_axes(layer.equation, 1)
    return {"kernel": axes} if axes is not None else {}


def _conv(layer: Any) -> Mapping[str, KernelAxes]:
    stride = stride_of(layer)
    return {"kernel": conv_axes(layer.rank, groups=layer.groups, stride=stride)}


def _depthwise_conv(layer: Any) -> Mapping[str, KernelAxes]:
    return {"kernel": depthwise_axes(layer.rank, stride_of(layer))}


def _separable_conv(layer: Any) -> Mapping[str, KernelAxes]:
    return {
        "depthwise_kernel": depthwise_axes(layer.rank, stride_of(layer)),
        "pointwise_kernel": conv_axes(layer.rank),
    }


def _conv_transpose(layer: Any) -> Mapping[str, KernelAxes]:
    return {"kernel": transposed_axes(layer.rank, stride_of(layer))}


def _embedding(layer: Any) -> Mapping[str, KernelAxes]:
    # A row is looked up, not summed: one product an output unit.
    return {"embeddings": KernelAxes(inputs=(), outputs=(1,))}


def _reversible_embedding(layer: Any) -> Mapping[str, KernelAxes]:
    # Only an untied one has the second kernel, which is a dense layer's.
    return {**_embedding(layer), "reverse_embeddings": _dense(layer)["kernel"]}


def _used_reversibly(
    layer: Any, arguments: Mapping[str, Any]
) -> tuple[Sequence[str], str]:
    if not arguments.get("reverse"):
        return ["embeddings"], "looked up"
    is_tied = getattr(layer, "tie_weights", True)
    return ["embeddings" if is_tied else "reverse_embeddings"], "read back"


_PLAIN = Part(is_plain=True)
_TABLE = Part(bias=None, role="embedding")

RECORDS = {
    "Dense": Kind(_dense, {"kernel": _PLAIN}),
    "EinsumDense": Kind(_einsum_dense, hands_axes=True),
    "BaseConv": Kind(_conv, {"kernel": _PLAIN}),
    "BaseDepthwiseConv": Kind(_depthwise_conv),
    "BaseSeparableConv": Kind(_separable_conv, {"depthwise_kernel": Part(bias=None)}),
    "BaseConvTranspose": Kind(_conv_transpose),
    "Embedding": Kind(_embedding, {"embeddings": _TABLE}),
    "ReversibleEmbedding": Kind(
        _reversible_embedding, {"embeddings": _TABLE}, used=_used_reversibly
    ),
    # Fourier's sines, not to be drawn.
    "STFTSpectrogram": Kind(lambda layer: {}),
}
