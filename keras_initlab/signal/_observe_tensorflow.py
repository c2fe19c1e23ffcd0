"""Observing training on TensorFlow, in graphs, eagerly and under XLA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._errors import message
from ._capture import KEY, Capture
from ._recipe import Measured, Recipe


def observing_step(
    model: Any, train_step: Callable[[Any], Any], recipe: Recipe
) -> Callable[[Any], Any]:
    """Returns a train step whose logs also hold what the recipe measures."""

    def step(data: Any) -> Any:
        capture = _Capture(model, recipe)
        with capture.outputs(), capture.gradients():
            logs = train_step(data)
        variables[:] = model.trainable_variables
        measured: dict[str, Any] = {
            "units": {str(key): vector for key, vector in capture.seen_units().items()}
        }
        if recipe.gradients:
            measured["gradient_norms"] = capture.gradient_norms()
        return {**logs, KEY: measured}

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


def making(model: Any, arguments: Sequence[Any]) -> Any:
    """A context in which the model makes its observing train function."""
    return contextlib.nullcontext()


def take(result: Any, step: Any) -> tuple[Any, Measured]:
    """Splits the trainer's logs from what was measured."""
    logs = dict(result)
    measured = logs.pop(KEY)
    norms = measured.get("gradient_norms")
    # Copies: a view would keep the tensor alive.
    return logs, Measured(
        variables=tuple(step.variables),
        gradient_norms=None if norms is None else np.array(norms),
        units={int(key): np.array(v) for key, v in measured["units"].items()},
    )


def data_source(arguments: Sequence[Any], caller: Any) -> Any:
    """Returns the iterator that `fit` draws from, None for other callers."""
    kinds = (tf.data.Iterator, tf.distribute.DistributedIterator)
    return arguments[0] if isinstance(arguments[0], kinds) else None


def is_end_of_data(error: BaseException) -> bool:
    """Whether the error is how an iterator says that it is exhausted."""
    return isinstance(error, (StopIteration, tf.errors.OutOfRangeError))


def keep_state(model: Any, arguments: Sequence[Any], result: Any) -> None:
    """The model's variables hold the state all the time."""


class _Capture(Capture):
    """Gathers tensors of one graph, or eager ones."""

    def __init__(self, model: Any, recipe: Recipe):
        super().__init__(model, recipe)
        self.graph = (
            None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        )

    def is_readable(self, value: Any) -> bool:
        # An eager tensor has no graph; one traced for a `tf.vectorized_map` does.
        return all(
            getattr(tensor, "graph", None) is self.graph
            for tensor in tf.nest.flatten(value, expand_composites=True)
        )

    def norm(self, gradient: Any) -> Any:
        dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
        norm = tf.sqrt(2 * tf.nn.l2_loss(dense))  # one fused pass
        is_safe = (norm > 1e-12) & (
            norm < 1e18
        )  # nor do the squares under- or overflow

        def scaled() -> Any:
            largest = tf.reduce_max(tf.abs(dense))
            is_usable = (largest > 0) & tf.math.is_finite(largest)
            divisor = tf.where(is_usable, largest, 1.0)
            return divisor * tf.sqrt(2 * tf.nn.l2_loss(dense / divisor))

        return tf.cond(is_safe, lambda: norm, scaled)
