"""New kernels take over the scale of a kernel, a layer or a model."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab import UnbuiltModelError, recommend
from keras_initlab.initializers import MatchPretrained


def to_numpy(value):
    return np.array(ops.convert_to_numpy(value), "float64")


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def normal(std):
    return keras.initializers.RandomNormal(0.0, std)


def drawn_std(make, shape, matched):
    layer = built(make(kernel_initializer=matched), *shape)
    return to_numpy(layer.kernel).std()


def dense(**others):
    return layers.Dense(256, **others)


def conv(**others):
    return layers.Conv2D(64, 3, **others)


def transposed(**others):
    return layers.Conv2DTranspose(64, 4, strides=2, **others)


# What is pretrained, what is new, and the fans by hand (FACTS of each layer).
PAIRS = {
    "dense to dense": (dense, (64,), 64, dense, (512,), 512),
    "dense to a convolution": (dense, (64,), 64, conv, (8, 8, 32), 9 * 32),
    "a convolution to dense": (conv, (8, 8, 32), 9 * 32, dense, (64,), 64),
    "a transposed one": (transposed, (4, 4, 48), 16 * 48 / 4, conv, (8, 8, 8), 72),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_layers_gain_is_matched_on_true_fans(name):
    old, shape, fan_in, new, new_shape, own = PAIRS[name]
    layer = built(old(kernel_initializer=normal(0.03)), *shape)
    std = to_numpy(layer.kernel).std()
    matched = MatchPretrained.from_kernel(layer, seed=1)
    assert (matched.std, matched.fan_in) == pytest.approx((std, fan_in), rel=1e-5)
    expected = std * math.sqrt(fan_in / own)
    assert drawn_std(new, new_shape, matched) == pytest.approx(expected, rel=0.03)
    assert expected != pytest.approx(std, rel=0.2)  # the std itself would not do


def test_einsum_dense_and_attention_have_their_own_fans():
    layer = built(dense(kernel_initializer=normal(0.03)), 64)
    matched = MatchPretrained.from_kernel(layer, seed=1)
    gain = to_numpy(layer.kernel).std() * 8
    attention = layers.MultiHeadAttention(4, 16, kernel_initializer=matched)
    attention.build((None, 5, 256), (None, 5, 256))
    query, output = attention.query_dense.kernel, attention.output_dense.kernel
    assert to_numpy(query).std() == pytest.approx(gain / 16, rel=0.03)
    assert to_numpy(output).std() == pytest.approx(gain / 8, rel=0.03)


def test_of_a_model_the_median_gain_counts():
    gains = (0.5, 0.8, 7.0)
    widths = (64, 256, 128)
    stack = [
        layers.Dense(width, kernel_initializer=normal(gain / math.sqrt(fan_in)))
        for gain, width, fan_in in zip(gains, widths, (64, *widths), strict=False)
    ]
    embedding = layers.Embedding(9, 64, embeddings_initializer=normal(50.0))
    zero = layers.Dense(4, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), embedding, *stack, zero])
    matched = MatchPretrained.from_kernel(model, seed=1)
    assert (matched.std, matched.fan_in) == (pytest.approx(0.8, rel=0.02), 1)
    found = drawn_std(dense, (400,), matched)
    assert found == pytest.approx(0.8 / 20, rel=0.03)


def test_an_arrays_std_counts_and_with_a_fan_its_gain(rng):
    kernel = rng.normal(0.1, 0.05, (64, 32))
    matched = MatchPretrained.from_kernel(kernel, seed=1)
    assert drawn_std(dense, (256,), matched) == pytest.approx(0.05, rel=0.03)
    matched = MatchPretrained.from_kernel(kernel, True, seed=1, fan_in=64)
    layer = built(dense(kernel_initializer=matched), 256)
    assert to_numpy(layer.kernel).std() == pytest.approx(0.025, rel=0.03)
    assert to_numpy(layer.kernel).mean() == pytest.approx(0.05, rel=0.05)


def test_a_layers_mean():
    layer = built(layers.Dense(64, kernel_initializer="ones"), 64)
    values = np.random.default_rng(0).normal(0.2, 0.05, (64, 64))
    layer.kernel.assign(values.astype("float32"))
    matched = MatchPretrained.from_kernel(layer, match_mean=True)
    assert matched.mean == pytest.approx(0.2, rel=0.02)


def test_it_comes_back_from_its_config():
    matched = MatchPretrained.from_kernel(built(dense(), 64), seed=3)
    again = keras.initializers.deserialize(keras.initializers.serialize(matched))
    assert again.get_config() == matched.get_config()
    np.testing.assert_array_equal(to_numpy(matched((9, 5))), to_numpy(again((9, 5))))


def zeros():
    return layers.Dense(3, kernel_initializer="zeros", name="empty")


BAD = {
    "unbuilt": (lambda: (dense(name="d"), False), UnbuiltModelError, "kernel='d'"),
    "no kernel": (
        lambda: (built(layers.BatchNormalization(name="b"), 4), False),
        ValueError,
        r"kernel='b' \(BatchNormalization\) with 0 of them",
    ),
    "zeros": (
        lambda: (built(zeros(), 4), False),
        ValueError,
        r"kernel='empty' \(Dense\) with 0 of them",
    ),
    "a mean of two": (
        lambda: (built(layers.SeparableConv2D(4, 3, name="two"), 8, 8, 3), True),
        ValueError,
        "kernel='two'.* with 2 of them",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_matched(name):
    make, error, text = BAD[name]
    layer, match_mean = make()
    with pytest.raises(error, match=text):
        MatchPretrained.from_kernel(layer, match_mean)


@pytest.mark.parametrize("fan_in", [0, -1, math.nan, "64"])
def test_bad_fans(fan_in):
    with pytest.raises(ValueError, match=f"`fan_in` must .*fan_in={fan_in!r}"):
        MatchPretrained(0.1, fan_in=fan_in)


def test_a_layer_has_its_own_fan_in():
    with pytest.raises(
        ValueError, match=r"`fan_in` must be left out.*fan_in=9 for 'd'"
    ):
        MatchPretrained.from_kernel(dense(name="d"), fan_in=9)


# ---- where new layers join frozen ones ------------------------------------------


def part_frozen():
    """A trained trunk whose units go together, as those of trained networks do."""
    trunk = layers.Dense(64, name="trunk")
    model = keras.Sequential(
        [keras.Input((32,)), trunk, layers.Dense(48, "relu"), layers.Dense(4)]
    )
    rng = np.random.default_rng(0)
    low_rank = rng.normal(size=(32, 2)) @ rng.normal(size=(2, 64))
    trunk.set_weights([low_rank.astype("float32"), np.full(64, 0.5, "float32")])
    trunk.trainable = False
    return model


def test_only_new_layers_are_drawn_and_fit_what_frozen_ones_give(rng):
    x = rng.normal(size=(2000, 32)).astype("float32")
    model = part_frozen()
    frozen = [to_numpy(weight) for weight in model.layers[0].weights]
    kernel, bias = frozen
    stds = {}
    for policy in ("signal", "calibrated"):
        applied = recommend(model, policy, data=x[::8]).apply(seed=0, overwrite=True)
        assert not any("trunk" in path for path in applied.changed)
        for weight, before in zip(model.layers[0].weights, frozen, strict=True):
            np.testing.assert_array_equal(to_numpy(weight), before)
        joined = (x[::8] @ kernel + bias) @ to_numpy(model.layers[1].kernel)
        stds[policy] = joined.std()
    assert stds["calibrated"] == pytest.approx(1, rel=1e-3)
    assert 0.5 < stds["signal"] < 2  # as if the trunk's units were independent
    lecun = math.sqrt(np.mean((x @ kernel + bias) ** 2))
    assert lecun > 5  # what a kernel of variance 1/fan_in would give
