"""The bias that is added to what a kernel computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from ..._core.arrays import to_numpy
from ._listener import Product


@dataclass(frozen=True)
class Bias:
    """A bias beside what a kernel computes.

    Attributes:
        variable: the Keras variable, None if there is none.
        values: its values with as many axes as the kernel's output, to be spread over
            it; zero if the output comes without the bias.
        has_two_rows: whether its second row is one beside a recurrent kernel.
    """

    variable: Any
    values: np.ndarray
    has_two_rows: bool = False

    @property
    def is_trainable(self) -> bool:
        """Whether there is one that may be changed."""
        return self.variable is not None and self.variable.trainable

    @property
    def is_zero(self) -> bool:
        """Whether the output is all the kernel's."""
        return not np.any(self.values)

    def minus(self, current: Any, means: Any) -> Any:
        """The variable's value less the means of the output, `values`' shape."""
        means = ops.cast(means, keras.backend.standardize_dtype(current.dtype))
        if self.has_two_rows:
            return current - ops.stack([ops.reshape(means, (-1,)), 0 * current[1]])
        return current - ops.reshape(means, current.shape)


def bias_of(product: Product, value: Callable[[Any], Any], counts: bool) -> Bias:
    """The bias that is added to what a kernel computes.

    Args:
        product: what the kernel computes.
        value: gives a variable's current value.
        counts: whether its values count; zeros stand for them otherwise.
    """
    kernel, rank = product.kernel, len(product.output.shape)
    variable = kernel.bias
    if variable is None:
        return Bias(None, np.zeros([1] * rank))
    values = to_numpy(value(variable)).astype("float64")
    has_two_rows = _has_two_rows(kernel.layer)
    if has_two_rows:
        values = values[0]
    if values.ndim == 1:  # behind the channels come positions, if they are first
        (axis,) = product.channels.in_output[-1:]
        values = values.reshape((-1, *[1] * (-1 - axis)))
    values = values.reshape((*[1] * (rank - values.ndim), *values.shape))
    values = values if counts else np.zeros_like(values)
    return Bias(variable, values, has_two_rows)


def _has_two_rows(layer: Any) -> bool:
    """Whether a cell has a bias beside its recurrent kernel, too."""
    return isinstance(layer, keras.layers.GRUCell) and layer.reset_after
