"""Starts that others published, where they apply: ZerO, Fixup and GradInit.

Written from the papers. What is in these beside the weights, as Fixup's additional
scalars and ZerO's additional skip connections, is not: a start cannot add layers.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from scipy.linalg import hadamard

from keras_initlab.inspection import inspect

_DENSE = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)

# GradInit: what the scales move by, their least, for how long, and the bound on the
# norm; chosen here.
SCALE_RATE, LEAST_SCALE, STEPS = 1e-2, 0.01, 60
BOUND = 10.0  # times the square root of the number of weights, for Adam's 1-norm
ADAM_RATE, BATCH = 1e-3, 64


class NotForThisError(Exception):
    """A published start says nothing of such a network."""


# ---- ZerO: Zhao et al. 2022, 2110.12661, algorithms 1 and 2 -------------------------


def zero_matrix(inputs, outputs):
    """The identity, as far as it goes; to more units, part of a Hadamard matrix."""
    if outputs <= inputs:
        return np.eye(inputs, outputs)
    power = math.ceil(math.log2(outputs))
    return (hadamard(2**power) * 2 ** (-(power - 1) / 2))[:inputs, :outputs]


def zero(model):
    """Writes ZerO's weights: the centers of kernels; branches and outputs end in zeros.

    In branches, identities would double the signal at every sum.
    """
    records = inspect(model).kernels
    if not all(isinstance(one.layer, _DENSE) for one in records):
        raise NotForThisError("ZerO is for dense layers and convolutions.")
    for one in records:
        *window, inputs, outputs = one.shape
        kernel = np.zeros(one.shape, "float32")
        if one.role not in ("output", "residual branch"):
            center = tuple(size // 2 for size in window)
            kernel[center] = zero_matrix(inputs, outputs)
        one.variable.assign(kernel)


# ---- Fixup: Zhang et al. 2019, 1901.09321, sec. 3 -----------------------------------


def fixup(model, seed):
    """Writes Fixup's weights: He's, smaller inside branches, zero where they end."""
    inspection = inspect(model)
    closers = [one for one in inspection.kernels if one.role == "residual branch"]
    is_normalized = any(one.normalization for one in inspection.kernels)
    if not closers or is_normalized:
        raise NotForThisError("Fixup is for residual networks without normalization.")
    inside = {}
    for closer in closers:
        branch = _branch_of(closer, inspection)
        for one in branch:
            inside[one.position] = len(branch)
    for one in inspection.kernels:
        draw = keras.initializers.HeNormal(seed=seed + one.position)
        values = np.asarray(draw(one.shape))
        depth = inside.get(one.position, 0)
        if one in closers or one.role == "output":
            values = np.zeros_like(values)
        elif depth > 1:
            values = values * len(closers) ** (-1 / (2 * depth - 2))
        one.variable.assign(values)


def _branch_of(closer, inspection):
    """The kernels of a branch, back to the sum or the shared signal that it reads."""
    found = [closer]
    while len(found[-1].edges) == 1 and isinstance(found[-1].edges[0].source, int):
        before = inspection.kernels[found[-1].edges[0].source]
        is_shared = len(inspection.readers[before.position]) > 1
        if is_shared or before.role == "residual branch":
            break
        found.append(before)
    return found


# ---- GradInit: Zhu et al. 2021, 2102.08098, algorithm 1 -----------------------------


def gradinit(model, network, data, seed):
    """Scales each weight tensor so that one step of Adam lowers the loss most."""
    if keras.backend.backend() != "jax":
        raise NotForThisError("GradInit needs gradients of gradients: JAX's, here.")
    import jax
    import jax.numpy as jnp

    (x, y), _ = data
    examples = len(keras.tree.flatten(x)[0])
    trainable = [jnp.asarray(one.value) for one in model.trainable_variables]
    others = [one.value for one in model.non_trainable_variables]
    loss_of = network.loss()
    is_scaled = [one.ndim > 1 for one in trainable]
    count = sum(one.size for one in trainable)

    def loss(weights, batch):
        x, y = batch
        y_pred, _ = model.stateless_call(weights, others, x, training=True)
        return jnp.mean(loss_of(y, y_pred))

    def scaled(scales):
        pairs = zip(trainable, scales, is_scaled, strict=True)
        return [w * s if has_scale else w for w, s, has_scale in pairs]

    def norm(scales, batch):
        gradient = jax.grad(loss)(scaled(scales), batch)
        return sum(jnp.abs(one).sum() for one in gradient)

    def after_a_step(scales, batch, other):
        weights = scaled(scales)
        gradient = jax.grad(loss)(weights, batch)
        pairs = zip(weights, gradient, strict=True)
        return loss([w - ADAM_RATE * jnp.sign(g) for w, g in pairs], other)

    of_norm = jax.jit(jax.value_and_grad(norm))
    of_step = jax.jit(jax.grad(after_a_step))
    rng = np.random.default_rng(seed)

    def drawn():
        rows = np.sort(rng.choice(examples, min(BATCH, examples), replace=False))
        part = keras.tree.map_structure(lambda leaf: leaf[rows], x)
        return part, y[rows]

    scales = keras.Variable(np.ones(len(trainable), "float32"))
    adam = keras.optimizers.Adam(SCALE_RATE)
    for _ in range(STEPS):
        batch = drawn()
        total, slope = of_norm(scales.value, batch)
        if float(total) <= BOUND * math.sqrt(count):
            slope = of_step(scales.value, batch, drawn())
        adam.apply([jnp.nan_to_num(slope)], [scales])
        scales.assign(jnp.maximum(LEAST_SCALE, scales.value))
    pairs = zip(
        model.trainable_variables, trainable, scales.numpy(), is_scaled, strict=True
    )
    for variable, value, scale, has_scale in pairs:
        if has_scale:
            variable.assign(value * float(scale))
