"""The combinations of architecture, activation and depth that trainability trains.

`COMBINATIONS` maps a name to a `Combination`. Every `build` takes the initializer that
a textbook names for the hidden kernels (or Keras's default) and returns a model for the
inputs of its data. Attention and recurrent kernels keep Keras's initializers in all
arms that do not set them: no textbook says otherwise.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

DEFAULT = "glorot_uniform"
TWO_TAILS = ("tanh", "sigmoid", "softsign")


@dataclass(frozen=True)
class Combination:
    """What is trained, on what, and for how long.

    Attributes:
        build: makes the model from an initializer for hidden kernels.
        data: "digits", "mnist", or "clean digits": noise is to be taken off them.
        textbook: the textbook's initializer for its activation.
        rate: Adam's learning rate, the same in all arms.
        epochs: over the training examples, in batches of 100.
    """

    build: Any
    data: str
    textbook: str
    rate: float
    epochs: int

    @property
    def is_reconstruction(self):
        return self.data.startswith("clean")


COMBINATIONS: dict[str, Combination] = {}


def textbook(activation):
    """The initializer that textbooks name for an activation."""
    if activation == "selu":
        return "lecun_normal"
    return "glorot_normal" if activation in TWO_TAILS else "he_normal"


def add(name, build, data, activation="relu", rate=1e-3, epochs=10):
    if name in COMBINATIONS:
        raise ValueError(f"Names must differ. Received: {name!r} twice.")
    entry = Combination(build, data, textbook(activation), rate, epochs)
    COMBINATIONS[name] = entry


def conv(x, filters, size, initializer, activation=None, **others):
    options = {"padding": "same", "kernel_initializer": initializer, **others}
    return layers.Conv2D(filters, size, activation=activation, **options)(x)


def top(x, units=10):
    return layers.Dense(units, name="logits")(layers.GlobalAveragePooling2D()(x))


# ---- dense networks -------------------------------------------------------------


def mlp(initializer, activation, depth, width=64, shape=(64,), norm=None):
    x = inputs = keras.Input(shape)
    if len(shape) > 1:
        x = layers.Flatten()(x)
    for _ in range(depth):
        x = layers.Dense(width, kernel_initializer=initializer)(x)
        x = layers.Activation(activation)(norm()(x) if norm else x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def pyramid(initializer):
    x = inputs = keras.Input((196,))
    for width in (256, 128, 64, 32):
        x = layers.Dense(width, "relu", kernel_initializer=initializer)(x)
        x = layers.Dropout(0.1)(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def residual_mlp(initializer, activation, blocks, width=64):
    inputs = keras.Input((64,))
    x = layers.Dense(width)(inputs)
    for _ in range(blocks):
        y = layers.Dense(width, activation, kernel_initializer=initializer)(x)
        x = layers.Add()([x, layers.Dense(width, kernel_initializer=initializer)(y)])
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


# ---- convolutions ---------------------------------------------------------------


def plain_cnn(initializer, activation, depth, filters=16):
    x = inputs = keras.Input((14, 14, 1))
    x = conv(x, filters, 5, initializer, activation, strides=3)
    for _ in range(depth - 1):
        x = conv(x, filters, 3, initializer, activation)
    return keras.Model(inputs, top(x))


def vgg(initializer, activation):
    x = inputs = keras.Input((14, 14, 1))
    x = layers.MaxPooling2D()(conv(x, 8, 3, initializer, activation))
    x = conv(x, 16, 3, initializer, activation)
    x = layers.MaxPooling2D()(conv(x, 16, 3, initializer, activation))
    x = layers.Dense(64, activation, kernel_initializer=initializer)(
        layers.Flatten()(x)
    )
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def residual_cnn(initializer, blocks, has_norm, filters=16):
    def normalized(x):
        return layers.BatchNormalization(momentum=0.9)(x) if has_norm else x

    x = inputs = keras.Input((14, 14, 1))
    x = layers.ReLU()(normalized(conv(x, filters, 5, initializer, strides=3)))
    for _ in range(blocks):
        y = layers.ReLU()(normalized(conv(x, filters, 3, initializer)))
        y = normalized(conv(y, filters, 3, initializer))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, top(x))


def preactivated_cnn(initializer, blocks, filters=16):
    x = inputs = keras.Input((14, 14, 1))
    x = conv(x, filters, 5, initializer, strides=3)
    for _ in range(blocks):
        y = x
        for _ in range(2):
            y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y))
            y = conv(y, filters, 3, initializer)
        x = layers.Add()([x, y])
    return keras.Model(inputs, top(layers.ReLU()(x)))


def mobilenet(initializer, blocks=4):
    x = inputs = keras.Input((14, 14, 1))
    x = conv(x, 16, 5, initializer, strides=3, use_bias=False)
    x = layers.ReLU(6)(layers.BatchNormalization(momentum=0.9)(x))
    for _ in range(blocks):
        x = layers.DepthwiseConv2D(
            3, padding="same", depthwise_initializer=initializer, use_bias=False
        )(x)
        x = layers.ReLU(6)(layers.BatchNormalization(momentum=0.9)(x))
        x = conv(x, 32, 1, initializer, use_bias=False)
        x = layers.ReLU(6)(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, top(x))


def separable_cnn(initializer, activation, depth=6):
    x = inputs = keras.Input((14, 14, 1))
    x = conv(x, 16, 5, initializer, activation, strides=3)
    for _ in range(depth):
        x = layers.SeparableConv2D(
            16,
            3,
            padding="same",
            activation=activation,
            depthwise_initializer=initializer,
            pointwise_initializer=initializer,
        )(x)
    return keras.Model(inputs, top(x))


def dense_cnn(initializer, has_norm, depth=8, growth=8):
    x = inputs = keras.Input((14, 14, 1))
    x = conv(x, 16, 5, initializer, strides=3)
    for _ in range(depth):
        y = layers.BatchNormalization(momentum=0.9)(x) if has_norm else x
        y = conv(layers.ReLU()(y), growth, 3, initializer)
        x = layers.Concatenate()([x, y])
    return keras.Model(inputs, top(layers.ReLU()(x)))


def convnext(initializer, blocks=4, filters=16):
    x = inputs = keras.Input((14, 14, 1))
    x = layers.LayerNormalization()(conv(x, filters, 3, initializer, strides=3))
    for _ in range(blocks):
        y = layers.DepthwiseConv2D(
            5, padding="same", depthwise_initializer=initializer
        )(x)
        y = layers.LayerNormalization()(y)
        y = layers.Dense(4 * filters, "gelu", kernel_initializer=initializer)(y)
        x = layers.Add()([x, layers.Dense(filters, kernel_initializer=initializer)(y)])
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


# ---- mixers and transformers ----------------------------------------------------


def patches(width, initializer):
    """Inputs for digits, and their sixteen patches of 2 × 2 pixels, embedded."""
    inputs = keras.Input((8, 8, 1))
    x = conv(inputs, width, 2, initializer, strides=2, padding="valid")
    return inputs, layers.Reshape((16, width))(x)


def mixer(initializer, blocks=4, width=32):
    inputs, x = patches(width, DEFAULT)
    for _ in range(blocks):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        y = layers.Dense(32, "gelu", kernel_initializer=initializer)(y)
        y = layers.Dense(16, kernel_initializer=initializer)(y)
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(64, "gelu", kernel_initializer=initializer)(y)
        x = layers.Add()([x, layers.Dense(width, kernel_initializer=initializer)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


class Positions(layers.Layer):
    """Adds what is learned of every position."""

    def build(self, input_shape):
        self.table = layers.Embedding(*input_shape[1:])
        self.table.build(None)

    def call(self, inputs):
        return inputs + self.table(keras.ops.arange(inputs.shape[1]))


def attended(x, is_pre, initializer, activation="relu"):
    """A block of self-attention and one of a dense network, pre- or post-norm."""
    width = x.shape[-1]

    def closed(x, branch):
        if is_pre:
            return layers.Add()([x, branch(layers.LayerNormalization()(x))])
        return layers.LayerNormalization()(layers.Add()([x, branch(x)]))

    def network(y):
        y = layers.Dense(2 * width, activation, kernel_initializer=initializer)(y)
        return layers.Dense(width, kernel_initializer=initializer)(y)

    x = closed(x, lambda y: layers.MultiHeadAttention(4, width // 4)(y, y))
    return closed(x, network)


def transformer(initializer, inputs, x, blocks, is_pre=True, activation="relu"):
    x = Positions()(x)
    for _ in range(blocks):
        x = attended(x, is_pre, initializer, activation)
    if is_pre:
        x = layers.LayerNormalization()(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def vit(initializer, blocks, is_pre=True):
    return transformer(initializer, *patches(32, DEFAULT), blocks, is_pre, "gelu")


def row_transformer(initializer, blocks, is_pre):
    inputs = keras.Input((8, 8))
    return transformer(initializer, inputs, layers.Dense(32)(inputs), blocks, is_pre)


# ---- recurrent ------------------------------------------------------------------


def recurrent(initializer, kind, depth=1, shape=(8, 8), is_both=False):
    x = inputs = keras.Input(shape)
    for number in range(depth):
        layer = getattr(layers, kind)(
            32, kernel_initializer=initializer, return_sequences=number < depth - 1
        )
        x = layers.Bidirectional(layer)(x) if is_both else layer(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


# ---- autoencoders ---------------------------------------------------------------


def autoencoder(initializer, activation, widths=(64, 32, 16, 32, 64)):
    x = inputs = keras.Input((64,))
    for width in widths:
        x = layers.Dense(width, activation, kernel_initializer=initializer)(x)
    return keras.Model(inputs, layers.Dense(64, name="pixels")(x))


def conv_autoencoder(initializer):
    x = inputs = keras.Input((8, 8, 1))
    for filters in (16, 16):
        x = conv(x, filters, 3, initializer, "relu", strides=2)
    x = conv(x, 4, 3, initializer, "relu")
    for filters in (16, 16):
        x = layers.Conv2DTranspose(
            *(filters, 4, 2),
            padding="same",
            activation="relu",
            kernel_initializer=initializer,
        )(x)
    return keras.Model(inputs, conv(x, 1, 3, DEFAULT))


def unet(initializer, activation="relu"):
    inputs = keras.Input((8, 8, 1))
    skips, x = [], inputs
    for filters in (8, 16):
        x = conv(x, filters, 3, initializer, activation)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = conv(x, 32, 3, initializer, activation)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(
            filters, 2, strides=2, kernel_initializer=initializer
        )(x)
        x = layers.Concatenate()([skips.pop(), x])
        x = conv(x, filters, 3, initializer, activation)
    return keras.Model(inputs, conv(x, 1, 1, DEFAULT))


# ---- the table ------------------------------------------------------------------

_part = functools.partial
for _activation in ("relu", "gelu", "tanh", "sigmoid"):
    _build = _part(mlp, activation=_activation, depth=3)
    add(f"mlp 3 {_activation}", _build, "digits", _activation)
for _activation in ("relu", "gelu", "silu", "tanh", "selu", "sigmoid", "softplus"):
    _build = _part(mlp, activation=_activation, depth=10)
    add(f"mlp 10 {_activation}", _build, "digits", _activation)
for _activation in ("relu", "gelu", "silu", "tanh", "selu", "elu", "sigmoid", "mish"):
    _build = _part(mlp, activation=_activation, depth=30)
    add(f"mlp 30 {_activation}", _build, "digits", _activation, 3e-4, 20)
_norm = _part(layers.BatchNormalization, momentum=0.9)
_build = _part(mlp, activation="relu", depth=10, norm=_norm)
add("mlp 10 relu, batch norm", _build, "digits")
_build = _part(mlp, activation="relu", depth=10, norm=layers.LayerNormalization)
add("mlp 10 relu, layer norm", _build, "digits")
_build = _part(mlp, activation="relu", depth=5, width=128, shape=(14, 14, 1))
add("mlp 5 relu", _build, "mnist", epochs=4)
_build = _part(mlp, activation="tanh", depth=15, width=128, shape=(14, 14, 1))
add("mlp 15 tanh", _build, "mnist", "tanh", epochs=4)
add("mlp pyramid relu, dropout", pyramid, "mnist", epochs=4)
for _activation in ("relu", "gelu"):
    _build = _part(residual_mlp, activation=_activation, blocks=15)
    add(f"residual mlp 15 {_activation}", _build, "digits", _activation)
for _activation, _depth in (("relu", 5), ("relu", 15), ("silu", 15), ("tanh", 15)):
    _build = _part(plain_cnn, activation=_activation, depth=_depth)
    add(f"cnn {_depth} {_activation}", _build, "mnist", _activation, epochs=5)
for _activation in ("relu", "elu"):
    _build = _part(vgg, activation=_activation)
    add(f"vgg {_activation}", _build, "mnist", _activation, epochs=5)
for _blocks, _has_norm in ((5, True), (5, False), (12, False)):
    _build = _part(residual_cnn, blocks=_blocks, has_norm=_has_norm)
    _what = ", batch norm" if _has_norm else ""
    add(f"resnet {_blocks}{_what}", _build, "mnist", epochs=5)
add("resnet 5 pre-activated", _part(preactivated_cnn, blocks=5), "mnist", epochs=5)
add("mobilenet 4", mobilenet, "mnist", epochs=5)
add("separable cnn 6", _part(separable_cnn, activation="relu"), "mnist", epochs=5)
add("densenet 8, batch norm", _part(dense_cnn, has_norm=True), "mnist", epochs=5)
add("densenet 8", _part(dense_cnn, has_norm=False), "mnist", epochs=5)
add("convnext 4", convnext, "mnist", "gelu", epochs=5)
add("mixer 4", mixer, "digits", "gelu")
add("vit 3", _part(vit, blocks=3), "digits", "gelu", epochs=20)
_build = _part(vit, blocks=4, is_pre=False)
add("vit 4 post-norm", _build, "digits", "gelu", epochs=20)
_build = _part(row_transformer, blocks=3, is_pre=True)
add("rows transformer 3", _build, "digits", epochs=20)
_build = _part(row_transformer, blocks=6, is_pre=False)
add("rows transformer 6 post-norm", _build, "digits", epochs=20)
for _kind, _depth in (("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("SimpleRNN", 1)):
    _build = _part(recurrent, kind=_kind, depth=_depth)
    add(f"rows {_kind} {_depth}", _build, "digits", "tanh", epochs=20)
_build = _part(recurrent, kind="GRU", is_both=True)
add("rows GRU both ways", _build, "digits", "tanh", epochs=20)
_build = _part(recurrent, kind="LSTM", shape=(14, 14))
add("longer rows LSTM 1", _build, "mnist", "tanh", epochs=8)
for _activation in ("relu", "tanh"):
    _build = _part(autoencoder, activation=_activation)
    add(f"autoencoder 5 {_activation}", _build, "clean digits", _activation)
_build = _part(autoencoder, activation="silu", widths=(64,) * 8 + (16,) + (64,) * 8)
add("autoencoder 17 silu", _build, "clean digits", "silu")
add("conv autoencoder relu", conv_autoencoder, "clean digits")
add("u-net relu", unet, "clean digits")
