"""What the pictures read of a callback's history, and how they call its layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core.errors import message

_LONGEST = 26  # characters of a label


class Timeline(NamedTuple):
    """Where observations lie on an axis.

    Attributes:
        at: their places, rising.
        edges: where the place of each begins and ends, one more.
        name: what the axis counts.
    """

    at: np.ndarray
    edges: np.ndarray
    name: str


def history_of(
    logger: Any, kind: str, filled: Sequence[str], others: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Returns the history, or raises if it is empty or another callback's.

    Args:
        logger: the callback, anything with a `.history` like its own, or the history.
        kind: the callback's class, for the error.
        filled: keys of what must not be empty.
        others: keys of what must be there.
    """
    history = getattr(logger, "history", logger)
    held = sorted(history) if isinstance(history, Mapping) else []
    if not {*filled, *others} <= {*held}:
        raise ValueError(
            message(
                f"`logger` must be a `{kind}`, or have such a history.",
                f"{type(logger).__name__} with {held}",
            )
        )
    if not all(len(history[key]) for key in filled):
        raise ValueError(
            message(
                "`logger` must have observed training.",
                f"{type(logger).__name__} with an empty history",
                "Give it to `fit` in `callbacks=` first.",
            )
        )
    return history


def timeline(numbers: Any, name: str, again: str) -> Timeline:
    """Places observations by their step or epoch.

    A second fit counts from 0 again: then their order is all that can be shown.

    Args:
        numbers: steps or epochs, array `(observations,)`.
        name: what they are.
        again: what their order is called.
    """
    at = np.asarray(numbers, dtype="float64")
    if np.any(np.diff(at) <= 0):
        at, name = np.arange(1.0, len(at) + 1), again
    middles = (at[1:] + at[:-1]) / 2
    if not len(middles):
        return Timeline(at, np.array([at[0] - 0.5, at[0] + 0.5]), name)
    first, last = 2 * at[0] - middles[0], 2 * at[-1] - middles[-1]
    return Timeline(at, np.array([first, *middles, last]), name)


def rows_of(by_layer: Mapping[str, Any]) -> np.ndarray:
    """`{path: array (observations,)}` as an array `(layers, observations)`."""
    return np.array([np.asarray(row, dtype="float64") for row in by_layer.values()])


def labels_of(paths: Iterable[str]) -> tuple[str, list[str]]:
    """Returns what all paths begin with, and a short, distinct label for each."""
    paths = list(paths)
    inside = [path.split("/")[:-1] for path in paths]
    steps = zip(*inside, strict=False)
    same = itertools.takewhile(lambda names: len(set(names)) == 1, steps)
    scope = "/".join(names[0] for names in same)
    rest = [path[len(scope) + 1 if scope else 0 :] for path in paths]
    longest = _LONGEST
    while True:
        labels = [shortened(path, longest) for path in rest]
        if len(set(labels)) == len(set(rest)):
            return scope, labels
        longest += 4


def shortened(path: str, longest: int = _LONGEST) -> str:
    """A long path without its middle; what tells layers apart is mostly at the end."""
    if len(path) <= longest:
        return path
    head = (longest - 1) // 3
    return f"{path[:head]}…{path[len(path) - (longest - 1 - head) :]}"
