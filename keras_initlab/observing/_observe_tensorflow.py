"""Observing training on TensorFlow, in graphs, eagerly and under XLA."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._core.errors import message
from ._capture import KEY, Capture
from ._recipe import Measured, Recipe, Reduction, Traced


def observing_step(
    model: Any, train_step: Callable[[Any], Any], recipe: Recipe
) -> Callable[[Any], Any]:
    """Returns a train step whose logs also hold what the recipe measures."""

    def step(data: Any) -> Any:
        capture = _Capture(model, recipe)
        capture.begin(weights_of(tf.identity))
        # Replicas run the step in a thread each, in turns; each hears itself.
        with capture.outputs(), capture.gradients():
            logs = train_step(data)
        found = capture.finish(traced, weights_of(tf.convert_to_tensor))
        return {**logs, KEY: found}

    def weights_of(read: Callable[[Any], Any]) -> list[Any]:
        return [read(v.value) for v in model.trainable_variables if recipe.updates]

    traced = vars(step)["traced"] = Traced()
    return step


def check(model: Any) -> None:
    """Raises if the model trains in a way whose figures would be wrong."""
    strategy = model.distribute_strategy
    is_known = isinstance(strategy, tf.distribute.MirroredStrategy)
    if strategy.num_replicas_in_sync > 1 and not is_known:
        raise RuntimeError(
            message(
                "Training on several replicas is observed under `MirroredStrategy`.",
                f"model={model.name!r} under `{type(strategy).__name__}`",
                "Leave the callbacks out, or train on one device.",
            )
        )


def making(model: Any, arguments: Sequence[Any]) -> Any:
    """A context in which the model makes its observing train function."""
    return contextlib.nullcontext()


def take(result: Any, step: Any) -> tuple[Any, Measured]:
    """Splits the trainer's logs from what was measured."""
    logs = dict(result)
    arrays = logs.pop(KEY)
    return logs, step.traced.measured(arrays, np.array)  # a view would keep the tensor


def data_source(arguments: Sequence[Any], caller: Any) -> Any:
    """Returns the iterator that `fit` draws an epoch's batches from."""
    return arguments[0]


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

    def total(self, gradients: list[Any]) -> list[Any]:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1 or not gradients:
            return gradients
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    def whole(self, reduction: Reduction, figure: Any) -> Any:
        replica = tf.distribute.get_replica_context()
        count = replica.num_replicas_in_sync
        if count == 1:
            return figure
        each = replica.all_gather(tf.expand_dims(figure, 0), axis=0)
        return functools.reduce(reduction.join, [each[i] for i in range(count)])

    def after(self, norms: list[Any], gradients: list[Any]) -> list[Any]:
        # The optimizer works in a gradient's own memory if nobody else is using it.
        if self.graph is None or not norms:
            return gradients
        with tf.control_dependencies(norms):
            return [
                tf.identity(g) if g is not None and self.is_readable(g) else g
                for g in gradients
            ]

    def norms_of(self, tensors: list[Any]) -> Any:
        dense = [tf.cast(_real(one), tf.float32) for one in tensors]
        norms = tf.sqrt(2 * tf.stack([tf.nn.l2_loss(one) for one in dense]))
        # Nor do the squares under- or overflow.
        is_safe = tf.reduce_all((norms > 1e-12) & (norms < 1e18))
        return tf.cond(
            is_safe, lambda: norms, lambda: tf.stack([_scaled(one) for one in dense])
        )


def _real(tensor: Any) -> Any:
    """A dense tensor of real numbers with the same norm."""
    dense = tf.convert_to_tensor(tensor)
    return tf.abs(dense) if dense.dtype.is_complex else dense


def _scaled(dense: Any) -> Any:
    """The L2 norm of a tensor that is scaled first, so that all squares fit."""
    largest = tf.reduce_max(tf.abs(dense))
    is_usable = (largest > 0) & tf.math.is_finite(largest)
    divisor = tf.where(is_usable, largest, 1.0)
    return divisor * tf.sqrt(2 * tf.nn.l2_loss(dense / divisor))
