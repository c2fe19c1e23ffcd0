"""What an activation is: its name, its function, its values, and whether it has any.

An activation here maps each unit alone, the same way every time. What mixes units, is
random or is not finite has no statistics and is refused with the reason.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._core.errors import NotPointwiseError, message
from ._formulas import formula_of
from ._layers import function_of_layer, snake_case, unchanged


def resolve(activation: Any) -> tuple[str, Callable[[Any], Any]]:
    """Returns a display name and the callable of an activation, however given.

    Raises:
        ValueError: for an unknown name, or what is no activation at all.
    """
    while _is_plain_wrapper(activation):
        activation = activation.activation
    if isinstance(activation, keras.Operation):
        return _operation_name(activation), function_of_layer(activation)
    try:
        function = keras.activations.get(activation)
    except (ValueError, TypeError):
        function = None
    if not callable(function):
        raise ValueError(
            message(
                "`activation` must be a name that Keras knows, a callable or an "
                "activation layer.",
                f"activation={activation!r}",
                _suggestion(activation),
            )
        )
    return name_of(function), function


def name_of(function: Callable[[Any], Any]) -> str:
    """Returns the name of an activation function."""
    if isinstance(function, keras.Operation):
        return _operation_name(function)
    named = getattr(function, "func", function)  # what a functools.partial wraps
    return getattr(named, "__name__", type(function).__name__)


def is_rectifier(activation: Any) -> bool:
    """Whether the activation is exactly 0 for all negative input, as ReLU is."""
    if isinstance(activation, keras.layers.PReLU):
        return False  # its slope is learned, 0 only to begin with
    if isinstance(activation, keras.layers.Softmax):
        return False  # JAX takes milliseconds to refuse what is evaluated below
    z = np.array([-8.0, -1.0, -0.01, 0.5, 1.0])
    try:
        name, function = resolve(activation)
        with unchanged(function):
            values = evaluate(name, function, z)
    except Exception:  # a custom one may ask for other shapes, and say so in any way
        return False
    return bool(np.all(values[:3] == 0) and np.all(values[3:] > 0))


def evaluate(name: str, function: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    """Returns φ(z) as float64, in the best precision there is.

    Raises:
        NotPointwiseError: if the output's shape is not that of `z`.
        ValueError: if it is not finite or no tensor.
    """
    formula = formula_of(function)
    if formula is None:
        values = _from_keras(name, function, z)
    else:
        with np.errstate(all="ignore"):  # what overflows is found below
            values = np.asarray(formula(z))
    if values.shape != z.shape:
        raise NotPointwiseError(_not_pointwise(name))
    is_bad = ~np.isfinite(values)
    if np.any(is_bad):
        worst = min(z[is_bad].ravel(), key=abs)
        raise ValueError(
            message(
                "`activation` must be finite within 12 standard deviations of 0.",
                f"activation={name!r}, which is not finite at {worst:.4g}",
                "Bound its argument, e.g. with `keras.ops.clip`.",
            )
        )
    return values


def check_pointwise(name: str, function: Callable[[Any], Any], reach: float) -> None:
    """Raises for a function that is random or lets a unit's output depend on others."""
    rng = np.random.default_rng(0)
    # Even sizes, so that GLU halves any axis; four axes, so that any can be mixed.
    shape = (2, 2, 4, 6)
    z, other = reach * rng.uniform(-3.0, 3.0, size=(2, *shape))
    values = evaluate(name, function, z)
    close = 1e-6 * np.max(np.abs(values))
    if not np.allclose(values, evaluate(name, function, z), rtol=1e-5, atol=close):
        raise ValueError(
            message(
                "`activation` must give the same output for the same input.",
                f"activation={name!r}, which is random",
                "Give the gain of what it is on average, e.g. None for dropout.",
            )
        )
    for kept in rng.random((4, *shape)) < 0.5:
        mixed = evaluate(name, function, np.where(kept, z, other))
        if not np.allclose(values[kept], mixed[kept], rtol=1e-5, atol=close):
            raise NotPointwiseError(_not_pointwise(name))
    mirrored = evaluate(name, function, z[::-1, ::-1, ::-1, ::-1])
    alone = evaluate(name, function, z[:1, :1, :2, :2])
    pairs = [
        (values, mirrored[::-1, ::-1, ::-1, ::-1]),
        (values[:1, :1, :2, :2], alone),
    ]
    if not all(np.allclose(a, b, rtol=1e-5, atol=close) for a, b in pairs):
        raise NotPointwiseError(_not_pointwise(name))  # places are treated unlike


def _from_keras(name: str, function: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    with _double_precision():
        with contextlib.suppress(Exception):  # it may hold constants in float32
            return _called(function, z, "float64")
        try:
            return _called(function, z, "float32")
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(
                message(
                    "`activation` must map one tensor to one tensor of the same shape.",
                    f"activation={name!r}, which raises "
                    f"{type(error).__name__}: {first_line}",
                    "Fix other arguments with a lambda, and build a layer with "
                    "weights first.",
                )
            ) from error


def _called(function: Callable[[Any], Any], z: np.ndarray, dtype: str) -> np.ndarray:
    output = function(keras.ops.convert_to_tensor(z, dtype=dtype))
    if not (keras.ops.is_tensor(output) or isinstance(output, np.ndarray)):
        raise TypeError(f"it returns {type(output).__name__} and not a tensor")
    values = to_numpy(output)
    if np.iscomplexobj(values):
        raise TypeError("it returns complex numbers")
    return values.astype(np.float64)


def _double_precision() -> Any:
    """A context in which JAX keeps float64; the other backends always do."""
    if keras.backend.backend() == "jax":
        import jax  # pyright: ignore[reportMissingImports]

        return jax.enable_x64(True)
    return contextlib.nullcontext()


def _is_plain_wrapper(activation: Any) -> bool:
    wrapper = keras.layers.Activation
    return isinstance(activation, wrapper) and type(activation).call is wrapper.call


def _suggestion(activation: Any) -> str:
    """The nearest names that Keras knows, or all of them, for a name it does not."""
    if isinstance(activation, type) or not isinstance(activation, str):
        return ""
    names = sorted(name for name in dir(keras.activations) if _is_known(name))
    near = sorted(difflib.get_close_matches(activation.lower(), names))
    known = ", ".join(map(repr, near or names))
    return f"Did you mean {known}?" if near else f"Known names: {known}."


def _is_known(name: str) -> bool:
    try:
        return callable(keras.activations.get(name))
    except ValueError:
        return False


def _not_pointwise(name: str) -> str:
    return message(
        "`activation` must act on each unit alone.",
        f"activation={name!r}, which mixes units",
        "Gains are defined per unit; choose one for the layer before it, e.g. 1.",
    )


def _operation_name(operation: keras.Operation) -> str:
    if isinstance(operation, keras.layers.ReLU):
        if operation.negative_slope:
            return "leaky_relu"
        return "relu6" if operation.max_value == 6 else "relu"
    return snake_case(type(operation).__name__)
