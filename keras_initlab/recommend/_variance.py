"""Random kernels: a variance that keeps the signal's, and why it is that one."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._keras.kinds import keras_fans
from ..inspection import Edge, Effect, KernelRecord, Merge, activation_name
from ._choice import tidy
from ._input_moments import APPROXIMATE, InputMoment
from ._normalized import NORMALIZED_REFERENCE

_HE = "He et al. 2015, 1502.01852, eq. 10"
_LECUN = "LeCun et al. 1998, Efficient BackProp, eq. 16"
_POOLE = "Poole et al. 2016, 1606.05340, eq. 3"
_VASWANI = "Vaswani et al. 2017, 1706.03762, sec. 3.2.1"
_SWITCH = "Fedus et al. 2021, Switch Transformer, 2101.03961, sec. 2.4"

# A router's logits: nearly even, so that no expert starves before it has learned.
ROUTER_VARIANCE = 0.1

_ATTENTION = {
    "query": "attention logits of variance 1",
    "key": "attention logits of variance 1",
    "qkv": "query, key and value side by side, attention logits of variance 1",
    "value": "the softmax averages it over positions",
    "attention output": "an average over positions, up to √positions smaller",
}


def is_router(kernel: KernelRecord) -> bool:
    """Whether a kernel's softmax chooses among signals, as a mixture's router."""
    return kernel.role == "gate" and kernel.activation_name == "softmax"


def variance_scaling(kernel: KernelRecord, scale: float) -> Any:
    """Returns a normal initializer of variance `scale` over the true fan_in."""
    if kernel.fans.fan_in != keras_fans(kernel.shape).fan_in:
        return keras.initializers.RandomNormal(
            stddev=math.sqrt(scale / max(1.0, kernel.fans.fan_in))
        )
    if scale == 2.0:
        return keras.initializers.HeNormal()
    if scale == 1.0:
        return keras.initializers.LecunNormal()
    return keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")


def random_reason(kernel: KernelRecord, input_moment: InputMoment) -> str:
    """Returns what a random kernel reads and does, in words."""
    is_known = input_moment.is_exact or input_moment.is_measured
    about = "" if is_known else "about "
    told = ", measured" if input_moment.is_measured else ""
    square = f"mean square {about}{input_moment.moment:.3g}{told}"
    reads = f"reads {_reads(kernel)} of {square}"
    return f"{reads}{_after(kernel)}"


def variance_told(kernel: KernelRecord, scale: float) -> str:
    """Returns which variance a kernel has, in words."""
    return f": variance {scale:.3g}/fan_in{_fan(kernel)}"


def random_reference(kernel: KernelRecord, input_moment: InputMoment) -> str:
    """Returns the paper that a random kernel's scale is from."""
    if kernel.role in ("query", "key", "qkv"):
        return _VASWANI
    if is_router(kernel):
        return _SWITCH
    if kernel.normalization:
        return NORMALIZED_REFERENCE
    return {1.0: _LECUN, 2.0: _HE}.get(tidy(1 / input_moment.moment), _POOLE)


def frozen_std(kernel: KernelRecord, input_moment: InputMoment) -> float:
    """Returns the std that a kernel which stays as it is gives, from its values.

    As if its inputs were independent of one another. Where it was trained on them they
    are not, and it gives more: at least 1 is assumed.
    """
    values = to_numpy(kernel.variable)
    if not np.issubdtype(values.dtype, np.floating):
        return 1.0  # quantized: its scale is elsewhere
    square = float(np.mean(np.square(values, dtype="float64")))
    moment = 1.0 if kernel.role == "embedding" else input_moment.moment
    std = math.sqrt(square * max(1.0, kernel.fans.fan_in) * moment)
    return max(1.0, std) if math.isfinite(std) else 1.0


def _after(kernel: KernelRecord) -> str:
    if is_router(kernel):
        return ", and chooses: small logits use all alike at first"
    if kernel.role in _ATTENTION:
        return f", {_ATTENTION[kernel.role]}"
    gates = f", {kernel.gates} gates side by side" if kernel.gates > 1 else ""
    if kernel.normalization:
        return f", normalized after it{gates}"
    return gates


def _fan(kernel: KernelRecord) -> str:
    counted = keras_fans(kernel.shape).fan_in
    if kernel.fans.fan_in == counted:
        return ""
    return f"; Keras counts fan_in {counted} for this shape"


def _reads(kernel: KernelRecord) -> str:
    """What the kernel reads, in words."""
    edge = kernel.edges[0] if kernel.edges else Edge(None)
    for transform in reversed(edge.transforms):
        if transform.effect is Effect.ACTIVATION:
            return activation_name(transform.activation)
        if transform.effect is Effect.NORMALIZATION:
            return "normalized units"
    if edge.source is None:
        is_changed = any(
            transform.effect in APPROXIMATE for transform in edge.transforms
        )
        return "the preprocessed input" if is_changed else "the input"
    if isinstance(edge.source, Merge):
        return {Effect.ADD: "a sum", Effect.CONCATENATE: "several signals"}.get(
            edge.source.effect, "a product"
        )
    return "linear units"
