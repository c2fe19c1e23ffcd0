"""The norms of variables as the figures that are logged, by layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

Rows = Mapping[str, Sequence[np.ndarray]]  # of each kind of norm, by observation


class NormTable:
    """Turns the norms of variables, row by row, into columns of a name each.

    Args:
        variables: how many there are in a row.
        owner: for each layer by path, which of them are its own.
        clipped: whether there are norms after clipping, too.
        updates: whether there are those of the weights and of their change.
    """

    def __init__(
        self,
        variables: int,
        owner: Mapping[str, Sequence[int]],
        clipped: bool,
        updates: bool,
    ):
        self._variables, self._layers = variables, list(owner)
        self._clipped, self._updates = clipped, updates
        owned = list(owner.values())
        self._own = np.array(list(itertools.chain(*owned)), dtype="int64")
        self._starts = np.cumsum([0, *map(len, owned[:-1])])

    def columns(self, rows: Rows) -> dict[str, np.ndarray]:
        """What is logged of some observations, each an array over them."""
        columns = self._named("grad_norm", *self._joint(rows, "gradient_norms"))
        if self._clipped:
            clipped = self._joint(rows, "clipped_norms")
            columns |= self._named("clipped_grad_norm", *clipped)
        if self._updates:
            changes, weights = (
                self._joint(rows, kind) for kind in ("update_norms", "weight_norms")
            )
            columns |= self._named("update_ratio", *map(_divided, changes, weights))
        return columns

    def array(self, rows: Rows, kind: str) -> np.ndarray:
        """The norms of one kind in float64, `(rows, variables)`."""
        each = np.array(rows.get(kind, []), dtype="float64")
        return each.reshape(len(each), self._variables)

    def of_layers(self, norms: np.ndarray) -> np.ndarray:
        """The norm of every layer `(rows, layers)`."""
        if not self._layers:
            return np.zeros((len(norms), 0))
        squares = np.square(norms[:, self._own])
        return np.sqrt(np.add.reduceat(squares, self._starts, axis=1))

    def _joint(self, rows: Rows, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The global norm `(rows,)`, and that of every layer `(rows, layers)`."""
        norms = self.array(rows, kind)
        return joined(norms), self.of_layers(norms)

    def _named(
        self, name: str, whole: np.ndarray, layers: np.ndarray
    ) -> dict[str, np.ndarray]:
        each = zip(self._layers, layers.T, strict=True)
        return {name: whole, **{f"{name}/{path}": column for path, column in each}}


def joined(norms: np.ndarray) -> np.ndarray:
    """The norm over all variables, from the norm of each, last axis.

    They are float64, so that the squares of float32 norms cannot overflow.
    """
    return np.sqrt(np.add.reduce(np.square(norms), axis=-1))


def _divided(change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """‖Δw‖/‖w‖, NaN for weights that are 0."""
    return change / np.where(weight > 0, weight, np.nan)
