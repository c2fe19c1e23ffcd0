"""Writing recommended weights into a model, all or nothing, and taking them back."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from .. import _seeds
from .._arrays import to_numpy
from .._errors import StructureChangedError, check_count, message
from ._row import Row
from ._trained import check_untrained

# In layers with two kernels, the other one brings the bias.
_WITHOUT_BIAS = ("depthwise_kernel", "recurrent_kernel")


class Applied:
    """What `apply` changed, and the way back.

    Attributes:
        changed: paths of the variables that were written.
        nbytes: size of the copy of the former values that `undo` holds.
        seed: the base seed that was used, also where none was given.
    """

    def __init__(
        self, model: keras.Model, former: Sequence[tuple[Any, np.ndarray]], seed: int
    ):
        self._model = weakref.ref(model)
        self._structure = structure(model)
        self._former = list(former)
        self.changed = tuple(variable.path for variable, _ in former)
        self.nbytes = sum(value.nbytes for _, value in former)
        self.seed = seed

    def undo(self) -> None:
        """Brings back the exact former values, also after training in between.

        Raises:
            StructureChangedError: if the model's variables are no longer the same.
        """
        check_structure(self._model(), self._structure)
        for variable, value in self._former:
            variable.assign(value)

    def __repr__(self) -> str:
        return (
            f"Applied(changed={len(self.changed)} variables, "
            f"undo holds {self.nbytes / 2**20:.1f} MiB, seed={self.seed})"
        )


def apply_rows(
    model: keras.Model,
    rows: Sequence[Row],
    seed: int | None,
    only: Sequence[str] | Callable[[Row], bool] | None,
    overwrite: bool,
    reset_optimizer: bool,
) -> Applied:
    """Does what `Recommendation.apply` documents."""
    if seed is not None:
        seed = check_count("seed", seed, usual=0, least=0)
    base = _seeds.fresh() if seed is None else seed
    candidates = [row for row in rows if row.initializer is not None]
    chosen = [row for row in _selected(rows, only) if row.initializer is not None]
    if not overwrite:
        check_untrained(model, chosen, is_part=len(chosen) < len(candidates))
    fresh: list[tuple[Any, np.ndarray]] = []
    for row in chosen:
        fresh += _drawn(row, base)
    if reset_optimizer:
        fresh += _fresh_slots(model)
    former = [(variable, to_numpy(variable)) for variable, _ in fresh]
    applied = Applied(model, former, base)
    try:
        for variable, value in fresh:
            variable.assign(value)
    except BaseException:
        applied.undo()
        raise
    return applied


def structure(model: keras.Model) -> list[tuple[Any, ...]]:
    """Returns what must stay the same for former values to fit the model."""
    return [(id(v), tuple(v.shape), str(v.dtype)) for v in model.variables]


def check_structure(model: keras.Model | None, expected: list[tuple[Any, ...]]) -> None:
    """Raises if the model is gone or its variables are no longer the same."""
    if model is None or structure(model) != expected:
        raise StructureChangedError(_changed(model.name if model else "(deleted)"))


def _drawn(row: Row, base: int) -> list[tuple[Any, np.ndarray]]:
    """The new values of a row's kernel and of its layer's bias."""
    kernel, layer = row.kernel.variable, row.kernel.layer
    place = row.kernel.key
    values = _draw(row.initializer, kernel, _seeds.derive(base, *place, 0))
    bias = row.kernel.bias
    if bias is None:
        return [(kernel, values)]
    if row.centered_mean is not None:
        inputs = row.kernel.axes.input_axes
        offset = -row.centered_mean * values.astype("float64").sum(axis=inputs)
        return [(kernel, values), (bias, offset.astype(values.dtype))]
    if kernel.name in _WITHOUT_BIAS:
        return [(kernel, values)]
    own = getattr(layer, "bias_initializer", None) or keras.initializers.Zeros()
    drawn = _draw(own, bias, _seeds.derive(base, *place, 1))
    if getattr(layer, "unit_forget_bias", False):  # as an LSTM's `build` does
        drawn[layer.units : 2 * layer.units] = 1
    return [(kernel, values), (bias, drawn)]


def _draw(initializer: Any, variable: Any, seed: int) -> np.ndarray:
    config = initializer.get_config()
    if "seed" in config:
        initializer = type(initializer).from_config({**config, "seed": seed})
    value = initializer(tuple(variable.shape), dtype=variable.dtype)
    values = to_numpy(value)
    if not np.all(np.isfinite(values.astype("float64"))):
        raise ValueError(
            message(
                "An initializer must draw finite values.",
                f"NaN or Inf from {type(initializer).__name__} for {variable.path!r}",
            )
        )
    return values


def _fresh_slots(model: Any) -> list[tuple[Any, np.ndarray]]:
    """The optimizer's variables, as they were before the first step."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return []
    # A new optimizer knows best what slots start at; only its rate is the old one's.
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(model.trainable_variables)
    pairs = zip(optimizer.variables, fresh.variables, strict=True)
    return [(variable, to_numpy(start)) for variable, start in pairs]


def _selected(
    rows: Sequence[Row], only: Sequence[str] | Callable[[Row], bool] | None
) -> list[Row]:
    if only is None:
        return list(rows)
    if callable(only):
        return [row for row in rows if only(row)]
    names = [only] if isinstance(only, str) else list(only)
    unknown = [name for name in names if not any(_is_named(r, name) for r in rows)]
    if unknown:
        raise ValueError(
            message(
                "`only` must name kernels or layers of the model.",
                f"only={unknown}",
                f"The first kernels are {[row.path for row in rows[:3]]}.",
            )
        )
    return [row for row in rows if any(_is_named(row, name) for name in names)]


def _is_named(row: Row, name: str) -> bool:
    return (
        row.path == name
        or f"{row.path}/".startswith(f"{name}/")
        or (f"/{name}/" in f"/{row.path}")
    )


def _changed(name: str) -> str:
    return message(
        "The model must still have the variables that were looked at.",
        f"model={name!r} with other variables",
        "Call `recommend` again.",
    )
