"""Mixers and transformers that tell digits apart."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers, ops

from ._blocks import Learned, Positions, classes, conv, dense
from ._network import DEFAULT, add
from .data import digits

IMAGE, ROWS = (8, 8, 1), (8, 8)


def layer_norm(x):
    return layers.LayerNormalization()(x)


def rms_norm(x):
    return layers.RMSNormalization()(x)


def mean(x):
    return layers.GlobalAveragePooling1D()(x)


def patches(width, initializer):
    """Inputs for digits, and their sixteen patches of 2 × 2 pixels, embedded."""
    inputs = keras.Input(IMAGE)
    x = conv(inputs, width, 2, initializer, strides=2, padding="valid")
    return inputs, layers.Reshape((16, width))(x)


def mixer(initializer, blocks=4, width=32):
    inputs, x = patches(width, DEFAULT)
    for _ in range(blocks):
        y = layers.Permute((2, 1))(layer_norm(x))
        y = dense(dense(y, 32, initializer, "gelu"), 16, initializer)
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = dense(layer_norm(x), 64, initializer, "gelu")
        x = layers.Add()([x, dense(y, width, initializer)])
    return classes(inputs, mean(layer_norm(x)))


def gmlp(initializer, blocks=4, width=32):
    """Liu et al. 2021: half of the channels gate the others, across patches."""
    inputs, x = patches(width, DEFAULT)
    for _ in range(blocks):
        y = dense(layer_norm(x), 4 * width, initializer, "gelu")
        kept, gate = ops.split(y, 2, axis=-1)
        gate = layers.Permute((2, 1))(layer_norm(gate))
        gate = dense(gate, 16, DEFAULT, bias_initializer="ones")
        y = layers.Multiply()([kept, layers.Permute((2, 1))(gate)])
        x = layers.Add()([x, dense(y, width, initializer)])
    return classes(inputs, mean(layer_norm(x)))


def attended(x, is_pre, initializer, activation="relu"):
    """A block of self-attention and one of a dense network, pre- or post-norm."""
    width = x.shape[-1]

    def closed(x, branch):
        if is_pre:
            return layers.Add()([x, branch(layer_norm(x))])
        return layer_norm(layers.Add()([x, branch(x)]))

    def network(y):
        y = dense(y, 2 * width, initializer, activation)
        return dense(y, width, initializer)

    x = closed(x, lambda y: layers.MultiHeadAttention(4, width // 4)(y, y))
    return closed(x, network)


def transformer(initializer, inputs, x, blocks, is_pre=True, activation="relu"):
    x = Positions()(x)
    for _ in range(blocks):
        x = attended(x, is_pre, initializer, activation)
    return classes(inputs, mean(layer_norm(x) if is_pre else x))


def vit(initializer, blocks, is_pre=True):
    return transformer(initializer, *patches(32, DEFAULT), blocks, is_pre, "gelu")


def row_transformer(initializer, blocks, is_pre):
    inputs = keras.Input(ROWS)
    return transformer(initializer, inputs, layers.Dense(32)(inputs), blocks, is_pre)


def vit_with_tokens(initializer, blocks, registers=1):
    """A class token, which is read, and a register, Darcet et al. 2024."""
    inputs, x = patches(32, DEFAULT)
    x = layers.Concatenate(axis=1)([Learned(1 + registers)(x), Positions()(x)])
    for _ in range(blocks):
        x = attended(x, True, initializer, "gelu")
    return classes(inputs, layer_norm(x)[:, 0])


def swiglu_transformer(initializer, blocks=3, width=32):
    """With RMS normalization and gated dense networks without biases."""
    inputs = keras.Input(ROWS)
    x = Positions()(layers.Dense(width)(inputs))
    for _ in range(blocks):
        y = rms_norm(x)
        y = layers.MultiHeadAttention(4, width // 4, use_bias=False)(y, y)
        x = layers.Add()([x, y])
        x = layers.Add()([x, swiglu(rms_norm(x), 2 * width, initializer)])
    return classes(inputs, mean(rms_norm(x)))


def swiglu(x, inner, initializer):
    """Shazeer 2020."""
    gate = dense(x, inner, initializer, "silu", use_bias=False)
    y = layers.Multiply()([gate, dense(x, inner, initializer, use_bias=False)])
    return dense(y, x.shape[-1], initializer, use_bias=False)


def perceiver(initializer, latents=8, blocks=3, width=32):
    """Jaegle et al. 2021: a few learned latents ask the pixels, then each other."""
    inputs = keras.Input((64, 1))
    pixels = Positions()(layers.Dense(width)(inputs))
    x = Learned(latents)(pixels)
    asked = layers.MultiHeadAttention(1, width)(layer_norm(x), layer_norm(pixels))
    x = layers.Add()([x, asked])
    for _ in range(blocks):
        x = attended(x, True, initializer, "gelu")
    return classes(inputs, mean(layer_norm(x)))


def windowed(initializer, width=32):
    """Liu et al. 2021: attention within windows of 2 × 2 patches, shifted by one."""
    inputs = keras.Input(IMAGE)
    x = layer_norm(conv(inputs, width, 2, DEFAULT, strides=2))
    for shift in (0, -1, 0, -1):
        y = ops.roll(layer_norm(x), (shift, shift), axis=(1, 2))
        y = ops.reshape(y, (-1, 2, 2, 2, 2, width))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 4, 4, width))
        y = layers.MultiHeadAttention(4, width // 4, attention_axes=2)(y, y)
        y = ops.reshape(y, (-1, 2, 2, 2, 2, width))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 4, 4, width))
        x = layers.Add()([x, ops.roll(y, (-shift, -shift), axis=(1, 2))])
        y = dense(layer_norm(x), 2 * width, initializer, "gelu")
        x = layers.Add()([x, dense(y, width, initializer)])
    return classes(inputs, layers.GlobalAveragePooling2D()(layer_norm(x)))


_images, _rows = partial(digits, IMAGE), partial(digits, ROWS)
add("mixer 4", "mlp mixer", mixer, _images, "gelu")
_build = partial(vit, blocks=3)
add("vit 3", "vision transformer", _build, _images, "gelu", 20)
_build = partial(vit, blocks=4, is_pre=False)
add("vit 4 post-norm", "vision transformer", _build, _images, "gelu", 20)
for _blocks, _is_pre in ((3, True), (6, False)):
    _build = partial(row_transformer, blocks=_blocks, is_pre=_is_pre)
    _name = f"rows transformer {_blocks}{'' if _is_pre else ' post-norm'}"
    add(_name, "transformer classifier", _build, _rows, epochs=20)
add("gmlp 4", "gmlp", gmlp, _images, "gelu")
_build = partial(vit_with_tokens, blocks=3)
add("vit 3, class token, register", "vision transformer", _build, _images, "gelu", 12)
_build = swiglu_transformer
add("rows transformer 3, swiglu", "swiglu transformer", _build, _rows, "silu", 15)
add("perceiver 3", "perceiver", perceiver, partial(digits, (64, 1)), "gelu", 20)
add("swin 4", "swin transformer", windowed, _images, "gelu", 10)
