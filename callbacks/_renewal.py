"""Starting units over: their weights, their normalizations, their optimizer's slots."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_initlab._core.arrays import kept, to_numpy
from keras_initlab._core.errors import message
from keras_initlab._core.seeds import derive
from keras_initlab._core.transaction import Change, assign_all
from keras_initlab._keras.kinds import own_kernels, variable_of
from keras_initlab._weights.constraining import constrained
from keras_initlab._weights.drawing import draw, draw_bias
from keras_initlab._weights.writing import Values, built_for

from ._recyclable import Recyclable

_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def renew(
    model: Any, chosen: Sequence[tuple[Recyclable, np.ndarray]], seed: int
) -> None:
    """Starts units over; if anything cannot be written, nothing stays written.

    Args:
        model: the model.
        chosen: layers, sources first, and which of their units to start over.
        seed: the seed.
    """
    changes = _Changes()
    for one, units in chosen:
        # The readers come first: what a new unit weighs another new one with does no
        # harm, since that one is not read yet; and were it 0, a layer of new units
        # behind a layer of new units would not learn.
        for reader in one.readers:
            changes.put(reader.variable, 0.0, reader.mask(units, one.units))
    for one, units in chosen:
        _renew_layer(changes, one, units, seed)
    assign_all(_values(model, changes))


def _values(model: Any, changes: _Changes) -> Iterator[Change]:
    """What `assign_all` writes: the weights, and then the optimizer's slots."""
    for variable, value in changes.values():
        yield variable, kept(variable), value
    # Some slots start as copies of the weights, which must be there by now.
    for slot, value in _fresh_slots(model, changes):
        yield slot, kept(slot), value


def check_optimizer(model: Any) -> None:
    """Raises if a fresh optimizer, which tells what slots start at, cannot be made."""
    optimizer = getattr(model, "optimizer", None)
    try:
        if optimizer is not None:
            type(optimizer).from_config(optimizer.get_config())
    except Exception as error:  # whatever a custom one may raise
        raise ValueError(
            message(
                "The optimizer must be one that its `get_config` can make again.",
                f"optimizer={type(optimizer).__name__}, which raises "
                f"{type(error).__name__}",
                "Recycled units start over with what a new optimizer holds.",
            )
        ) from error


class _Changes:
    """New values of some entries of variables."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {}

    def put(self, variable: Any, values: Any, mask: np.ndarray) -> None:
        """Notes new values where a mask says so; later ones hold."""
        if id(variable) not in self._found:
            untouched = np.zeros(mask.shape, dtype=bool)
            self._found[id(variable)] = variable, to_numpy(variable), untouched
        _, whole, changed = self._found[id(variable)]
        whole[mask] = values[mask] if isinstance(values, np.ndarray) else values
        changed |= mask

    def mask_of(self, variable: Any) -> np.ndarray | None:
        """Which entries of a variable change; None for none."""
        found = self._found.get(id(variable))
        return None if found is None else found[2]

    def values(self) -> Values:
        """The variables with their new values as a whole."""
        return [(variable, whole) for variable, whole, _ in self._found.values()]


def _renew_layer(
    changes: _Changes, one: Recyclable, units: np.ndarray, seed: int
) -> None:
    layer = one.layer
    kernel, bias = (variable_of(layer, name) for name in ("kernel", "bias"))
    axes = own_kernels(layer)["kernel"]
    seeds = (derive(seed, one.place, number) for number in itertools.count())
    drawn = draw(layer.kernel_initializer, kernel, next(seeds), layer, axes)
    changes.put(kernel, constrained(kernel, drawn), _masked(drawn.shape, units))
    if bias is not None:
        drawn = draw_bias(layer, bias, next(seeds))
        changes.put(bias, drawn, _masked(drawn.shape, units))
    for normalization, axis in one.normalizations:
        for name in _STATISTICS:
            variable = getattr(normalization, name, None)
            if variable is not None:
                own = getattr(normalization, f"{name}_initializer")
                drawn = draw(own, variable, next(seeds), normalization)
                entries = axis.entries(len(drawn), one.units)[units].ravel()
                changes.put(variable, drawn, _masked(drawn.shape, entries))


def _masked(shape: tuple[int, ...], indices: np.ndarray) -> np.ndarray:
    """True at some indices of the last axis."""
    mask = np.zeros(shape, dtype=bool)
    mask[..., indices] = True
    return mask


def _fresh_slots(model: Any, changes: _Changes) -> Values:
    """The optimizer's slots of what has changed, with those entries started over.

    A slot of another shape than its variable, as Adafactor's, has no such entries.
    """
    optimizer = model.optimizer
    if optimizer is None or not optimizer.built:
        return []
    made: dict[int, tuple[Any, bool]] = {}
    with contextlib.ExitStack() as stack:
        strategy = getattr(model, "distribute_strategy", None)
        if strategy is not None:  # TensorFlow puts a slot beside its variable
            stack.enter_context(strategy.scope())
        fresh = type(optimizer).from_config(optimizer.get_config())
        for part in _parts(fresh):
            stack.enter_context(_noting_slots(part, made))
        fresh.build(built_for(optimizer))
    found = []
    for slot, start in zip(optimizer.variables, fresh.variables, strict=True):
        variable, is_average = made.get(id(start), (None, False))
        mask = changes.mask_of(variable)
        if mask is not None and mask.shape == tuple(slot.shape):
            values = to_numpy(slot)
            # An average starts as the weight itself, but only in an optimizer's first
            # step; and later the 0 that it is made with would count.
            values[mask] = to_numpy(variable if is_average else start)[mask]
            found.append((slot, values))
    return found


@contextlib.contextmanager
def _noting_slots(optimizer: Any, made: dict[int, tuple[Any, bool]]) -> Iterator[None]:
    """Notes for which variable an optimizer makes a slot, and if it is its average."""
    make = optimizer.add_variable_from_reference

    def noting(reference_variable: Any, name: Any = None, *others: Any, **more: Any):
        slot = make(reference_variable, name, *others, **more)
        made[id(slot)] = reference_variable, optimizer.use_ema and name == "average"
        return slot

    vars(optimizer)["add_variable_from_reference"] = noting
    try:
        yield
    finally:
        del vars(optimizer)["add_variable_from_reference"]


def _parts(optimizer: Any) -> list[Any]:
    """An optimizer and those inside it that make the slots."""
    inner = getattr(optimizer, "inner_optimizer", None)
    several = getattr(optimizer, "optimizers", [])
    return [optimizer, *([] if inner is None else [inner]), *several]
