"""Training by hand, a step at a time, with the tools of each backend.

What the callbacks report is compared with this. Nothing here comes from keras_initlab.
"""

import functools

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()

# How `compile` has a step run, by name, on this backend. JAX without `jit_compile` runs
# eagerly, and PyTorch runs eagerly unless it compiles, which takes it long.
MODES = {
    "tensorflow": {
        "graph": {"jit_compile": False},
        "eager": {"run_eagerly": True},
        "xla": {"jit_compile": True},
    },
    "jax": {"jit": {"jit_compile": True}, "eager": {"run_eagerly": True}},
    "torch": {"eager": {"run_eagerly": True}},
}[BACKEND]
# What most training uses.
USUAL = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}[BACKEND]

needs_steps_per_execution = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch"
)


def squared_error(y, prediction, weights=1.0):
    prediction = keras.ops.cast(prediction, "float32")
    each = keras.ops.mean(keras.ops.square(keras.ops.subtract(prediction, y)), axis=-1)
    return keras.ops.mean(keras.ops.multiply(weights, each))


def norm(gradient):
    return np.linalg.norm(np.asarray(gradient, dtype="float64"))


def replay(model, data, loss=squared_error):
    """Trains by hand; the norms `(steps, variables)` of the loss's gradients."""
    rows = []
    for x, *rest in data:
        plain, scaled = _derivatives(
            model, x, lambda z, rest=rest: loss(rest[0], z, *rest[1:])
        )
        rows.append([norm(gradient) for gradient in plain])
        _apply(model.optimizer, scaled, model.trainable_variables)
    return np.array(rows)


def gradient_norms(model, x, loss):
    """The norms of the gradients of `loss(model(x))`; no step is made."""
    plain, _ = _derivatives(model, x, loss, scale=lambda value: value)
    return [norm(gradient) for gradient in plain]


def _derivatives(model, x, loss, scale=None):
    """The gradients of a loss, and of what the model's optimizer scales it to."""
    scale = scale or model.optimizer.scale_loss
    return _DERIVATIVES[BACKEND](model, x, loss, scale)


def _by_tensorflow(model, x, loss, scale):
    import tensorflow as tf

    def dense(gradient, variable):
        if gradient is None:
            return np.zeros(variable.shape)
        if isinstance(gradient, tf.IndexedSlices):
            full = np.zeros(variable.shape)
            np.add.at(full, gradient.indices.numpy(), gradient.values.numpy())
            return full
        return gradient

    with tf.GradientTape(persistent=True) as tape:
        value = loss(model(x, training=True))
        scaled = scale(value)
    variables = model.trainable_variables
    plain = map(dense, tape.gradient(value, variables), variables)
    return list(plain), tape.gradient(scaled, variables)


def _by_jax(model, x, loss, scale):
    import jax

    arguments = {"training": True} if model._call_has_training_arg else {}

    def run(trainable):
        frozen = [variable.value for variable in model.non_trainable_variables]
        prediction, state = model.stateless_call(trainable, frozen, x, **arguments)
        value = loss(prediction)
        return (value, scale(value)), state

    values = [variable.value for variable in model.trainable_variables]
    both, pull, state = jax.vjp(run, values, has_aux=True)
    one, zero = (np.asarray(number, both[0].dtype) for number in (1, 0))
    (plain,), (scaled,) = pull((one, zero)), pull((zero, one))
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return plain, scaled


def _by_torch(model, x, loss, scale):
    import torch

    value = loss(model(x, training=True))
    variables = [variable.value for variable in model.trainable_variables]

    def gradients(of):
        return torch.autograd.grad(of, variables, retain_graph=True, allow_unused=True)

    zeros = [torch.zeros_like(variable) for variable in variables]
    return tuple(
        [zero if g is None else g for g, zero in zip(gradients(of), zeros, strict=True)]
        for of in (value, scale(value))
    )


def _apply(optimizer, gradients, variables):
    if BACKEND == "tensorflow":
        optimizer.apply(gradients, variables)
    elif BACKEND == "torch":
        import torch

        with torch.no_grad():
            optimizer.apply(gradients, variables)
    else:
        optimizer.build(variables)
        owners = [*variables, *optimizer.variables]
        values = [variable.value for variable in owners]
        count = len(variables)
        new = _compiled(optimizer)(values[count:], gradients, values[:count])
        for variable, value in zip(owners, [*new[0], *new[1]], strict=True):
            variable.assign(value)


@functools.lru_cache(maxsize=1)
def _compiled(optimizer):
    import jax

    return jax.jit(optimizer.stateless_apply)


def weights_of(model):
    """The weights in the middle of a fit, where JAX keeps them elsewhere."""
    if BACKEND == "jax":
        model.jax_state_sync()
    return model.get_weights()


_DERIVATIVES = {
    "tensorflow": _by_tensorflow,
    "jax": _by_jax,
    "torch": _by_torch,
}


def backpropagated(weights, x, y):
    """The gradients of the mean squared error of Dense, ReLU, Dense, in NumPy."""
    kernel, bias, head, last = (np.asarray(w, "float64") for w in weights)
    z = x @ kernel + bias
    hidden = np.maximum(z, 0)
    error = 2 * (hidden @ head + last - y) / y.size
    back = (error @ head.T) * (z > 0)
    return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
