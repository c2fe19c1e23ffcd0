"""The norms of variables as the figures that are logged, by layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

_Columns = dict[str, np.ndarray]


class NormTable:
    """The norms of the variables that train in one phase, a row an observation.

    Args:
        variables: their paths.
        owner: for each layer by path, which of them are its own.
        clipped: whether there are norms after clipping, too.
        updates: whether there are those of the weights and of their change.
    """

    def __init__(
        self,
        variables: Sequence[str],
        owner: Mapping[str, Sequence[int]],
        clipped: bool,
        updates: bool,
    ):
        self.variables, self.owner = list(variables), owner
        self._clipped, self._updates = clipped, updates
        owned = list(owner.values())
        self._own = np.array(list(itertools.chain(*owned)), dtype="int64")
        self._starts = np.cumsum([0, *map(len, owned[:-1])])
        self._rows: list[Mapping[str, np.ndarray]] = []  # by kind of norm

    def __len__(self) -> int:
        return len(self._rows)

    def is_like(self, other: NormTable) -> bool:
        """Whether the rows of another phase belong into this one."""
        mine, others = (list(one.owner.items()) for one in (self, other))
        return self.variables == other.variables and mine == others

    def add(self, row: Mapping[str, np.ndarray]) -> None:
        """Adds what one step measured: `{kind: norms (variables,)}`."""
        self._rows.append(row)

    def columns(self, start: int = 0) -> _Columns:
        """What is logged of the rows from one on, each an array over them."""
        columns = self._named("grad_norm", *self._joint("gradient_norms", start))
        if self._clipped:
            clipped = self._joint("clipped_norms", start)
            columns |= self._named("clipped_grad_norm", *clipped)
        if self._updates:
            changes, weights = (
                self._joint(kind, start) for kind in ("update_norms", "weight_norms")
            )
            columns |= self._named("update_ratio", *map(_divided, changes, weights))
        return columns

    def of_variables(self, kind: str) -> _Columns:
        """The norms of one kind by variable, each an array over the rows."""
        return dict(zip(self.variables, self._array(kind).T, strict=True))

    def _array(self, kind: str, start: int = 0) -> np.ndarray:
        """The norms of one kind in float64, `(rows, variables)`."""
        each = np.array([row[kind] for row in self._rows[start:]], dtype="float64")
        return each.reshape(len(each), len(self.variables))

    def _joint(self, kind: str, start: int) -> tuple[np.ndarray, np.ndarray]:
        """The global norm `(rows,)`, and that of every layer `(rows, layers)`.

        They are float64, so that the squares of float32 norms cannot overflow.
        """
        squares = np.square(self._array(kind, start))
        whole = np.sqrt(np.add.reduce(squares, axis=-1))
        if not self.owner:
            return whole, np.zeros((len(squares), 0))
        own = squares[:, self._own]
        return whole, np.sqrt(np.add.reduceat(own, self._starts, axis=1))

    def _named(self, name: str, whole: np.ndarray, layers: np.ndarray) -> _Columns:
        each = zip(self.owner, layers.T, strict=True)
        return {name: whole, **{f"{name}/{path}": column for path, column in each}}


def _divided(change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """‖Δw‖/‖w‖, NaN for weights that are 0."""
    return change / np.where(weight > 0, weight, np.nan)
