"""Integrals against the standard normal density, in panels split at kinks and jumps.

Gauss-Hermite quadrature converges slowly on a kink: 64 nodes leave an error of 8e-4 on
ReLU. Here Gauss-Legendre panels are halved until a polynomial resolves the function on
each, so a panel's edge ends up on every kink without being told where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

_NODES, _WEIGHTS = legendre.leggauss(16)
# Values at the nodes -> Legendre coefficients -> values and derivatives elsewhere.
_COEFFICIENTS = np.linalg.inv(legendre.legvander(_NODES, 15))
_DERIVATIVE = legendre.legder(np.eye(16))
_SLOPES = legendre.legvander(_NODES, 14) @ _DERIVATIVE
_EDGE_SLOPE = (legendre.legvander([-1.0], 14) @ _DERIVATIVE)[0]
# Points near the left edge, where a polynomial through the nodes is put to the test:
# a step as narrow as tanh(1000 z)'s would else pass for a constant beside 0.
_TESTS = -1 + np.array([2.0**-8, 2.0**-14, 2.0**-20])
_PREDICTED = legendre.legvander(_TESTS, 15) @ _COEFFICIENTS

_REACH = 12.0  # the density there is 2e-32
_WIDEST = 0.25  # half width of the panels to begin with
_NARROWEST = 2.0**-36
_MOST_PANELS = 1000
# The tightest tolerance that the function's own rounding noise admits is used:
# some backends evaluate some functions in float32 whatever they are given.
_TOLERANCES = (1e-12, 1e-9, 1e-7, 3e-7, 1e-6, 1e-4)

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HalfLine:
    """A function and its mirror image sampled on z > 0, ready to be integrated.

    Attributes:
        z: nodes, shape `(panels, 16)`, all positive.
        weights: standard normal quadrature weights, same shape, summing to 1/2.
        values: the function at `(z, -z)`, shape `(2, panels, 16)`.
        slopes: its derivative there, same shape; 0 on the panels (at most 1e-11
            wide, 1e-6 in float32) that hold a kink or a jump, so that jumps count as
            they do for autodiff.
        slopes_at_zero: the derivatives at 0 from the right and from the left.
    """

    z: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    slopes: np.ndarray
    slopes_at_zero: np.ndarray

    def mean(self, integrand: np.ndarray) -> float:
        """Returns E[g], for g given as `values` is."""
        return float(np.sum(self.weights * integrand))

    def tail_share(self) -> float:
        """Returns the share of E[φ²] that comes from the outermost 4 %."""
        whole = self.mean(self.values**2)
        outside = self.mean(self.values**2 * (self.z > 0.96 * _REACH))
        return outside / whole if whole else 0.0


@dataclass(frozen=True)
class _Panels:
    centers: np.ndarray
    halves: np.ndarray
    is_smooth: np.ndarray
    noise: float  # below which a coefficient says nothing


def sample(function: Function) -> HalfLine | None:
    """Samples a function where it can be integrated, or returns None if it cannot.

    Args:
        function: maps a float64 array to one of the same shape elementwise.
    """
    for tolerance in _TOLERANCES:
        panels = _resolve(function, tolerance)
        if panels is not None:
            return _assemble(function, panels)
    return None


def _resolve(function: Function, tolerance: float) -> _Panels | None:
    """Halves panels until each is resolved."""
    halves = np.full(int(_REACH / _WIDEST / 2), _WIDEST)
    centers = _WIDEST * (2 * np.arange(len(halves)) + 1)
    # Where float32 rounds the argument, a kink cannot be told any closer.
    narrowest = max(_NARROWEST, tolerance / 4)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    count, scale = len(centers), -1.0
    while len(centers):
        values = _evaluate(function, centers, halves, with_tests=True)
        if scale < 0:
            scale = _scale(values, centers)
        is_smooth = _are_smooth(values, tolerance, scale)
        is_done = is_smooth | (halves < narrowest)
        kept.append((centers[is_done], halves[is_done], is_smooth[is_done]))
        centers, halves = centers[~is_done], halves[~is_done] / 2
        centers = np.concatenate([centers - halves, centers + halves])
        halves = np.concatenate([halves, halves])
        count += len(centers) // 2
        if count > _MOST_PANELS:
            return None
    joined = [np.concatenate(parts) for parts in zip(*kept, strict=True)]
    return _Panels(joined[0], joined[1], joined[2], 0.1 * tolerance * scale)


def _scale(values: np.ndarray, centers: np.ndarray) -> float:
    """A rough rms of the function, the measure of what is too small to matter."""
    weights = np.exp(-0.5 * centers**2)[:, None]
    return float(np.sqrt(np.mean(values**2 * weights) / np.mean(weights)))


def _are_smooth(values: np.ndarray, tolerance: float, scale: float) -> np.ndarray:
    """Which panels a polynomial resolves, on both sides."""
    at_nodes, tested = values[..., :16], values[..., 16:]
    coefficients = np.abs(at_nodes @ _COEFFICIENTS.T)
    size = tolerance * np.maximum(coefficients.max(axis=-1), scale)
    misses = np.abs(at_nodes @ _PREDICTED.T - tested).max(axis=-1)
    is_smooth = (coefficients[..., -2:].max(axis=-1) <= size) & (misses <= 10 * size)
    return np.all(is_smooth, axis=0)


def _assemble(function: Function, panels: _Panels) -> HalfLine:
    centers, halves = panels.centers, panels.halves
    values = _evaluate(function, centers, halves)
    z = centers[:, None] + halves[:, None] * _NODES
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    coefficients = values @ _COEFFICIENTS.T
    # Differentiation multiplies rounding noise by degree² over the panel's width.
    is_noise = np.abs(coefficients) < panels.noise
    is_noise[..., :2] = False
    coefficients[is_noise] = 0.0
    slopes = coefficients @ _SLOPES.T / halves[:, None] * panels.is_smooth[:, None]
    first = int(np.argmin(centers))
    sides = np.array([1.0, -1.0])  # the second row is a function of -z
    return HalfLine(
        z=z,
        weights=halves[:, None] * _WEIGHTS * density,
        values=values,
        slopes=slopes * sides[:, None, None],
        slopes_at_zero=coefficients[:, first] @ _EDGE_SLOPE / halves[first] * sides,
    )


def _evaluate(
    function: Function,
    centers: np.ndarray,
    halves: np.ndarray,
    with_tests: bool = False,
) -> np.ndarray:
    """The function at `(z, -z)`, shape `(2, panels, nodes)`."""
    nodes = np.concatenate([_NODES, _TESTS]) if with_tests else _NODES
    # JAX compiles every operation anew for every shape, so few shapes are used.
    count = len(centers)
    padding = (0, max(8, 1 << (count - 1).bit_length()) - count)
    centers, halves = (np.pad(a, padding, mode="edge") for a in (centers, halves))
    z = centers[:, None] + halves[:, None] * nodes
    return function(np.stack([z, -z]))[:, :count]
