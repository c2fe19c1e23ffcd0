"""Whether training has touched a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._keras.private import all_layers
from .._weights.origins import noted
from .._weights.trained import constant_starts, is_centering, steps_taken
from ._matrices import Weights

# A kernel says little if its units are few.
_LEAST_SIZE = 16
# Of 2,000 draws of 16 x 16, the smallest that count, none exceeds the edge by more than
# 1.13; of larger ones less.
_MOST_EXCESS, _SIGMAS = 1.2, 7.0
_ITERATIONS = 20
_NAMES = ("beta", "gamma", "moving_mean", "moving_variance", "bias")


def sign_of_training(model: keras.Model, kernels: Sequence[Weights]) -> str | None:
    """What shows that training has touched the weights, None if nothing does.

    - The optimizer has taken steps on this model.
    - A bias or a weight or statistic of a normalization that starts at a constant has
      left it, each value for itself. One that is another constant was set.
    - A kernel is no independent draw any more: its largest singular value lies beyond
      the edge of what draws reach (Marchenko and Pastur 1967), as gradients are of low
      rank, or its units' mean squares vary by more than those of draws.

    What `apply`, `calibrate` and `reinitialize` wrote is no sign while it is there.
    Short training of a network without biases may leave no sign; its scales are then
    judged like fresh ones.
    """
    return steps_taken(model) or _moved(model, kernels) or _beyond_draws(kernels)


def _moved(model: keras.Model, kernels: Sequence[Weights]) -> str | None:
    kernel_of = {id(one.kernel.layer): one for one in kernels}
    for layer in all_layers(model):
        for variable, _ in constant_starts(layer, _NAMES):
            values = to_numpy(variable).astype("float64")
            if np.ptp(values) == 0 or not np.isfinite(values).all():
                continue  # it was set
            if noted(variable) is not None:
                continue  # by `apply` or `calibrate`
            one = kernel_of.get(id(layer))
            if one is None or not is_centering(values, one.values, one.kernel.axes):
                return f"{variable.path!r} has left the constant that it started at"
    return None


def _beyond_draws(kernels: Sequence[Weights]) -> str | None:
    for one in kernels:
        if one.is_finite and not one.is_constant and one.origin is None:
            blocks = [b for b in one.matrices() if min(b.shape) >= _LEAST_SIZE]
            if any(_excess(b) > _MOST_EXCESS or _is_unequal(b) for b in blocks):
                return f"{one.path!r} is no independent draw"
    return None


def _excess(block: np.ndarray) -> float:
    """The largest singular value over the edge, rms·(√rows + √columns), of draws.

    By power iteration, which can only fall short of it.
    """
    vector = np.random.default_rng(0).normal(size=block.shape[1])
    length = 0.0
    for _ in range(_ITERATIONS):
        vector = block.T @ (block @ (vector / np.linalg.norm(vector)))
        length = float(np.linalg.norm(vector))
        if not length:
            return 0.0
    edge = np.sqrt(np.mean(np.square(block))) * sum(np.sqrt(block.shape))
    return float(np.sqrt(length) / edge)


def _is_unequal(block: np.ndarray) -> bool:
    """Whether columns' mean squares vary more than those of independent draws.

    For n independent entries of kurtosis k, a column's mean square has the relative
    variance (k − 1)/n; over m columns, its estimate has a relative error of √(2/m).
    """
    squares = np.square(block)
    rows, columns = block.shape
    mean = squares.mean()
    expected = (np.square(squares).mean() / mean**2 - 1) / rows
    found = squares.mean(axis=0).var() / mean**2
    return bool(found > expected * (1 + _SIGMAS * np.sqrt(2 / columns)))
