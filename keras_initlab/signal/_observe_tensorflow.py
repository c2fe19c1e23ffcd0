"""Observing training on TensorFlow, in graphs, eagerly and under XLA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .._errors import message
from ._recipe import Measured, Recipe
from ._record import recording, replaced

_KEY = "__keras_initlab__"


def observing_step(
    model: Any, train_step: Callable[[Any], Any], recipe: Recipe
) -> Callable[[Any], Any]:
    """Returns a train step whose logs also hold what the recipe measures."""

    def step(data: Any) -> Any:
        capture = _Capture(model, recipe)
        with capture.running():
            logs = train_step(data)
        variables[:] = model.trainable_variables
        return {**logs, _KEY: capture.results()}

    variables: list[Any] = []
    vars(step)["variables"] = variables  # as of the last trace
    return step


def check(model: Any) -> None:
    """Raises if the model trains in a way whose figures would be wrong."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:  # each replica's gradient would be measured, not their sum
        raise RuntimeError(
            message(
                "Training is observed on one replica.",
                f"model={model.name!r}, which trains on {replicas} replicas",
                "Leave the callbacks out, or train on one device.",
            )
        )


def take(result: Any, step: Any) -> tuple[Any, Measured]:
    """Splits the trainer's logs from what was measured."""
    logs = dict(result)
    results = logs.pop(_KEY)
    norms = results.get("gradient_norms")
    return logs, Measured(
        variables=tuple(step.variables),
        gradient_norms=None if norms is None else np.asarray(norms),
        units={int(key): np.asarray(v) for key, v in results["units"].items()},
    )


def data_source(arguments: Sequence[Any]) -> Any:
    """Returns the iterator that `fit` draws from, None for other callers."""
    kinds = (tf.data.Iterator, tf.distribute.DistributedIterator)
    return arguments[0] if isinstance(arguments[0], kinds) else None


def is_end_of_data(error: BaseException) -> bool:
    """Whether the error is how an iterator says that it is exhausted."""
    return isinstance(error, (StopIteration, tf.errors.OutOfRangeError))


class _Capture:
    """Gathers gradients and outputs while a train step runs or is traced."""

    def __init__(self, model: Any, recipe: Recipe):
        self.model = model
        self.recipe = recipe
        self.norms: dict[int, Any] = {}
        self.units: dict[int, Any] = {}
        self.graph = (
            None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        reduce = {id(operation): how for operation, how in self.recipe.reductions}

        def on_return(operation: Any, output: Any) -> None:
            if not hasattr(output, "shape") or not self._is_readable(output):
                return
            vector = reduce[id(operation)](output)
            known = self.units.get(id(operation))
            if known is not None:
                vector = tf.maximum(known, vector)
            self.units[id(operation)] = vector

        with contextlib.ExitStack() as stack:
            operations = [operation for operation, _ in self.recipe.reductions]
            stack.enter_context(recording(operations, on_return))
            if self.recipe.gradients:
                for optimizer in _optimizers(self.model):
                    wrapper = self._wrapped_apply(optimizer)
                    stack.enter_context(replaced(optimizer, "apply", wrapper))
            yield

    def results(self) -> dict[str, Any]:
        results: dict[str, Any] = {
            "units": {str(key): vector for key, vector in self.units.items()}
        }
        if self.recipe.gradients:
            missing = tf.constant(np.nan, tf.float32)
            norms = [
                self.norms.get(id(variable), missing)
                for variable in self.model.trainable_variables
            ]
            results["gradient_norms"] = tf.stack(norms) if norms else tf.zeros((0,))
        return results

    def _wrapped_apply(self, optimizer: Any) -> Callable[..., Any]:
        apply = optimizer.apply

        def observed_apply(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = trainable_variables or optimizer._trainable_variables
            # What a loss scale of any kind makes of 1, to take it out again.
            scale = tf.cast(optimizer.scale_loss(tf.constant(1.0)), tf.float32)
            for variable, gradient in zip(variables, grads, strict=True):
                if gradient is None:
                    self.norms[id(variable)] = tf.constant(0.0)
                elif self._is_readable(gradient):
                    self.norms[id(variable)] = _norm(gradient) / scale
            return apply(grads, trainable_variables)

        return observed_apply

    def _is_readable(self, value: Any) -> bool:
        """Whether a value may leave the step: not one from inside a loop or branch."""
        if self.graph is None:
            return True
        return all(
            getattr(tensor, "graph", None) is self.graph
            for tensor in tf.nest.flatten(value, expand_composites=True)
        )


def _optimizers(model: Any) -> list[Any]:
    """The model's optimizers, those of a custom train step included."""
    found = [model.optimizer] if model.optimizer is not None else []
    for value in vars(model).values():
        is_new = all(value is not optimizer for optimizer in found)
        if isinstance(value, keras.optimizers.Optimizer) and is_new:
            found.append(value)
    return found


def _norm(gradient: Any) -> Any:
    """The L2 norm in float32, also where the squares would over- or underflow."""
    dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
    norm = tf.sqrt(2 * tf.nn.l2_loss(dense))  # one fused pass
    is_safe = (norm > 1e-12) & (norm < 1e18)

    def scaled() -> Any:
        largest = tf.reduce_max(tf.abs(dense))
        is_usable = (largest > 0) & tf.math.is_finite(largest)
        divisor = tf.where(is_usable, largest, 1.0)
        return divisor * tf.sqrt(2 * tf.nn.l2_loss(dense / divisor))

    return tf.cond(is_safe, lambda: norm, scaled)
