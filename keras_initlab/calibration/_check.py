"""Whether kernels compute, once written, what they were scaled for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel
from .._keras.running import Listener, Product

_SAMPLE = 4096  # numbers of a product, at least


class Check(Listener):
    """Hears whether scaled kernels compute what they were scaled for.

    Args:
        kernels: the kernels.
        samples: what the model went on with behind each of them.

    Attributes:
        off: id of the variable of the first kernel that computes something else.
    """

    def __init__(self, kernels: Sequence[Kernel], samples: Mapping[int, np.ndarray]):
        super().__init__([one for one in kernels if id(one.variable) in samples])
        self._samples = samples
        self.off: int | None = None

    def on_product(self, product: Product) -> Any:
        """Compares what a kernel computes at its first call."""
        key = id(product.kernel.variable)
        del self._open[key]
        found, meant = sample(product.output), self._samples[key]
        dtype = keras.backend.standardize_dtype(product.output.dtype)
        most = _ROUNDING.get(dtype, 1e-3) * np.linalg.norm(meant)
        is_off = found.shape != meant.shape or np.linalg.norm(found - meant) > most
        if is_off and self.off is None:
            self.off = key
        return product.output


# Of weights, inputs and products, relative to what is computed.
_ROUNDING = {"float16": 2.0**-7, "bfloat16": 2.0**-4}


def sample(tensor: Any) -> np.ndarray:
    """Some of a tensor's numbers, the same ones each time."""
    flat = ops.reshape(tensor, (-1,))
    some = flat[:: max(1, flat.shape[0] // _SAMPLE)]
    return to_numpy(ops.cast(some, "float32"))
