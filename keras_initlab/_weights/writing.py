"""Writing new values into a model, all or nothing, and taking them back."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy, kept, to_numpy
from .._core.errors import StructureChangedError, message
from .._core.reports import Record, Report, new_table, printable
from .._core.transaction import assign_all
from .._keras.paths import variable_paths
from .._keras.private import own_trainable
from .origins import note

Values = Iterable[tuple[Any, np.ndarray]]
_MOST_ROWS = 20


@dataclass(frozen=True, eq=False)
class _Change:
    """A variable, its former values, and the root mean square of the new ones."""

    variable: Any
    former: np.ndarray
    after: float


@dataclass(frozen=True)
class Written(Record):
    """A variable that was written, or would be.

    Attributes:
        path: its path.
        before: the root mean square of its former values.
        after: that of the new ones.
    """

    path: str
    before: float
    after: float


class Applied(Report[Any]):
    """What was written into a model, and the way back.

    Printed, it is a table. It iterates over its variables, each a `Written`; without
    any it is empty, and so false.

    Attributes:
        model_name: the model's name.
        variables: a `Written` for each variable.
        changed: paths of the variables that were written, or would be, each unique.
        magnitudes: for each of them `(before, after)`: the root mean square of its
            former values and of the new ones.
        nbytes: size of the copy of the former values that `undo` holds.
        seed: the base seed that was used, also where none was given.
        is_dry_run: whether nothing was written.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> applied = keras_initlab.reinitialize(model, seed=0)
        >>> len(applied.changed), applied.nbytes
        (2, 60)
        >>> applied.undo()
    """

    def __init__(
        self,
        model: keras.Model,
        changes: Sequence[_Change],
        seed: int,
        is_dry_run: bool = False,
    ):
        self._model = weakref.ref(model)
        self._structure = structure(model)
        self._former = [] if is_dry_run else [(c.variable, c.former) for c in changes]
        self.changed = tuple(variable_paths(model, [c.variable for c in changes]))
        self.variables = self._records = tuple(
            Written(path, _root_mean_square(change.former), change.after)
            for path, change in zip(self.changed, changes, strict=True)
        )
        self.magnitudes = {one.path: (one.before, one.after) for one in self._records}
        self.nbytes = sum(value.nbytes for _, value in self._former)
        self.model_name = model.name
        self.seed = seed
        self.is_dry_run = is_dry_run

    def undo(self) -> None:
        """Brings back the exact former values, also after training in between.

        After a dry run there is nothing to bring back, and nothing happens. If it is
        interrupted, all values are as before the call, and it can be called again.

        Raises:
            StructureChangedError: if the model's variables are no longer the same.
        """
        check_structure(self._model(), self._structure)
        assign_all((one, kept(one), value) for one, value in self._former)

    def _values(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "seed": self.seed,
            "is_dry_run": self.is_dry_run,
            "changed": self.changed,
            "variables": self.variables,
        }

    def __rich__(self) -> Any:
        table = new_table(self._title(f"{len(self.changed)} variables", "changed"))
        table.add_column("variable", overflow="fold")
        for heading in ("rms before", "after"):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in self.variables[:_MOST_ROWS]:
            sizes = (f"{size:.4g}" for size in (one.before, one.after))
            table.add_row(printable(one.path), *sizes)
        if len(self.variables) > _MOST_ROWS:
            table.add_row(f"… {len(self.variables) - _MOST_ROWS} more", "", "")
        return table

    def _title(self, what: str, done: str) -> str:
        """What was done to what, or would be."""
        if self.is_dry_run:
            return f"{self.model_name}: {what} would be {done}, seed {self.seed}"
        held = f"undo holds {self.nbytes / 2**20:.1f} MiB"
        return f"{self.model_name}: {what} {done}, seed {self.seed}, {held}"


def write(
    model: keras.Model,
    fresh: Values,
    seed: int,
    drawn_by: Mapping[int, Any],
    is_recommended: bool,
) -> Applied:
    """Writes all values and notes where they are from; if one cannot be, none stays.

    Args:
        model: the model that has the variables.
        fresh: variables and their new values. Those that a generator makes are written
            one by one, and never all held.
        seed: what they were drawn from.
        drawn_by: what drew them, by the variable's id.
        is_recommended: whether this package chose initializer or scale.
    """
    changes: dict[int, _Change] = {}

    def written() -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        for variable, values in fresh:
            change = _change(variable, values)
            first = changes.get(id(variable), change)
            changes[id(variable)] = replace(first, after=change.after)
            yield variable, first.former, values

    assign_all(written())
    note([change.variable for change in changes.values()], drawn_by, is_recommended)
    return Applied(model, list(changes.values()), seed)


def plan(model: keras.Model, fresh: Values, seed: int) -> Applied:
    """Tells what `write` would write, without writing it."""
    changes = {id(variable): _change(variable, values) for variable, values in fresh}
    return Applied(model, list(changes.values()), seed, is_dry_run=True)


def _change(variable: Any, values: np.ndarray) -> _Change:
    return _Change(variable, kept(variable), _root_mean_square(values))


def fresh_slots(model: Any) -> list[tuple[Any, np.ndarray]]:
    """The optimizer's variables, as they were before the first step."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return []
    # A new optimizer knows best what slots start at; only its rate is the old one's.
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(built_for(optimizer) or model.trainable_variables)
    pairs = zip(optimizer.variables, fresh.variables, strict=True)
    return [(variable, to_numpy(start)) for variable, start in pairs]


def built_for(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for."""
    # Some of them may have been frozen since. One that scales the loss holds another.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return own_trainable(inner)


def _root_mean_square(values: Any) -> float:
    values = values if isinstance(values, np.ndarray) else as_numpy(values)
    # A dot product needs no squared copy; bfloat16 has none.
    flat = np.ravel(values.astype("float32", copy=False))
    with np.errstate(over="ignore"):
        square = float(np.dot(flat, flat))
    if math.isinf(square):
        square = float(np.dot(flat.astype("float64"), flat))
    return math.sqrt(square / max(1, flat.size))


def structure(model: keras.Model) -> list[tuple[Any, ...]]:
    """Returns what must stay the same for former values to fit the model."""
    return [(id(v), v.shape, v.dtype) for v in model.variables]


def check_structure(model: keras.Model | None, expected: list[tuple[Any, ...]]) -> None:
    """Raises if the model is gone or its variables are no longer the same."""
    if model is None or structure(model) != expected:
        name = model.name if model else "(deleted)"
        raise StructureChangedError(
            message(
                "The model must still have the variables that were looked at.",
                f"model={name!r} with other variables",
                "Look at it again.",
            )
        )
