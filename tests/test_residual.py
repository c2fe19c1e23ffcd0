"""Which kernels close residual branches, and which sums are none."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import recommend
from keras_initlab.inspection import inspect

WIDTH = 16


def dense(name, width=WIDTH):
    return layers.Dense(width, name=name)


def records(model):
    found = inspect(model).kernels
    return {one.path.removesuffix("/kernel"): one for one in found}


def roles(model):
    return {name: record.role for name, record in records(model).items()}


def ended(inputs, x):
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


def experts(x):
    """Two that are added up, one deeper than the other, then to the stream."""
    y = layers.LayerNormalization()(x)
    deep = dense("deep_out")(dense("deep")(y))
    return x + (dense("flat_out")(y) + layers.Dropout(0.1)(deep))


def parallel(x):
    """One sum of three, as attention beside a feed-forward part."""
    y = layers.LayerNormalization()(x)
    return layers.Add()([x, dense("deep_out")(dense("deep")(y)), dense("flat_out")(y)])


@pytest.mark.parametrize("block", [experts, parallel])
def test_branches_may_be_added_up_before_the_stream(block):
    inputs = Input((8, WIDTH))
    model = ended(inputs, block(dense("stem")(inputs)))
    found = records(model)
    assert roles(model) == {
        "stem": "hidden",
        "deep": "hidden",
        "deep_out": "residual branch",
        "flat_out": "residual branch",
        "out": "output",
    }
    assert {one.branches for one in found.values()} <= {0, 2}


def test_a_kernel_on_the_shortcut_stays_one():
    inputs = Input((8, WIDTH))
    x = dense("stem")(inputs)
    for number in range(2):
        y = dense(f"second_{number}")(dense(f"first_{number}")(x))
        x = y + (dense("aside")(x) if number == 0 else x)
    found = roles(ended(inputs, x))
    assert found["aside"] == "shortcut"
    assert found["second_0"] == found["second_1"] == "residual branch"


def modulated(x, condition, name):
    scale, shift = ops.split(dense(name, 2 * WIDTH)(condition), 2, axis=-1)
    return x * (1 + scale[:, None]) + shift[:, None]


def test_a_shift_by_channel_closes_no_branch():
    """Adaptive layer normalization, once before a block and once inside."""
    inputs, condition = Input((8, WIDTH)), Input((4,))
    x = dense("stem")(inputs)
    y = layers.LayerNormalization()(x)
    y = dense("first")(modulated(y, condition, "modulation_0"))
    y = dense("second")(modulated(y, condition, "modulation_1"))
    found = roles(ended([inputs, condition], x + y))
    assert found["stem"] == found["first"] == "hidden"
    assert found["second"] == "residual branch"


def test_a_branch_may_be_repeated_itself():
    """What is pooled over positions and added to each."""
    inputs = Input((8, WIDTH))
    x = dense("stem")(inputs)
    pooled = ops.mean(x, axis=1, keepdims=True)
    found = roles(ended(inputs, x + dense("second")(dense("first")(pooled))))
    assert found["second"] == "residual branch"


class Token(layers.Layer):
    """A learned vector before the others."""

    def __init__(self, rank, **others):
        super().__init__(**others)
        self.rank = rank

    def build(self, input_shape):
        shape = (1,) * (self.rank - 1) + (input_shape[-1],)
        self.token = self.add_weight(shape=shape, initializer="ones", name="token")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, WIDTH))
        return ops.concatenate([token, x], axis=1)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_vector_is_never_drawn(rank):
    inputs = Input((8, WIDTH))
    token = Token(rank)
    x = layers.LayerNormalization()(token(dense("stem")(inputs)))
    model = ended(inputs, dense("next")(x))
    recommend(model).apply(seed=0)
    assert np.all(ops.convert_to_numpy(token.token) == 1)
