"""Layers that many networks are made of."""

from __future__ import annotations

import keras
from keras import layers


def dense(x, units, initializer, activation=None, **options):
    return layers.Dense(
        units, activation=activation, kernel_initializer=initializer, **options
    )(x)


def conv(x, filters, size, initializer, activation=None, **options):
    options = {"padding": "same", "kernel_initializer": initializer, **options}
    return layers.Conv2D(filters, size, activation=activation, **options)(x)


def conv1d(x, filters, size, initializer, activation=None, **options):
    options = {"padding": "same", "kernel_initializer": initializer, **options}
    return layers.Conv1D(filters, size, activation=activation, **options)(x)


def batch_norm(x):
    """Its averages follow within the few hundred steps of a run."""
    return layers.BatchNormalization(momentum=0.9)(x)


def classes(inputs, x, units=10):
    """The model that ends in logits, with Keras's initializer."""
    return keras.Model(inputs, layers.Dense(units, name="logits")(x))


def pooled(inputs, x):
    """The model that ends in logits for the mean over an image."""
    return classes(inputs, layers.GlobalAveragePooling2D()(x))


class Positions(layers.Layer):
    """Adds what is learned of every position."""

    def build(self, input_shape):
        self.table = layers.Embedding(*input_shape[1:])
        self.table.build(None)

    def call(self, inputs):
        return inputs + self.table(keras.ops.arange(inputs.shape[1]))


class Learned(layers.Layer):
    """Vectors that are the same for all examples, (batch, count, width)."""

    def __init__(self, count, **options):
        super().__init__(**options)
        self.count = count

    def build(self, input_shape):
        shape = (1, self.count, input_shape[-1])
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.vectors = self.add_weight(shape=shape, initializer=start, name="vectors")

    def call(self, inputs):
        ones = keras.ops.ones_like(inputs[:, :1, :1])
        return ones * self.vectors
