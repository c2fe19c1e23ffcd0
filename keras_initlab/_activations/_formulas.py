"""Keras's activations as float64 NumPy.

Their moments are wanted to nine digits, which Keras cannot give on every backend:
`keras.backend.result_type` turns float64 into float32 on JAX and PyTorch (so
`keras.ops.tanh` is off by 2e-7 on JAX), and TensorFlow rounds GELU's √2 and leaky
ReLU's slope to float32. These definitions stand in for Keras's own functions, known by
identity; everything else is evaluated as it is.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Array = np.ndarray

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class BoundActivation:
    """A Keras activation whose arguments are fixed; equal ones share their statistics.

    Attributes:
        function: one of `keras.activations`.
        arguments: `(name, value)` pairs.
    """

    function: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, x: Any) -> Any:
        return self.function(x, **dict(self.arguments))


def formula_of(function: Callable[..., Any]) -> Callable[[Array], Array] | None:
    """Returns the NumPy definition of one of Keras's functions, None for any other.

    Args:
        function: a function of `keras.activations`, the function of the same name in
            `keras.ops`, or one of them with keyword arguments fixed by a
            `BoundActivation` or a `functools.partial`.
    """
    arguments: dict[str, Any] = {}
    if isinstance(function, BoundActivation):
        function, arguments = function.function, dict(function.arguments)
    elif isinstance(function, functools.partial) and not function.args:
        function, arguments = function.func, function.keywords
    try:
        formula = _FORMULAS.get(function)
    except TypeError:  # unhashable
        return None
    if formula is None or not _accepts(formula, arguments):
        return None
    return functools.partial(formula, **arguments)


def _accepts(formula: Callable[..., Array], arguments: dict[str, Any]) -> bool:
    if isinstance(formula, np.ufunc):  # which had no signature before NumPy 2.4
        return not arguments
    try:
        inspect.signature(formula).bind(None, **arguments)
    except TypeError:
        return False
    return all(isinstance(v, int | float | None) for v in arguments.values())


def _relu(
    z: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    positive = np.where(z > threshold, z, 0.0)
    if max_value is not None:
        positive = np.clip(positive, 0.0, max_value)
    return positive - negative_slope * np.maximum(threshold - z, 0.0)


def _leaky_relu(z: Array, negative_slope: float = 0.2) -> Array:
    return np.where(z > 0, z, negative_slope * z)


def _elu(z: Array, alpha: float = 1.0) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0)))


def _celu(z: Array, alpha: float = 1.0) -> Array:
    return np.maximum(z, 0.0) + alpha * np.expm1(np.minimum(z, 0.0) / alpha)


def _gelu(z: Array, approximate: bool = False) -> Array:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
        return 0.5 * z * (1 + np.tanh(inner))
    return 0.5 * z * (1 + _erf(z / math.sqrt(2)))


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def _hard_sigmoid(z: Array) -> Array:
    return np.clip(z / 6 + 0.5, 0.0, 1.0)


def _soft_shrink(z: Array, threshold: float = 0.5) -> Array:
    return np.sign(z) * np.maximum(np.abs(z) - threshold, 0.0)


def _hard_shrink(z: Array, threshold: float = 0.5) -> Array:
    return np.where(np.abs(z) > threshold, z, 0.0)


def _threshold(z: Array, threshold: float, default_value: float) -> Array:
    return np.where(z > threshold, z, default_value)


def _sparse_plus(z: Array) -> Array:
    return np.where(z <= -1, 0.0, np.where(z < 1, (z + 1) ** 2 / 4, z))


def _squareplus(z: Array, b: float = 4) -> Array:
    return (z + np.sqrt(z**2 + b)) / 2


_BY_NAME: dict[str, Callable[..., Array]] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": np.exp,
    "gelu": _gelu,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda z: z * _hard_sigmoid(z),
    "hard_tanh": lambda z: np.clip(z, -1.0, 1.0),
    "leaky_relu": _leaky_relu,
    "linear": lambda z: z,
    "log_sigmoid": lambda z: -_softplus(-z),
    "mish": lambda z: z * np.tanh(_softplus(z)),
    "relu": _relu,
    "relu6": lambda z: np.clip(z, 0.0, 6.0),
    "selu": lambda z: _SELU_SCALE * _elu(z, _SELU_ALPHA),
    "sigmoid": _sigmoid,
    "silu": lambda z: z * _sigmoid(z),
    "soft_shrink": _soft_shrink,
    "softplus": _softplus,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda z: np.clip((z + 1) / 2, 0.0, 1.0),
    "squareplus": _squareplus,
    "tanh": np.tanh,
    "tanh_shrink": lambda z: z - np.tanh(z),
    "threshold": _threshold,
}


def _approximate_gelu(z: Array, approximate: bool = True) -> Array:
    """`keras.ops.gelu`, whose default is the other one."""
    return _gelu(z, approximate)


# A name that this version of Keras lacks is left out.
_FORMULAS: dict[Any, Callable[..., Array]] = {
    getattr(module, name): formula
    for module in (keras.ops, keras.activations)
    for name, formula in _BY_NAME.items()
    if hasattr(module, name)
}
_FORMULAS |= {keras.ops.exp: np.exp, keras.ops.gelu: _approximate_gelu}
