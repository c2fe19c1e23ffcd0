"""Convolutions of later years: gates, groups, branches, inverted blocks."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from ._blocks import batch_norm, classes, conv, dense, pooled
from ._network import add
from .convolutions import IMAGE, group_norm
from .data import digits, mnist


def squeezed(x, initializer, activation="relu", gate="sigmoid", ratio=4):
    """Every channel times what the means of all say of it, Hu et al. 2018."""
    channels = x.shape[-1]
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = conv(y, max(4, channels // ratio), 1, initializer, activation)
    return layers.Multiply()([x, conv(y, channels, 1, initializer, gate)])


def depthwise(x, size, initializer, **options):
    return layers.DepthwiseConv2D(
        size, padding="same", depthwise_initializer=initializer, **options
    )(x)


def unchanged(x):
    return x


def layer_norm(x):
    return layers.LayerNormalization()(x)


NORMS = {
    "group norm": group_norm,
    "batch norm": batch_norm,
    "layer norm": layer_norm,
    "no norm": unchanged,
}


def gated_resnet(initializer, norm, filters=(16, 16, 32, 32)):
    """Residual blocks that end in squeeze-and-excite gates."""
    x = inputs = keras.Input(IMAGE)
    x = layers.ReLU()(norm(conv(x, filters[0], 3, initializer, strides=2)))
    for number in filters:
        strides = 1 if number == x.shape[-1] else 2
        y = layers.ReLU()(norm(conv(x, number, 3, initializer, strides=strides)))
        y = squeezed(norm(conv(y, number, 3, initializer)), initializer)
        if strides > 1:
            x = norm(conv(x, number, 1, initializer, strides=strides))
        x = layers.ReLU()(layers.Add()([x, y]))
    return pooled(inputs, x)


def inverted(x, filters, initializer, norm, activation, has_gate=False, strides=1):
    """Wider inside than at its ends, Sandler et al. 2018."""
    y = conv(x, 3 * x.shape[-1], 1, initializer)
    y = layers.Activation(activation)(norm(y))
    y = depthwise(y, 3, initializer, strides=strides)
    y = layers.Activation(activation)(norm(y))
    if has_gate:
        y = squeezed(y, initializer, activation)
    y = norm(conv(y, filters, 1, initializer))
    return layers.Add()([x, y]) if y.shape == x.shape else y


def inverted_cnn(initializer, norm, activation, filters, has_gate=False):
    x = inputs = keras.Input(IMAGE)
    x = conv(x, filters[0], 5, initializer, strides=3)
    x = layers.Activation(activation)(norm(x))
    for number in filters:
        strides = 1 if number == x.shape[-1] else 2
        x = inverted(x, number, initializer, norm, activation, has_gate, strides)
    x = layers.Activation(activation)(norm(conv(x, 64, 1, initializer)))
    return pooled(inputs, x)


def inception(initializer, modules=3):
    """Szegedy et al. 2015: four branches of different sizes, joined."""
    x = inputs = keras.Input(IMAGE)
    x = conv(x, 16, 3, initializer, "relu", strides=2)
    for _ in range(modules):
        middle = conv(x, 12, 1, initializer, "relu")
        large = conv(x, 4, 1, initializer, "relu")
        most = layers.MaxPooling2D(3, strides=1, padding="same")(x)
        branches = [
            conv(x, 8, 1, initializer, "relu"),
            conv(middle, 16, 3, initializer, "relu"),
            conv(large, 8, 5, initializer, "relu"),
            conv(most, 8, 1, initializer, "relu"),
        ]
        x = layers.Concatenate()(branches)
    return classes(inputs, layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x)))


def resnext(initializer, blocks=2, width=32, groups=4):
    """Xie et al. 2017: the middle convolution is in groups."""
    x = inputs = keras.Input((8, 8, 1))
    x = conv(x, width, 3, initializer, strides=2, use_bias=False)
    x = layers.ReLU()(batch_norm(x))
    for _ in range(blocks):
        y = conv(x, width // 2, 1, initializer, use_bias=False)
        y = layers.ReLU()(batch_norm(y))
        y = conv(y, width // 2, 3, initializer, groups=groups, use_bias=False)
        y = layers.ReLU()(batch_norm(y))
        y = batch_norm(conv(y, width, 1, initializer, use_bias=False))
        x = layers.ReLU()(layers.Add()([x, y]))
    return pooled(inputs, x)


def squeezenet(initializer, modules=4):
    """Iandola et al. 2016: the classes are maps of a last convolution."""
    x = inputs = keras.Input(IMAGE)
    x = conv(x, 32, 3, initializer, "relu", strides=2)
    for _ in range(modules):
        y = conv(x, 8, 1, initializer, "relu")
        sides = [conv(y, 16, size, initializer, "relu") for size in (1, 3)]
        x = layers.Concatenate()(sides)
    x = layers.Conv2D(10, 1, name="maps")(layers.Dropout(0.2)(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="logits")(x))


class LayerScale(layers.Layer):
    """A factor for every channel, small at first, Touvron et al. 2021."""

    def __init__(self, start=1e-6, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer=start, name="gamma")

    def call(self, inputs):
        return inputs * self.gamma


def convnext(initializer, blocks=4, filters=16, closing=unchanged):
    x = inputs = keras.Input(IMAGE)
    x = layer_norm(conv(x, filters, 3, initializer, strides=3))
    for _ in range(blocks):
        y = layer_norm(depthwise(x, 5, initializer))
        y = dense(y, 4 * filters, initializer, "gelu")
        x = layers.Add()([x, closing(dense(y, filters, initializer))])
    return classes(inputs, layer_norm(layers.GlobalAveragePooling2D()(x)))


def scaled(x):
    return LayerScale()(x)


def convmixer(initializer, depth=3, filters=24):
    """Trockman and Kolter 2022."""
    x = inputs = keras.Input(IMAGE)
    x = batch_norm(conv(x, filters, 3, initializer, "gelu", strides=3))
    for _ in range(depth):
        y = batch_norm(depthwise(x, 3, initializer, activation="gelu"))
        x = layers.Add()([x, y])
        x = batch_norm(conv(x, filters, 1, initializer, "gelu"))
    return pooled(inputs, x)


_add = partial(add, data=mnist, epochs=5)
_add("convnext 4", "convnext", convnext, activation="gelu")
_build = partial(convnext, blocks=2, closing=scaled)
_add("convnext 2, layer scale", "convnext", _build, activation="gelu")
for _name, _norm in NORMS.items():
    _build = partial(gated_resnet, norm=_norm)
    _add(f"gated resnet 4, {_name}", "squeeze and excite", _build)
for _name in ("batch norm", "no norm"):
    _build = partial(
        inverted_cnn,
        norm=NORMS[_name],
        activation="hard_silu",
        filters=(16, 16, 24, 24),
    )
    _add(f"inverted 4 hard silu, {_name}", "inverted residuals", _build)
_build = partial(
    inverted_cnn,
    norm=batch_norm,
    activation="silu",
    filters=(16, 16, 24),
    has_gate=True,
)
_add("efficientnet 3", "efficientnet", _build, activation="silu")
_add("inception 3", "inception", inception)
add("resnext 2", "resnext", resnext, partial(digits, (8, 8, 1)), epochs=10)
_add("squeezenet 4", "squeezenet", squeezenet)
_add("convmixer 3", "convmixer", convmixer, activation="gelu")
