"""What constraints leave of values: Keras applies them after every step.

Values that obey from the start are not changed by the first step. Spectral
normalization is a constraint of a wrapper: it divides its layer's kernel, before every
training step, by what one turn of the power iteration takes for its largest singular
value. It leaves a kernel alone whose norm is 1, if its vector is the singular one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._keras.private import all_layers

# A constraint of a rate below 1 goes a part of the way each time.
_MOST_TURNS = 300
_ROUNDING = {"float16": 4e-3, "bfloat16": 3e-2}


class Constraints:
    """What the variables of a model obey.

    Args:
        model: a built model or layer, None for no constraints but variables' own.
    """

    def __init__(self, model: Any):
        self._normalizers = {
            id(layer.kernel): layer
            for layer in all_layers(model)
            if isinstance(layer, keras.layers.SpectralNormalization) and layer.built
        }

    def normalizer(self, variable: Any) -> Any:
        """The layer that keeps a variable's spectral norm at 1, or None."""
        return self._normalizers.get(id(variable))

    def names(self, variable: Any) -> str:
        """What a variable obeys, in words; empty if nothing."""
        found = []
        if self.normalizer(variable) is not None:
            found.append("spectral normalization")
        if variable.constraint is not None:
            found.append(_name(variable.constraint))
        return " and ".join(found)

    def applied(self, variable: Any, values: np.ndarray) -> np.ndarray:
        """Returns what is left of values for a variable.

        The very same array, if they obey already. A number stays as it is where a
        constraint makes none of it, as a norm's direction of 0.
        """
        left = values
        if self.normalizer(variable) is not None:
            left = _of_norm_one(left)
        return constrained(variable, left)

    def with_states(
        self, fresh: Iterable[tuple[Any, np.ndarray]]
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yields new values, and last those of the vectors that normalizers keep."""
        states = []
        for variable, values in fresh:
            yield variable, values
            normalizer = self.normalizer(variable)
            if normalizer is not None:
                vector = normalizer.vector_u
                states.append((vector, _top(values)[1].astype(to_numpy(vector).dtype)))
        yield from states


def constrained(variable: Any, values: np.ndarray) -> np.ndarray:
    """Returns what a variable's own constraint leaves of values, as `applied` does."""
    if variable.constraint is None:
        return values
    left = values
    for _ in range(_MOST_TURNS):
        before, left = left, _once(variable, left)
        if _is_close(before, left):
            break
    return values if _is_close(values, left) else left


def _once(variable: Any, values: np.ndarray) -> np.ndarray:
    # Not `variable.dtype`: that is the layer's compute dtype while the layer runs.
    tensor = keras.ops.convert_to_tensor(values, dtype=str(values.dtype))
    left = to_numpy(variable.constraint(tensor)).astype(values.dtype)
    left = np.broadcast_to(left, values.shape)
    return np.where(np.isfinite(left.astype("float64")), left, values)


def _is_close(values: np.ndarray, others: np.ndarray) -> bool:
    if values is others:
        return True
    rounding = _ROUNDING.get(str(values.dtype), 1e-6)
    one, other = values.astype("float64"), others.astype("float64")
    size = np.max(np.abs(one), initial=0.0)
    return bool(np.max(np.abs(one - other), initial=0.0) <= rounding * size)


def _of_norm_one(values: np.ndarray) -> np.ndarray:
    norm = _top(values)[0]
    if norm == 0:  # which the wrapper leaves as it is
        return values
    left = (values.astype("float64") / norm).astype(values.dtype)
    return values if _is_close(values, left) else left


def _top(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest singular value of a kernel as a matrix to its last axis, and where.

    The direction is that of the outputs, of shape `(1, outputs)`.
    """
    matrix = values.reshape(-1, values.shape[-1]).astype("float64")
    is_wide = matrix.shape[0] < matrix.shape[1]
    square = matrix @ matrix.T if is_wide else matrix.T @ matrix
    vector = np.linalg.eigh(square)[1][:, -1]
    if is_wide:
        vector = vector @ matrix
    vector /= np.linalg.norm(vector) or 1.0
    return float(np.linalg.norm(matrix @ vector)), vector[None]


def _name(constraint: Any) -> str:
    if not isinstance(constraint, keras.constraints.Constraint):
        return getattr(constraint, "__name__", type(constraint).__name__)
    config = constraint.get_config().items()
    return f"{type(constraint).__name__}({', '.join(f'{k}={v}' for k, v in config)})"
