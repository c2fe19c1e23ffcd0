"""Language models: what character or word comes next."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers, ops

from ._blocks import Positions, conv1d, dense
from ._network import add
from .mixers import layer_norm, rms_norm, swiglu
from .recurrent import gated_waves
from .text_data import CHARACTERS, LENGTH, PREDICTED, characters, words


def embedded(count, width):
    inputs = keras.Input((LENGTH,), dtype="int32")
    return inputs, layers.Embedding(count, width)(inputs)


def predicting(inputs, x, count):
    return keras.Model(inputs, layers.Dense(count, name="logits")(x))


def rotated(x):
    """Pairs of features (batch, time, heads, size), turned by their time, Su 2021."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-ops.arange(half, dtype="float32") / half)
    turns = ops.arange(x.shape[1], dtype="float32")[:, None, None] * rates
    cosines, sines = ops.cos(turns), ops.sin(turns)
    first, second = x[..., :half], x[..., half:]
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return ops.concatenate(turned, axis=-1)


class RotaryAttention(layers.Layer):
    """Causal attention that knows positions by rotation only, without biases."""

    def __init__(self, heads, **options):
        super().__init__(**options)
        self.heads = heads

    def build(self, input_shape):
        width = input_shape[-1]
        self.split = layers.Reshape((-1, self.heads, width // self.heads))
        self.kernels = [layers.Dense(width, use_bias=False) for _ in range(4)]
        for kernel in self.kernels:
            kernel.build(input_shape)

    def call(self, inputs):
        query, key, value = (self.split(k(inputs)) for k in self.kernels[:3])
        query, key = rotated(query), rotated(key)
        x = ops.dot_product_attention(query, key, value, is_causal=True)
        return self.kernels[3](ops.reshape(x, ops.shape(inputs)))


def llama(initializer, blocks=2, width=48):
    inputs, x = embedded(CHARACTERS, width)
    for _ in range(blocks):
        x = layers.Add()([x, RotaryAttention(4)(rms_norm(x))])
        x = layers.Add()([x, swiglu(rms_norm(x), 2 * width, initializer)])
    return predicting(inputs, rms_norm(x), CHARACTERS)


def gpt(initializer, blocks=2, width=48):
    inputs, x = embedded(PREDICTED, width)
    x = layers.Dropout(0.1)(Positions()(x))
    for _ in range(blocks):
        y = layer_norm(x)
        attention = layers.MultiHeadAttention(4, width // 4)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = dense(layer_norm(x), 4 * width, initializer, "gelu")
        x = layers.Add()([x, layers.Dropout(0.1)(dense(y, width, initializer))])
    return predicting(inputs, layer_norm(x), PREDICTED)


def recurrent_model(initializer, kind, count, width=48, depth=1):
    inputs, x = embedded(count, width)
    for _ in range(depth):
        layer = getattr(layers, kind)
        x = layer(width, kernel_initializer=initializer, return_sequences=True)(x)
    return predicting(inputs, x, count)


def wave_model(initializer, channels=32):
    inputs, x = embedded(CHARACTERS, channels)
    x = gated_waves(x, channels, (1, 2, 4, 8), initializer)
    x = conv1d(x, channels, 1, initializer, "relu")
    return predicting(inputs, x, CHARACTERS)


def window_model(initializer, size=8, width=16):
    """Bengio et al. 2003: a tanh layer over the last few characters."""
    inputs, x = embedded(CHARACTERS, width)
    x = conv1d(x, 96, size, initializer, "tanh", padding="causal")
    return predicting(inputs, x, CHARACTERS)


_add = partial(add, figure="loss", needs_text=True, batch=32)
_few = partial(characters, rows=3200)
_some = partial(words, rows=3200)
_family = "llama language model"
_add("characters llama 2", _family, llama, _few, activation="silu", epochs=6)
_add("words gpt 2", "gpt language model", gpt, _some, activation="gelu", epochs=5)
_family = "lstm language model"
_build = partial(recurrent_model, kind="LSTM", count=CHARACTERS)
_add("characters LSTM 1", _family, _build, _few, activation="tanh", epochs=8)
_build = partial(recurrent_model, kind="LSTM", count=PREDICTED, depth=2)
_add("words LSTM 2", _family, _build, _some, activation="tanh", epochs=6)
_family = "wavenet"
_add("characters wavenet 4", _family, wave_model, _few, activation="tanh", epochs=8)
_family = "neural n-gram model"
_add("characters window of 8", _family, window_model, _few, activation="tanh", epochs=8)
