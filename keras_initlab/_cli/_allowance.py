"""How much a model may take up while it is loaded.

A configuration of a few bytes can ask for any number of weights. Keras makes them all
before it finds that the file holds others. So what is made is counted, before it is
made, against what the file holds.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

# Besides weights, a model has an optimizer's slots, an average of each weight and an
# accumulated gradient, which its file need not hold;
_TIMES = 8
# and states and metrics.
_LEAST = 2**24
_MOST_TENSORS = 2**18


class ExceededError(ValueError):
    """A model takes up more than it may."""


class Allowance:
    """Counts what a model takes up while it is loaded, and ends that in time.

    Args:
        stored: how many bytes of weights its file holds.

    Attributes:
        exceeded: what was too much, empty if nothing was. Keras may have kept the
            error to itself.
    """

    def __init__(self, stored: int):
        self.exceeded = ""
        self._stored = stored
        self._bytes = _LEAST + _TIMES * stored
        self._tensors = _MOST_TENSORS

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches what Keras makes inside."""
        with (
            _preceded(keras.Variable, "__init__", self._variable),
            _preceded(keras.KerasTensor, "__init__", self._tensor),
            _preceded(keras.layers.Normalization, "build", self._constants),
        ):
            yield

    def _variable(
        self,
        variable: Any,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        *_: Any,
        **__: Any,
    ) -> None:
        shape = getattr(initializer, "shape", ()) if shape is None else shape
        self._take(shape, _width(dtype))

    def _tensor(self, tensor: Any, *_: Any, **__: Any) -> None:
        self._tensors -= 1
        if self._tensors < 0:
            self._end(f"more than {_MOST_TENSORS} symbolic tensors")

    def _constants(self, layer: Any, input_shape: Any, *_: Any, **__: Any) -> None:
        """A mean and a variance that are given become as large as the input's axes."""
        if layer.input_mean is not None and layer.axis:
            self._take([2, *(input_shape[axis] for axis in layer.axis)], 4)

    def _take(self, shape: Any, width: int) -> None:
        try:
            sizes = [operator.index(n) for n in (shape if shape != () else ())]
        except TypeError:
            return  # Keras will say so
        if min(sizes, default=0) < 0:
            return
        self._bytes -= math.prod(sizes) * width
        if self._bytes < 0:
            self._end(
                f"weights of shape {tuple(sizes)} and others, far more than the "
                f"{self._stored} bytes that it holds"
            )

    def _end(self, what: str) -> None:
        self.exceeded = self.exceeded or what
        raise ExceededError(self.exceeded)


def _width(dtype: Any) -> int:
    """Bytes of a number."""
    return np.dtype(keras.backend.standardize_dtype(dtype)).itemsize


@contextlib.contextmanager
def _preceded(owner: type, name: str, look: Callable[..., None]) -> Iterator[None]:
    """Has a class's method preceded by a look at what it is called with."""
    plain = vars(owner).get(name)
    inherited = getattr(owner, name)
    is_on = True

    @functools.wraps(inherited)
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        if is_on:  # a layer keeps its `build`
            look(self, *args, **options)
        return inherited(self, *args, **options)

    setattr(owner, name, watched)
    try:
        yield
    finally:
        is_on = False
        if plain is None:
            delattr(owner, name)
        else:
            setattr(owner, name, plain)
