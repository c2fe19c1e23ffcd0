"""What a function does to a signal, asked of the function itself.

Run on a small sample: what gives the same at twice the input normalizes, what gives
twice as much and adds up is linear, and what acts on each entry alone is an activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from .._activations import evaluate
from .._core.arrays import to_numpy
from .._keras.kinds import Effect

_MASKING = 1e4  # numbers so large are those of masks, which say nothing
_CLOSE = 2e-3  # relative: an epsilon of 1e-3 beside a variance of one is no scale
_KNOWN = (
    *("relu", "gelu", "silu", "tanh", "sigmoid", "relu6", "elu", "selu", "softplus"),
    *("softsign", "mish", "leaky_relu", "hard_silu", "hard_sigmoid", "exponential"),
    *("log_sigmoid", "celu", "squareplus"),
)
_FAR = np.array([6.0, 9.0, 16.0, 30.0])  # some bend there
_GRID = np.concatenate([-_FAR[::-1], np.linspace(-4.0, 4.0, 81), _FAR])


@dataclass(frozen=True)
class Answer:
    """What a function does.

    Attributes:
        effect: its effect on a signal.
        gain: for a linear one, the factor on the root mean square.
        mean_square: for a normalization, that of what it gives.
        activation: for an activation, the function itself, or Keras's that is equal.
    """

    effect: Effect
    gain: float = 1.0
    mean_square: float = 1.0
    activation: Any = None


def ask(
    function: Callable[[Any], Any], shape: Sequence[int], name: str
) -> Answer | None:
    """Returns what a function of one tensor does, None for anything else.

    Args:
        function: takes and returns a tensor.
        shape: of what it is called on.
        name: for what acts on each entry alone and is no activation of Keras's.
    """
    if math.prod(shape) < 2:
        return None
    try:
        with np.errstate(all="ignore"):
            return _answer(_Asked(function, shape), shape, name)
    except TypeError:
        return None


def bends(function: Callable[[Any], Any], shape: Sequence[int]) -> bool:
    """Whether a function of one tensor is neither linear nor that and an offset."""
    with np.errstate(all="ignore"):
        call = _Asked(function, shape)
        offset = call(np.zeros_like(call.x))
        parts = call(call.x) + call(call.other) - offset
        return not _close(call(call.x + call.other), parts)


class _Asked:
    """A function of float32 arrays."""

    def __init__(self, function: Callable[[Any], Any], shape: Sequence[int]):
        self._function = function
        rng = np.random.default_rng(0)
        self.x, self.other = rng.standard_normal((2, *shape), "float32")
        self.rng = rng

    def __call__(self, x: np.ndarray) -> np.ndarray:
        given = ops.convert_to_tensor(x.astype("float32"))
        found = self._function(given)
        if not keras.backend.is_float_dtype(found.dtype):
            raise TypeError("it returns no numbers with a point")
        return to_numpy(ops.cast(found, "float32"))


def _answer(call: _Asked, shape: Sequence[int], name: str) -> Answer | None:
    x, y = call.x, call(call.x)
    if not y.size or not np.max(np.abs(y)) < _MASKING:  # or NaN
        return None
    twice = call(2 * x)
    if _acts_alone(call, y):
        if _close(twice, 2 * y) and _close(call(-x), -y):
            return Answer(Effect.SAME_UNITS, gain=_size(y) / _size(x))
        function = _on_any_shape(call, shape, name)
        return Answer(Effect.ACTIVATION, activation=_known(function) or function)
    if _are_shares(y) and _are_shares(twice) and _close(call(x + 1), y):
        return Answer(Effect.ACTIVATION, activation=keras.activations.softmax)
    if _close(twice, y) and _size(y) > 0:
        return Answer(Effect.NORMALIZATION, mean_square=_tidy(_size(y) ** 2))
    if _close(call(x + call.other), y + call(call.other)) and _size(y) > 0:
        gain = _size(y) / _size(x)
        is_turn = y.shape == x.shape and math.isclose(gain, 1, rel_tol=0.05)
        if is_turn:
            return Answer(Effect.REARRANGE)
        return Answer(Effect.CHANNEL_LINEAR, gain=gain)
    return None


def _acts_alone(call: _Asked, y: np.ndarray) -> bool:
    """Whether each entry of the output comes from that entry of the input alone."""
    x = call.x
    if y.shape != x.shape:
        return False
    kept = call.rng.random(x.shape) < 0.5
    if not _close(call(np.where(kept, x, call.other))[kept], y[kept]):
        return False
    order = call.rng.permutation(x.size)
    moved = call(x.ravel()[order].reshape(x.shape))
    return _close(moved.ravel(), y.ravel()[order])


def _are_shares(y: np.ndarray) -> bool:
    """Whether numbers are shares that sum to one along some axis."""
    is_one = (
        y.shape[axis] > 1 and np.allclose(y.sum(axis=axis), 1, atol=1e-3)
        for axis in range(y.ndim)
    )
    return bool(y.min() >= 0) and any(is_one)


def _on_any_shape(call: _Asked, shape: Sequence[int], name: str) -> Any:
    """What acts on each entry of a tensor of one shape, for tensors of any shape."""
    size = math.prod(shape)

    def function(z: Any) -> Any:
        given = to_numpy(ops.cast(z, "float32"))
        flat = given.ravel()
        parts = [
            call(np.resize(flat[start : start + size], shape)).ravel()
            for start in range(0, max(flat.size, 1), size)
        ]
        values = np.concatenate(parts)[: flat.size].reshape(given.shape)
        return ops.convert_to_tensor(values, z.dtype)

    function.__name__ = name
    return function


def _known(function: Callable[[Any], Any]) -> Any:
    """The activation of Keras's that gives the same values, or None."""
    try:
        values = evaluate(function.__name__, function, _GRID)
    except ValueError:
        return None
    for name in _KNOWN:
        activation = keras.activations.get(name)
        if np.allclose(evaluate(name, activation, _GRID), values, atol=1e-5):
            return activation
    return None


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return bool(_size(one - other) <= _CLOSE * max(_size(one), _size(other)))


def _size(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype="float64"))))


def _tidy(value: float) -> float:
    """One where a sample and an epsilon make it nearly one."""
    return 1.0 if math.isclose(value, 1.0, rel_tol=0.02) else value
