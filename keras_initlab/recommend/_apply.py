"""Writing recommended weights into a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from .._core import seeds as _seeds
from .._core.arrays import to_numpy
from .._core.errors import check_count, check_flag
from .._keras.unchanged import unchanged
from .._weights.choosing import chosen
from .._weights.constraining import Constraints, constrained
from .._weights.drawing import draw, draw_bias
from .._weights.trained import check_untrained
from .._weights.writing import Applied, fresh_slots, plan, write
from ..calibration import Calibrated, CalibratedKernel
from ..inspection import KernelRecord
from ._calibrated import calibrated
from ._normal import from_pool, quick_draw
from ._row import Row


def apply_rows(
    model: keras.Model,
    rows: Sequence[Row],
    seed: int | None,
    only: Sequence[Any] | Callable[[Row], bool] | None,
    overwrite: bool,
    reset_optimizer: bool,
    dry_run: bool,
    batch: Any = None,
) -> Applied:
    """Does what `Recommendation.apply` documents; on a batch, it calibrates too."""
    check_flag("overwrite", overwrite)
    check_flag("reset_optimizer", reset_optimizer)
    check_flag("dry_run", dry_run)
    if seed is not None:
        seed = check_count("seed", seed, usual=0, least=0)
    base = _seeds.fresh() if seed is None and not dry_run else seed
    candidates = [row for row in rows if row.initializer is not None]
    meant = [row for row in chosen(rows, only, _path) if row.initializer is not None]
    kernels, drawn_by = None, {}
    is_run = () if batch is None else (model,)
    with unchanged(*is_run):  # the seed of a dry run included
        base = _seeds.fresh() if base is None else base
        if not overwrite:
            check_untrained(model, meant, is_part=len(meant) < len(candidates))
        fresh = _fresh(meant, base, Constraints(model), drawn_by)
        if batch is not None:
            fresh, kernels = calibrated(model, meant, list(fresh), batch)
            _forget_scaled(drawn_by, meant, kernels)
    if reset_optimizer:
        fresh = itertools.chain(fresh, fresh_slots(model))
    with unchanged():
        if dry_run:
            applied = plan(model, fresh, base)
        else:
            applied = write(model, fresh, base, drawn_by, is_recommended=True)
    return applied if kernels is None else Calibrated(applied, kernels)


def _fresh(
    rows: Sequence[Row], base: int, constraints: Constraints, drawn_by: dict[int, Any]
) -> Iterator[tuple[Any, np.ndarray]]:
    """The new values of all rows, each drawn when it is asked for."""
    for row in rows:
        values = [*drawn(row, base, constraints, drawn_by), *_moving_variance(row)]
        yield from constraints.with_states(values)


def _forget_scaled(
    drawn_by: dict[int, Any], rows: Sequence[Row], scaled: Sequence[CalibratedKernel]
) -> None:
    paths = {one.path for one in scaled if one.is_changed}
    for row in rows:
        if row.kernel.variable.path in paths:
            drawn_by.pop(id(row.kernel.variable), None)


def drawn(
    row: Row,
    base: int,
    constraints: Constraints,
    drawn_by: dict[int, Any],
    is_look: bool = False,
) -> list[tuple[Any, np.ndarray]]:
    """Returns the new values of a row's kernel and of its layer's bias.

    What drew the kernel is noted in `drawn_by`, unless a constraint has changed it. If
    it is only to look, normal numbers come from a pool.
    """
    kernel, place = row.kernel, row.kernel.key
    seed = _seeds.derive(base, *place, 0)
    free = drawn_values(row.initializer, kernel, seed, is_look)
    values = constraints.applied(kernel.variable, free)
    if values is free:
        drawn_by[id(kernel.variable)] = _by_the_layer(row.initializer)
    fresh = [(kernel.variable, values)]
    if kernel.bias is None:
        return fresh
    if row.centered_mean is not None or row.bias_offset is not None:
        bias = _bias(row, values)
    else:
        seed = _seeds.derive(base, *place, 1)
        bias = draw_bias(kernel.layer, kernel.bias, seed)
    return [*fresh, (kernel.bias, constraints.applied(kernel.bias, bias))]


def _moving_variance(row: Row) -> list[tuple[Any, np.ndarray]]:
    """What the batch normalization after a kernel expects, if it has seen no data.

    Both averages are then one value for all units: as built, or as left here before.
    """
    if row.moving_variance is None:
        return []
    normalizer = row.kernel.normalizer
    mean, variance = map(to_numpy, (normalizer.moving_mean, normalizer.moving_variance))
    if np.any(mean) or np.any(variance != variance.flat[0]):
        return []
    return [(normalizer.moving_variance, np.full_like(variance, row.moving_variance))]


def kernel_values(row: Row, seed: int) -> np.ndarray:
    """Returns what a row's kernel gets from a seed, without writing it."""
    drawn = drawn_values(row.initializer, row.kernel, seed)
    return constrained(row.kernel.variable, drawn)


def drawn_values(
    initializer: Any, kernel: KernelRecord, seed: int, is_look: bool = False
) -> np.ndarray:
    """Returns what an initializer draws for a kernel that is free of constraints."""
    found = quick_draw(initializer, kernel)
    if found is not None:
        draw_it, std = found
        return (from_pool if is_look else draw_it)(kernel.shape, std, seed)
    initializer = _by_the_layer(initializer)
    return draw(initializer, kernel.variable, seed, kernel.layer, kernel.axes)


def _bias(row: Row, values: np.ndarray) -> np.ndarray:
    """What the row says that the bias starts at, beside these values of its kernel."""
    bias = np.zeros(tuple(row.kernel.bias.shape))
    if row.centered_mean is not None:
        sums = values.astype("float64").sum(axis=row.kernel.axes.input_axes)
        bias -= row.centered_mean * sums
    if row.bias_offset is not None:
        bias += np.asarray(row.bias_offset)
    return bias.astype(values.dtype)


def _by_the_layer(initializer: Any) -> Any:
    """The initializer without axes of its own: the layer's say more, as strides."""
    config = initializer.get_config()
    if "input_axes" not in config:
        return initializer
    axes = {"input_axes": None, "output_axes": None}
    return type(initializer).from_config({**config, **axes})


def _path(row: Row) -> str:
    return row.path
