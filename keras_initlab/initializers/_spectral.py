"""Kernels rescaled to a given spectral norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._axes import KernelAxes
from .._errors import check_positive
from ._base import PACKAGE, LayoutInitializer
from ._matrices import check_matrix, matrix_shape, to_kernel

# Below this the singular values themselves cost less than the iteration.
_SMALL = 64
_STEPS = 48


@keras.saving.register_keras_serializable(PACKAGE)
class SpectralNorm(LayoutInitializer):
    """A Gaussian matrix rescaled so that its largest singular value is `norm`.

    The kernel is seen as the matrix from what one output unit sums over (window and
    inputs) to the outputs; batch indices have matrices of their own. A dense layer so
    initialized stretches no vector by more than `norm`. For a convolution the norm of
    the operator is larger than that of this matrix, by at most the square root of the
    number of taps in the window.

    Args:
        norm: the largest singular value, positive.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.

    Raises:
        ValueError: if `norm` is not a positive, finite number, or the shape has fewer
            than two axes.

    Example:
        >>> kernel = keras.ops.convert_to_numpy(SpectralNorm(0.9, seed=0)((300, 200)))
        >>> round(float(np.linalg.norm(kernel, 2)), 4)
        0.9

    References:
        Golub and Kahan 1965, "Calculating the singular values and pseudo-inverse of a
        matrix", for the bidiagonalization that finds the largest one.
    """

    def __init__(
        self,
        norm: float = 0.9,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.norm = check_positive("norm", norm, usual=0.9)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        check_matrix(type(self).__name__, shape)
        matrices = self._normal(matrix_shape(shape, axes), dtype)
        largest = largest_singular_value(matrices)
        scaled = matrices * (self.norm / ops.reshape(largest, (-1, 1, 1)))
        return to_kernel(scaled, shape, axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {"norm": self.norm, **super().get_config()}


def largest_singular_value(matrices: Any) -> Any:
    """Returns the largest singular value of each matrix, shape `(batch,)`.

    Golub-Kahan-Lanczos bidiagonalization with full reorthogonalization, in `keras.ops`
    so that it also runs while a function is traced. Power iteration would need
    hundreds of products, since the spectrum of a random matrix has no gap at its edge.

    Args:
        matrices: shape `(batch, rows, columns)`, generic (random) ones.
    """
    _, rows, columns = matrices.shape
    if min(rows, columns) <= _SMALL:
        return ops.svd(matrices, compute_uv=False)[:, 0]
    transposed = ops.swapaxes(matrices, -1, -2)
    # The bases start empty at their final size: growing ones would have JAX compile
    # every operation anew at every step.
    slots = ops.eye(_STEPS, dtype=matrices.dtype)
    vector = _unit(ops.sum(transposed, axis=-1, keepdims=True))
    right, left = vector * slots[0], 0.0 * ops.matmul(matrices, vector) * slots[0]
    for step in range(_STEPS):
        vector = _rest(left, ops.matmul(matrices, vector))
        left = left + vector * slots[step]
        if step + 1 < _STEPS:
            vector = _rest(right, ops.matmul(transposed, vector))
            right = right + vector * slots[step + 1]
    small = ops.matmul(ops.swapaxes(left, -1, -2), ops.matmul(matrices, right))
    return ops.svd(small, compute_uv=False)[:, 0]


def _rest(basis: Any, vector: Any) -> Any:
    """The unit vector of what an orthonormal basis lacks of a vector."""
    for _ in range(2):  # once leaves rounding errors of the size of the result
        overlap = ops.matmul(ops.swapaxes(basis, -1, -2), vector)
        vector = vector - ops.matmul(basis, overlap)
    return _unit(vector)


def _unit(vector: Any) -> Any:
    return vector / ops.sqrt(ops.sum(vector**2, axis=-2, keepdims=True))
