"""Dense networks: plain, normalized, residual, gated, of experts."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers, ops

from ._blocks import batch_norm, classes, dense
from ._network import DEFAULT, add
from .data import digits, mnist


def mlp(initializer, activation, depth, width=64, shape=(64,), norm=None):
    x = inputs = keras.Input(shape)
    if len(shape) > 1:
        x = layers.Flatten()(x)
    for _ in range(depth):
        x = dense(x, width, initializer)
        x = layers.Activation(activation)(norm(x) if norm else x)
    return classes(inputs, x)


def layer_norm(x):
    return layers.LayerNormalization()(x)


def pyramid(initializer):
    x = inputs = keras.Input((196,))
    for width in (256, 128, 64, 32):
        x = layers.Dropout(0.1)(dense(x, width, initializer, "relu"))
    return classes(inputs, x)


def residual_mlp(initializer, activation, blocks, width=64):
    inputs = keras.Input((64,))
    x = layers.Dense(width)(inputs)
    for _ in range(blocks):
        y = dense(x, width, initializer, activation)
        x = layers.Add()([x, dense(y, width, initializer)])
    return classes(inputs, x)


def normalized_residual_mlp(initializer, blocks, width=64):
    """As for tables: normalized before each branch, dropped out in it."""
    inputs = keras.Input((64,))
    x = layers.Dense(width)(inputs)
    for _ in range(blocks):
        y = dense(batch_norm(x), 2 * width, initializer, "relu")
        y = layers.Dropout(0.1)(y)
        x = layers.Add()([x, dense(y, width, initializer)])
    return classes(inputs, layers.ReLU()(batch_norm(x)))


def prelu_mlp(initializer, depth):
    x = inputs = keras.Input((64,))
    for _ in range(depth):
        x = layers.PReLU()(dense(x, 64, initializer))
    return classes(inputs, x)


def maxout_mlp(initializer, depth, width=48, pieces=3):
    """Goodfellow et al. 2013."""
    x = inputs = keras.Input((196,))
    for _ in range(depth):
        x = layers.Reshape((width, pieces))(dense(x, width * pieces, initializer))
        x = layers.Dropout(0.2)(ops.max(x, axis=-1))
    return classes(inputs, x)


def gated_mlp(initializer, depth, gate, width=64):
    """Gated linear units, Dauphin et al. 2017; Shazeer 2020."""
    x = inputs = keras.Input((64,))
    for _ in range(depth):
        open_ = dense(x, width, initializer, gate)
        x = layers.Multiply()([dense(x, width, initializer), open_])
    return classes(inputs, x)


def highway(initializer, depth, width=50):
    """Srivastava et al. 2015, whose gates begin nearly shut."""
    inputs = keras.Input((64,))
    x = dense(inputs, width, initializer, "relu")
    for _ in range(depth):
        y = dense(x, width, initializer, "relu")
        shut = keras.initializers.Constant(-2.0)
        gate = dense(x, width, DEFAULT, "sigmoid", bias_initializer=shut)
        x = gate * y + (1 - gate) * x
    return classes(inputs, x)


def expert(x, initializer, width):
    y = dense(x, 2 * width, initializer, "relu")
    return dense(y, width, initializer)


def best(scores, count):
    """Weights of the highest scores: of one its share of all, as in Switch."""
    is_best = scores >= ops.top_k(scores, count)[0][:, -1:]
    if count == 1:
        return ops.where(is_best, ops.softmax(scores), 0.0)
    return ops.softmax(ops.where(is_best, scores, -1e9))


def mixed_experts(x, initializer, count, chosen, width):
    scores = layers.Dense(count)(x)
    weights = best(scores, chosen) if chosen else ops.softmax(scores)
    experts = [expert(x, initializer, width) for _ in range(count)]
    stacked = ops.stack(experts, axis=1)
    return ops.sum(stacked * ops.expand_dims(weights, -1), axis=1)


def soft_experts(initializer, count=4):
    """Jacobs et al. 1991: all experts answer, a softmax weighs them."""
    inputs = keras.Input((64,))
    x = layers.ReLU()(mixed_experts(inputs, initializer, count, 0, 32))
    return classes(inputs, x)


def sparse_experts(initializer, chosen, blocks=2, width=32, count=4):
    """Residual blocks of experts of which some are heard, Shazeer et al. 2017."""
    inputs = keras.Input((64,))
    x = dense(inputs, width, initializer)
    for _ in range(blocks):
        y = mixed_experts(layer_norm(x), initializer, count, chosen, width)
        x = layers.Add()([x, y])
    return classes(inputs, layer_norm(x))


for _depth, _epochs, _activations in (
    (3, 10, ("relu", "gelu", "tanh", "sigmoid")),
    (10, 10, ("relu", "gelu", "silu", "tanh", "selu", "sigmoid", "softplus")),
    (30, 20, ("relu", "gelu", "silu", "tanh", "selu", "elu", "sigmoid", "mish")),
):
    for _activation in _activations:
        _build = partial(mlp, activation=_activation, depth=_depth)
        _name = f"mlp {_depth} {_activation}"
        add(_name, "mlp", _build, digits, _activation, _epochs)
for _name, _norm in (("batch norm", batch_norm), ("layer norm", layer_norm)):
    _build = partial(mlp, activation="relu", depth=10, norm=_norm)
    add(f"mlp 10 relu, {_name}", f"{_name} mlp", _build, digits)
for _depth, _activation in ((5, "relu"), (15, "tanh")):
    _build = partial(mlp, activation=_activation, depth=_depth, width=128)
    _build = partial(_build, shape=(14, 14, 1))
    add(f"mlp {_depth} {_activation}", "mlp", _build, mnist, _activation, 4)
add("mlp pyramid relu, dropout", "mlp", pyramid, partial(mnist, (196,)), epochs=4)
for _activation in ("relu", "gelu"):
    _build = partial(residual_mlp, activation=_activation, blocks=15)
    _name = f"residual mlp 15 {_activation}"
    add(_name, "residual mlp", _build, digits, _activation)
_build = partial(normalized_residual_mlp, blocks=4)
add("residual mlp 4, batch norm", "normalized residual mlp", _build, digits)
add("mlp 6 prelu", "mlp", partial(prelu_mlp, depth=6), digits)
_build = partial(maxout_mlp, depth=3)
add("maxout 3", "maxout mlp", _build, partial(mnist, (196,)), "maxout", 5)
for _gate in ("sigmoid", "silu"):
    _build = partial(gated_mlp, depth=4, gate=_gate)
    add(f"gated mlp 4 {_gate}", "glu mlp", _build, digits, "glu", 15)
add("highway 10", "highway network", partial(highway, depth=10), digits)
add("experts, soft", "mixture of experts", soft_experts, digits, epochs=8)
for _chosen in (1, 2):
    _build = partial(sparse_experts, chosen=_chosen)
    add(f"experts, {_chosen} of 4", "mixture of experts", _build, digits)
