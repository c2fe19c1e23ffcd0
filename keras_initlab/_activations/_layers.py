"""Activation layers as functions of a tensor, with the values they hold now."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._core.transaction import assign_all
from .._keras.private import is_of_keras
from ._formulas import BoundActivation

_DRAWS = 2**16  # of an initializer, in place of slopes that do not exist yet


@dataclass(frozen=True, eq=False)
class LayerCall:
    """Any layer, as it acts in training and without the cast to its own dtype."""

    layer: Any

    def __call__(self, x: Any) -> Any:
        if "training" in inspect.signature(self.layer.call).parameters:
            return self.layer.call(x, training=True)
        return self.layer.call(x)


def leaky_relu(slope: float) -> BoundActivation:
    """Returns Keras's leaky ReLU with this slope."""
    return BoundActivation(keras.activations.leaky_relu, (("negative_slope", slope),))


def function_of_layer(layer: keras.Operation) -> Callable[[Any], Any]:
    """Returns what a layer does, as a function that `evaluate` takes."""
    # A subclass with its own `call` is another activation.
    for kind, made in _KNOWN.items():
        if type(layer).call is kind.call:
            return made(layer)
    return _of_operation(layer) or LayerCall(layer)


@contextlib.contextmanager
def unchanged(function: Callable[[Any], Any]) -> Iterator[None]:
    """Gives a layer its seeds and moving averages back on leaving."""
    if not isinstance(function, LayerCall):
        yield
        return
    variables = getattr(function.layer, "variables", ())
    before = [to_numpy(variable) for variable in variables]
    try:
        yield
    finally:
        pairs = zip(variables, before, strict=True)
        assign_all((variable, value, value) for variable, value in pairs)


def _of_operation(operation: keras.Operation) -> Callable[[Any], Any] | None:
    """The function of Keras's that made a raw operation, None for anything else."""
    if isinstance(operation, keras.Layer) or not is_of_keras(type(operation)):
        return None
    name = snake_case(type(operation).__name__)
    function = getattr(keras.ops, name, None)
    if function is None:
        return None
    own = vars(operation)
    names = list(inspect.signature(function).parameters)[1:]
    if not all(isinstance(own.get(name), (bool, int, float)) for name in names):
        return None
    if not names:
        return function
    return BoundActivation(function, tuple((name, own[name]) for name in names))


def snake_case(name: str) -> str:
    """Returns a class's name as Keras names its function."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return words.replace("re_lu", "relu")


def _relu(layer: Any) -> BoundActivation:
    names = ("negative_slope", "max_value", "threshold")
    return BoundActivation(
        keras.activations.relu, tuple((name, getattr(layer, name)) for name in names)
    )


def _elu(layer: Any) -> BoundActivation:
    return BoundActivation(keras.activations.elu, (("alpha", layer.alpha),))


def _prelu(layer: Any) -> BoundActivation:
    """The leaky ReLU with the same second moments, forward and backward."""
    slopes = to_numpy(layer.alpha) if layer.built else _drawn(layer.alpha_initializer)
    slopes = slopes.astype(np.float64)
    return leaky_relu(float(np.copysign(np.sqrt(np.mean(slopes**2)), slopes.mean())))


def _drawn(initializer: Any) -> np.ndarray:
    seed: Any = getattr(initializer, "seed", None)
    if not hasattr(seed, "state"):  # no SeedGenerator
        return to_numpy(initializer((_DRAWS,)))
    before = to_numpy(seed.state)  # looking must not change what training draws
    try:
        return to_numpy(initializer((_DRAWS,)))
    finally:
        seed.state.assign(before)


_KNOWN: dict[Any, Callable[[Any], Callable[[Any], Any]]] = {
    keras.layers.ELU: _elu,
    keras.layers.LeakyReLU: lambda layer: leaky_relu(layer.negative_slope),
    keras.layers.PReLU: _prelu,
    keras.layers.ReLU: _relu,
}
