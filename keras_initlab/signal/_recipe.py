"""What an observed train step is to measure, and what it measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """What an observing train step measures.

    Attributes:
        gradients: whether to take the norm of every gradient.
        reductions: operations, each with a function in `keras.ops` from its output to
            a vector `(units,)`. The calls of a shared layer are joined by their
            maximum.
    """

    gradients: bool = False
    reductions: tuple[tuple[Any, Callable[[Any], Any]], ...] = ()

    def joined(self, other: Recipe) -> Recipe:
        """Returns a recipe for what either of the two measures."""
        known = {id(operation) for operation, _ in self.reductions}
        new = tuple(pair for pair in other.reductions if id(pair[0]) not in known)
        return Recipe(self.gradients or other.gradients, self.reductions + new)


@dataclass(frozen=True)
class Measured:
    """What one observed train step measured.

    Attributes:
        variables: the variables that the step trains, in the order of
            `model.trainable_variables` when it was compiled.
        gradient_norms: L2 norm of each of their gradients: unscaled, before
            accumulation and clipping. 0 for a variable that the loss does not depend
            on, NaN for one whose gradient reached no optimizer within reach. None if
            not in the recipe.
        units: the vector `(units,)` of each operation in the recipe, by its identity;
            one that did not run, or of which a call could not be read (inside a loop,
            a rematerialization, a derivative of the user's own), is missing.
    """

    variables: tuple[Any, ...] = ()
    gradient_norms: np.ndarray | None = None
    units: dict[int, np.ndarray] = field(default_factory=dict)
