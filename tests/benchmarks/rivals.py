"""What people write today to see gradients and dead units: callbacks with extra passes.

Keras callbacks see neither the batch nor the gradients, so these hold the data that
`fit` was given (unshuffled) and slice the same batches once more. They are written as
well as their idea allows: compiled where the model is, with one copy to the host, and
nothing of theirs is made twice.
"""

from __future__ import annotations

import keras
import numpy as np


class ExtraGradientPass(keras.callbacks.Callback):
    """At some steps, the norms of all gradients by a second forward and backward.

    `every` is a number of steps, or a function of the step that says which.
    """

    def __init__(self, x, y, batch_size, every):
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.wants = every if callable(every) else lambda step: step % every == 0
        self.history = []
        self._norms = None

    # Not `on_train_batch_end`: it would end JAX's asynchronous dispatch, and these are
    # the weights that the step is about to differentiate at.
    def on_train_batch_begin(self, batch, logs=None):
        if not self.wants(batch):
            return
        if self._norms is None:
            self._norms = _MAKERS[keras.backend.backend()](self.model)
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        norms = self._norms(self.x[rows], self.y[rows])
        self.history.append(keras.ops.convert_to_numpy(norms))


class FullActivationPass(keras.callbacks.Callback):
    """Once an epoch, all ReLU layers' outputs on all the data; counts dead units."""

    def __init__(self, x, batch_size):
        super().__init__()
        self.x, self.batch_size = x, batch_size
        self.history = []
        self._probe = None

    def on_epoch_end(self, epoch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        if self._probe is None:
            self._probe = keras.Model(self.model.inputs, rectified(self.model))
        outputs = self._probe.predict(self.x, self.batch_size, verbose=0)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        self.history.append([dead_units(output) for output in outputs])


def rectified(model):
    """The outputs of the model's ReLU layers."""
    return [
        layer.output
        for layer in model.layers
        if getattr(layer, "activation", None) is keras.activations.relu
    ]


def dead_units(output):
    return int(np.sum(output.max(axis=tuple(range(output.ndim - 1))) <= 0))


def _on_tensorflow(model):
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def norms(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        return tf.stack([tf.norm(g) for g in tape.gradient(loss, variables)])

    return norms


def _on_jax(model):
    import jax

    @jax.jit
    def norms(trainable, others, x, y):
        def loss(trainable):
            y_pred, _ = model.stateless_call(trainable, others, x, training=True)
            return model.compute_loss(x=x, y=y, y_pred=y_pred)

        _, gradients = jax.value_and_grad(loss)(trainable)
        return jax.numpy.stack([jax.numpy.linalg.norm(g.ravel()) for g in gradients])

    def of_batch(x, y):
        model.jax_state_sync()  # the variables are empty during an epoch
        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return norms(trainable, others, x, y)

    return of_batch


def _on_torch(model):
    import torch

    variables = [variable.value for variable in model.trainable_variables]

    def norms(x, y):
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        gradients = torch.autograd.grad(loss, variables)
        return torch.stack([torch.linalg.vector_norm(g) for g in gradients])

    return norms


_MAKERS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
