"""Gathering gradients and outputs while a train step runs or is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from .._keras.private import clipped_by, own_trainable
from .._keras.replacing import all_replaced, held
from .._keras.running import OperationEvent, recording
from ._norms import Norms
from ._recipe import FIGURES, Recipe, Reduction, Traced

KEY = "__keras_initlab__"


class Capture:
    """What one run of a train step measures.

    A backend's capture says what the norms of gradients are, which values may leave the
    step, and where in it the layers' outputs can be recorded.
    """

    def __init__(self, model: Any, recipe: Recipe):
        self.model = model
        self.recipe = recipe
        self.norms = Norms()
        self.clipped = Norms()
        # By shape, too: a shared activation may be given layers of several widths.
        self.figures: dict[tuple[Reduction, Any], Any] = {}
        self.unseen: set[Reduction] = set()
        self._is_noted = False  # by `stateless_apply`, which calls `apply`
        self._before: dict[int, Any] = {}
        self._reductions: dict[int, list[Reduction]] = {}
        for one in recipe.reductions:
            self._reductions.setdefault(id(one.operation), []).append(one)

    def norms_of(self, tensors: list[Any]) -> Any:
        """The L2 norms of n tensors in float32, `(n,)`."""
        raise NotImplementedError

    def is_readable(self, value: Any) -> bool:
        """Whether a value may leave the step: not one from inside a loop or branch."""
        raise NotImplementedError

    def total(self, gradients: list[Any]) -> list[Any]:
        """The gradients of the whole batch, from those of this replica's part."""
        return gradients

    def stack(self, figures: list[Any]) -> Any:
        """Figures of one shape as one array."""
        return ops.stack(figures)

    def reduced(self, reduction: Reduction, value: Any, mask: Any) -> Any:
        """The figure of one tensor."""
        return reduction.reduce(value, mask)

    def after(self, norms: list[Any], gradients: list[Any]) -> list[Any]:
        """The gradients for the optimizer, which may wait until their norms are known.

        Overridden where a gradient that two are using is dearer than one after another.
        """
        return gradients

    def whole(self, reduction: Reduction, figure: Any) -> Any:
        """The figure of the whole batch, from that of this replica's part."""
        return figure

    @contextlib.contextmanager
    def outputs(self) -> Iterator[None]:
        """Records what the recipe's layers return within the context."""
        reductions = self.recipe.reductions
        operations = _once(one.operation for one in reductions)
        activated = _once(
            one.operation for one in reductions if one.place == "preactivation"
        )
        with recording(operations, self._on_return, activated):
            yield

    @contextlib.contextmanager
    def gradients(self) -> Iterator[None]:
        """Records the gradients that reach an optimizer within the context."""
        observed = optimizers(self.model) if self.recipe.observes_gradients else ()
        wrappers = [
            (optimizer, name, getattr(self, f"_observed_{name}")(optimizer))
            for optimizer in observed
            for name in ("apply", "stateless_apply")
        ]
        with all_replaced(wrappers, only_here=True):
            yield

    def begin(self, weights: Sequence[Any]) -> None:
        """Notes the weights that the step starts from: copies, in the model's order."""
        variables = self.model.trainable_variables
        if self.recipe.updates and len(weights) == len(variables):
            pairs = zip(variables, weights, strict=True)
            self._before = {id(variable): value for variable, value in pairs}

    def finish(self, traced: Traced, weights: Sequence[Any]) -> dict[str, Any]:
        """Returns the arrays that leave the step, and notes which they are.

        Args:
            traced: where to note it.
            weights: the weights that the step ended with, in the model's order.
        """
        variables = tuple(self.model.trainable_variables)
        parts: dict[Reduction, list[Any]] = {}
        for (one, _), figure in self.figures.items():
            if one not in self.unseen:
                parts.setdefault(one, []).append(self.whole(one, figure))
        figures = {one: _joint(each) for one, each in parts.items()}
        traced.variables, traced.reductions = variables, tuple(figures)
        groups = _by_shape(figures)
        traced.groups = tuple(groups)
        traced.reached = tuple(variable in self.norms for variable in variables)
        found: dict[str, Any] = {
            FIGURES: {
                str(i): self.stack([figures[one] for one in group])
                for i, group in enumerate(groups)
            }
        }
        if self.recipe.gradients:
            found["gradient_norms"] = self.norms.of(variables)
        if self.recipe.clipped:
            found["clipped_norms"] = self.clipped.of(variables)
        if self.recipe.updates:
            before, changes = self._updates(variables, weights)
            found["weight_norms"] = before.of(variables)
            found["update_norms"] = changes.of(variables)
        return found

    def _updates(
        self, variables: Sequence[Any], weights: Sequence[Any]
    ) -> tuple[Norms, Norms]:
        """Norms of the weights before the step and of what it changed."""
        before, changes = Norms(), Norms()
        if len(weights) == len(variables):
            pairs = [
                (variable, self._before[id(variable)], after)
                for variable, after in zip(variables, weights, strict=True)
                if id(variable) in self._before  # else the step itself built the model
            ]
            known = [variable for variable, _, _ in pairs]
            starts = [_widened(start) for _, start, _ in pairs]
            moves = [
                ops.subtract(_widened(after), start)
                for (_, _, after), start in zip(pairs, starts, strict=True)
            ]
            if pairs:
                before.add(known, self.norms_of(starts))
                changes.add(known, self.norms_of(moves))
        return before, changes

    def join(self, reduction: Reduction, figure: Any) -> None:
        """Adds what one call of an operation gave."""
        if not self.is_readable(figure):
            self.unseen.add(reduction)
            return
        key = reduction, tuple(figure.shape)
        known = self.figures.get(key)
        self.figures[key] = figure if known is None else reduction.join(known, figure)

    def _on_return(self, call: OperationEvent) -> None:
        for reduction in self._reductions[id(call.operation)]:
            value = call.at(reduction.place)
            if hasattr(value, "shape") and self.is_readable(value):
                mask = call.mask_at(reduction.place) if reduction.is_masked else None
                self.join(reduction, self.reduced(reduction, value, mask))
            else:
                self.unseen.add(reduction)

    def _observed_apply(self, optimizer: Any) -> Callable[..., Any]:
        apply = held(optimizer, "apply")

        def observed_apply(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            if not self._is_noted:
                grads = self._note(grads, trainable_variables, optimizer)
            return apply(grads, trainable_variables)

        return observed_apply

    def _observed_stateless_apply(self, optimizer: Any) -> Callable[..., Any]:
        # Most optimizers call `apply` within, but one that scales the loss does not.
        apply = held(optimizer, "stateless_apply")

        def observed_apply(
            optimizer_variables: Any, grads: Any, trainable_variables: Any
        ) -> Any:
            grads = list(grads)
            mapping = list(zip(optimizer.variables, optimizer_variables, strict=False))
            with keras.StatelessScope(state_mapping=mapping):
                grads = self._note(grads, None, optimizer)
            self._is_noted = True
            try:
                return apply(optimizer_variables, grads, trainable_variables)
            finally:
                self._is_noted = False

        return observed_apply

    def _note(self, grads: list[Any], variables: Any, optimizer: Any) -> list[Any]:
        """Takes the norms of gradients, and returns these for the optimizer."""
        known = variables or own_trainable(optimizer)
        if len(known) != len(grads):
            return grads  # the optimizer is about to say so
        # What a loss scale of any kind makes of 1, to take it out again.
        scale = ops.cast(optimizer.scale_loss(ops.ones(())), "float32")
        pairs = [
            (variable, gradient)
            for variable, gradient in zip(known, grads, strict=True)
            if gradient is None or self.is_readable(gradient)
        ]
        taken = []
        if self.recipe.gradients:
            taken += self._keep(self.norms, pairs, scale)
        if self.recipe.clipped:
            taken += self._keep_clipped(pairs, scale, optimizer)
        return self.after(taken, grads)

    def _keep(
        self, norms: Norms, pairs: Sequence[tuple[Any, Any]], scale: Any
    ) -> list[Any]:
        """Adds the norms of gradients, 0 where they are None; returns what it took."""
        given = [(variable, g) for variable, g in pairs if g is not None]
        lacking = [variable for variable, g in pairs if g is None]
        if lacking:
            norms.add(lacking, ops.zeros((len(lacking),), dtype="float32"))
        if given:
            each = self.norms_of(self.total([gradient for _, gradient in given]))
            norms.add([variable for variable, _ in given], each / scale)
            return [each]
        return []

    def _keep_clipped(
        self, pairs: Sequence[tuple[Any, Any]], scale: Any, optimizer: Any
    ) -> list[Any]:
        """Adds the norms after the clipping of the optimizer that applies them."""
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if inner.gradient_accumulation_steps:
            return []  # it clips the mean of several steps
        unscaled = [gradient for _, gradient in pairs]
        if optimizer.loss_scale_factor is not None or inner is not optimizer:
            unscaled = [
                None if g is None else ops.divide(g, ops.cast(scale, g.dtype))
                for g in unscaled
            ]
        clipped = clipped_by(inner, unscaled)
        variables = [variable for variable, _ in pairs]
        return self._keep(self.clipped, list(zip(variables, clipped, strict=True)), 1.0)


def _widened(weight: Any) -> Any:
    """A weight in float32, unless it has more digits, or complex numbers."""
    dtype = keras.backend.standardize_dtype(weight.dtype)
    is_narrow = keras.backend.is_float_dtype(dtype) and dtype != "float64"
    return ops.cast(weight, "float32") if is_narrow else weight


def _joint(parts: list[Any]) -> Any:
    """One figure of several, of units `(…, units)` that are not the same ones."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _by_shape(figures: dict[Reduction, Any]) -> list[tuple[Reduction, ...]]:
    """Groups of figures that one array can hold."""
    groups: dict[Any, list[Reduction]] = {}
    for one, figure in figures.items():
        shape = tuple(figure.shape)
        key = one if None in shape else (shape, str(figure.dtype))
        groups.setdefault(key, []).append(one)
    return [tuple(group) for group in groups.values()]


def _once(operations: Iterable[Any]) -> list[Any]:
    return list({id(operation): operation for operation in operations}.values())


def optimizers(model: Any) -> list[Any]:
    """The model's optimizers, those of a custom train step included."""
    found = [model.optimizer] if model.optimizer is not None else []
    for value in vars(model).values():
        is_one = isinstance(value, keras.optimizers.Optimizer)
        if is_one and all(value is not optimizer for optimizer in found):
            found.append(value)
    return found
