"""The loss whose gradient is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from .._core.errors import message
from .._keras.batch import Batch
from .._keras.private import all_layers, compile_loss, training_loss
from ._figures import is_signal

SYNTHETIC = "synthetic"
_SEED = 0


class Objective:
    """A loss of a model's outputs.

    Attributes:
        name: `"compiled"`, `"synthetic"`, or what was given as `loss`.
        compute: a function of a batch and the outputs to a scalar.
        scale: what it is multiplied by before the backward pass.
    """

    def __init__(
        self, name: str, compute: Callable[[Batch, Any], Any], scale: float = 1.0
    ):
        self.name = name
        self.compute = compute
        self.scale = scale


def objective(model: Any, batch: Batch, loss: Any) -> Objective:
    """Returns the loss that was asked for, or that can be had.

    Raises:
        ValueError: if there are labels and no loss, or a loss and no labels, or the
            loss is none.
    """
    if loss is None and batch.y is None:
        return Objective(SYNTHETIC, lambda batch, outputs: _projection(outputs))
    scale = _scale(model, batch.examples)
    if loss is None:
        if not getattr(model, "compiled", False):
            raise ValueError(
                message(
                    "`loss` must be given where the model is not compiled.",
                    f"y and no loss for model={model.name!r}",
                    "Compile the model, pass e.g. `loss='mse'`, or leave `y` out.",
                )
            )
        return Objective("compiled", lambda b, out: _compiled(model, b, out), scale)
    if batch.y is None:
        raise ValueError(
            message(
                "`y` must be given with a `loss`.",
                f"loss={loss!r} and no labels",
                "Leave both out for a synthetic loss.",
            )
        )
    _check_loss(loss)
    return Objective(_name(loss), _given(model, loss), scale)


def _check_loss(loss: Any) -> None:
    leaves = [one for one in keras.tree.flatten(loss) if one is not None]
    if not leaves or not all(map(_is_loss, leaves)):
        raise ValueError(
            message(
                "`loss` must be a Keras loss, its name or a function, or several.",
                f"loss={loss!r}",
                "For example 'mse', or `keras.losses.MeanSquaredError()`.",
            )
        )


def _is_loss(one: Any) -> bool:
    if not isinstance(one, str):
        return callable(one) and not isinstance(one, type)
    try:
        return callable(keras.losses.get(one))
    except ValueError:
        return False


def _projection(outputs: Any) -> Any:
    """Σ r·output with r ~ N(0, 1): the gradient with respect to the outputs is r."""
    rng = np.random.default_rng(_SEED)
    terms = []
    for output in keras.tree.flatten(outputs):
        if is_signal(output):
            shape = tuple(output.shape)
            weights = rng.normal(size=shape).astype("float32")
            product = ops.multiply(ops.cast(output, "float32"), weights)
            terms.append(ops.sum(product))
    if not terms:
        raise ValueError(
            message(
                "A synthetic loss needs outputs of floating point.",
                f"{keras.tree.map_structure(_kind, outputs)}",
                "Pass `y` and a `loss`.",
            )
        )
    return sum(terms[1:], terms[0])


def _compiled(model: Any, batch: Batch, outputs: Any) -> Any:
    return training_loss(model, batch.x, batch.y, outputs, batch.weights)


def _given(model: Any, loss: Any) -> Callable[[Batch, Any], Any]:
    names = getattr(model, "output_names", None)
    compute = compile_loss(loss, output_names=names)

    def total(batch: Batch, outputs: Any) -> Any:
        terms = [compute(batch.y, outputs, batch.weights)]
        terms += [ops.mean(ops.cast(one, "float32")) for one in model.losses]
        return sum(terms[1:], terms[0])

    return total


def _scale(model: Any, examples: int) -> float:
    """A power of two that takes the mean over examples out again, for float16.

    Else its gradients, smaller by their number, leave the range: a loss is scaled in
    training for the same reason.
    """
    layers = all_layers(model)
    is_half = any(getattr(one, "compute_dtype", "") == "float16" for one in layers)
    return float(2 ** int(np.log2(max(1, examples)))) if is_half else 1.0


def _name(loss: Any) -> str:
    if isinstance(loss, str):
        return loss
    if isinstance(loss, dict):
        return ", ".join(f"{key}: {_name(value)}" for key, value in loss.items())
    if isinstance(loss, (list, tuple)):
        return ", ".join(map(_name, loss))
    return getattr(loss, "name", None) or getattr(loss, "__name__", repr(loss))


def _kind(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return keras.backend.standardize_dtype(value.dtype)
