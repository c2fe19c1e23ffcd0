"""`Recommendation.verify`: what kernels give beside what their rows mean."""

import json

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_by_hand import numbers
from test_tracing import assert_unchanged, backend_functions

from keras_initlab import StructureChangedError, recommend

pytestmark = [pytest.mark.once_a_day, pytest.mark.slow_on_jax]


def normal(*shape, scale=1.0):
    values = np.random.default_rng(2).normal(size=shape)
    return (scale * values).astype("float32")


def dense():
    one, two = layers.Dense(128, "relu", name="one"), layers.Dense(64, name="two")
    return keras.Sequential([Input((32,)), one, two], name="dense")


def products(model, x):
    """What the kernels of `dense` give, by NumPy; biases left out."""
    one, two = model.layers
    z = x @ numbers(one.kernel)
    return z, np.maximum(z + numbers(one.bias), 0) @ numbers(two.kernel)


def convolutional():
    inputs = Input((16, 16, 3))
    x = layers.Conv2D(16, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(16, 3, use_bias=False)(x))
    x = layers.GlobalMaxPooling2D()(layers.Activation("relu")(x))
    return keras.Model(inputs, layers.Dense(64)(x))


def transformer():
    inputs = Input((None,), dtype="int32")
    x = layers.Embedding(100, 64)(inputs)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 16)(y, y)
    y = layers.Dense(128, "gelu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(x + layers.Dense(64)(y))
    return keras.Model(inputs, layers.Dense(100)(x))


def recurrent():
    inputs = Input((8, 16))
    x = layers.GRU(32)(layers.LSTM(32, return_sequences=True)(inputs))
    return keras.Model(inputs, layers.Dense(32)(x))


MODELS = {
    "dense": dense,
    "transformer": transformer,
    "convolutional": convolutional,
    "recurrent": recurrent,
}


@pytest.mark.parametrize("name", MODELS)
def test_after_apply_kernels_give_what_is_meant(name):
    model = MODELS[name]()
    advice = recommend(model)
    advice.apply(seed=0)
    table = advice.verify()
    assert table.on == "synthetic inputs"
    drawn = [row for row in advice if row.role != "recurrent"]
    assert [row.path for row in table] == [row.path for row in drawn]
    assert [row.meant for row in table] == [row.std for row in drawn]
    assert not table.missed
    heard = [row for row in table if row.measured is not None]
    assert len(heard) == len(table)
    for row in heard:
        assert row.is_met
        assert row.measured is not None
        assert row.ratio == pytest.approx(row.measured / row.meant)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_measured_std_is_that_of_numpy(scale):
    model, x = dense(), normal(200, 32, scale=scale)
    advice = recommend(model)
    advice.apply(seed=0)
    model.layers[0].bias.assign(np.full(128, 0.3))
    table = advice.verify(x)
    assert table.on == "data"
    for row, z in zip(table, products(model, x), strict=True):
        assert row.measured == pytest.approx(z.std(), rel=1e-3)
    assert bool(table.missed) == (scale == 3.0)


def test_before_apply_the_weights_are_those_that_are_there():
    model, x = dense(), normal(200, 32)
    advice = recommend(model)
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 0.01)
    first, second = advice.verify(x)
    one, _ = products(model, x)
    assert first.measured == pytest.approx(one.std(), rel=1e-3)
    assert first.ratio is not None
    assert first.ratio < 0.5
    assert second.is_met is False
    assert [row.path for row in advice.verify(x).missed] == [first.path, second.path]


def test_a_kernel_off_by_more_than_two_is_missed_and_no_other():
    model = dense()
    advice = recommend(model)
    advice.apply(seed=0)
    kernel = model.layers[1].kernel
    for factor, is_met in {1.5: True, 2.6: False, 1 / 1.5: True, 0.4: False}.items():
        before = numbers(kernel).copy()
        kernel.assign(before * factor)
        first, second = table = advice.verify()
        assert (first.is_met, second.is_met) == (True, is_met)
        assert len(table.missed) == (not is_met)
        kernel.assign(before)


def test_data_of_recommend_is_what_it_runs_on():
    x = normal(64, 32, scale=5.0)
    model = dense()
    advice = recommend(model, data=x)
    advice.apply(seed=0)
    table = advice.verify()
    assert table.on == "data"
    for row, z in zip(table, products(model, x), strict=True):
        assert row.measured == pytest.approx(z.std(), rel=1e-3)
        assert row.is_met
    other = advice.verify(normal(64, 32))
    assert other[0].measured == pytest.approx(table[0].measured / 5, rel=0.2)


def test_input_std_is_that_of_the_synthetic_inputs():
    model = dense()
    advice = recommend(model, input_std=20.0)
    advice.apply(seed=0)
    assert not advice.verify().missed
    assert [row.path for row in advice.verify(normal(64, 32)).missed]


@pytest.mark.parametrize("scale", [1 / 255, 20.0])
def test_synthetic_inputs_are_those_that_the_first_kernels_read(scale):
    """Behind a layer that rescales they are what `input_std` says, too."""
    inputs = Input((32,))
    x = layers.Dense(64, "relu")(layers.Rescaling(scale)(inputs))
    model = keras.Model(inputs, layers.Dense(64)(x))
    advice = recommend(model)
    advice.apply(seed=0)
    assert not advice.verify(normal(64, 32, scale=1 / scale)).missed
    assert not advice.verify().missed


def test_inputs_beside_targets_and_in_a_data_set():
    model, x, y = dense(), normal(64, 32), normal(64, 64)
    advice = recommend(model)
    advice.apply(seed=0)
    expected = advice.verify(x).to_dict()
    assert advice.verify((x, y)).to_dict() == expected

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, number):
            return x, y

    assert advice.verify(Batches()).to_dict() == expected


class Standardized(layers.Dense):
    """Its kernel meets no signal as it is."""

    def call(self, x):
        return self.activation(ops.matmul(x, self.kernel / ops.norm(self.kernel)))


class OfTheBackend(layers.Layer):
    """Sums products where nobody hears it."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(32, 16), name="own")

    def call(self, x):
        _, join, add = backend_functions()
        parts = [ops.sum(x * self.w[:, unit], -1, True) for unit in range(16)]
        return add(join(parts), 0.0)


@pytest.mark.parametrize("own", [Standardized(16), OfTheBackend()])
def test_what_is_not_heard_is_neither_met_nor_missed(own):
    model = keras.Sequential([Input((32,)), layers.Dense(32, "relu"), own])
    model.build((None, 32))
    advice = recommend(model)
    last = advice.verify()[-1]
    assert (last.measured, last.ratio, last.is_met) == (None, None, None)
    assert last.note
    assert last.path not in [row.path for row in advice.verify().missed]
    assert last.note in str(advice.verify()) or "–" in str(advice.verify())


def test_a_frozen_kernel_has_no_row():
    model = dense()
    model.layers[0].trainable = False
    (row,) = recommend(model).verify()
    assert row.path == model.layers[1].kernel.path


def test_it_prints_and_is_read_by_programs():
    model = dense()
    advice = recommend(model)
    advice.apply(seed=0)
    table = advice.verify()
    text = str(table)
    assert "dense, run on synthetic inputs: 2 of 2 kernels within a factor" in text
    assert all(row.path in text for row in table)
    found = json.loads(table.to_json())
    assert found == table.to_dict()
    assert (found["model"], found["on"]) == ("dense", "synthetic inputs")
    first = found["kernels"][0]
    assert first["path"] == table[0].path
    assert first["meant"] == pytest.approx(table[0].meant, rel=1e-3)
    assert first["ratio"] == pytest.approx(table[0].ratio, rel=1e-3)
    model.layers[1].kernel.assign(model.layers[1].kernel * 9)
    text = str(advice.verify())
    assert "1 of 2 kernels" in text
    assert "more than twice off" in " ".join(text.split())


@pytest.mark.parametrize("name", MODELS)
def test_it_changes_nothing(name):
    model = MODELS[name]()
    model.compile("adam", "mse")
    advice = recommend(model)
    assert_unchanged(model, advice.verify)


def test_another_structure_is_refused():
    model = dense()
    advice = recommend(model)
    model.pop()
    model.add(layers.Dense(3))
    with pytest.raises(StructureChangedError):
        advice.verify()


@pytest.mark.parametrize(
    ("x", "error", "received"),
    [
        (np.full((4, 32), np.nan, "float32"), ValueError, "`x` must"),
        (np.ones((4, 31), "float32"), ValueError, r"\(4, 31\)"),
        (np.ones((0, 32), "float32"), ValueError, "`x` must"),
        (np.full((4, 32), "word"), TypeError, "`x` must"),
        ("word", TypeError, "word"),
        ([np.ones((4, 32))] * 2, ValueError, "`x` must"),
    ],
)
def test_bad_inputs_are_refused(x, error, received):
    with pytest.raises(error, match=received):
        recommend(dense()).verify(x)
