"""Gathering gradients and outputs while a train step runs or is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from ._recipe import Recipe
from ._record import recording, replaced

KEY = "__keras_initlab__"


class Capture:
    """What one run of a train step measures.

    A backend's capture says what a gradient's norm is, which values may leave the
    step, and where in it the layers' outputs can be recorded.
    """

    def __init__(self, model: Any, recipe: Recipe):
        self.model = model
        self.recipe = recipe
        self.norms: dict[int, Any] = {}
        self.units: dict[int, Any] = {}
        self.unseen: set[int] = set()
        self._reductions = {id(one): how for one, how in recipe.reductions}

    def norm(self, gradient: Any) -> Any:
        """The L2 norm of a gradient in float32."""
        raise NotImplementedError

    def is_readable(self, value: Any) -> bool:
        """Whether a value may leave the step: not one from inside a loop or branch."""
        raise NotImplementedError

    @contextlib.contextmanager
    def outputs(self) -> Iterator[None]:
        """Records what the recipe's layers return within the context."""
        operations = [operation for operation, _ in self.recipe.reductions]
        with recording(operations, self._on_return):
            yield

    @contextlib.contextmanager
    def gradients(self) -> Iterator[None]:
        """Records the gradients that reach an optimizer within the context."""
        with contextlib.ExitStack() as stack:
            for optimizer in optimizers(self.model) if self.recipe.gradients else ():
                for name in ("apply", "stateless_apply"):
                    wrapper = getattr(self, f"_observed_{name}")(optimizer)
                    stack.enter_context(replaced(optimizer, name, wrapper))
            yield

    def gradient_norms(self) -> Any:
        """The norms in the order of the model's variables; NaN for what is missing."""
        missing = ops.full((), float("nan"), dtype="float32")
        norms = [
            self.norms.get(id(variable), missing)
            for variable in self.model.trainable_variables
        ]
        return ops.stack(norms) if norms else ops.zeros((0,), dtype="float32")

    def seen_units(self) -> dict[int, Any]:
        """The vectors of the operations of which every call could be read."""
        return {key: v for key, v in self.units.items() if key not in self.unseen}

    def join(self, key: int, vector: Any) -> None:
        """Adds what one call of an operation gave."""
        if not self.is_readable(vector):
            self.unseen.add(key)
            return
        known = self.units.get(key)
        self.units[key] = vector if known is None else ops.maximum(known, vector)

    def _on_return(self, operation: Any, output: Any) -> None:
        if hasattr(output, "shape") and self.is_readable(output):
            self.join(id(operation), self._reductions[id(operation)](output))
        else:
            self.unseen.add(id(operation))

    def _observed_apply(self, optimizer: Any) -> Callable[..., Any]:
        apply = optimizer.apply

        def observed_apply(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            self._note(grads, trainable_variables, optimizer)
            return apply(grads, trainable_variables)

        return observed_apply

    def _observed_stateless_apply(self, optimizer: Any) -> Callable[..., Any]:
        # Most optimizers call `apply` within, but one that scales the loss does not.
        apply = optimizer.stateless_apply

        def observed_apply(
            optimizer_variables: Any, grads: Any, trainable_variables: Any
        ) -> Any:
            grads = list(grads)
            mapping = list(zip(optimizer.variables, optimizer_variables, strict=False))
            with keras.StatelessScope(state_mapping=mapping):
                self._note(grads, None, optimizer)
            return apply(optimizer_variables, grads, trainable_variables)

        return observed_apply

    def _note(self, grads: Any, variables: Any, optimizer: Any) -> None:
        known = variables or getattr(optimizer, "_trainable_variables", [])
        if len(known) != len(grads):
            return  # the optimizer is about to say so
        # What a loss scale of any kind makes of 1, to take it out again.
        scale = ops.cast(optimizer.scale_loss(ops.ones(())), "float32")
        for variable, gradient in zip(known, grads, strict=True):
            if gradient is None:
                self.norms[id(variable)] = ops.zeros((), dtype="float32")
            elif self.is_readable(gradient):
                self.norms[id(variable)] = self.norm(gradient) / scale


def optimizers(model: Any) -> list[Any]:
    """The model's optimizers, those of a custom train step included."""
    found = [model.optimizer] if model.optimizer is not None else []
    for value in vars(model).values():
        is_new = all(value is not optimizer for optimizer in found)
        if isinstance(value, keras.optimizers.Optimizer) and is_new:
            found.append(value)
    return found
