"""Convolutions on small images, most of them as this benchmark always had them."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from ._blocks import batch_norm, classes, conv, dense, pooled
from ._network import add
from .data import mnist

IMAGE = (14, 14, 1)


def plain_cnn(initializer, activation, depth, filters=16):
    x = inputs = keras.Input(IMAGE)
    x = conv(x, filters, 5, initializer, activation, strides=3)
    for _ in range(depth - 1):
        x = conv(x, filters, 3, initializer, activation)
    return pooled(inputs, x)


def prelu_cnn(initializer, depth=5, filters=16):
    x = inputs = keras.Input(IMAGE)
    for number in range(depth):
        x = conv(x, filters, 3, initializer, strides=1 if number % 2 else 2)
        x = layers.PReLU(shared_axes=(1, 2))(x)
    return pooled(inputs, x)


def dropout_cnn(initializer, filters=(16, 32, 32)):
    """Whole maps are dropped, Tompson et al. 2015."""
    x = inputs = keras.Input(IMAGE)
    for number in filters:
        x = conv(x, number, 3, initializer, "relu", strides=2)
        x = layers.SpatialDropout2D(0.1)(x)
    return classes(inputs, dense(layers.Flatten()(x), 64, initializer, "relu"))


def normalized_cnn(initializer, norm, activation="relu", depth=6, filters=16):
    x = inputs = keras.Input(IMAGE)
    for number in range(depth):
        x = conv(x, filters, 3, initializer, strides=1 if number % 3 else 2)
        x = layers.Activation(activation)(norm(x))
    return pooled(inputs, x)


def group_norm(x):
    return layers.GroupNormalization(4)(x)


def instance_norm(x):
    return layers.GroupNormalization(-1)(x)


def vgg(initializer, activation):
    x = inputs = keras.Input(IMAGE)
    x = layers.MaxPooling2D()(conv(x, 8, 3, initializer, activation))
    x = conv(x, 16, 3, initializer, activation)
    x = layers.MaxPooling2D()(conv(x, 16, 3, initializer, activation))
    return classes(inputs, dense(layers.Flatten()(x), 64, initializer, activation))


def residual_cnn(initializer, blocks, has_norm, filters=16):
    def normalized(x):
        return batch_norm(x) if has_norm else x

    x = inputs = keras.Input(IMAGE)
    x = layers.ReLU()(normalized(conv(x, filters, 5, initializer, strides=3)))
    for _ in range(blocks):
        y = layers.ReLU()(normalized(conv(x, filters, 3, initializer)))
        y = normalized(conv(y, filters, 3, initializer))
        x = layers.ReLU()(layers.Add()([x, y]))
    return pooled(inputs, x)


def preactivated_cnn(initializer, blocks, filters=16):
    x = inputs = keras.Input(IMAGE)
    x = conv(x, filters, 5, initializer, strides=3)
    for _ in range(blocks):
        y = x
        for _ in range(2):
            y = conv(layers.ReLU()(batch_norm(y)), filters, 3, initializer)
        x = layers.Add()([x, y])
    return pooled(inputs, layers.ReLU()(x))


def wide_resnet(initializer, filters=(16, 32)):
    """Zagoruyko and Komodakis 2016: dropout between the convolutions of a block."""
    x = inputs = keras.Input(IMAGE)
    x = conv(x, filters[0], 3, initializer, strides=2)
    for number in filters:
        x = layers.ReLU()(batch_norm(x))
        y = conv(x, number, 3, initializer, strides=2, use_bias=False)
        y = layers.Dropout(0.2)(layers.ReLU()(batch_norm(y)))
        y = conv(y, number, 3, initializer, use_bias=False)
        x = conv(x, number, 1, initializer, strides=2, use_bias=False)
        x = layers.Add()([x, y])
    return pooled(inputs, layers.ReLU()(batch_norm(x)))


def mobilenet(initializer, blocks=4):
    x = inputs = keras.Input(IMAGE)
    x = conv(x, 16, 5, initializer, strides=3, use_bias=False)
    x = layers.ReLU(6)(batch_norm(x))
    for _ in range(blocks):
        x = layers.DepthwiseConv2D(
            3, padding="same", depthwise_initializer=initializer, use_bias=False
        )(x)
        x = layers.ReLU(6)(batch_norm(x))
        x = conv(x, 32, 1, initializer, use_bias=False)
        x = layers.ReLU(6)(batch_norm(x))
    return pooled(inputs, x)


def separable_cnn(initializer, activation, depth=6):
    x = inputs = keras.Input(IMAGE)
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
    return pooled(inputs, x)


def dense_cnn(initializer, has_norm, depth=8, growth=8):
    x = inputs = keras.Input(IMAGE)
    x = conv(x, 16, 5, initializer, strides=3)
    for _ in range(depth):
        y = batch_norm(x) if has_norm else x
        y = conv(layers.ReLU()(y), growth, 3, initializer)
        x = layers.Concatenate()([x, y])
    return pooled(inputs, layers.ReLU()(x))


def densenet(initializer, growth=8):
    """With bottlenecks and, between its two blocks, a transition that halves."""
    x = inputs = keras.Input(IMAGE)
    x = conv(x, 2 * growth, 3, initializer, strides=2, use_bias=False)
    for block in range(2):
        for _ in range(3):
            y = layers.ReLU()(batch_norm(x))
            y = conv(y, 2 * growth, 1, initializer, use_bias=False)
            y = layers.ReLU()(batch_norm(y))
            y = conv(y, growth, 3, initializer, use_bias=False)
            x = layers.Concatenate()([x, y])
        x = layers.ReLU()(batch_norm(x))
        if block == 0:
            x = conv(x, x.shape[-1] // 2, 1, initializer, use_bias=False)
            x = layers.AveragePooling2D(2)(x)
    return pooled(inputs, x)


_add = partial(add, data=mnist, epochs=5)
for _activation, _depth in (("relu", 5), ("relu", 15), ("silu", 15), ("tanh", 15)):
    _build = partial(plain_cnn, activation=_activation, depth=_depth)
    _name = f"cnn {_depth} {_activation}"
    _add(_name, "cnn", _build, activation=_activation)
for _activation in ("relu", "elu"):
    _build = partial(vgg, activation=_activation)
    _add(f"vgg {_activation}", "vgg", _build, activation=_activation)
_add("resnet 5, batch norm", "resnet", partial(residual_cnn, blocks=5, has_norm=True))
for _blocks in (5, 12):
    _build = partial(residual_cnn, blocks=_blocks, has_norm=False)
    _add(f"resnet {_blocks}", "resnet without norm", _build)
_add("resnet 5 pre-activated", "resnet", partial(preactivated_cnn, blocks=5))
_add("mobilenet 4", "mobilenet", mobilenet)
_build = partial(separable_cnn, activation="relu")
_add("separable cnn 6", "separable cnn", _build)
_add("densenet 8, batch norm", "densenet", partial(dense_cnn, has_norm=True))
_add("densenet 8", "densenet", partial(dense_cnn, has_norm=False))
_add("densenet 3 + 3, transition", "densenet", densenet)
_add("cnn 5 prelu", "cnn", prelu_cnn)
_add("cnn 3 relu, spatial dropout", "cnn", dropout_cnn)
_add("wide resnet", "wide resnet", wide_resnet)
_add("cnn 6, batch norm", "batch norm cnn", partial(normalized_cnn, norm=batch_norm))
_add("cnn 6, group norm", "group norm cnn", partial(normalized_cnn, norm=group_norm))
_build = partial(normalized_cnn, norm=instance_norm, activation="leaky_relu")
_add("cnn 6, instance norm", "group norm cnn", _build)
