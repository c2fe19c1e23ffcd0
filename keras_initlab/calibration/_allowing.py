"""How much of a scaling the constraint of a kernel leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel
from .._keras.running import Channels
from .._weights.constraining import Constraints
from ._scaling import Scaling, Wanted

_CLOSE = 1e-3


def allowed_part(
    found: Scaling,
    start: np.ndarray,
    kernel: Kernel,
    channels: Channels,
    constraints: Constraints,
) -> float:
    """The largest exponent in [0, 1] of the factors that a constraint leaves alone.

    Args:
        found: the scaling.
        start: the kernel before it, which obeys.
        kernel: the kernel.
        channels: where its product has its channels.
        constraints: the model's.
    """
    factors = channels.on_kernel(np.asarray(found.factors), kernel.shape)

    def is_left(part: float) -> bool:
        scaled = (start * factors**part).astype(start.dtype)
        return constraints.applied(kernel.variable, scaled) is scaled

    if is_left(1.0):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if is_left(middle) else (low, middle)
    return low


def in_part(
    found: Scaling,
    part: float,
    product: Any,
    added: Any,
    channels: Channels,
    wanted: Wanted,
    names: str,
) -> Scaling:
    """A scaling by factors to a power, and what it gives.

    Args:
        found: the scaling.
        part: the power, less than 1.
        product: what the kernel computes as it is.
        added: the bias that counts.
        channels: where the product has its channels.
        wanted: what was wanted.
        names: what the kernel obeys.
    """
    factors = np.asarray(found.factors) ** part
    rank = len(product.shape)
    axes = channels.others(rank) if wanted.per_channel else tuple(range(rank))
    given = to_numpy(ops.cast(product, "float32")).astype("float64") * factors + added
    after = float(np.sqrt(np.mean(np.var(given, axis=axes))))
    note = f"{names} allows a std of {after:.3g}, not {wanted.std:.3g}"
    return Scaling(found.before, after, factors if part else None, note)
