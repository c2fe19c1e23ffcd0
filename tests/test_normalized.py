"""Kernels before a normalization start small, and its moving variance with them."""

import math

import keras
import numpy as np
import pytest
from keras import Input, layers

from keras_initlab import recommend
from keras_initlab._core.arrays import to_numpy

STD = 0.3


def network(normalization, depth=3, width=64):
    x = inputs = Input((width,))
    for number in range(depth):
        x = layers.Dense(width, name=f"hidden{number}")(x)
        x = layers.ReLU()(normalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def batched(model):
    return [la for la in model.layers if isinstance(la, layers.BatchNormalization)]


def stds(model):
    return [to_numpy(row.kernel.variable).std() for row in recommend(model)]


@pytest.mark.parametrize(
    "normalization",
    [
        layers.BatchNormalization,
        layers.LayerNormalization,
        layers.RMSNormalization,
        layers.GroupNormalization,
    ],
)
def test_their_output_has_a_small_deviation(normalization):
    model = network(normalization)
    rows = recommend(model)
    rows.apply(seed=0)
    expected = [STD / 8, *[STD * math.sqrt(2) / 8] * 2, math.sqrt(2) / 8]
    assert stds(model) == pytest.approx(expected, rel=0.1)  # of 640 and more draws
    assert [row.forward_gain for row in rows] == pytest.approx([STD, 1, 1, 1 / STD])
    assert [row.backward_gain for row in rows][1:3] == pytest.approx([1, 1])
    small = ["learns faster" in row.reason for row in rows]
    assert small == [True, True, True, False]


def test_evaluation_gives_what_training_does(rng):
    """Else ten layers of moving variances that start at 1 leave nothing."""
    model = network(layers.BatchNormalization, depth=10)
    x = rng.normal(size=(512, 64)).astype("float32")
    recommend(model).apply(seed=0)
    evaluated, trained = (
        to_numpy(model(x, training=training)).std() for training in (False, True)
    )
    assert 1 / 3 < evaluated / trained < 3  # its log has a deviation of 0.35
    for layer in batched(model):
        layer.moving_variance.assign(np.ones(64))
    assert to_numpy(model(x, training=False)).std() < 0.01 * trained


def test_the_moving_variance_is_the_kernels_and_can_be_undone():
    model = network(layers.BatchNormalization)
    advice = recommend(model)
    applied = advice.apply(seed=0)
    for layer in batched(model):
        np.testing.assert_allclose(to_numpy(layer.moving_variance), STD**2, rtol=1e-5)
        np.testing.assert_array_equal(to_numpy(layer.moving_mean), 0)
        assert layer.moving_variance.path in applied.changed
    again = recommend(model)  # as it was left here, it has still seen no data
    assert again.to_dict() == advice.to_dict()
    assert len(again.apply(seed=1).changed) == len(applied.changed)
    applied.undo()
    for layer in batched(model):
        np.testing.assert_array_equal(to_numpy(layer.moving_variance), 1)


@pytest.mark.parametrize("statistic", ["moving_mean", "moving_variance"])
def test_statistics_of_data_stay(statistic, rng):
    model = network(layers.BatchNormalization, depth=1)
    (layer,) = batched(model)
    seen = rng.uniform(1, 2, size=64)
    getattr(layer, statistic).assign(seen)
    before = to_numpy(layer.moving_variance)
    recommend(model).apply(seed=0)
    np.testing.assert_array_equal(to_numpy(layer.moving_variance), before)


def test_one_that_is_frozen_divides_by_what_it_holds():
    model = network(layers.BatchNormalization, depth=1)
    batched(model)[0].trainable = False
    row = recommend(model)[0]
    assert row.forward_gain == pytest.approx(1.0)
    assert row.moving_variance is None


def test_what_is_also_read_as_it_is_keeps_its_scale():
    inputs = Input((16,))
    x = layers.Dense(16)(inputs)
    y = layers.Concatenate()([layers.BatchNormalization()(x), x])
    rows = recommend(keras.Model(inputs, layers.Dense(4)(y)))
    assert rows[0].forward_gain == pytest.approx(1.0)
    assert rows[0].moving_variance is None
