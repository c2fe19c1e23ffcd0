"""Whether a model's weights look as if training had touched them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy, to_numpy
from .._core.errors import TrainedWeightsError, message
from .._keras.kinds import KernelAxes
from .._keras.private import all_layers
from .origins import noted


def check_untrained(
    model: keras.Model, rows: Sequence[Any], is_part: bool, verb: str = "apply"
) -> None:
    """Raises if weights beside the kernels to be written look trained.

    Two signs count: an optimizer that has taken steps on this model, and a bias or
    normalization weight that its initializer starts at a constant and that has left
    it. A bias that centers its layer (a multiple of its kernel's column sums) or holds
    log-priors, as `apply` itself writes, does not count, nor what was written since.

    Args:
        model: the model.
        rows: those to be written, each with a `kernel` and a `bias_offset`.
        is_part: whether others stay, whose layers then do not matter.
        verb: what would write them.
    """
    if not rows:
        return
    sign = steps_taken(model) or moved(model, rows, is_part)
    if sign:
        raise TrainedWeightsError(
            message(
                f"The weights look trained, and `{verb}` would overwrite them.",
                f"model={model.name!r}: {sign}",
                "Pass `overwrite=True` if they may go, or freeze what must stay.",
            )
        )


def steps_taken(model: keras.Model) -> str | None:
    """What an optimizer that has trained the model tells, None if none has."""
    optimizer = getattr(model, "optimizer", None)
    iterations = getattr(optimizer, "iterations", None)
    steps = int(to_numpy(iterations)) if iterations is not None else 0
    return f"its optimizer has taken {steps} steps" if steps else None


def moved(model: keras.Model, rows: Sequence[Any], is_part: bool) -> str | None:
    """The first variable, if any, that has left its constant start."""
    row_of = {id(row.kernel.layer): row for row in rows}
    for layer in all_layers(model):
        if is_part and id(layer) not in row_of:
            continue
        for variable, start in constant_starts(layer) if layer.trainable else ():
            values = as_numpy(variable)
            if np.all(values == start):  # quicker than what follows
                continue
            values = values.astype("float64")
            if np.max(np.abs(values - start), initial=0.0) <= 1e-5:
                continue
            row = row_of.get(id(layer))
            if row is not None and _is_ours(values, row):
                continue
            if noted(variable) is not None:
                continue
            return f"{variable.path!r} started at {start:g} and has moved"
    return None


def constant_starts(
    layer: Any, names: Iterable[str] = ("bias", "beta", "gamma")
) -> Iterator[tuple[Any, float]]:
    """The variables of these names that a layer starts at a constant, with it."""
    starts = {keras.initializers.Zeros: 0.0, keras.initializers.Ones: 1.0}
    for name in names:
        variable = getattr(layer, name, None)
        start = starts.get(type(getattr(layer, f"{name}_initializer", None)))
        is_set = name == "bias" and getattr(layer, "unit_forget_bias", False)
        if isinstance(variable, keras.Variable) and start is not None and not is_set:
            yield variable, start


def _is_ours(values: np.ndarray, row: Any) -> bool:
    """Whether `apply` may have written a bias."""
    if row.bias_offset is not None and values.shape == np.shape(row.bias_offset):
        values = values - np.asarray(row.bias_offset)
        if np.allclose(values, 0, atol=1e-5):
            return True
    kernel = to_numpy(row.kernel.variable).astype("float64")
    return is_centering(values, kernel, row.kernel.axes)


def is_centering(bias: np.ndarray, kernel: np.ndarray, axes: KernelAxes) -> bool:
    """Whether a bias is a multiple of its kernel's column sums, as `apply` sets it."""
    sums = kernel.sum(axis=axes.input_axes)
    if sums.shape != bias.shape or not np.any(sums):
        return False
    factor = np.vdot(sums, bias) / np.vdot(sums, sums)
    return bool(np.allclose(bias, factor * sums, atol=1e-2 * np.abs(bias).max()))
