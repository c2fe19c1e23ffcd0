"""Student's t: how large a mean difference must be to count as real."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

# Two-sided 95 %, for 1, 2, … degrees of freedom. SciPy has them all, but is no
# dependency and would be one for a single number.
_CRITICAL = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
_NORMAL = 1.959964


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

    References:
        Abramowitz and Stegun 1964, equation 26.7.5, for more than 30 of them.
    """
    if freedom <= len(_CRITICAL):
        return _CRITICAL[freedom - 1]
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


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
    return Difference(
        mean, critical_value(pairs - 1) * spread / math.sqrt(pairs), pairs
    )
