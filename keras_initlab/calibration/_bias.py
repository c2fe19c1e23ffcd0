"""The bias that is added to what a kernel computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel


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


def bias_of(
    kernel: Kernel, value: Callable[[Any], Any], rank: int, is_added: bool
) -> Bias:
    """The bias of a kernel's layer.

    Args:
        kernel: the kernel.
        value: gives a variable's current value.
        rank: how many axes the kernel's output has.
        is_added: whether the output contains it.
    """
    variable = kernel.bias
    if variable is None:
        return Bias(None, np.zeros([1] * rank))
    values = to_numpy(value(variable)).astype("float64")
    has_two_rows = _has_two_rows(kernel.layer)
    if has_two_rows:
        values = values[0]
    if getattr(kernel.layer, "data_format", None) == "channels_first":
        values = values.reshape((-1, *[1] * kernel.layer.rank))
    values = values.reshape((*[1] * (rank - values.ndim), *values.shape))
    values = values if is_added else np.zeros_like(values)
    return Bias(variable, values, has_two_rows)


def _has_two_rows(layer: Any) -> bool:
    """Whether a cell has a bias beside its recurrent kernel, too."""
    return isinstance(layer, keras.layers.GRUCell) and layer.reset_after
