"""What an observed train step is to measure, and what it measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._keras.running import Place as Place


@dataclass(frozen=True)
class Reduction:
    """A small figure of what an operation returns, or of what its activation receives.

    Two are equal if operation, name and place are: a name stands for one function.

    Attributes:
        operation: a layer or raw operation.
        name: what the figure is.
        reduce: a function in `keras.ops` of the tensor and its mask, a boolean tensor
            of the leading axes or None, to an array of fixed shape.
        join: a function in `keras.ops` that makes one of the figures of two calls, as
            a shared layer has. Figures of different widths follow one another.
        place: which tensor is reduced. The pre-activation of a layer without an
            `activation` of its own is its input.
        is_masked: whether the mask is asked for; else `reduce` gets None.
    """

    operation: Any
    name: str
    reduce: Callable[[Any, Any], Any] = field(compare=False, repr=False)
    join: Callable[[Any, Any], Any] = field(compare=False, repr=False)
    place: Place = "output"
    is_masked: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Recipe:
    """What an observing train step measures.

    Attributes:
        gradients: whether to take the norm of every gradient.
        clipped: whether to take it once more after the optimizer's clipping.
        updates: whether to take the norms of every weight and of its change.
        reductions: the figures of layers.
    """

    gradients: bool = False
    clipped: bool = False
    updates: bool = False
    reductions: tuple[Reduction, ...] = ()

    def joined(self, other: Recipe) -> Recipe:
        """Returns a recipe for what either of the two measures."""
        known = set(self.reductions)
        new = tuple(one for one in other.reductions if one not in known)
        return Recipe(
            self.gradients or other.gradients,
            self.clipped or other.clipped,
            self.updates or other.updates,
            self.reductions + new,
        )

    @property
    def observes_gradients(self) -> bool:
        """Whether what reaches the optimizer is of interest."""
        return self.gradients or self.clipped


@dataclass(frozen=True)
class Measured:
    """What one observed train step measured.

    All norms are L2 norms, one for each of `variables`; None if not in the recipe.

    Attributes:
        variables: the variables that the step trains, in the order of
            `model.trainable_variables` when it was compiled.
        reached: for each variable, whether its gradient reached an optimizer within
            reach.
        gradient_norms: of the gradients: unscaled, before accumulation and clipping.
            0 for a variable that the loss does not depend on, NaN for one whose
            gradient reached no optimizer within reach.
        clipped_norms: of the gradients as the optimizer clips them. NaN where it
            clips something else: with gradient accumulation, the mean of several.
        weight_norms: of the variables before the step.
        update_norms: of what the step changed in them.
        figures: the figure of each reduction, in the order in which the operations
            first returned. One that did not run, or of which a call could not be read
            (inside a loop, a rematerialization, a derivative of the user's own), is
            missing.
    """

    variables: tuple[Any, ...] = ()
    reached: tuple[bool, ...] = ()
    gradient_norms: np.ndarray | None = None
    clipped_norms: np.ndarray | None = None
    weight_norms: np.ndarray | None = None
    update_norms: np.ndarray | None = None
    figures: dict[Reduction, np.ndarray] = field(default_factory=dict)


@dataclass
class Traced:
    """What the last trace of an observing step measures, in which order."""

    variables: tuple[Any, ...] = ()
    reached: tuple[bool, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    groups: tuple[tuple[Reduction, ...], ...] = ()  # those of one array each

    def measured(
        self, arrays: Mapping[str, Any], copy: Callable[[Any], np.ndarray]
    ) -> Measured:
        """Returns what a run of the step measured, from the arrays that left it."""
        norms = {key: copy(array) for key, array in arrays.items() if key != FIGURES}
        rows = {
            one: row
            for index, array in arrays[FIGURES].items()
            for one, row in zip(self.groups[int(index)], copy(array), strict=True)
        }
        figures = {one: rows[one] for one in self.reductions}
        return Measured(self.variables, self.reached, **norms, figures=figures)


FIGURES = "figures"
