"""Twins, sets, graphs, coordinates, raw pixels and inputs of several kinds."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from ._blocks import classes, conv, dense
from ._network import add
from .data import (
    digits,
    images_and_sums,
    photo,
    pixel_pairs,
    pixel_sets,
    raw_digits,
    raw_mnist,
)

IMAGE = (8, 8, 1)


# ---- twins and several inputs ---------------------------------------------------


def conv_tower(initializer, width=32):
    x = inputs = keras.Input(IMAGE)
    for filters in (16, 32):
        x = conv(x, filters, 3, initializer, "relu", strides=2)
    x = dense(layers.Flatten()(x), width, initializer, "relu")
    return keras.Model(inputs, x, name="tower")


def dense_tower(initializer, width=32):
    x = inputs = keras.Input(IMAGE)
    x = dense(layers.Flatten()(x), 64, initializer, "relu")
    return keras.Model(inputs, dense(x, width, initializer, "relu"), name="tower")


def twins(initializer, tower, is_joined):
    """One tower for both; joined, or their absolute difference."""
    inputs = {name: keras.Input(IMAGE, name=name) for name in ("left", "right")}
    shared = tower(initializer)
    left, right = shared(inputs["left"]), shared(inputs["right"])
    if is_joined:
        x = layers.Concatenate()([left, right])
        x = dense(x, 64, initializer, "relu")
    else:
        x = ops.abs(layers.Subtract()([left, right]))
    return classes(inputs, dense(x, 32, initializer, "relu"), 2)


def image_and_table(initializer):
    image = keras.Input(IMAGE, name="image")
    table = keras.Input((16,), name="sums")
    x = conv(image, 12, 3, initializer, "relu", strides=2)
    x = layers.Flatten()(conv(x, 12, 3, initializer, "relu", strides=2))
    y = dense(table, 32, initializer, "relu")
    x = layers.Concatenate()([x, dense(y, 32, initializer, "relu")])
    inputs = {"image": image, "sums": table}
    return classes(inputs, dense(x, 32, initializer, "relu"))


# ---- sets and graphs ------------------------------------------------------------


def deep_sets(initializer, width=64):
    """Zaheer et al. 2017: a sum over what each pixel says."""
    x = inputs = keras.Input((64, 3))
    for _ in range(2):
        x = dense(x, width, initializer, "relu")
    x = layers.GlobalAveragePooling1D()(x)
    return classes(inputs, dense(x, width, initializer, "relu"))


def point_net(initializer, widths=(32, 32, 64)):
    """Qi et al. 2017, without transforms: the largest over all points."""
    x = inputs = keras.Input((64, 3))
    for width in widths:
        x = dense(x, width, initializer)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = dense(layers.GlobalMaxPooling1D()(x), 32, initializer, "relu")
    return classes(inputs, layers.Dropout(0.1)(x))


def neighborhood(side=8):
    """Pixels that touch, themselves included, normalized as in Kipf and Welling."""
    places = np.stack(np.divmod(np.arange(side**2), side), 1)
    near = np.abs(places[:, None] - places[None]).max(-1) <= 1
    root = near.sum(1) ** -0.5
    return (root[:, None] * near * root).astype("float32")


class Neighbors(layers.Layer):
    """A mean over neighbors in a graph that is the same for all examples."""

    def __init__(self, adjacency, **options):
        super().__init__(**options)
        self.adjacency = adjacency

    def call(self, inputs):
        return ops.matmul(ops.convert_to_tensor(self.adjacency), inputs)


def graph_network(initializer, blocks=3, width=32, is_residual=False):
    x = inputs = keras.Input((64, 1))
    near = neighborhood()
    for number in range(blocks):
        y = dense(Neighbors(near)(x), width, initializer, "relu")
        x = layers.Add()([x, y]) if is_residual and number else y
    x = dense(layers.Flatten()(layers.Dense(4)(x)), 32, initializer, "relu")
    return classes(inputs, x)


# ---- coordinates ----------------------------------------------------------------


def color(inputs, x):
    return keras.Model(inputs, layers.Dense(3, name="color")(x))


def sine_network(initializer, depth=4, width=64, frequency=20.0):
    """Sitzmann et al. 2020; its frequency is a factor on the coordinates."""
    inputs = keras.Input((2,))
    x = layers.Rescaling(frequency)(inputs)
    for _ in range(depth):
        x = layers.Activation(ops.sin)(dense(x, width, initializer))
    return color(inputs, x)


def fourier_network(initializer, depth=3, width=64, count=32):
    """Tancik et al. 2020: ReLU layers on fixed random waves."""
    inputs = keras.Input((2,))
    waves = 6 * np.random.default_rng(0).normal(size=(2, count)).astype("float32")
    turns = ops.matmul(inputs, waves)
    x = layers.Concatenate()([ops.sin(turns), ops.cos(turns)])
    for _ in range(depth):
        x = dense(x, width, initializer, "relu")
    return color(inputs, x)


# ---- raw pixels -----------------------------------------------------------------


def raw_mlp(initializer, shape, depth=3):
    x = inputs = keras.Input(shape)
    x = layers.Flatten()(x) if len(shape) > 1 else x
    for _ in range(depth):
        x = dense(x, 64, initializer, "relu")
    return classes(inputs, x)


def raw_cnn(initializer):
    x = inputs = keras.Input((14, 14, 1))
    for filters in (16, 32):
        x = conv(x, filters, 3, initializer, "relu")
        x = layers.MaxPooling2D()(x)
    return classes(inputs, dense(layers.Flatten()(x), 32, initializer, "relu"))


_family = "siamese network"
_build = partial(twins, tower=conv_tower, is_joined=False)
add("twins cnn, difference", _family, _build, pixel_pairs, epochs=12)
_build = partial(twins, tower=dense_tower, is_joined=True)
add("twins mlp, joined", _family, _build, pixel_pairs, epochs=20)
_name, _family = "image and table", "multi-input network"
add(_name, _family, image_and_table, images_and_sums, epochs=8)
add("deep sets", "deep sets", deep_sets, pixel_sets, epochs=40)
add("point net", "point net", point_net, pixel_sets, epochs=25)
_family, _pixels = "graph convolution", partial(digits, (64, 1))
add("graph cnn 3", _family, graph_network, _pixels, epochs=12)
_build = partial(graph_network, blocks=6, is_residual=True)
add("graph cnn 6, residual", _family, _build, _pixels, epochs=12)
_photo = partial(add, data=photo, figure="explained")
_family = "sine coordinates"
_photo("photo, sines 4", _family, sine_network, activation="sine", epochs=40)
_photo("photo, Fourier features", "fourier features", fourier_network, epochs=40)
_family = "raw pixels"
_build = partial(raw_mlp, shape=(64,))
add("raw mlp, to 16", _family, _build, raw_digits, epochs=8)
_build = partial(raw_mlp, shape=(14, 14, 1))
for _largest in (255, 1):
    _data = partial(raw_mnist, largest=_largest)
    add(f"raw mlp, to {_largest}", _family, _build, _data, epochs=4)
    add(f"raw cnn, to {_largest}", _family, raw_cnn, _data, epochs=3)
