"""The largest singular value of matrices, in `keras.ops`.

Initializers also run under `jax.jit`, in a `tf.function` and in a stateless scope,
where neither NumPy nor SciPy can be called on a kernel.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

# Products are written `@`: `keras.ops.matmul` returns float32 for float64 on PyTorch.

# Vectors per Krylov step. A product with 8 takes no longer than one with a single
# vector, since reading the matrix dominates. And with one vector, now and then a close
# second singular value hides the largest: with 48 steps at 2048 x 2048, an error of
# 2e-3 in 400 draws, where the median is 1e-8.
_BLOCK = 8
_STEPS_PER_CUBE_ROOT = 2.5
# Squared lengths, relative to the longest, below which directions are inaccurate.
_RANK_TOLERANCE = 1e-5
_TINY = 1e-30
# Lengths of rounding errors, in units of the machine's epsilon.
_NOISE = 50


def largest_singular_value(matrices: Any) -> Any:
    """Returns the largest singular value of each matrix, shape `(batch,)`.

    Small matrices are solved in full. Large ones are projected on a block Krylov space
    of their Gram matrix, which reads a 2048 x 2048 matrix 64 times. Power iteration
    would read it hundreds of times, since the spectrum of a random matrix has no gap
    at its edge. A space can only miss something: what is returned is never too large
    but for rounding.

    Args:
        matrices: shape `(batch, rows, columns)`. Random ones are solved to rounding
            error; for others the number of steps is a guess.

    References:
        Golub and Underwood 1977, "The block Lanczos method for computing eigenvalues".
    """
    _, rows, columns = matrices.shape
    if rows < columns:
        matrices, columns = ops.swapaxes(matrices, -1, -2), rows
    steps = krylov_steps(columns)
    # Squaring loses digits of small singular values, none of the largest.
    if steps * _BLOCK < columns:
        gram = _projected_gram(matrices, steps)
    else:
        gram = ops.swapaxes(matrices, -1, -2) @ matrices
    return ops.sqrt(ops.svd(gram, compute_uv=False)[:, 0])


def krylov_steps(columns: int) -> int:
    """Returns how many blocks find the largest singular value of a random matrix.

    The gaps at the edge of a Gaussian matrix's spectrum shrink as `columns`^(-2/3),
    and the steps that Lanczos needs grow as one over the square root of a gap. The
    factor is from simulations of the exact law of the projected matrix: none of 500
    draws missed 1e-6, from 100 to 8192 columns, square or not.

    References:
        Johnstone 2001, "On the distribution of the largest eigenvalue in principal
        components analysis", for the gaps.
    """
    return math.ceil(_STEPS_PER_CUBE_ROOT * columns ** (1 / 3))


def as_real(real: Any, imaginary: Any) -> Any:
    """Returns real matrices with the singular values of complex ones, each twice."""
    above = ops.concatenate([real, -imaginary], axis=-1)
    below = ops.concatenate([imaginary, real], axis=-1)
    return ops.concatenate([above, below], axis=-2)


def _projected_gram(matrices: Any, steps: int) -> Any:
    """The Gram matrices on a space that nearly holds the first singular vector.

    Each block is made orthogonal to the two before it only, and to those further back
    but for rounding. That costs a basis to store and to reread, and what is lost makes
    copies of eigenvalues that were found already; no harm to the largest.
    """
    transposed = ops.swapaxes(matrices, -1, -2)
    block = _first_block(matrices)
    previous = ops.zeros_like(block)
    diagonal, beside = [], []
    for _ in range(steps):
        product = transposed @ (matrices @ block)
        nearby = ops.concatenate([previous, block], axis=-1)
        previous, block = block, _new_directions(nearby, product)
        against = ops.swapaxes(product, -1, -2)
        diagonal.append(against @ previous)
        beside.append(against @ block)
    upper = _block_bands(ops.stack(diagonal, 1) / 2, ops.stack(beside, 1))
    return upper + ops.swapaxes(upper, -1, -2)


def _block_bands(diagonal: Any, beside: Any) -> Any:
    """Matrices of blocks `(batch, blocks, size, size)` on and above the diagonal."""
    batch, count, size, _ = diagonal.shape
    spread = [
        ops.expand_dims(blocks, 3)
        * ops.convert_to_tensor(np.eye(count, k=k)[:, None, :, None], blocks.dtype)
        for k, blocks in enumerate((diagonal, beside))
    ]
    return ops.reshape(sum(spread), (batch, count * size, count * size))


def _first_block(matrices: Any) -> Any:
    batch, _, columns = matrices.shape
    start = np.random.default_rng(0).normal(size=(columns, _BLOCK))
    block = ops.convert_to_tensor(np.linalg.qr(start)[0], matrices.dtype)
    return ops.broadcast_to(block, (batch, columns, _BLOCK))


def _new_directions(nearby: Any, product: Any) -> Any:
    """Orthonormal columns, or zeros, for what nearby blocks lack of a product."""
    # In an invariant space nothing remains but rounding errors, and those point
    # anywhere, also back at blocks that are not near.
    epsilon = np.finfo(keras.backend.standardize_dtype(product.dtype)).eps
    noise = (_NOISE * float(epsilon)) ** 2 * ops.sum(product**2, axis=(-2, -1))
    block = product
    for least in (noise, 0 * noise):  # twice, for the rounding errors of what remains
        overlap = ops.swapaxes(nearby, -1, -2) @ block
        block = _orthonormal_or_zero(block - nearby @ overlap, least)
    return block


def _orthonormal_or_zero(block: Any, least: Any) -> Any:
    """Orthonormal columns that span a block, zeros where its rank runs out.

    QR would make up the missing directions, and those may lie in earlier blocks.

    Args:
        block: shape `(batch, rows, size)`.
        least: squared lengths that count as none, shape `(batch,)`.

    References:
        Stathopoulos and Wu 2002, "A block orthogonalization procedure with constant
        synchronization requirements", algorithm 3.1.
    """
    values, vectors = ops.eigh(ops.swapaxes(block, -1, -2) @ block)
    least = ops.maximum(ops.expand_dims(least, -1), _RANK_TOLERANCE * values[:, -1:])
    least = ops.maximum(least, _TINY)
    inverse = ops.where(values > least, 1 / ops.sqrt(ops.maximum(values, least)), 0.0)
    return block @ (vectors * ops.expand_dims(inverse, -2))
