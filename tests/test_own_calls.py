"""Layers with a `call` of their own are heard, and compute what they do unheard."""

import cProfile
import functools
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from own_calls import KINDS, factor

import keras_initlab as initlab
from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)

MODES = {"compiled": {"jit_compile": False}, "eager": {"run_eagerly": True}}
LOGGERS = {
    "gradients": lambda: GradientNormLogger(1, alerts=False),
    "dead": lambda: DeadReLULogger(1, alerts=False, threshold=0.01),
    "statistics": lambda: ActivationStatsLogger(1, alerts=False),
    "recycler": lambda: DormantUnitRecycler(tau=0.0, every=1, alerts=False),
}


def numbers(values):
    return np.array(ops.convert_to_numpy(values))


def relu(z):
    return np.maximum(z, 0)


def normal(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def looking_model():
    """A dense layer that can be recycled, and one layer of each kind behind it."""
    keras.utils.set_random_seed(3)
    first = layers.Dense(16, "relu", bias_initializer="ones")
    own = [kind(8, "relu") for kind in KINDS.values()]
    each = [keras.Input((6,)), first, layers.Dense(8), *own, layers.Dense(1)]
    return keras.Sequential(each)


def by_hand(model, x):
    """The pre-activations of all layers in order, and each one's weights."""
    found = []
    factors = [1.0, 1.0, *map(factor, KINDS), 1.0]
    for layer, times in zip(model.layers, factors, strict=True):
        z = x @ numbers(layer._kernel) + numbers(layer.bias)
        found.append(z)
        is_linear = layer.activation is keras.activations.linear
        x = times * (z if is_linear else relu(z))
    return found


def trained(mode, callbacks):
    model = looking_model()
    model.compile(keras.optimizers.SGD(1e-4), "mse", **MODES[mode])
    x, y = normal(16, 6), np.ones((16, 1), "float32")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.once_a_day
@pytest.mark.seconds
@pytest.mark.parametrize(
    "names", [list(LOGGERS), *([name] for name in LOGGERS)], ids="-".join
)
@pytest.mark.parametrize("mode", MODES)
def test_training_is_bit_identical(mode, names):
    loggers = {name: LOGGERS[name]() for name in names}
    plain, observed = trained(mode, []), trained(mode, list(loggers.values()))
    for one, other in zip(plain.variables, observed.variables, strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other), one.path)
    if "recycler" in loggers:
        recycled = loggers["recycler"].history["recycled"]
        assert recycled
        assert not any(len(units) for each in recycled.values() for units in each)


@pytest.mark.parametrize("mode", MODES)
def test_pre_activations_are_heard(mode):
    logger = LOGGERS["statistics"]()
    model = looking_model()
    expected = by_hand(model, normal(16, 6))
    model.compile(keras.optimizers.SGD(0.0), "mse", **MODES[mode])
    y = np.ones((16, 1), "float32")
    model.fit(normal(16, 6), y, batch_size=16, verbose=0, callbacks=[logger])
    for layer, z in zip(model.layers, expected, strict=True):
        for kind, figure in {"mean": z.mean(), "std": z.std()}.items():
            found = logger.history[f"preactivation_{kind}"][layer.path]
            np.testing.assert_allclose(found, figure, rtol=1e-4, atol=1e-6)


def test_probe_hears_what_the_model_computes():
    model = looking_model()
    model.compile("sgd", "mse")
    x, y = normal(16, 6), np.ones((16, 1), "float32")
    report = initlab.probe(model, x, y)
    expected = by_hand(model, x)
    np.testing.assert_allclose(report.loss, np.mean((expected[-1] - 1) ** 2), rtol=1e-4)
    found = {layer.path: layer for layer in report}
    for layer, z in zip(model.layers, expected, strict=True):
        seen = found[layer.path].preactivation
        np.testing.assert_allclose((seen.mean, seen.std), (z.mean(), z.std()), 1e-4)


def test_calibrate_scales_what_the_model_computes():
    model = looking_model()
    x = normal(64, 6)
    before = by_hand(model, x)
    table = {row.path: row for row in initlab.calibrate(model, x).kernels}
    kernels = [layer._kernel for layer in model.layers]
    rows = [table[kernel.path] for kernel in kernels]
    assert all(row.is_changed for row in rows), [row.note for row in rows]
    assert rows[0].std_before == pytest.approx(before[0].std(), rel=1e-5)
    *hidden, last = by_hand(model, x)
    np.testing.assert_allclose([z.std() for z in hidden], 1, rtol=1e-4)
    # The last one is a single unit, whose mean counts where it is larger.
    sizes = last.std(), np.sqrt(np.mean(np.square(last)))
    assert min(abs(size - 1) for size in sizes) < 1e-4
    found, expected = numbers(model(x)), by_hand(model, x)[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- What an activation may be -------------------------------------------------------


class Sharing:
    """Callable objects, of which each calls a method."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, z, *, power=1):
        return self.apply(z)

    def apply(self, z):
        return ops.maximum(z, self.slope * z)


def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def sloped(slope, z):
    return ops.maximum(z, slope * z)


def nested(z, depth=2):
    """Calls itself, on something else."""
    return nested(z + 100.0, depth - 1) - 100.0 if depth else ops.maximum(z, 0.1 * z)


ACTIVATIONS = {
    "function": lambda: keras.activations.leaky_relu,
    "layer": lambda: layers.LeakyReLU(0.1),
    "object": lambda: Sharing(0.1),
    "method": lambda: Sharing(0.1).apply,
    "partial": lambda: functools.partial(sloped, 0.1),
    "partial of a method": lambda: functools.partial(Sharing(0.1).__call__, power=2),
    "decorated": lambda: decorated(nested),
    "recursive": lambda: nested,
    "lambda": lambda: lambda *z: sloped(0.1, z[0]),
    "linear": lambda: None,
}


class Own(layers.Dense):
    """Calls an activation of the same kind on something else, too."""

    def __init__(self, *args, other=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.other = keras.activations.get(other)
        self.inner = layers.Dense(3, self.activation)

    def build(self, shape):
        super().build(shape)
        self.inner.build(shape)

    def call(self, x):
        y = self.activation(ops.matmul(x, self.kernel) + self.bias)
        return y + 0.0 * (ops.sum(self.inner(x)) + ops.sum(self.other(x)))


@pytest.mark.seconds
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_kind_of_activation_is_heard(kind):
    other = keras.activations.relu
    if kind in ("layer", "object", "method", "decorated"):  # another one of its code
        other = decorated(ops.tanh) if kind == "decorated" else ACTIVATIONS[kind]()
    own = Own(8, ACTIVATIONS[kind](), other=other)
    model = keras.Sequential([keras.Input((6,)), own, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = normal(16, 6), np.ones((16, 1), "float32")
    logger = LOGGERS["statistics"]()
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[logger])
    z = x @ numbers(own.kernel)
    found = logger.history["preactivation_std"][own.path]
    np.testing.assert_allclose(found, [z.std()], rtol=1e-4)
    initlab.calibrate(model, x, overwrite=True)
    np.testing.assert_allclose((x @ numbers(own.kernel)).std(), 1, rtol=1e-4)


# --- Whoever else looks at functions -------------------------------------------------


def heard_std(model, x):
    """What the statistics say of a model's layers, by path."""
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    logger = LOGGERS["statistics"]()
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[logger])
    return {k: v[0] for k, v in logger.history["preactivation_std"].items()}


class Profiled(KINDS["is"]):
    """Notes which profile function is set while it runs."""

    def call(self, x):
        self.seen = sys.getprofile()
        return super().call(x)


def profiled_model():
    own = Profiled(8, "relu")
    return own, keras.Sequential([keras.Input((6,)), own])


def test_a_profile_function_goes_on_hearing():
    own, model = profiled_model()
    events = []

    def profile(frame, event, argument):
        if event == "call" and frame.f_code is Profiled.call.__code__:
            events.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        found = heard_std(model, normal(16, 6))
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    z = normal(16, 6) @ numbers(own.kernel)
    np.testing.assert_allclose(found[own.path], z.std(), rtol=1e-4)
    assert own.seen is not None
    assert own.seen is not profile
    assert "call" in events


def test_a_profiler_in_c_is_left_alone():
    own, model = profiled_model()
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        found = heard_std(model, normal(16, 6))
    finally:
        profiler.disable()
    assert any(entry.code is Profiled.call.__code__ for entry in profiler.getstats())
    is_by_profile = sys.version_info < (3, 12)
    assert np.isnan(found[own.path]) == is_by_profile


class Failing(KINDS["is"]):
    fails = False

    def call(self, x):
        return 1 / 0 if self.fails else super().call(x)


def test_a_failing_call_leaves_no_profile_function():
    own = Failing(8, "relu")
    model = keras.Sequential([keras.Input((6,)), own])
    model.compile("sgd", "mse", run_eagerly=True)
    logger = LOGGERS["statistics"]()
    model.fit(normal(16, 6), normal(16, 8), verbose=0, callbacks=[logger])
    own.fails = True
    with pytest.raises(ZeroDivisionError):
        model.fit(normal(16, 6), normal(16, 8), verbose=0, callbacks=[logger])
    assert sys.getprofile() is None


class Compiled(layers.Layer):
    """Runs a layer of Keras's in one graph of the user's own."""

    def build(self, shape):
        import torch

        self.inner = layers.Dense(8, "relu")
        self.inner.build(shape)
        self.run = torch.compile(
            lambda x: self.inner(x), backend="eager", fullgraph=True
        )

    def call(self, x):
        return self.run(x)


class Compiling(keras.Model):
    """A subclassed model, which runs on no symbolic tensors."""

    def __init__(self):
        super().__init__()
        self.own, self.last = Compiled(), layers.Dense(1)
        self.own.build((None, 6))

    def call(self, x):
        return self.last(self.own(x))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="compiles with PyTorch")
def test_what_the_user_compiles_stays_one_graph():
    losses = []
    for loggers in ([], [LOGGERS["statistics"]()]):
        keras.utils.set_random_seed(0)
        model = Compiling()
        model.compile("sgd", "mse", jit_compile=False)
        x, y = normal(16, 6), np.ones((16, 1), "float32")
        losses += model.fit(x, y, verbose=0, callbacks=loggers).history["loss"]
    assert losses[0] == losses[1]


# --- What a calibration cannot hear --------------------------------------------------


class Silent(layers.Dense):
    def call(self, x):
        return ops.relu(ops.matmul(x, self.kernel) + self.bias)


class Standardized(layers.Dense):
    """Its kernel's scale does not matter."""

    def call(self, x):
        return self.activation(ops.matmul(x, self.kernel / ops.norm(self.kernel)))


class Shifted(layers.Embedding):
    def call(self, x):
        return 3 * super().call(x) + 1


class Separable(layers.SeparableConv1D):
    def call(self, x):
        return super().call(2 * x)


def test_a_kernel_that_is_not_heard_is_left():
    own, last = Standardized(8, "tanh"), layers.Dense(4)
    model = keras.Sequential([keras.Input((6,)), own, last])
    x, former = normal(64, 6), numbers(own.kernel)
    output = numbers(own(x))
    calibrated = initlab.calibrate(model, x)
    assert calibrated.kernels[0].note == "no product with it was heard"
    assert not calibrated.kernels[0].is_changed
    assert calibrated.changed == (last.kernel.path,)
    np.testing.assert_array_equal(numbers(own.kernel), former)
    np.testing.assert_allclose((output @ numbers(last.kernel)).std(), 1, rtol=1e-4)


def test_a_kernel_is_heard_where_no_activation_is_called():
    own, last = Silent(8, "tanh"), layers.Dense(4)
    model = keras.Sequential([keras.Input((6,)), own, last])
    x = normal(64, 6)
    assert len(initlab.calibrate(model, x).changed) == 2
    z = x @ numbers(own.kernel)
    np.testing.assert_allclose(z.std(), 1, rtol=1e-4)
    np.testing.assert_allclose((relu(z) @ numbers(last.kernel)).std(), 1, rtol=1e-4)


def test_tables_and_depthwise_kernels_of_an_own_call_are_heard():
    table, separable = Shifted(50, 16), Separable(8, 3, activation="relu")
    model = keras.Sequential([keras.Input((6,), dtype="int32"), table, separable])
    tokens = np.random.default_rng(0).integers(0, 50, (64, 6))
    rows = {row.path: row for row in initlab.calibrate(model, tokens).kernels}
    assert all(row.is_changed for row in rows.values())
    looked_up = numbers(table.embeddings)[tokens]
    np.testing.assert_allclose(looked_up.std(), 1, rtol=1e-4)
    plain = layers.SeparableConv1D(8, 3)
    inputs = 2 * numbers(table(tokens))
    plain.build(inputs.shape)
    plain.set_weights(separable.get_weights())
    np.testing.assert_allclose(numbers(plain(inputs)).std(), 1, rtol=1e-4)


class Dropping(layers.Dense):
    """Has a layer inside, a state and randomness of its own."""

    def build(self, shape):
        self.inside = layers.Dense(shape[-1], "tanh")
        self.inside.build(shape)
        self.dropout = layers.Dropout(0.5)
        self.norm = layers.BatchNormalization(momentum=0.5)
        self.norm.build(shape)
        super().build(shape)

    def call(self, x, training=None):
        x = self.norm(self.inside(x), training=training)
        x = self.dropout(x, training=training)
        return self.activation(ops.matmul(x, self.kernel) + self.bias)


@pytest.mark.parametrize("training", [False, True])
def test_an_own_call_is_rehearsed_without_a_trace(training):
    own = Dropping(32, "relu")
    model = keras.Sequential([keras.Input((16,)), own, layers.Dense(4)])
    x = normal(512, 16)
    kernels = {own.kernel.path, own.inside.kernel.path, model.layers[1].kernel.path}
    rest = {v.path: numbers(v) for v in model.variables if v.path not in kernels}
    calibrated = initlab.calibrate(model, x, training=training)
    assert set(calibrated.changed) == kernels
    for variable in model.variables:
        if variable.path in rest:
            np.testing.assert_array_equal(numbers(variable), rest[variable.path])
    z = x @ numbers(own.inside.kernel)
    np.testing.assert_allclose(z.std(), 1, rtol=1e-4)
    inner = numbers(own.norm(own.inside(x), training=training))
    if not training:
        z = inner @ numbers(own.kernel)
        np.testing.assert_allclose(z.std(), 1, rtol=1e-4)
