"""What the pictures of weights are given, as arrays that know their axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._core.errors import NoKernelsError, check_count, message
from .._keras.kinds import Kernel, KernelAxes, check_built, kernels, read_axes
from .._weights.theory import known_draw, theoretical_std_on
from ..inspection import variable_paths
from ._histories import labels_of

_KINDS = "a built layer or model, an initializer, its name, or an array"


@dataclass(frozen=True)
class Weights:
    """One kernel, or what takes its place.

    Attributes:
        label: what it is called.
        read: returns its values; of a large model not all can be held at once.
        axes: what its axes mean.
        theory: the standard deviation with which its initializer draws, if known.
    """

    label: str
    read: Callable[[], np.ndarray]
    axes: KernelAxes
    theory: float | None = None

    @functools.cached_property
    def values(self) -> np.ndarray:
        """Its values, float64."""
        return self.read().astype("float64")

    @property
    def finite(self) -> np.ndarray:
        """The values that are neither NaN nor infinite, in one axis."""
        return self.values[np.isfinite(self.values)]

    @property
    def std(self) -> float:
        """Their standard deviation: exactly 0 for a constant; NaN without any."""
        finite = self.finite
        if not finite.size:
            return math.nan
        return 0.0 if finite.min() == finite.max() else float(finite.std())

    @property
    def broken(self) -> str:
        """How many values are not finite, in words; empty if all are."""
        count = self.values.size - self.finite.size
        return f"{count:,} NaN or infinite" if count else ""


def weights_given(name: str, given: Any, shape: Any = None) -> list[Weights]:
    """Returns all kernels of what a picture was given.

    Args:
        name: the argument's name, for errors.
        given: a layer or model, a sequence of them, or `{label: value}` with values
            of any kind that `_KINDS` lists.
        shape: of what initializers draw.

    Raises:
        ValueError: if it is none of these, or there is nothing to be seen.
        UnbuiltModelError: if a layer has no weights yet.
    """
    if isinstance(given, keras.Layer):
        found = _of_layer(name, given)
    elif isinstance(given, Mapping):
        entries = given.items()
        found = [w for label, v in entries for w in _of_entry(name, label, v, shape)]
    elif isinstance(given, (list, tuple)):
        found = [one for layer in given for one in _of_layer(name, layer)]
    else:
        raise ValueError(
            message(
                f"`{name}` must be a built model, layers, or {{label: value}}.",
                f"{name}={type(given).__name__}",
                f"A value is {_KINDS}.",
            )
        )
    if not found:
        raise NoKernelsError(
            message(f"`{name}` must hold a kernel.", f"{name}={_named(given)}")
        )
    return found


def spaced(found: Sequence[Weights], most: int) -> tuple[list[Weights], str]:
    """Returns so many of them, evenly spaced from the first to the last, and a remark.

    Raises:
        ValueError: if `most` is no whole number of at least 1.
    """
    most = check_count("most", most, 12)
    if len(found) <= most:
        return list(found), ""
    places = np.unique(np.linspace(0, len(found) - 1, most).round().astype(int))
    return [found[i] for i in places], f"{len(places)} of {len(found)} kernels"


def _of_layer(name: str, layer: Any, label: str | None = None) -> list[Weights]:
    check_built(name, layer)
    found = [one for one in kernels(layer) if math.prod(one.variable.shape)]
    paths = variable_paths(layer, [kernel.variable for kernel in found])
    if all(path.endswith("/kernel") for path in paths):
        paths = [path.removesuffix("/kernel") for path in paths]
    _, labels = labels_of(paths)
    if label is not None:
        labels = [label if len(found) == 1 else f"{label}: {own}" for own in labels]
    return [
        _of_kernel(layer, text, one) for text, one in zip(labels, found, strict=True)
    ]


def _of_kernel(root: Any, label: str, kernel: Kernel) -> Weights:
    variable, shape = kernel.variable, tuple(kernel.variable.shape)
    # Two weights packed in a byte: the axes are those of what is unpacked.
    axes = kernel.axes if shape == kernel.shape else read_axes(len(shape))
    read = functools.partial(to_numpy, variable)
    return Weights(label, read, axes, known_draw(root, kernel)[1])


def _of_entry(name: str, label: Any, value: Any, shape: Any) -> Iterator[Weights]:
    if isinstance(value, keras.Layer):
        yield from _of_layer(name, value, str(label))
    elif isinstance(value, str) or callable(value):
        yield _drawn(name, str(label), value, shape)
    else:
        values = _array(name, label, value)
        if values.size:
            yield Weights(str(label), lambda: values, read_axes(values.ndim))


def _drawn(name: str, label: str, value: Any, shape: Any) -> Weights:
    """What an initializer draws, and what its formula says of that."""
    shape = _shape(name, label, shape)
    try:
        initializer = keras.initializers.get(value)
    except (ValueError, TypeError) as error:
        raise _neither(name, label, value) from error
    values = to_numpy(initializer(shape, dtype="float32"))
    theory = theoretical_std_on(initializer, shape)
    return Weights(label, lambda: values, read_axes(len(shape)), theory)


def _shape(name: str, label: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, (list, tuple)) or not shape:
        raise ValueError(
            message(
                f"`shape` must be that of a kernel where `{name}` holds initializers.",
                f"shape={shape!r}, and an initializer as {label!r}",
                "For a dense layer it is (inputs, outputs), as (512, 256).",
            )
        )
    return tuple(check_count("shape", size, 512) for size in shape)


def _array(name: str, label: Any, value: Any) -> np.ndarray:
    if value is None:  # NumPy takes it for NaN
        raise _neither(name, label, value)
    is_tensor = isinstance(value, keras.Variable) or keras.ops.is_tensor(value)
    try:
        return np.asarray(to_numpy(value) if is_tensor else value, dtype="float64")
    except (ValueError, TypeError) as error:
        raise _neither(name, label, value) from error


def _neither(name: str, label: Any, value: Any) -> ValueError:
    return ValueError(
        message(f"Each value of `{name}` must be {_KINDS}.", f"{label!r}: {value!r}")
    )


def _named(given: Any) -> str:
    if isinstance(given, keras.Layer):
        return f"{given.name!r} ({type(given).__name__}) without any"
    return repr(given) if not given else f"{type(given).__name__} without any"
