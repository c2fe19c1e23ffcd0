"""Kernels before a normalization, whose scale is a learning rate and nothing else.

A normalization divides the scale of the kernel before it out again. What is left of it
is that a step changes a small kernel by more of itself: by the rate over its norm with
Adam, over its square with plain gradient descent. The gradient is orthogonal to such a
kernel, so every step makes it longer: one that starts too small mends that itself, one
that starts too large cannot. So these start small. Much smaller, the normalization's
epsilon of 0.001 would be a part of the variance.

Until its moving averages have caught up with so small a variance, a batch normalization
that starts them at 1 gives less in evaluation than in training, and ten in a row give
almost nothing: they have to start at what the kernel gives.
"""

from __future__ import annotations

from typing import Any

import keras

from ..inspection import Effect, Inspection, KernelRecord

NORMALIZED_STD = 0.3
NORMALIZED_REFERENCE = (
    "van Laarhoven 2017, 1706.05350; Arora et al. 2019, 1812.03981, sec. 2"
)


def is_scale_free(kernel: KernelRecord, inspection: Inspection) -> bool:
    """Whether all that read a kernel's output read it normalized, as this one gives it.

    A frozen batch normalization divides by what it holds, whatever it is given.
    """
    normalizer = kernel.normalizer
    if normalizer is None or (_is_batched(normalizer) and moving(normalizer) is None):
        return False
    return all(
        edge.has(Effect.NORMALIZATION)
        for reader in inspection.readers[kernel.position]
        for edge in reader.edges
        if edge.source == kernel.position
    )


def moving(normalizer: Any) -> Any:
    """Returns the moving variance of a batch normalization that trains, or None."""
    is_known = isinstance(normalizer, keras.layers.BatchNormalization)
    return normalizer.moving_variance if is_known and normalizer.trainable else None


def is_frozen(normalizer: Any) -> bool:
    """Whether a normalization goes by averages that it holds, whatever it is given."""
    is_batched = isinstance(normalizer, keras.layers.BatchNormalization)
    return is_batched and not normalizer.trainable


def _is_batched(normalizer: Any) -> bool:
    return "Batch" in type(normalizer).__name__
