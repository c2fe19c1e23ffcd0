"""One training of the model from one initializer, and what is derived from it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CURVES = ("loss", "accuracy", "test_loss", "test_accuracy", "gradient_norm")
_TAIL = 50  # epochs whose variance is the stability
_REACHED = 0.9


@dataclass(frozen=True, eq=False)
class Run:
    """One training of the model from one initializer.

    Attributes:
        label: the initializer, as the comparison calls it.
        seed: the seed.
        curves: `{name: array (epochs,)}`: `"loss"`, `"test_loss"`, `"gradient_norm"`,
            and `"accuracy"` and `"test_accuracy"` in percent if the model has one.
        seconds: how long `fit` took, what it compiled and the test figures included.
        error: what went wrong, None for a run that finished.
    """

    label: str
    seed: int
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = math.nan
    error: str | None = None

    @property
    def has_accuracy(self) -> bool:
        """Whether the model has an accuracy."""
        return "test_accuracy" in self.curves

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """What is derived from the curves; nothing for a run that failed."""
        if self.error is not None:
            return {}
        losses = self.curves["test_loss"]
        found: dict[str, float] = {"seconds": self.seconds}
        found |= {
            "final_loss": float(losses[-1]),
            "best_loss": float(np.fmin.reduce(losses)),
        }
        if not self.has_accuracy:
            return found | {
                "stability": stability(losses),
                "convergence_epoch": first_at_loss(losses),
            }
        accuracies = self.curves["test_accuracy"]
        return found | {
            "final_accuracy": float(accuracies[-1]),
            "best_accuracy": float(np.fmax.reduce(accuracies)),
            "stability": stability(accuracies),
            "convergence_epoch": first_at_accuracy(accuracies),
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values."""
        about = {"label": self.label, "seed": self.seed}
        if self.error is not None:
            return {**about, "error": self.error}
        curves = {name: values.tolist() for name, values in self.curves.items()}
        return {
            **about,
            "seconds": self.seconds,
            "metrics": self.metrics,
            "curves": curves,
        }

    @classmethod
    def of(cls, label: str, seed: int, outcome: Mapping[str, Any]) -> Run:
        """Makes one of what a training handed back."""
        if "error" in outcome:
            return cls(label, seed, error=outcome["error"])
        curves = {
            name: np.array(values, dtype="float64")
            for name, values in outcome["curves"].items()
        }
        return cls(label, seed, curves, outcome["seconds"])


def stability(values: np.ndarray) -> float:
    """1 / (the variance of the last 50 values + 1e-8)."""
    # What has blown up is not stable; its variance is NaN.
    with np.errstate(invalid="ignore", over="ignore"):
        return float(1 / (np.var(values[-_TAIL:]) + 1e-8))


def first_at_accuracy(accuracies: np.ndarray) -> int:
    """The first epoch, from 0, that has 90 % of the final accuracy."""
    return _first(accuracies >= _REACHED * accuracies[-1])


def first_at_loss(losses: np.ndarray) -> int:
    """The first epoch, from 0, by which 90 % of the way to the final loss is done.

    The way begins at the loss of epoch 0. The number of epochs if the loss ends no
    lower than that, for then it has not converged.
    """
    start, end = losses[0], losses[-1]
    if not end < start:
        return len(losses)
    return _first(losses <= start - _REACHED * (start - end))


def _first(is_reached: np.ndarray) -> int:
    """The first epoch of which it is true, or else the number of epochs."""
    return int(np.argmax(is_reached)) if is_reached.any() else len(is_reached)
