"""What is wrong with weights that no training has touched yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from .._activations import activation_statistics
from .._keras.kinds import keras_fans
from .._weights.origins import Origin, noted
from .._weights.trained import is_centering
from ._finding import Finding
from ._matrices import Weights
from ._thresholds import GAIN_ABOVE, GAIN_BELOW, LEAST_SINGULAR_RATIO

_LEAST_SIZE = 16
_MAY_BE_SMALL = (
    "residual branch",
    "output",
    "query",
    "key",
    "qkv",
    "gate",
    "embedding",
)
_LARGEST_MATRIX = 4096


def scale(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds kernels whose gain is far from all that their true fans ask for."""
    for one in kernels:
        if not _is_judged(one) or one.values.size < _LEAST_SIZE:
            continue
        measured, expected = one.gain, _expected_gains(one)
        if not _is_within(measured, expected, one):
            expected = _with_asked(expected, one)  # drawing takes long
        low, high = expected
        if not _is_within(measured, expected, one):
            yield Finding(
                "scale",
                one.path,
                measured,
                (low, high),
                f"a signal of independent units leaves it {measured:.3g} times as "
                f"large{_why(one)}",
                f"recommend(model).apply(only=[{one.path!r}])",
            )


def orthogonality(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds kernels that were to be orthogonal and, on their true axes, are not."""
    for one in kernels:
        if not _is_judged(one) or not _was_drawn_orthogonal(one):
            continue
        blocks = one.matrices()
        if min(blocks.shape[1:]) > _LARGEST_MATRIX:
            continue
        ratio = _least_ratio(blocks)
        if ratio < LEAST_SINGULAR_RATIO:
            gates = one.kernel.axes.gates
            part = f"its {gates} gates" if gates > 1 else "its matrix"
            yield Finding(
                "orthogonality",
                one.path,
                ratio,
                (1.0, 1.0),
                f"the singular values of {part} are apart by a factor of "
                f"{1 / max(ratio, 1e-12):.3g}",
                f"recommend(model).apply(only=[{one.path!r}])",
            )


def bias(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds biases that are neither 0 nor one of the known choices.

    Those are: a bias of an output layer; one that centers its layer; a uniform one of
    at most 1/√fan_in; one value for each gate of a recurrent layer; one value for all
    units of a layer that gates another signal.
    """
    for one in kernels:
        values = one.bias
        if values is None or one.role == "output" or not np.isfinite(values).all():
            continue
        if _is_recommended(noted(one.kernel.bias)):
            continue
        largest = float(np.max(np.abs(values), initial=0.0))
        is_known = (
            _is_by_gate(values, one)
            or (one.role == "gate" and np.ptp(values) == 0)  # open, or shut, at first
            or (np.ptp(values) > 0 and _is_small(largest, one))
            or (
                np.ptp(values) > 0 and is_centering(values, one.values, one.kernel.axes)
            )
        )
        if largest and not is_known:
            yield Finding(
                "bias",
                one.kernel.bias.path,
                largest,
                (0.0, 0.0),
                f"starts at up to {largest:.3g}, where 0 is expected",
                _cure_of_bias(one),
                (one.path,),
            )


def _cure_of_bias(one: Weights) -> str:
    initializer = getattr(one.kernel.layer, "bias_initializer", None)
    if isinstance(initializer, keras.initializers.Zeros):
        return f"recommend(model).apply(only=[{one.path!r}], overwrite=True)"
    # What is drawn anew comes from the layer's own initializer.
    return f"build {one.kernel.layer.name!r} with bias_initializer='zeros'"


def _expected_gains(one: Weights) -> tuple[float, float]:
    """Between what the known schemes give, on the true fans."""
    fans = one.kernel.fans.at_least_one()
    fan_ratio = fans.fan_in / fans.fan_out
    spread = min(1.0, math.sqrt(fan_ratio))  # an orthogonal matrix to more units
    by_outputs = math.sqrt(2 * min(fan_ratio, 2.0))  # He's, on fan_out
    gains = [math.sqrt(2.0), by_outputs, *_activation_gains(one)]
    low = 0.0 if one.role in _MAY_BE_SMALL else spread / GAIN_BELOW
    return low, GAIN_ABOVE * max(gains)


def _with_asked(expected: tuple[float, float], one: Weights) -> tuple[float, float]:
    """The same, beside what the policies of `recommend` would draw."""
    low, high = expected
    gains = [gain for gain in one.asked() if gain > 0]
    return (
        min([low, *(gain / GAIN_BELOW for gain in gains)]),
        max([high, *(gain * GAIN_ABOVE for gain in gains)]),
    )


def _is_within(gain: float, expected: tuple[float, float], one: Weights) -> bool:
    noise = 1 + 3 / math.sqrt(2 * one.values.size)
    return expected[0] / noise <= gain <= expected[1] * noise


def _is_judged(one: Weights) -> bool:
    is_known = _is_recommended(one.origin)
    return one.is_finite and not one.is_constant and not is_known


def _is_recommended(origin: Origin | None) -> bool:
    return origin is not None and origin.is_recommended


def _activation_gains(one: Weights) -> Iterator[float]:
    try:
        statistics = activation_statistics(one.activation)
    except ValueError:
        return
    for moment in (statistics.second_moment, statistics.variance):
        if moment > 0:
            yield 1 / math.sqrt(moment)


def _why(one: Weights) -> str:
    true, seen = one.kernel.fans, keras_fans(one.kernel.shape)
    for side in ("fan_in", "fan_out"):
        own, counted = getattr(true, side), getattr(seen, side)
        if own != counted:
            return f": its {side} is {own:g}, Keras counts {counted:g}"
    if one.takes_unit_inputs:
        return "; if the inputs are not standardized, hand them over as data"
    return ""


def _was_drawn_orthogonal(one: Weights) -> bool:
    """Whether the values are those of Keras's initializer for orthogonal matrices.

    It makes one of all axes but the last. What else such a layer may hold, as random
    values that were loaded, is a choice.
    """
    if one.role == "recurrent" and one.values.ndim > 2:
        return False  # a convolution that is orthogonal flattened is not as it runs
    part = one.kernel.name.removesuffix("_kernel")
    initializer = getattr(one.kernel.layer, f"{part}_initializer", None)
    if not isinstance(initializer, keras.initializers.Orthogonal):
        return False
    flat = one.values.reshape(-1, one.values.shape[-1])
    return (
        min(flat.shape) <= _LARGEST_MATRIX
        and _least_ratio(flat) >= LEAST_SINGULAR_RATIO
    )


def _least_ratio(matrices: np.ndarray) -> float:
    """The smallest over the largest singular value of the worst matrix."""
    singular = np.linalg.svd(matrices, compute_uv=False)
    return float(np.min(singular[..., -1] / singular[..., 0]))


def _is_small(largest: float, one: Weights) -> bool:
    return largest <= 1.001 / math.sqrt(one.kernel.fans.at_least_one().fan_in)


def _is_by_gate(values: np.ndarray, one: Weights) -> bool:
    """Whether each gate has one value, of which only some are not 0."""
    gates = one.kernel.axes.gates
    if gates < 2 or values.shape[-1] % gates:
        return False
    each: Any = values.reshape(-1, gates, values.shape[-1] // gates)
    return bool(np.all(np.ptp(each, axis=-1) == 0))
