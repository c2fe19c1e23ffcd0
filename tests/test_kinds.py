"""A kind of layer that nobody has heard of: one record, and everything knows it."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

import keras_initlab
from keras_initlab import callbacks
from keras_initlab._keras.kinds import Kind, Part, _records, register

STRIDE = 2


class GatedConv(layers.Layer):
    """A convolution whose output another one gates, by its sigmoid."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.data_format = "channels_last"
        self.kernel_initializer = keras.initializers.GlorotUniform()

    def build(self, shape):
        size = (3, 3, shape[-1], self.filters)
        self.kernel = self.add_weight(size, self.kernel_initializer, name="kernel")
        self.gate = self.add_weight(size, self.kernel_initializer, name="gate")
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")
        self.gate_bias = self.add_weight((self.filters,), "zeros", name="gate_bias")

    def call(self, x):
        value = ops.conv(x, self.kernel, STRIDE, "same") + self.bias
        gate = ops.conv(x, self.gate, STRIDE, "same") + self.gate_bias
        return value * ops.sigmoid(gate)


def gated_kernels(layer):
    axes = keras_initlab.KernelAxes((2,), (3,), (0, 1), stride=STRIDE**2)
    return {"kernel": axes, "gate": axes}


RECORD = Kind(gated_kernels, {"gate": Part(bias="gate_bias")})


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(_records, "_registered", {})
    monkeypatch.setattr(_records, "_known", {})
    register(GatedConv, RECORD)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="first"),
            GatedConv(16, name="gated"),
            GatedConv(16, name="again"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ]
    )


def images(count=64):
    return np.random.default_rng(0).normal(size=(count, 16, 16, 3)).astype("float32")


def before(model, name, x):
    """What a layer reads."""
    for layer in model.layers:
        if layer.name == name:
            return x
        x = layer(x)
    raise ValueError(name)


def path(model, name, kernel="kernel"):
    return getattr(model.get_layer(name), kernel).path


def numbers(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def gate_of(layer, x):
    return numbers(ops.conv(x, layer.gate, STRIDE, "same"))


def value_of(layer, x):
    return numbers(ops.conv(x, layer.kernel, STRIDE, "same"))


def test_fans():
    model = network()
    found = keras_initlab.fans(model)
    # A position is met by a quarter of the window: the stride is two by two.
    for kernel in ("kernel", "gate"):
        assert found[path(model, "gated", kernel)] == (9 * 8, 9 * 16 / 4)


def test_recommend():
    model = network()
    keras_initlab.recommend(model).apply(seed=0)
    rows = {row.path: row for row in keras_initlab.recommend(model)}
    for name in ("gated", "again"):
        assert rows[path(model, name, "gate")].role == "gate"
    assert rows[path(model, "gated")].role == "hidden"
    # It reads what a ReLU leaves of a signal of unit variance.
    drawn = numbers(model.get_layer("gated").kernel).std()
    assert drawn == pytest.approx((2 / 72) ** 0.5, rel=0.1)
    # The second one reads a product: half of it, on average, and E[σ²] of its square.
    z = np.random.default_rng(0).normal(size=2**20)
    kept = np.mean(1 / (1 + np.exp(-z)) ** 2)
    drawn = numbers(model.get_layer("again").kernel).std()
    # So few units give some tenths more or less in the run that measures it.
    assert drawn == pytest.approx((1 / 144 / kept) ** 0.5, rel=0.35)
    x = images()
    for name in ("gated", "again"):
        z = value_of(model.get_layer(name), before(model, name, x))
        assert 0.6 < z.std() < 1.5


def test_calibrate():
    model, x = network(), images()
    report = keras_initlab.calibrate(model, x)
    assert all(row.is_changed for row in report)
    for name in ("gated", "again"):
        layer = model.get_layer(name)
        read = before(model, name, x)
        assert value_of(layer, read).std() == pytest.approx(1, rel=1e-3)
        assert gate_of(layer, read).std() == pytest.approx(1, rel=1e-3)


def test_each_kernel_has_the_bias_that_its_record_names():
    model, x = network(), images()
    keras_initlab.calibrate(model, x, center_bias=True)
    layer = model.get_layer("gated")
    gate = gate_of(layer, before(model, "gated", x)) + numbers(layer.gate_bias)
    value = value_of(layer, before(model, "gated", x)) + numbers(layer.bias)
    for product in (gate, value):
        np.testing.assert_allclose(product.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    assert np.abs(numbers(layer.gate_bias)).max() > 1e-3


def test_probe():
    model, x = network(), images()
    model.compile("sgd", "mse")
    report = keras_initlab.probe(model, x, np.zeros((64, 4), "float32"))
    layer = model.get_layer("gated")
    output = numbers(layer(before(model, "gated", x)))
    found = {one.path: one for one in report}[layer.path]
    assert found.output.std == pytest.approx(output.std(), rel=1e-3)
    paths = {path(model, "gated", kernel) for kernel in ("kernel", "gate")}
    assert {one.path for one in found.weights} >= paths


def test_callbacks():
    model, x = network(), images()
    model.compile("sgd", "mse")
    norms = callbacks.GradientNormLogger(every=1, alerts=False)
    recycler = callbacks.DormantUnitRecycler(tau=0.5, every=2, alerts=False)
    statistics = callbacks.ActivationStatsLogger(every=1, alerts=False)
    y = np.zeros((64, 4), "float32")
    loggers = [norms, recycler, statistics]
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=loggers)
    assert path(model, "gated", "gate") in norms.history["variables"]
    assert model.get_layer("gated").path in statistics.history["mean"]
    assert model.get_layer("first").path in recycler.history["recycled"]


def test_audit():
    model = network()
    advice = keras_initlab.recommend(model)
    advice.apply(seed=0)
    assert not keras_initlab.audit(model)
    layer = model.get_layer("gated")
    layer.gate.assign(layer.gate * 100)
    (finding,) = keras_initlab.audit(model)
    assert finding.path == layer.gate.path


def test_a_fresh_start():
    model = network()
    keras_initlab.recommend(model).apply(seed=0)
    drawn = numbers(model.get_layer("gated").kernel)
    keras_initlab.reinitialize(model, seed=1)
    again = numbers(model.get_layer("gated").kernel)
    assert np.abs(drawn - again).max() > 0
    limit = (6 / (9 * 8 + 9 * 16)) ** 0.5  # Glorot's, by Keras's rule
    assert 0.9 * limit < np.abs(again).max() <= limit
