"""Observing training on JAX, compiled or eagerly.

The forward pass runs inside `jax.value_and_grad`, which lets no value out but the loss
and what the differentiated function returns beside it. So while an observed step runs
or is traced, `jax.value_and_grad` and `jax.grad` take the layers' reduced outputs out
as one more such value and hand the train step only what it knows. A derivative of any
other kind, or one taken inside a loop or a `jit` of its own, keeps its outputs: they
are not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import keras
import numpy as np
from jax import numpy as jnp  # pyright: ignore[reportMissingImports]
from jax.core import Tracer  # pyright: ignore[reportMissingImports]

from .._core.errors import message
from .._keras.private import set_jax_state, trace_of, with_shardings
from .._keras.replacing import all_replaced, held
from ._capture import KEY, Capture
from ._recipe import Measured, Recipe, Traced


def observing_step(
    model: Any, train_step: Callable[[Any, Any], Any], recipe: Recipe
) -> Callable[[Any, Any], Any]:
    """Returns a train step whose logs also hold what the recipe measures."""

    def step(state: Any, data: Any) -> Any:
        capture = _Capture(model, recipe, (state, data))
        capture.begin(state[0])
        with capture.outputs(), capture.derivatives(), capture.gradients():
            logs, after = train_step(state, data)
        return {**logs, KEY: capture.finish(traced, after[0])}, after

    traced = vars(step)["traced"] = Traced()
    return step


def check(model: Any) -> None:
    """Raises if the model trains in a way that cannot be observed."""
    if keras.config.is_nnx_enabled():  # its train function ignores the observing step
        raise RuntimeError(
            message(
                "Training is observed without Flax NNX.",
                f"model={model.name!r} with `keras.config.is_nnx_enabled()`",
                "Leave the callbacks out, or unset KERAS_NNX_ENABLED.",
            )
        )


def making(model: Any, arguments: Sequence[Any]) -> Any:
    """A context in which the model makes its observing train function.

    Under a distribution Keras asks the variables where they are, and they are empty
    during an epoch; the state that the function is to be called with knows.
    """
    shardings = tuple([value.sharding for value in part] for part in arguments[0])
    return with_shardings(model, shardings)


def take(result: Any, step: Any) -> tuple[Any, Measured]:
    """Splits the trainer's logs and state from what was measured."""
    logs, state = result
    logs = dict(logs)
    arrays = logs.pop(KEY)
    # Copies: a view would keep the device's array alive.
    return (logs, state), step.traced.measured(arrays, np.array)


def data_source(arguments: Sequence[Any], caller: Any) -> Any:
    """Returns the iterator that `fit` draws an epoch's batches from."""
    return arguments[1]


def is_end_of_data(error: BaseException) -> bool:
    """Whether the error is how an iterator says that it is exhausted."""
    return isinstance(error, StopIteration)


def keep_state(model: Any, arguments: Sequence[Any], result: Any) -> None:
    """Leaves the state where `fit` looks for it when it fails.

    During an epoch the model's variables are empty, and what a step was given is gone
    once it has run.
    """
    state = arguments[0] if result is None else result[1]
    kinds = ("trainable", "non_trainable", "optimizer", "metrics")
    is_gone = any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    if not is_gone and len(state) == len(kinds):
        names = [f"{kind}_variables" for kind in kinds]
        set_jax_state(model, dict(zip(names, state, strict=True)))


class _Capture(Capture):
    def __init__(self, model: Any, recipe: Recipe, arguments: Any):
        super().__init__(model, recipe)
        self.traces = _traces(arguments)

    def is_readable(self, value: Any) -> bool:
        return _traces(value) <= self.traces

    def norms_of(self, tensors: list[Any]) -> Any:
        return _norms(tensors)

    def after(self, norms: list[Any], gradients: list[Any]) -> list[Any]:
        # Else XLA keeps a gradient that it would have fused into the optimizer's work.
        seen = [g is not None and self.is_readable(g) for g in gradients]
        own = [g for g, is_seen in zip(gradients, seen, strict=True) if is_seen]
        if not norms or not all(isinstance(one, Tracer) for one in own):
            return gradients
        _, own = jax.lax.optimization_barrier((norms, own))
        rest = iter(own)
        return [
            next(rest) if is_seen else g
            for g, is_seen in zip(gradients, seen, strict=True)
        ]

    @contextlib.contextmanager
    def derivatives(self) -> Iterator[None]:
        """Lets outputs out of the functions that are differentiated within."""
        if not self.recipe.reductions:
            yield
            return

        def observed_value_and_grad(fun: Any, *args: Any, **kwargs: Any) -> Any:
            return self._observed_derivative(value_and_grad, fun, *args, **kwargs)

        def observed_grad(
            fun: Any, argnums: Any = 0, has_aux: bool = False, **options: Any
        ) -> Any:
            both = observed_value_and_grad(fun, argnums, has_aux, **options)

            def gradient(*args: Any, **kwargs: Any) -> Any:
                value, gradients = both(*args, **kwargs)
                return (gradients, value[1]) if has_aux else gradients

            return gradient

        value_and_grad = held(jax, "value_and_grad")
        functions = [
            (jax, "value_and_grad", observed_value_and_grad),
            (jax, "grad", observed_grad),
        ]
        with all_replaced(functions, only_here=True):
            yield

    def _observed_derivative(
        self,
        value_and_grad: Any,
        fun: Any,
        argnums: Any = 0,
        has_aux: bool = False,
        **options: Any,
    ) -> Any:
        order: list[Any] = []

        def carrying(*args: Any, **kwargs: Any) -> Any:
            outside = self.traces, self.figures
            self.traces, self.figures = self.traces | _traces((args, kwargs)), {}
            try:
                result = fun(*args, **kwargs)
                value, aux = result if has_aux else (result, None)
                order[:] = self.figures
                return value, (aux, list(self.figures.values()))
            finally:
                self.traces, self.figures = outside

        differentiated = value_and_grad(carrying, argnums, has_aux=True, **options)

        def observed(*args: Any, **kwargs: Any) -> Any:
            (value, (aux, figures)), gradients = differentiated(*args, **kwargs)
            for (reduction, _), figure in zip(order, figures, strict=True):
                self.join(reduction, figure)
            return ((value, aux) if has_aux else value), gradients

        return observed


@jax.jit  # else an eager step would compile the branches anew
def _norms(tensors: list[Any]) -> Any:
    sizes = [jnp.abs(one) if jnp.iscomplexobj(one) else one for one in tensors]
    dense = [one.astype("float32") for one in sizes]
    norms = jnp.sqrt(jnp.stack([jnp.sum(jnp.square(one)) for one in dense]))
    # Nor do the squares under- or overflow.
    is_safe = jnp.all((norms > 1e-12) & (norms < 1e18))
    return jax.lax.cond(
        is_safe, lambda: norms, lambda: jnp.stack([_scaled_norm(one) for one in dense])
    )


def _scaled_norm(dense: Any) -> Any:
    """The L2 norm of a tensor that is scaled first, so that all squares fit."""
    largest = jnp.max(jnp.abs(dense), initial=0.0)
    divisor = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return divisor * jnp.sqrt(jnp.sum(jnp.square(dense / divisor)))


def _traces(tree: Any) -> set[int]:
    """The traces that the arrays of a tree belong to; none for concrete ones."""
    return {
        id(trace_of(leaf)) for leaf in jax.tree.leaves(tree) if isinstance(leaf, Tracer)
    }
