"""Layers of Keras's with a call of one's own, as in language models that are shared.

Their kernels are found with the roles that they have in Keras's own call.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_by_hand import numbers
from test_tracing import assert_unchanged

from keras_initlab import recommend
from keras_initlab.inspection import inspect

pytestmark = [pytest.mark.once_a_day]


class OwnDense(layers.Dense):
    """Standardizes its kernel's use by a factor."""

    def call(self, x, training=None):
        return self.activation(0.5 * ops.matmul(2.0 * x, self.kernel) + self.bias)


class OwnConvolution(layers.Conv2D):
    """Pads by itself."""

    def call(self, x):
        x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return self.activation(ops.conv(x, self.kernel, 1, "valid") + self.bias)


class OwnAttention(layers.MultiHeadAttention):
    """As in language models: keys and values may come from a cache."""

    def call(self, query, value, key=None, attention_mask=None, cache=None):
        queries, keys = self._query_dense(query), self._key_dense(value)
        values = self._value_dense(value)
        if cache is not None:
            keys, values = cache
        x, _ = self._compute_attention(queries, keys, values, attention_mask)
        return self._output_dense(x), cache


class Attending(layers.Layer):
    def __init__(self, **others):
        super().__init__(**others)
        self.attention = OwnAttention(2, 4, name="attention")
        self.down = layers.Dense(8, name="down")

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        self.down.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        x = x + self.attention(x, x)[0]
        return x + self.down(ops.relu(x))


def test_a_dense_layer_with_a_call_of_its_own():
    inputs = Input((8,))
    x = OwnDense(8, "relu", name="one")(inputs)
    x = x + OwnDense(8, name="two")(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    one, two, out = inspect(model).kernels
    assert (one.role, one.activation_name, one.fans.fan_in) == ("hidden", "relu", 8)
    assert (two.role, two.upstream) == ("residual branch", one.position)
    assert out.role == "output"


def test_a_convolution_with_a_call_of_its_own():
    inputs = Input((6, 6, 3))
    x = OwnConvolution(8, 3, activation="silu", name="one", padding="same")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    one, _ = inspect(keras.Model(inputs, layers.Dense(2)(x))).kernels
    assert (one.role, one.activation_name, one.fans.fan_in) == ("hidden", "silu", 27)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("depth", [1, 3])
def test_an_attention_with_a_call_and_a_cache_of_its_own(depth):
    inputs = x = Input((5, 8))
    for _ in range(depth):
        x = Attending()(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    kernels = inspect(model).kernels
    found = [(kernel.layer.name, kernel.role) for kernel in kernels]
    block = {
        "query": "query",
        "key": "key",
        "value": "value",
        "attention_output": "attention output",
        "down": "residual branch",
    }
    assert sorted(found) == sorted([*(list(block.items()) * depth), ("out", "output")])
    closing = [kernel.branch for kernel in kernels if kernel.branch is not None]
    assert closing == list(range(2 * depth))
    stds = [row.std for row in recommend(model) if row.role == "residual branch"]
    assert max(stds) < 1.5 * min(stds)
    assert_unchanged(model, lambda: inspect(model))


class Inner(layers.Layer):
    """Returns what it was given for a cache, which is nothing."""

    def __init__(self, **others):
        super().__init__(**others)
        self.mix = layers.Dense(8, name="mix")

    def build(self, input_shape):
        self.mix.build(input_shape)

    def call(self, x, cache=None):
        return self.mix(x), cache


class Block(layers.Layer):
    def __init__(self, **others):
        super().__init__(**others)
        self.inner, self.norm = Inner(), layers.LayerNormalization()
        self.up = layers.Dense(16, "gelu", name="up")
        self.down = layers.Dense(8, name="down")

    def build(self, input_shape):
        for part in (self.inner, self.norm, self.up):
            part.build(input_shape)
        self.down.build((*input_shape[:-1], 16))

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        x = x + self.inner(x)[0]
        return x + self.down(self.up(self.norm(x)))


@pytest.mark.parametrize("block", [Block, Attending])
def test_blocks_have_two_branches_each(block, rng):
    inputs = x = Input((5, 8))
    for _ in range(3):
        x = block()(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(x)))
    advice = recommend(model)
    closing = ("residual branch", "attention output")
    rows = [row for row in advice if row.role in closing]
    assert len(rows) == 6
    for row in rows:  # 1/(2 · 6) of the stream's variance each, as normalized ones have
        assert row.std == pytest.approx(12**-0.5, rel=0.1)
    advice.apply(seed=0)
    x = ops.convert_to_tensor(rng.normal(size=(64, 5, 8)).astype("float32"))
    assert np.isfinite(numbers(model(x))).all()
