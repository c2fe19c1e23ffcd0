"""Classifiers of sentences over embeddings of words that they learn."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from ._blocks import Positions, classes, conv1d, dense
from ._network import add
from .mixers import attended, layer_norm, mean
from .text_data import KNOWN, LENGTH, polarity


def embedded(width=32, is_masked=False):
    """Inputs for words, and their embeddings."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    return inputs, layers.Embedding(KNOWN, width, mask_zero=is_masked)(inputs)


def two_classes(inputs, x):
    return classes(inputs, x, 2)


def text_cnn(initializer, filters=32):
    """Kim 2014: convolutions of three lengths, the largest of each kept."""
    inputs, x = embedded()
    pooled = [
        layers.GlobalMaxPooling1D()(conv1d(x, filters, size, initializer, "relu"))
        for size in (3, 4, 5)
    ]
    x = layers.Dropout(0.5)(layers.Concatenate()(pooled))
    return two_classes(inputs, x)


def deep_text_cnn(initializer, filters=32):
    inputs, x = embedded()
    for _ in range(3):
        x = conv1d(x, filters, 3, initializer, "relu")
        x = layers.MaxPooling1D()(x)
    x = layers.Dropout(0.3)(layers.GlobalMaxPooling1D()(x))
    return two_classes(inputs, dense(x, filters, initializer, "relu"))


def bag(initializer, hidden):
    """Joulin et al. 2017: the mean over the words that there are."""
    inputs, x = embedded(is_masked=True)
    x = mean(x)
    for width in hidden:
        x = layers.Dropout(0.3)(dense(x, width, initializer, "relu"))
    return two_classes(inputs, x)


def text_recurrent(initializer, kind, is_masked=False, is_both=False, depth=1):
    inputs, x = embedded(is_masked=is_masked)
    for number in range(depth):
        layer = getattr(layers, kind)(
            32, kernel_initializer=initializer, return_sequences=number < depth - 1
        )
        x = layers.Bidirectional(layer)(x) if is_both else layer(x)
    return two_classes(inputs, x)


def text_transformer(initializer, blocks=2, width=32):
    """Post-norm and GELU, as BERT."""
    inputs, x = embedded(width)
    x = layers.Dropout(0.1)(layer_norm(Positions()(x)))
    for _ in range(blocks):
        x = attended(x, False, initializer, "gelu")
    return two_classes(inputs, layers.Dropout(0.1)(mean(x)))


_add = partial(add, data=polarity, needs_text=True)
_add("text cnn", "text cnn", text_cnn, epochs=5)
_add("text cnn 3, deep", "text cnn", deep_text_cnn, epochs=4)
_add("bag of words", "bag of embeddings", partial(bag, hidden=()), epochs=8)
_build = partial(bag, hidden=(64, 64))
_add("bag of words, 2 hidden", "bag of embeddings", _build, epochs=5)
_build = partial(text_recurrent, kind="LSTM", is_masked=True)
_add("text LSTM, masked", "text lstm", _build, activation="tanh", epochs=4)
_build = partial(text_recurrent, kind="LSTM", is_masked=True, depth=2)
_add("text LSTM 2, masked", "text lstm", _build, activation="tanh", epochs=4)
_build = partial(text_recurrent, kind="GRU")
_add("text GRU", "text gru", _build, activation="tanh", epochs=6)
_build = partial(text_recurrent, kind="LSTM", is_both=True)
_add("text LSTM both ways", "bidirectional rnn", _build, activation="tanh", epochs=4)
_build = text_transformer
_add("text transformer 2", "text transformer", _build, activation="gelu", epochs=4)
