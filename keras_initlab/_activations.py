"""What an activation does to a Gaussian signal.

The statistics of φ(z) and φ′(z) for z ~ N(0, 1) decide which scale keeps a signal
alive, and the symmetry of φ decides which construction survives depth.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from ._arrays import to_numpy
from ._errors import NotPointwiseError, check_choice, message
from ._quadrature import HalfLine, sample

_KINDS = ("backward", "second_moment", "variance")


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of an activation φ under z ~ N(0, 1).

    Attributes:
        mean: E[φ(z)].
        second_moment: E[φ(z)²].
        derivative_second_moment: E[φ′(z)²], the factor on a gradient's variance.
        mean_derivative: E[φ′(z)].
        value_at_zero: φ(0).
        slope_at_zero: the mean of the slopes on both sides of 0.
        odd_second_moment: E[(φ(z) − φ(−z))²], what a mirrored pair passes on.
        odd_slope: a in the best fit φ(z) − φ(−z) ≈ a·z.
        odd_error: rms of that fit's residual, as a share of the rms of a·z. 0 for
            ReLU, GELU, SiLU, hard SiLU, softplus and leaky ReLU.
        center_error: rms of (φ(z) + φ(−z))/2 − φ(0), as a share of the rms of
            (φ(z) − φ(−z))/2. 0 for an activation that is odd about its center, such
            as tanh and sigmoid.
    """

    mean: float
    second_moment: float
    derivative_second_moment: float
    mean_derivative: float
    value_at_zero: float
    slope_at_zero: float
    odd_second_moment: float
    odd_slope: float
    odd_error: float
    center_error: float

    @property
    def variance(self) -> float:
        """Var[φ(z)]."""
        return max(0.0, self.second_moment - self.mean**2)

    def to_dict(self) -> dict[str, float]:
        """Returns all figures as a dict."""
        return {**asdict(self), "variance": self.variance}


def activation_statistics(activation: Any) -> ActivationStatistics:
    """Returns what an activation does to a standard normal signal.

    The integrals are adaptive Gauss-Legendre quadrature of the activation as Keras
    computes it, so any pointwise callable works; kinks and jumps are found by halving.
    Accurate to about 1e-9, or 1e-6 where a backend evaluates in float32. A jump adds
    nothing to the derivative's moments, as in automatic differentiation.

    Args:
        activation: a name Keras knows (`"gelu"`), a callable that maps a tensor to a
            tensor of the same shape, an activation layer (`keras.layers.LeakyReLU()`),
            or None for linear.

    Returns:
        An `ActivationStatistics` record.

    Raises:
        NotPointwiseError: for softmax, GLU and others that mix units.
        ValueError: for an unknown name, NaN or infinite values, randomness, or a
            function too rough to integrate.

    Example:
        >>> statistics = activation_statistics("relu")
        >>> round(statistics.second_moment, 6), round(statistics.odd_error, 6)
        (0.5, 0.0)

    References:
        Poole et al. 2016, "Exponential expressivity in deep neural networks through
        transient chaos", 1606.05340, equations 3 and 8, for the role of these moments.
    """
    name, function = resolve(activation)
    if isinstance(getattr(function, "__self__", None), keras.Operation):
        return _statistics.__wrapped__(name, function)  # a layer may have changed
    try:
        return _statistics(name, function)
    except TypeError:  # an unhashable callable cannot be cached
        return _statistics.__wrapped__(name, function)


def gain(activation: Any, kind: str = "second_moment") -> float:
    """Returns the factor on the std of a kernel drawn N(0, 1/fan_in).

    With `"second_moment"`, 1/√E[φ(z)²]: units that read this activation's output keep
    the variance of its input (√2 for ReLU, He et al.). With `"variance"`,
    1/std(φ(z)): the same after the mean has been taken out, as centered biases and
    normalization do. With `"backward"`, 1/√E[φ′(z)²]: gradients keep their variance
    for fan_out = fan_in.

    Args:
        activation: as for `activation_statistics`.
        kind: `"backward"`, `"second_moment"` or `"variance"`.

    Returns:
        A positive float.

    Raises:
        ValueError: for an unknown `kind`, for what `activation_statistics` refuses, or
            for an activation that passes nothing on (a constant).

    Example:
        >>> round(gain("relu"), 6), round(gain("tanh"), 6)
        (1.414214, 1.592537)

    References:
        He et al. 2015, "Delving deep into rectifiers", 1502.01852, equation 10.
    """
    check_choice("kind", kind, _KINDS)
    statistics = activation_statistics(activation)
    moment = {
        "backward": statistics.derivative_second_moment,
        "second_moment": statistics.second_moment,
        "variance": statistics.variance,
    }[kind]
    if moment <= 1e-12:
        name, _ = resolve(activation)
        raise ValueError(
            message(
                f"`activation` must pass a signal on to have a {kind} gain.",
                f"activation={name!r}, whose {kind} moment is {moment:.3g}",
            )
        )
    return 1 / math.sqrt(moment)


def moments_at(activation: Any, std: float) -> tuple[float, float]:
    """Returns E[φ(z)²] and E[φ′(z)²] for z ~ N(0, std²), to about three digits.

    Args:
        activation: as for `activation_statistics`.
        std: in [1e-3, 10]; beyond, the end of that range counts.
    """
    name, function = resolve(activation)
    stds, moments, slopes = _moment_curves(name, function)
    at = math.log(std)
    return (
        std**2 * math.exp(np.interp(at, stds, moments)),
        math.exp(np.interp(at, stds, slopes)),
    )


def resolve(activation: Any) -> tuple[str, Callable[[Any], Any]]:
    """Returns a display name and the callable of an activation, however given."""
    if isinstance(activation, keras.layers.Activation):
        activation = activation.activation
    if isinstance(activation, keras.layers.PReLU):
        return "prelu", _prelu(activation)
    if isinstance(activation, keras.Operation):
        return _operation_name(activation), _of_operation(activation)
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
            )
        )
    return name_of(function), function


def name_of(function: Callable[[Any], Any]) -> str:
    """Returns the name of an activation function."""
    if isinstance(function, keras.Operation):
        return _operation_name(function)
    return getattr(function, "__name__", type(function).__name__)


def is_rectifier(activation: Any) -> bool:
    """Whether the activation is exactly 0 for all negative input, as ReLU is."""
    if isinstance(activation, keras.layers.PReLU):
        return False  # its slope is learned, 0 only to begin with
    try:
        name, function = resolve(activation)
        values = evaluate(name, function, np.array([-8.0, -1.0, -0.01, 0.5, 1.0]))
    except Exception:  # a custom one may ask for other shapes, and say so in any way
        return False
    return bool(np.all(values[:3] == 0) and np.all(values[3:] > 0))


def evaluate(name: str, function: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    """Returns φ(z) as float64, in the best precision that the backend offers."""
    with _double_precision():
        try:
            output = function(keras.ops.convert_to_tensor(z, dtype="float64"))
        except TypeError as error:
            raise ValueError(
                message(
                    "`activation` must map one tensor to one tensor.",
                    f"activation={name!r}, which raises {error}",
                    "Fix its other arguments with a lambda.",
                )
            ) from error
        values = to_numpy(output).astype(np.float64)
    if values.shape != z.shape:
        raise NotPointwiseError(_not_pointwise(name))
    if not np.all(np.isfinite(values)):
        worst = z[~np.isfinite(values)].ravel()[0]
        raise ValueError(
            message(
                "`activation` must be finite on [-12, 12].",
                f"activation={name!r}, which is not finite at {worst:.4g}",
            )
        )
    return values


@functools.lru_cache(maxsize=256)
def _statistics(name: str, function: Callable[[Any], Any]) -> ActivationStatistics:
    _check_pointwise(name, function)
    line = sample(lambda z: evaluate(name, function, z))
    if line is None:
        raise ValueError(
            message(
                "`activation` must be smooth but for a few kinks and jumps.",
                f"activation={name!r}, which is too rough to integrate",
            )
        )
    at_zero = evaluate(name, function, np.zeros((1, 1)))[0, 0]
    return _moments(line, at_zero)


@functools.lru_cache(maxsize=64)
def _moment_curves(
    name: str, function: Callable[[Any], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ln std, ln(E[φ²]/std²) and ln E[φ′²], smooth enough to be interpolated."""
    stds = np.logspace(-3, 1, 65)
    z = np.linspace(-8.0, 8.0, 1601)
    weights = np.exp(-0.5 * z**2)
    weights /= weights.sum()
    values = evaluate(name, function, stds[:, None] * z)
    slopes = np.gradient(values, z, axis=1) / stds[:, None]
    floor = 1e-30
    return (
        np.log(stds),
        np.log(np.maximum(values**2 @ weights / stds**2, floor)),
        np.log(np.maximum(slopes**2 @ weights, floor)),
    )


def _moments(line: HalfLine, at_zero: float) -> ActivationStatistics:
    right, left = line.values
    odd, even = right - left, (right + left) / 2 - at_zero
    odd_slope = line.mean(line.z * np.stack([odd, odd]))
    residual = odd - odd_slope * line.z
    odd_moment = line.mean(np.stack([odd, odd]) ** 2)
    return ActivationStatistics(
        mean=line.mean(line.values),
        second_moment=line.mean(line.values**2),
        derivative_second_moment=line.mean(line.slopes**2),
        mean_derivative=line.mean(line.slopes),
        value_at_zero=float(at_zero),
        slope_at_zero=float(np.mean(line.slopes_at_zero)),
        odd_second_moment=odd_moment,
        odd_slope=odd_slope,
        odd_error=_share(line.mean(np.stack([residual] * 2) ** 2), odd_slope**2),
        center_error=_share(line.mean(np.stack([even] * 2) ** 2), odd_moment / 4),
    )


def _share(part: float, whole: float) -> float:
    """The rms of a part as a share of the rms of the whole."""
    if whole <= 1e-24:
        return math.inf if part > 1e-24 else 0.0
    return math.sqrt(max(0.0, part) / whole)


def _check_pointwise(name: str, function: Callable[[Any], Any]) -> None:
    z = np.linspace(-3.0, 3.0, 24).reshape(4, 6)
    values = evaluate(name, function, z)
    if not np.allclose(values, evaluate(name, function, z), rtol=1e-5, atol=1e-6):
        raise ValueError(
            message(
                "`activation` must give the same output for the same input.",
                f"activation={name!r}, which is random",
            )
        )
    mirrored = evaluate(name, function, z[::-1, ::-1])[::-1, ::-1]
    alone = evaluate(name, function, z[:1, :2])
    if not (
        np.allclose(values, mirrored, rtol=1e-5, atol=1e-6)
        and np.allclose(values[:1, :2], alone, rtol=1e-5, atol=1e-6)
    ):
        raise NotPointwiseError(_not_pointwise(name))


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
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(operation).__name__).lower()
    return words.replace("re_lu", "relu")


def _of_operation(operation: keras.Operation) -> Callable[[Any], Any]:
    # `call` and not `__call__`, which would cast to the layer's own dtype.
    return operation.call


def _prelu(layer: keras.layers.PReLU) -> Callable[[Any], Any]:
    alpha = layer.alpha if layer.built else layer.alpha_initializer((1,))
    slope = float(np.mean(to_numpy(alpha)))
    return lambda z: keras.ops.relu(z) - slope * keras.ops.relu(-z)


def _double_precision() -> Any:
    """A context in which JAX keeps float64; the other backends always do."""
    if keras.backend.backend() == "jax":
        import jax  # pyright: ignore[reportMissingImports]

        return jax.enable_x64(True)
    return contextlib.nullcontext()
