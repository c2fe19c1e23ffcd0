"""The figures of one layer, from what was reduced at its places."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from keras_initlab.diagnosis import Signal
from keras_initlab.observing import STATISTICS, Place

KINDS = ("mean", "std", "min", "max", "zero_share")
LOGGED = {
    **{kind: f"activation_{kind}" for kind in KINDS},
    "preactivation_mean": "preactivation_mean",
    "preactivation_std": "preactivation_std",
    "variance_preservation": "variance_preservation",
}
UNSEEN = np.zeros(len(STATISTICS))  # a count of 0


def summary(found: dict[Place, np.ndarray]) -> list[float]:
    """The figures of one layer, in the order of `LOGGED`, from what was reduced."""
    given, before, after = _of_places(found)
    preserved = before["std"] / given["std"] if given["std"] != 0 else 0.0
    own = [after[kind] for kind in KINDS]
    return [*own, before["mean"], before["std"], preserved]


def signal_of(found: dict[Place, np.ndarray]) -> Signal:
    """What the rules look at."""
    given, before, after = _of_places(found)
    if np.isnan(before["zero_share"]):  # not seen, as inside a recurrent layer
        before = after
    size_of = [math.hypot(one["mean"], one["std"]) for one in (given, before)]
    largest = max(abs(after["min"]), abs(after["max"]))
    return Signal(after["count"], after["mean"], after["std"], largest, *size_of)


def _of_places(found: dict[Place, np.ndarray]) -> Iterator[dict[str, float]]:
    """The statistics of a layer's input, pre-activations and output.

    Without an activation of its own, its output is its pre-activations.
    """
    yield _named(found.get("input", UNSEEN))
    yield _named(found.get("preactivation", found["output"]))
    yield _named(found["output"])


def _named(figure: np.ndarray) -> dict[str, float]:
    raw = dict(zip(STATISTICS, figure.astype("float64").tolist(), strict=True))
    if not raw["count"] > 0:
        return {"count": 0.0, "std": math.nan, **dict.fromkeys(KINDS, math.nan)}
    return {
        "count": raw["count"],
        "mean": raw["mean"],
        "std": math.sqrt(raw["squares"] / raw["count"]),
        "min": raw["min"],
        "max": raw["max"],
        "zero_share": raw["zeros"] / raw["count"],
    }
