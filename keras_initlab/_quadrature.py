"""Integrals against the standard normal density, in panels split at kinks and jumps.

Gauss-Hermite quadrature converges slowly on a kink: 64 nodes leave an error of 8e-4 on
ReLU. Here Gauss-Legendre panels are halved until a polynomial resolves the function on
each, so a panel's edge ends up on every kink without being told where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
# Values at the nodes -> Legendre coefficients -> derivatives at the nodes.
_VANDERMONDE = np.polynomial.legendre.legvander(_NODES, 15)
_COEFFICIENTS = np.linalg.inv(_VANDERMONDE)
_SLOPES = np.polynomial.legendre.legder(np.eye(16)) @ _COEFFICIENTS
_DERIVATIVES = np.polynomial.legendre.legvander(_NODES, 14) @ _SLOPES
_EDGE_DERIVATIVE = (np.polynomial.legendre.legvander([-1.0], 14) @ _SLOPES)[0]

_REACH = 12.0  # the density there is 2e-32
_NARROWEST = 2.0**-36
_MOST_PANELS = 600
# The tightest tolerance that the function's own rounding noise admits is used:
# some backends evaluate some functions in float32 whatever they are given.
_TOLERANCES = (1e-12, 1e-9, 1e-6, 1e-4)


@dataclass(frozen=True)
class HalfLine:
    """A function and its mirror image sampled on z > 0, ready to be integrated.

    Attributes:
        z: nodes, shape `(panels, 16)`, all positive.
        weights: standard normal quadrature weights, same shape, summing to 1/2.
        values: the function at `(z, -z)`, shape `(2, panels, 16)`.
        slopes: its derivative there, same shape; 0 on the panels (at most 1e-11 wide)
            that hold a kink or a jump, so that jumps count as they do for autodiff.
        slopes_at_zero: the derivative at 0 from the right and from the left.
    """

    z: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    slopes: np.ndarray
    slopes_at_zero: tuple[float, float]

    def mean(self, integrand: np.ndarray) -> float:
        """Returns E[g] for g given at `(z, -z)`, shape `(2, panels, 16)`."""
        return float(np.sum(self.weights * integrand.sum(axis=0)))


def sample(function: Callable[[np.ndarray], np.ndarray]) -> HalfLine | None:
    """Samples `function` where it can be integrated, or returns None if it cannot.

    Args:
        function: maps a float64 array to an array of the same shape, elementwise.
    """
    for tolerance in _TOLERANCES:
        panels = _resolve(function, tolerance)
        if panels is not None:
            return _assemble(function, *panels)
    return None


def _resolve(
    function: Callable[[np.ndarray], np.ndarray], tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Halves panels until each is resolved; returns centers, half widths, resolved."""
    centers, halves = np.arange(0.5, _REACH), np.full(int(_REACH), 0.5)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    count = len(centers)
    while len(centers):
        values = _evaluate(function, centers, halves)
        coefficients = np.abs(values @ _COEFFICIENTS.T)
        size = np.maximum(coefficients.max(axis=-1), 1.0)
        is_smooth = np.all(
            coefficients[..., -2:].max(axis=-1) <= tolerance * size, axis=0
        )
        is_done = is_smooth | (halves < _NARROWEST)
        kept.append((centers[is_done], halves[is_done], is_smooth[is_done]))
        centers, halves = centers[~is_done], halves[~is_done] / 2
        centers = np.concatenate([centers - halves, centers + halves])
        halves = np.concatenate([halves, halves])
        count += len(centers) // 2
        if count > _MOST_PANELS:
            return None
    joined = [np.concatenate(parts) for parts in zip(*kept, strict=True)]
    return joined[0], joined[1], joined[2]


def _assemble(
    function: Callable[[np.ndarray], np.ndarray],
    centers: np.ndarray,
    halves: np.ndarray,
    is_smooth: np.ndarray,
) -> HalfLine:
    values = _evaluate(function, centers, halves)
    z = centers[:, None] + halves[:, None] * _NODES
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    slopes = values @ _DERIVATIVES.T / halves[:, None] * is_smooth[:, None]
    slopes[1] *= -1  # the second row is a function of -z
    first = int(np.argmin(centers))
    right, left = values[:, first] @ _EDGE_DERIVATIVE / halves[first]
    return HalfLine(
        z=z,
        weights=halves[:, None] * _WEIGHTS * density,
        values=values,
        slopes=slopes,
        slopes_at_zero=(float(right), -float(left)),
    )


def _evaluate(
    function: Callable[[np.ndarray], np.ndarray],
    centers: np.ndarray,
    halves: np.ndarray,
) -> np.ndarray:
    z = centers[:, None] + halves[:, None] * _NODES
    return function(np.stack([z, -z]))
