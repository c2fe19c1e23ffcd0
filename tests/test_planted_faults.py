"""One fault in a model of 30 layers: it must be named, by path, and where it matters
with the step."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles import BACKEND, MODES, USUAL

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    GradientNormLogger,
)

pytestmark = pytest.mark.slow_on_jax

DEPTH, WIDTH, BATCH, STEPS = 30, 16, 16, 4
QUICK_NAME = "jit" if BACKEND == "jax" else "eager"
QUICK = MODES[QUICK_NAME]

# The usual one takes long to compile.
MODES_HERE = [
    QUICK_NAME,
    *[pytest.param(USUAL, marks=pytest.mark.slow)][: USUAL != QUICK_NAME],
]


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


class Multiplying(layers.Layer):
    """Multiplies the gradient on the way back, and nothing forward."""

    def call(self, x):
        return 1e4 * x - ops.stop_gradient((1e4 - 1) * x)


class Root(layers.Layer):
    """A term √(h²·s): where s is 0 it is 0, and its derivative ∞·0."""

    def call(self, inputs):
        x, switch = inputs
        return x + 0.01 * ops.sqrt(ops.square(x) * switch)


class Deep:
    """30 layers with something between two of them."""

    def __init__(self, activation="tanh", after=14, between=None, **initializer):
        scale = 2.0 if activation == "relu" else 1.0
        kernel = initializer.get("kernel") or keras.initializers.VarianceScaling(scale)
        self.hidden = [
            layers.Dense(WIDTH, activation, True, kernel) for _ in range(DEPTH)
        ]
        x, switch = keras.Input((WIDTH,)), keras.Input((1,))
        z = x
        for index, layer in enumerate(self.hidden):
            z = layer(z)
            if index == after and between is not None:
                z = between([z, switch]) if isinstance(between, Root) else between(z)
        z = layers.Dense(4)(layers.Concatenate()([z, 0.0 * switch]))
        self.model = keras.Model([x, switch], z)

    def set(self, index, kernel=1.0, bias=0.0):
        """Multiplies the kernel of a layer and sets its bias."""
        layer = self.hidden[index]
        weights, biases = layer.get_weights()
        layer.set_weights([weights * kernel, biases + bias])
        return layer.path

    def train(self, x=None, switch=None, mode=QUICK, steps=STEPS):
        """Trains under all three loggers; by name, and their lines."""
        x = normal(BATCH * steps, WIDTH) if x is None else x
        switch = np.ones((BATCH * steps, 1), "float32") if switch is None else switch
        lines = []
        loggers = {
            kind.__name__: kind(1, alerts=lines.append, **arguments)
            for kind, arguments in (
                (GradientNormLogger, {}),
                (DeadReLULogger, {"threshold": 0.01}),
                (ActivationStatsLogger, {}),
            )
        }
        self.model.compile(optimizers.SGD(1e-4), "mse", **mode)
        self.model.fit(
            [x, switch],
            normal(len(x), 4),
            batch_size=BATCH,
            shuffle=False,
            verbose=0,
            callbacks=[*loggers.values()],
        )
        return loggers, lines


def named(logger, rule):
    return {(one.path, one.step) for one in logger.alerts if one.kind == rule}


@pytest.mark.seconds
@pytest.mark.parametrize(
    "activation", ["tanh", pytest.param("relu", marks=pytest.mark.slow)]
)
def test_without_a_fault_no_alert(activation):
    _, lines = Deep(activation).train()
    assert lines == []


@pytest.mark.parametrize("index", [28, pytest.param(0, marks=pytest.mark.slow)])
def test_an_exploding_layer(index):
    deep = Deep("relu")
    path = deep.set(index, kernel=1000.0)
    loggers, lines = deep.train(steps=2)
    found = named(loggers["ActivationStatsLogger"], "exploding signal")
    assert (path, 0) in found
    assert any(path in line and "exploding signal" in line for line in lines)


@pytest.mark.parametrize("index", [24, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_layer_that_multiplies_the_gradient(index):
    deep = Deep(after=index, between=Multiplying())
    loggers, lines = deep.train(steps=2)
    found = named(loggers["GradientNormLogger"], "exploding gradient")
    assert (deep.hidden[index].path, 0) in found
    assert any(deep.hidden[index + 1].path in line for line in lines)


@pytest.mark.parametrize("mode", MODES_HERE)
def test_a_dead_layer(mode):
    deep = Deep("relu")
    path = deep.set(9, bias=-100.0)
    loggers, lines = deep.train(mode=MODES[mode])
    last = STEPS - 1
    assert named(loggers["DeadReLULogger"], "dead units") >= {(path, last)}
    assert (path, 2) in named(loggers["ActivationStatsLogger"], "constant outputs")
    starved = {at for at, _ in named(loggers["GradientNormLogger"], "no gradient")}
    assert starved >= {layer.path for layer in deep.hidden[:10]}
    assert any(line.startswith("dead units") and path in line for line in lines)


@pytest.mark.parametrize("mode", MODES_HERE)
@pytest.mark.parametrize("index", [17, pytest.param(0, marks=pytest.mark.slow)])
def test_a_weight_that_is_nan(index, mode):
    deep = Deep()
    kernel, bias = deep.hidden[index].get_weights()
    kernel[2, 3] = np.nan
    deep.hidden[index].set_weights([kernel, bias])
    path = deep.hidden[index].path
    loggers, lines = deep.train(steps=2, mode=MODES[mode])
    first = loggers["GradientNormLogger"].first_nonfinite
    assert (first.path, first.step) == (path, 0)
    assert named(loggers["ActivationStatsLogger"], "not finite") == {(path, 0)}
    assert sum(line.startswith(f"not finite, step 0: {path} ") for line in lines) == 2


@pytest.mark.parametrize("step", [2, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_nan_that_arises_in_a_step_going_forward(step):
    deep = Deep(after=14, between=Root())
    switch = np.ones((BATCH * STEPS, 1), "float32")
    switch[BATCH * step + 3] = -1.0
    loggers, _ = deep.train(switch=switch)
    first = loggers["GradientNormLogger"].first_nonfinite
    (root,) = (layer for layer in deep.model.layers if isinstance(layer, Root))
    assert (first.path.split("/")[-1], first.step) == (root.name, step)
    found = named(loggers["ActivationStatsLogger"], "not finite")
    assert found == {(deep.hidden[15].path, step)}


@pytest.mark.seconds
@pytest.mark.parametrize("step", [2, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("index", [20])
def test_nan_that_arises_in_a_step_going_backward(index, step):
    deep = Deep(after=index, between=Root())
    switch = np.ones((BATCH * STEPS, 1), "float32")
    switch[BATCH * step + 3] = 0.0
    loggers, lines = deep.train(switch=switch)
    first = loggers["GradientNormLogger"].first_nonfinite
    assert (first.path, first.step) == (deep.hidden[index].path, step)
    (line,) = (one for one in lines if one.startswith(f"not finite, step {step}:"))
    assert "while every output is finite" in line


@pytest.mark.slow
def test_vanishing_gradients():
    small = keras.initializers.RandomNormal(stddev=0.2, seed=1)
    deep = Deep("sigmoid", kernel=small)
    loggers, lines = deep.train(steps=2)
    ((path, step),) = named(loggers["GradientNormLogger"], "vanishing gradient")
    assert (path, step) == (deep.hidden[0].path, 0)
    assert any(line.startswith("vanishing gradient") for line in lines)


def test_a_vanishing_signal():
    deep = Deep("relu")
    for index in range(DEPTH):
        deep.set(index, kernel=0.5)
    loggers, _ = deep.train(steps=2)
    assert named(loggers["ActivationStatsLogger"], "vanishing signal")
    deep = Deep("relu")
    path = deep.set(11, kernel=1e-3)
    loggers, _ = deep.train(steps=2)
    found = named(loggers["ActivationStatsLogger"], "vanishing signal")
    assert (path, 0) in found
