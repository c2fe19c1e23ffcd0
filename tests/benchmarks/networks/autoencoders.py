"""Networks that give images back: without their noise, or from a short code."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers, ops

from ._blocks import conv, dense
from ._network import DEFAULT, add
from .data import noisy_digits, same_digits

IMAGE = (8, 8, 1)


def autoencoder(initializer, activation, widths=(64, 32, 16, 32, 64)):
    x = inputs = keras.Input((64,))
    for width in widths:
        x = dense(x, width, initializer, activation)
    return keras.Model(inputs, layers.Dense(64, name="pixels")(x))


def transposed(x, filters, size, initializer, activation=None):
    return layers.Conv2DTranspose(
        filters,
        size,
        strides=2,
        padding="same",
        activation=activation,
        kernel_initializer=initializer,
    )(x)


def conv_autoencoder(initializer):
    x = inputs = keras.Input(IMAGE)
    for filters in (16, 16):
        x = conv(x, filters, 3, initializer, "relu", strides=2)
    x = conv(x, 4, 3, initializer, "relu")
    for filters in (16, 16):
        x = transposed(x, filters, 4, initializer, "relu")
    return keras.Model(inputs, conv(x, 1, 3, DEFAULT))


def coded_autoencoder(initializer, code=16):
    """Leaky, as generators are, around a dense code."""
    x = inputs = keras.Input(IMAGE)
    for filters in (16, 32):
        x = conv(x, filters, 3, initializer, strides=2)
        x = layers.LeakyReLU(0.2)(x)
    x = dense(layers.Flatten()(x), code, initializer)
    x = layers.LeakyReLU(0.2)(dense(x, 2 * 2 * 32, initializer))
    x = layers.Reshape((2, 2, 32))(x)
    for filters in (32, 16):
        x = layers.LeakyReLU(0.2)(transposed(x, filters, 3, initializer))
    return keras.Model(inputs, conv(x, 1, 3, DEFAULT))


def unet(initializer, activation="relu"):
    inputs = keras.Input(IMAGE)
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


def added_unet(initializer, filters=16):
    """Skips are added, and lengths doubled by repetition."""
    inputs = keras.Input(IMAGE)
    skips, x = [], conv(inputs, filters, 3, initializer, "silu")
    for _ in range(2):
        x = conv(x, filters, 3, initializer, "silu")
        skips.append(x)
        x = conv(x, filters, 3, initializer, "silu", strides=2)
    x = conv(x, filters, 3, initializer, "silu")
    for _ in range(2):
        x = conv(layers.UpSampling2D()(x), filters, 3, initializer, "silu")
        x = layers.Add()([skips.pop(), x])
        x = conv(x, filters, 3, initializer, "silu")
    return keras.Model(inputs, conv(x, 1, 1, DEFAULT))


def dilated(initializer, filters=16):
    """Yu and Koltun 2016: it sees far at full resolution."""
    x = inputs = keras.Input(IMAGE)
    for rate in (1, 1, 2, 4, 1):
        x = conv(x, filters, 3, initializer, "relu", dilation_rate=rate)
    return keras.Model(inputs, conv(x, 1, 1, DEFAULT))


def denoiser(initializer, depth=6, filters=16):
    """Zhang et al. 2017: what it gives is the noise, taken off the image."""
    inputs = keras.Input(IMAGE)
    x = conv(inputs, filters, 3, initializer, "relu")
    for _ in range(depth - 2):
        x = conv(x, filters, 3, initializer, use_bias=False)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Subtract()([inputs, conv(x, 1, 3, DEFAULT)]))


class Sampling(layers.Layer):
    """A draw from the code's distribution in training, else its mean.

    The divergence from the standard normal is added to the loss, a pixel's share of it,
    as the reconstruction's loss is the mean over pixels.
    """

    def __init__(self, pixels=64, **options):
        super().__init__(**options)
        self.pixels = pixels
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs, training=False):
        mean, log_variance = inputs
        spread = ops.exp(log_variance) + ops.square(mean) - 1 - log_variance
        self.add_loss(ops.mean(ops.sum(spread, axis=-1)) / (2 * self.pixels))
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(0.5 * log_variance) * noise


def coded(x, code):
    return Sampling()([layers.Dense(code)(x), layers.Dense(code)(x)])


def dense_vae(initializer, code=8):
    x = inputs = keras.Input((64,))
    for width in (64, 32):
        x = dense(x, width, initializer, "relu")
    x = coded(x, code)
    for width in (32, 64):
        x = dense(x, width, initializer, "relu")
    return keras.Model(inputs, layers.Dense(64, name="pixels")(x))


def conv_vae(initializer, code=8):
    """As in Keras's example, for smaller images."""
    x = inputs = keras.Input(IMAGE)
    for filters in (16, 32):
        x = conv(x, filters, 3, initializer, "relu", strides=2)
    x = dense(layers.Flatten()(x), 32, initializer, "relu")
    x = dense(coded(x, code), 2 * 2 * 32, initializer, "relu")
    x = layers.Reshape((2, 2, 32))(x)
    for filters in (32, 16):
        x = transposed(x, filters, 3, initializer, "relu")
    return keras.Model(inputs, conv(x, 1, 3, DEFAULT))


_add = partial(add, figure="explained", data=noisy_digits)
_flat = partial(noisy_digits, (64,))
for _activation in ("relu", "tanh"):
    _build = partial(autoencoder, activation=_activation)
    _name = f"autoencoder 5 {_activation}"
    _add(_name, "autoencoder", _build, data=_flat, activation=_activation)
_build = partial(autoencoder, activation="silu", widths=(64,) * 8 + (16,) + (64,) * 8)
_add("autoencoder 17 silu", "autoencoder", _build, data=_flat, activation="silu")
_family = "convolutional autoencoder"
_add("conv autoencoder relu", _family, conv_autoencoder)
_build, _same = coded_autoencoder, partial(same_digits, IMAGE)
_name = "conv autoencoder leaky, dense code"
_add(_name, _family, _build, data=_same, activation="leaky_relu", epochs=30)
_add("u-net relu", "u-net", unet)
_add("u-net silu, added skips", "u-net", added_unet, activation="silu")
_add("dilated cnn 6", "dilated cnn", dilated)
_add("denoising cnn 6", "denoising cnn", denoiser)
_family, _same = "variational autoencoder", partial(same_digits, (64,))
_add("vae, dense", _family, dense_vae, data=_same, epochs=40)
_add("vae, conv", _family, conv_vae, data=partial(same_digits, IMAGE), epochs=30)
