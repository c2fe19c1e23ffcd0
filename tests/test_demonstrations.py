"""What courses on initialization show, by the numbers of a probe.

The figures expected come from theory: a layer of n units with weights of variance v
keeps v·n of the variance of what it reads, and a ReLU hands on half of that.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initlab import probe

DEPTH, WIDTH = 10, 256
pytestmark = pytest.mark.slow if keras.backend.backend() == "jax" else []


def data(examples=512):
    values = np.random.default_rng(0).normal(size=(examples, WIDTH))
    return values.astype("float32")


def network(initializer, activation="relu", normalized=False):
    """Ten layers of equal width; with batch normalization before each activation."""
    stack = []
    for number in range(DEPTH):
        drawn = initializer(number) if callable(initializer) else initializer
        dense = layers.Dense(WIDTH, kernel_initializer=drawn, name=f"h{number}")
        norm = [layers.BatchNormalization()] if normalized else []
        stack += [dense, *norm, layers.Activation(activation)]
    return keras.Sequential([keras.Input((WIDTH,)), *stack, layers.Dense(4)])


def hidden(model, **options):
    """What the probe tells of the ten layers."""
    return [one for one in probe(model, data(), **options) if one.kind == "Dense"][:-1]


def seeded(initializer_class, **options):
    return lambda number: initializer_class(seed=number, **options)


def test_zeros_stop_signal_and_gradient():
    report = probe(network("zeros"), data())
    dense = [one for one in report if one.kind == "Dense"]
    assert [one.preactivation.std for one in dense] == [0] * (DEPTH + 1)
    assert [one.kernel.gradient_norm for one in dense] == [0] * (DEPTH + 1)
    assert {"no gradient", "symmetric units"} <= {s.kind for s in report.findings}


@pytest.mark.parametrize("value", [0.01, 0.1])
def test_equal_weights_stay_equal_in_training(value):
    constant = keras.initializers.Constant(value)
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(16, "tanh", kernel_initializer=constant),
            layers.Dense(1, kernel_initializer=constant),
        ]
    )
    x = data()
    y = x[:, :1] * x[:, 1:2]
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    for epochs in (0, 3):
        model.fit(x, y, epochs=epochs, verbose=0)
        first = probe(model, x, y)[0].kernel
        assert (first.symmetric_units, first.units) == (16, 16)
    moved = keras.ops.convert_to_numpy(model.layers[0].kernel)
    assert np.ptp(moved, axis=0).min() > 1e-3  # trained it was
    assert np.ptp(moved, axis=1).max() < 1e-6


@pytest.mark.parametrize(
    ("initializer", "kept"),
    [
        (keras.initializers.GlorotNormal, 0.5),
        (keras.initializers.HeNormal, 1.0),
    ],
)
def test_xavier_halves_the_variance_under_relu_and_he_keeps_it(initializer, kept):
    found = hidden(network(seeded(initializer)))
    forward = [one.preactivation.std for one in found]
    per_layer = (forward[-1] / forward[0]) ** (2 / (DEPTH - 1))
    assert per_layer == pytest.approx(kept, rel=0.12)
    backward = [one.gradient.std for one in found]
    per_layer = (backward[0] / backward[-1]) ** (2 / (DEPTH - 1))
    assert per_layer == pytest.approx(kept, rel=0.12)


def test_xavier_keeps_tanh_alive_where_large_weights_saturate():
    activations = {}
    for name, std in (("xavier", WIDTH**-0.5), ("large", 1.0)):
        normal = seeded(keras.initializers.RandomNormal, stddev=std)
        report = probe(network(normal, "tanh"), data())
        last = [one for one in report if one.activation == "tanh"][-1]
        activations[name] = last.output.std
        assert ("saturated units" in {s.kind for s in report.findings}) == (
            name == "large"
        )
    assert activations["large"] > 0.9
    assert 0.15 < activations["xavier"] < 0.5


@pytest.mark.seconds
@pytest.mark.parametrize("std", [0.01, 1.0])
def test_batch_normalization_makes_up_for_bad_weights(std):
    normal = seeded(keras.initializers.RandomNormal, stddev=std)
    alone, beside = (hidden(network(normal, normalized=n)) for n in (False, True))
    gain = np.sqrt(WIDTH / 2) * std  # of a layer and its ReLU
    found = alone[-1].preactivation.std / alone[0].preactivation.std
    assert found == pytest.approx(gain ** (DEPTH - 1), rel=0.6)
    # With it, each layer reads a ReLU of N(0, 1): its second moment is a half.
    stds = [one.preactivation.std for one in beside[1:]]
    np.testing.assert_allclose(stds, gain, rtol=0.12)
    norms = [one.gradient.std for one in beside]
    assert 0.1 < norms[0] / norms[-1] < 10
