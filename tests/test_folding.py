"""Calibration leaves it to a batch normalization to scale what a layer computes.

What each kernel computes is read off a second model that ends there.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import calibrate
from keras_initlab.calibration import _running
from keras_initlab.calibration._folding import Folding


@pytest.fixture
def taken(monkeypatch):
    """Names of the layers that leave their factor to a normalization."""
    names = []
    takes = Folding.takes

    def noted(self, layer, factor):
        is_taken = takes(self, layer, factor)
        if is_taken:
            names.append(layer.name)
        return is_taken

    monkeypatch.setattr(Folding, "takes", noted)
    return names


def data(*shape, examples=16):
    return np.random.default_rng(0).normal(size=(examples, *shape)).astype("float32")


def trained_statistics(model):
    """Gives batch normalization other numbers than those it starts with."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.variables:
                values = rng.uniform(0.5, 1.5, variable.shape)
                variable.assign(values)
    return model


def std(model, x, name):
    """That of what a layer computes."""
    inner = keras.Model(model.inputs[0], model.get_layer(name).output)
    return ops.convert_to_numpy(inner(x, training=False)).astype("float64").std()


def after(tensor, **normalization):
    return layers.BatchNormalization(**normalization)(tensor)


def one(name, filters=4, **convolution):
    return layers.Conv2D(filters, 3, padding="same", name=name, **convolution)


def chain():
    x = inputs = Input((6, 6, 3))
    for name in "abc":
        x = after(one(name, use_bias=name == "b")(x))
    x = layers.ReLU()(x)
    x = after(layers.DepthwiseConv2D(3, name="d")(x))
    x = after(layers.SeparableConv2D(5, 2, name="s")(x))
    x = after(layers.Dense(7, name="e")(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(3, name="z")(x))


def sequential():
    stack = [one("a"), layers.BatchNormalization(), one("b")]
    return keras.Sequential([Input((6, 6, 3)), *stack])


def channels_normalized_first():
    inputs = Input((4, 6))
    x = after(layers.Dense(4, name="a")(inputs), axis=1)
    return keras.Model(inputs, layers.Dense(3, name="z")(x))


FOLDED = {
    "chain": (chain, "abcdse", "z"),
    "sequential": (sequential, "a", "b"),
    "another axis": (channels_normalized_first, "a", "z"),
}


@pytest.mark.parametrize("name", FOLDED)
def test_normalization_takes_the_factor(name, taken):
    build, folded, others = FOLDED[name]
    model = trained_statistics(build())
    x = data(*model.input_shape[1:])
    calibrate(model, x, overwrite=True)
    assert taken == list(folded)
    for layer in folded + others:
        assert std(model, x, layer) == pytest.approx(1, abs=1e-3)


def test_it_changes_nothing_else(monkeypatch):
    folded, plain = (trained_statistics(chain()) for _ in range(2))
    plain.set_weights(folded.get_weights())
    before = folded.get_weights()
    x = data(6, 6, 3)
    calibrate(folded, x, overwrite=True)
    monkeypatch.setattr(_running.Folding, "takes", lambda *_: False)
    calibrate(plain, x, overwrite=True)
    pairs = zip(folded.variables, plain.variables, before, strict=True)
    for variable, other, start in pairs:
        one, other = (ops.convert_to_numpy(v) for v in (variable, other))
        np.testing.assert_allclose(one, other, rtol=1e-4, err_msg=variable.path)
        if "kernel" not in variable.path:
            np.testing.assert_array_equal(one, start)


def read_twice():
    inputs = Input((6, 6, 3))
    a = one("a")(inputs)
    return keras.Model(inputs, one("z")(layers.Add()([after(a), a])))


def given_out():
    inputs = Input((6, 6, 3))
    a = one("a")(inputs)
    return keras.Model(inputs, [one("z")(after(a)), a])


def called_twice():
    inputs = Input((6, 6, 3))
    shared = one("a", 3)
    return keras.Model(inputs, one("z")(after(shared(after(shared(inputs))))))


def normalization_called_twice():
    inputs = Input((6, 6, 3))
    shared = layers.BatchNormalization()
    return keras.Model(inputs, one("z")(shared(one("b")(shared(one("a")(inputs))))))


def activated():
    inputs = Input((6, 6, 3))
    return keras.Model(inputs, one("z")(after(one("a", activation="relu")(inputs))))


def without_a_scale():
    inputs = Input((6, 6, 3))
    return keras.Model(inputs, one("z")(after(one("a")(inputs), scale=False)))


def always_by_batch():
    inputs = Input((6, 6, 3))
    x = layers.BatchNormalization()(one("a")(inputs), training=True)
    return keras.Model(inputs, one("z")(x))


def in_half_precision():
    inputs = Input((6, 6, 3))
    x = after(one("a")(inputs), dtype="mixed_float16")
    return keras.Model(inputs, one("z")(x))


def in_a_wrapper_too():
    inputs = Input((4, 6))
    dense = layers.Dense(6, name="a")
    x = layers.TimeDistributed(dense)(inputs)
    return keras.Model(inputs, layers.Dense(3, name="z")(after(dense(x))))


def given_out_by_an_inner_model():
    inner_inputs = Input((6, 6, 3))
    a = one("a")(inner_inputs)
    inner = keras.Model(inner_inputs, [after(a), a], name="inner")
    inputs = Input((6, 6, 3))
    return keras.Model(inputs, one("z")(layers.Add()(inner(inputs))))


@keras.saving.register_keras_serializable("test_folding")
class OwnCall(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return inputs * 2 + ops.cast(self.gamma, inputs.dtype)


def own_normalization():
    inputs = Input((6, 6, 3))
    return keras.Model(inputs, one("z")(OwnCall()(one("a")(inputs))))


def small():
    inputs = Input((6, 6, 3))
    initializer = keras.initializers.RandomNormal(stddev=1e-9)
    a = one("a", kernel_initializer=initializer)
    return keras.Model(inputs, one("z")(after(a(inputs))))


NOT_FOLDED = [
    read_twice,
    given_out,
    called_twice,
    normalization_called_twice,
    activated,
    without_a_scale,
    always_by_batch,
    in_half_precision,
    in_a_wrapper_too,
    given_out_by_an_inner_model,
    own_normalization,
    small,
]


@pytest.mark.parametrize("build", NOT_FOLDED)
def test_others_are_scaled_themselves(build, taken):
    model = trained_statistics(build())
    calibrate(model, data(*model.input_shape[1:]), overwrite=True)
    assert taken == []
    assert_last_is_right(model)


def assert_last_is_right(model):
    """What the last layer computes comes of all that is before it."""
    x = data(*model.input_shape[1:])
    assert std(model, x, "z") == pytest.approx(1, abs=1e-3)


def test_only_as_in_inference(taken):
    model = sequential()
    calibrate(model, data(6, 6, 3), training=True)
    calibrate(model, data(6, 6, 3), center_bias=True, overwrite=True)
    calibrate(model, data(6, 6, 3), per_channel=True, overwrite=True)
    assert taken == []


def test_an_inner_model_that_runs_twice(taken):
    inner = keras.Sequential(
        [Input((6, 6, 3)), one("a", 3), layers.BatchNormalization()]
    )
    inputs = Input((6, 6, 3))
    model = trained_statistics(keras.Model(inputs, one("z")(inner(inner(inputs)))))
    calibrate(model, data(6, 6, 3), overwrite=True)
    assert taken == ["a"]
    assert_last_is_right(model)


def test_float16_is_scaled_itself(taken):
    with keras.device("cpu"):
        inputs = Input((6, 6, 3))
        a = one("a", dtype="mixed_float16")(inputs)
        model = keras.Model(inputs, one("z")(after(a, dtype="mixed_float16")))
    calibrate(model, data(6, 6, 3))
    assert taken == []
