"""Student's t: how large a mean difference must be to count as real."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """The mean of paired differences and how far it is known.

    Attributes:
        mean: the mean.
        margin: half the width of its 95 % confidence interval; NaN where that cannot
            be told: of one pair, or of differences that are all the same.
        pairs: how many there are.
    """

    mean: float
    margin: float
    pairs: int

    @property
    def is_real(self) -> bool:
        """Whether 0 lies outside the interval."""
        return abs(self.mean) > self.margin  # never beyond a NaN


def critical_value(freedom: int) -> float:
    """Returns Student's t at two-sided 95 % for a number of degrees of freedom.

    With t = √freedom · tan(angle), the density is cos(angle)^(freedom − 1).
    """
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    shares = np.cumsum(density) - (density + density[0]) / 2
    at = np.interp(0.95, shares / shares[-1], angles)
    return math.sqrt(freedom) * math.tan(at)


def paired_difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """Returns how much larger `one` is than `other`, pair by pair.

    Args:
        one: figures, `(pairs,)`.
        other: those that they are paired with, `(pairs,)`.
    """
    differences = np.asarray(one, dtype="float64") - other
    pairs = len(differences)
    mean = float(np.mean(differences)) if pairs else math.nan
    spread = float(np.std(differences, ddof=1)) if pairs > 1 else math.nan
    # Accuracies are multiples of one test example, so a few differences may well be
    # the same. That shows no spread; it does not show that there is none.
    if pairs < 2 or not spread > 1e-12 * max(1.0, abs(mean)):
        return Difference(mean, math.nan, pairs)
    margin = critical_value(pairs - 1) * spread / math.sqrt(pairs)
    return Difference(mean, margin, pairs)
