"""How work grows with a model: in proportion to its layers and to their uses."""

import sys

import hostile
import keras
import numpy as np
import pytest
from keras import Input, layers

import keras_initlab as initlab
from keras_initlab import recommend
from keras_initlab.inspection import _opening, inspect

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
LOOKS = {
    "fans": lambda model: initlab.fans(model),
    "recommend": lambda model: str(recommend(model)),
    "rules": lambda model: recommend(model, "rules"),
    "data": lambda model: recommend(model, data=X),
    "audit": lambda model: initlab.audit(model),
    "probe": lambda model: initlab.probe(model, X),
    "apply": lambda model: recommend(model).apply(seed=0, overwrite=True),
    "calibrate": lambda model: initlab.calibrate(model, X, seed=0, overwrite=True),
    "reinitialize": lambda model: initlab.reinitialize(model, seed=0),
}


class Chain(layers.Layer):
    """Holds many layers, one behind the other."""

    def __init__(self, count):
        super().__init__()
        self.inner = [layers.Dense(4, "relu") for _ in range(count)]

    def build(self, input_shape):
        for layer in self.inner:
            layer.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs


def sequential(count):
    hidden = [layers.Dense(4, "relu") for _ in range(count)]
    return keras.Sequential([Input((4,)), *hidden])


def residual(count):
    inputs = outputs = Input((4,))
    for _ in range(count // 2):
        outputs = outputs + layers.ReLU()(layers.Dense(4)(outputs))
    return keras.Model(inputs, layers.Dense(4)(outputs))


def chain(count):
    inputs = Input((4,))
    return keras.Model(inputs, Chain(count)(inputs))


def shared(count):
    inputs, layer = Input((4,)), layers.Dense(4, "tanh")
    outputs = inputs
    for _ in range(count):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def side_by_side(count):
    inputs, layer = Input((4,)), layers.Dense(4, "tanh")
    return keras.Model(inputs, layers.Add()([layer(inputs) for _ in range(count)]))


def doubled(levels, width=4):
    """Each model calls the one within twice."""
    model = keras.Sequential([Input((width,)), layers.Dense(width, "relu")])
    for _ in range(levels):
        inputs = Input((width,))
        outputs = layers.Dense(width, "relu")(model(model(inputs)))
        model = keras.Model(inputs, outputs)
    return model


MODELS = {
    "Sequential": sequential,
    "residual": residual,
    "in a layer": chain,
    "one layer": shared,
    "side by side": side_by_side,
}


def calls(look, model):
    """How many functions are called."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        look(model)
    finally:
        sys.setprofile(before)
    return count


def functions():
    for name in LOOKS:
        marks = [] if name in ("recommend", "probe") else [pytest.mark.slow]
        yield pytest.param(name, marks=marks)


@pytest.mark.seconds
@hostile.asks("fans", "recommend", "audit", "probe", "calibrate", "reinitialize")
@pytest.mark.parametrize("function", [*functions()])
@pytest.mark.parametrize("kind", MODELS)
def test_twice_the_layers_are_twice_the_work(kind, function):
    few, many, most = (calls(LOOKS[function], MODELS[kind](n)) for n in (20, 40, 80))
    assert most - many < 2.3 * (many - few) + 2000


def test_the_count_sees_what_grows_faster():
    def look(model):
        for layer in model.layers:
            for other in model.layers:
                len((layer, other))

    few, many, most = (calls(look, sequential(n)) for n in (20, 40, 80))
    assert most - many > 3 * (many - few)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["in a layer", "side by side"])
def test_more_layers_than_python_stacks_calls(kind):
    model = MODELS[kind](1500)
    assert len(recommend(model)) == len(initlab.fans(model))
    assert initlab.reinitialize(model, seed=0).changed


@pytest.mark.seconds
@hostile.asks("fans", "recommend", "audit", "reinitialize")
def test_models_that_are_called_twice_by_models_that_are_called_twice():
    model = doubled(40)
    assert len(initlab.fans(model)) == 41
    advice = recommend(model)
    assert [row.role for row in advice] == ["hidden"] * 40 + ["output"]
    assert len(advice.apply(seed=0).changed) == 82
    initlab.audit(model)
    assert len(initlab.reinitialize(model, seed=0).changed) == 82


def test_a_model_that_is_not_followed_again_changes_no_advice(monkeypatch):
    def rows(model):
        return [(row.path, row.role, row.std, row.reason) for row in recommend(model)]

    model = doubled(7)
    whole, records = rows(model), inspect(model).kernels
    monkeypatch.setattr(_opening, "_MOST_FOLLOWED", 30)
    assert rows(model) == whole
    few = inspect(model).kernels
    assert sum(one.calls for one in few) < sum(one.calls for one in records)
    assert [one.is_tied for one in few] == [one.is_tied for one in records]
