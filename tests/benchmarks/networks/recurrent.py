"""Recurrent networks, attention over their states, and convolutions over time."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers, ops

from ._blocks import classes, conv1d, dense
from ._network import add
from .data import digits, mnist

ROWS, PIXELS = (8, 8), (64, 1)


def recurrent(initializer, kind, depth=1, shape=ROWS, is_both=False):
    x = inputs = keras.Input(shape)
    for number in range(depth):
        layer = getattr(layers, kind)(
            32, kernel_initializer=initializer, return_sequences=number < depth - 1
        )
        x = layers.Bidirectional(layer)(x) if is_both else layer(x)
    return classes(inputs, x)


def recurrent_attention(initializer):
    """States attend to each other, scaled dot products."""
    inputs = keras.Input(ROWS)
    x = layers.GRU(32, kernel_initializer=initializer, return_sequences=True)(inputs)
    x = layers.Concatenate()([x, layers.Attention(use_scale=True)([x, x])])
    return classes(inputs, layers.GlobalAveragePooling1D()(x))


def additive_attention(initializer):
    """The last state asks all states, Bahdanau et al. 2015."""
    inputs = keras.Input(ROWS)
    options = {"kernel_initializer": initializer, "return_sequences": True}
    states, last = layers.GRU(32, return_state=True, **options)(inputs)
    found = layers.AdditiveAttention()([layers.Reshape((1, 32))(last), states])
    x = layers.Concatenate()([last, layers.Flatten()(found)])
    return classes(inputs, dense(x, 32, initializer, "tanh"))


def attention_pooling(initializer, width=32):
    """A weighted mean of rows, Ilse et al. 2018."""
    inputs = keras.Input((14, 14))
    x = conv1d(inputs, width, 3, initializer, "relu")
    x = conv1d(x, width, 3, initializer, "relu")
    scores = layers.Dense(1)(dense(x, width, initializer, "tanh"))
    x = ops.sum(x * ops.softmax(scores, axis=1), axis=1)
    return classes(inputs, dense(x, width, initializer, "relu"))


def row_cnn(initializer, filters=(32, 32, 64)):
    x = inputs = keras.Input((14, 14))
    for number in filters:
        x = conv1d(x, number, 3, initializer, "relu")
        x = layers.MaxPooling1D(padding="same")(x)
    x = layers.Dropout(0.2)(dense(layers.Flatten()(x), 64, initializer, "relu"))
    return classes(inputs, x)


def conv_lstm(initializer, filters=8):
    """Rows one after the other; the kernel runs along each."""
    x = inputs = keras.Input((8, 8, 1))
    options = {"padding": "same", "kernel_initializer": initializer}
    x = layers.ConvLSTM1D(filters, 3, return_sequences=True, **options)(x)
    x = layers.ConvLSTM1D(filters, 3, **options)(x)
    return classes(inputs, layers.Flatten()(x))


def cnn_lstm(initializer, width=32):
    """What a convolution sees of each row, read by an LSTM."""
    inputs = keras.Input((14, 14, 1))
    row = layers.Conv1D(
        12, 5, strides=2, activation="relu", kernel_initializer=initializer
    )
    x = layers.TimeDistributed(row)(inputs)
    x = layers.TimeDistributed(layers.Flatten())(x)
    return classes(inputs, layers.LSTM(width, kernel_initializer=initializer)(x))


def temporal_block(x, filters, dilation, initializer):
    options = {"padding": "causal", "dilation_rate": dilation}
    y = x
    for _ in range(2):
        y = conv1d(y, filters, 3, initializer, "relu", **options)
        y = layers.SpatialDropout1D(0.05)(y)
    if x.shape[-1] != filters:
        x = conv1d(x, filters, 1, initializer)
    return layers.ReLU()(layers.Add()([x, y]))


def temporal(initializer, dilations=(1, 2, 4, 8), filters=24):
    """Causal and dilated, residual, Bai et al. 2018; pixel after pixel."""
    x = inputs = keras.Input(PIXELS)
    for dilation in dilations:
        x = temporal_block(x, filters, dilation, initializer)
    return classes(inputs, x[:, -1])


def gated_waves(x, channels, dilations, initializer):
    """Gated dilated convolutions; what all of them hand on, added up."""
    skips = []
    for dilation in dilations:
        options = {"padding": "causal", "dilation_rate": dilation}
        y = layers.Multiply()(
            [
                conv1d(x, channels, 2, initializer, "tanh", **options),
                conv1d(x, channels, 2, initializer, "sigmoid", **options),
            ]
        )
        skips.append(conv1d(y, channels, 1, initializer))
        x = layers.Add()([x, conv1d(y, channels, 1, initializer)])
    return layers.ReLU()(layers.Add()(skips))


def wavenet(initializer, channels=16, dilations=(1, 2, 4, 8, 16, 32)):
    """Van den Oord et al. 2016, reading pixels."""
    inputs = keras.Input(PIXELS)
    x = conv1d(inputs, channels, 2, initializer, padding="causal")
    x = gated_waves(x, channels, dilations, initializer)
    x = conv1d(x, channels, 1, initializer, "relu")
    return classes(inputs, layers.GlobalAveragePooling1D()(x))


_rows, _pixels = partial(digits, ROWS), partial(digits, PIXELS)
_long = partial(mnist, (14, 14))
for _kind, _depth, _family in (
    ("LSTM", 1, "lstm classifier"),
    ("LSTM", 2, "lstm classifier"),
    ("GRU", 1, "gru classifier"),
    ("SimpleRNN", 1, "simple rnn classifier"),
):
    _build = partial(recurrent, kind=_kind, depth=_depth)
    add(f"rows {_kind} {_depth}", _family, _build, _rows, "tanh", 20)
_build = partial(recurrent, kind="GRU", is_both=True)
add("rows GRU both ways", "bidirectional rnn", _build, _rows, "tanh", 20)
_build = partial(recurrent, kind="LSTM", shape=(14, 14))
add("longer rows LSTM 1", "lstm classifier", _build, _long, "tanh", 8)
_family = "recurrent attention"
add("rows GRU, attention", _family, recurrent_attention, _rows, "tanh", 20)
add("rows GRU, additive attention", _family, additive_attention, _rows, "tanh", 20)
add("rows attention pooling", "attention pooling", attention_pooling, _long, epochs=6)
add("rows cnn 3", "conv1d classifier", row_cnn, _long, epochs=4)
_images = partial(digits, (8, 8, 1))
add("rows ConvLSTM 2", "convlstm", conv_lstm, _images, "tanh", 15)
add("rows cnn, LSTM", "cnn lstm", cnn_lstm, mnist, epochs=5)
add("pixels tcn 4", "tcn", temporal, _pixels, epochs=12)
add("pixels wavenet 6", "wavenet", wavenet, _pixels, "tanh", 12)
