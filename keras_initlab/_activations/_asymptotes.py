"""The asymptotes of an activation: where it saturates, and no gradient passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ._formulas import formula_of
from ._pointwise import check_pointwise, evaluate, resolve

_FAR = np.array([1e4, 1.7e4, 2e4])  # unevenly apart, so that no wave hides
_FLAT = 1e-3  # softsign and squareplus come this near to their limits only


@dataclass(frozen=True)
class Asymptotes:
    """The values at which an activation is flat, or nearly so.

    Attributes:
        low: its limit at −∞; None if it has none.
        high: its limit at ∞; None if it has none.
        is_leaky: whether it has a small slope instead of a lower limit, as leaky ReLU.
    """

    low: float | None
    high: float | None
    is_leaky: bool


def asymptotes(activation: Any) -> Asymptotes:
    """Returns an activation's asymptotes; none of any kind if it is not pointwise."""
    if isinstance(activation, keras.layers.PReLU):
        return Asymptotes(None, None, is_leaky=True)  # whatever slopes it has learned
    try:
        name, function = resolve(activation)
    except ValueError:
        return Asymptotes(None, None, is_leaky=False)
    if formula_of(function) is not None:  # Keras's own, which is worth remembering
        return _known(name, function)
    return _computed(name, function)


def _computed(name: str, function: Callable[[Any], Any]) -> Asymptotes:
    try:
        check_pointwise(name, function, reach=1.0)
    except Exception:  # a custom one may ask for other shapes, and say so in any way
        return Asymptotes(None, None, is_leaky=False)
    low, slope = _limit(name, function, -_FAR)
    high, _ = _limit(name, function, _FAR)
    return Asymptotes(low, high, is_leaky=low is None and 0 < slope < 0.5)


_known = functools.lru_cache(maxsize=64)(_computed)


def _limit(
    name: str, function: Callable[[Any], Any], z: np.ndarray
) -> tuple[float | None, float]:
    """The limit that φ comes to, and its slope out there, NaN if that changes."""
    try:
        values = evaluate(name, function, z)
    except Exception:  # e^z overflows
        return None, math.nan
    slopes = np.diff(values) / np.diff(z)
    if np.any(np.abs(slopes * z[0]) >= _FLAT):
        is_straight = np.allclose(slopes, slopes[0], rtol=1e-3)
        return None, float(slopes[0]) if is_straight else math.nan
    # Rounded, since softsign is only near to −1 even there.
    limit = values[-1] if not np.any(slopes) else np.round(values[-1], 3)
    return float(limit) + 0.0, float(slopes[0])  # no −0
