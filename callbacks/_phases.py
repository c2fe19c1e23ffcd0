"""Figures by name, where layers join and leave between the phases of a training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def in_order(sequences: Iterable[Iterable[str]]) -> list[str]:
    """All names of several sequences, each after the one that it follows in its own.

    >>> in_order([["head"], ["body", "head", "more"]])
    ['body', 'head', 'more']
    """
    found: list[str] = []
    for names in sequences:
        place = 0
        known = set(found)
        for name in names:
            if name not in known:
                found.insert(place, name)
                known.add(name)
            elif place == len(found) or found[place] != name:
                place = found.index(name)
            place += 1
    return found


def joined(parts: Sequence[tuple[int, Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    """Columns over all rows of several phases, NaN where a phase has none of a name.

    Args:
        parts: how many rows each phase has, and its columns `(rows, *shape)`. Where
            shapes differ, as layers that were made anew do, NaN fills the smaller ones.
    """
    if len(parts) == 1:
        return dict(parts[0][1])
    whole: dict[str, np.ndarray] = {}
    count = sum(rows for rows, _ in parts)
    for name in in_order(columns for _, columns in parts):
        each = [columns[name] for _, columns in parts if name in columns]
        shape = np.max([column.shape[1:] for column in each], axis=0, initial=0)
        whole[name] = np.full((count, *map(int, shape)), np.nan)
    start = 0
    for rows, columns in parts:
        for name, column in columns.items():
            place = (slice(start, start + rows), *map(slice, column.shape[1:]))
            whole[name][place] = column
        start += rows
    return whole


class Rows:
    """Figures of the same kinds for every layer, a row an observation."""

    def __init__(self) -> None:
        self._rows: list[tuple[tuple[str, ...], np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Mapping[str, Sequence[float] | np.ndarray]) -> None:
        """Adds the figures of each layer."""
        names = tuple(row)
        if self._rows and self._rows[-1][0] == names:
            names = self._rows[-1][0]  # the same object, for all of a phase
        self._rows.append((names, np.array(list(row.values()), dtype="float64")))

    def columns(self) -> dict[str, np.ndarray]:
        """`{layer path: array (observations, figures)}`, as `joined` makes them."""
        parts = []
        for names, rows in itertools.groupby(self._rows, key=lambda row: row[0]):
            each = np.stack([figures for _, figures in rows])
            columns = {name: each[:, i] for i, name in enumerate(names)}
            parts.append((len(each), columns))
        return joined(parts)


def filled(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as one array, NaN where a row is shorter, as that of a frozen layer is."""
    found = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for whole, row in zip(found, rows, strict=True):
        whole[: len(row)] = row
    return found
