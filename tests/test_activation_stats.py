import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles import BACKEND, MODES, USUAL, weights_of
from scipy.special import erf

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    GradientNormLogger,
)

pytestmark = pytest.mark.slow_on_jax

EXAMPLES, BATCH, STEPS = 22, 4, 6  # the last batch has 2 examples
# Of what `test_dense` shows in every mode, the other layers need the cheaper ones.
QUICK_MODES = [
    mode for mode in MODES if mode != ("eager" if BACKEND == "jax" else "xla")
]
KINDS = (
    "mean",
    "std",
    "min",
    "max",
    "zero_share",
    "preactivation_mean",
    "preactivation_std",
    "variance_preservation",
)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def relu(z):
    return np.maximum(z, 0.0)


def gelu(z):
    return 0.5 * z * (1 + erf(z / np.sqrt(2)))


def figures(given, before, after):
    """The oracle: all that is said of a layer, from what it got, computed, returned."""
    given, before, after = (np.asarray(a, "float64") for a in (given, before, after))
    own = [after.mean(), after.std(), after.min(), after.max(), np.mean(after == 0)]
    spread = before.std() / given.std() if given.std() > 0 else 0.0
    return dict(zip(KINDS, [*own, before.mean(), before.std(), spread], strict=True))


def watch(model, *data, **arguments):
    logger = ActivationStatsLogger(
        arguments.pop("every", 1), histograms=arguments.pop("histograms", False)
    )
    callbacks = [*arguments.pop("callbacks", []), logger]
    arguments = {"batch_size": BATCH, "shuffle": False} | arguments
    model.fit(*data, verbose=0, callbacks=callbacks, **arguments)
    return logger.history


def still(inputs, outputs, **mode):
    """A model that fit does not change."""
    model = keras.Model(inputs, outputs)
    model.compile(optimizers.SGD(0.0), "mse", **(mode or MODES[USUAL]))
    return model


def zeros_for(model, count=EXAMPLES):
    return np.zeros((count, *model.output_shape[1:]), "float32")


def assert_figures(history, layer, expected, observation=0, rtol=1e-5, atol=1e-6):
    path = getattr(layer, "path", layer)
    found = {kind: history[kind][path][observation] for kind in KINDS}
    wanted = [expected[kind] for kind in KINDS]
    np.testing.assert_allclose(list(found.values()), wanted, rtol, atol)


def affine(layer, x):
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    return np.asarray(x, "float64") @ kernel + bias


def dense(mode):
    x = keras.Input((5,))
    first, last = layers.Dense(8, "relu"), layers.Dense(3)
    model = still(x, last(first(x)), **mode)
    first.bias.assign(np.linspace(-2, 1, 8))
    return model, first, last


@pytest.mark.once_a_day
@pytest.mark.parametrize("mode", MODES)
def test_dense(mode):
    model, first, last = dense(MODES[mode])
    data = normal(EXAMPLES, 5)
    history = watch(model, data, zeros_for(model))
    assert history["step"].tolist() == list(range(STEPS))
    assert history["epoch"].tolist() == [0] * STEPS
    assert list(history["mean"]) == [first.path, last.path]
    for step in range(STEPS):
        x = data[step * BATCH : (step + 1) * BATCH]
        z = affine(first, x)
        assert_figures(history, first, figures(x, z, relu(z)), step)
        out = affine(last, relu(z))
        assert_figures(history, last, figures(relu(z), out, out), step)
    assert 0.1 < history["zero_share"][first.path][0] < 0.9


@pytest.mark.parametrize("mode", QUICK_MODES)
def test_convolution_and_separate_activation(mode):
    x = keras.Input((5, 6, 2))
    convolution, after = layers.Conv2D(4, (2, 3)), layers.Activation("tanh")
    out = layers.GlobalAveragePooling2D()(after(convolution(x)))
    model = still(x, out, **MODES[mode])
    data = normal(EXAMPLES, 5, 6, 2)
    history = watch(model, data, zeros_for(model), batch_size=EXAMPLES)
    kernel, bias = (w.astype("float64") for w in convolution.get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(data, (2, 3), (1, 2))
    z = np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + bias
    assert_figures(history, convolution, figures(data, z, z))
    (path,) = (path for path in history["mean"] if path != convolution.path)
    assert_figures(history, path, figures(z, z, np.tanh(z)))


@pytest.mark.parametrize("mode", QUICK_MODES)
def test_a_block_of_a_transformer_without_attention(mode):
    x = keras.Input((6, 8))
    normalize = layers.LayerNormalization(epsilon=1e-3)
    wide, narrow = layers.Dense(16, "gelu"), layers.Dense(8)
    z = layers.Add()([x, narrow(wide(normalize(x)))])
    model = still(x, z, **MODES[mode])
    data = normal(EXAMPLES, 6, 8)
    history = watch(model, data, zeros_for(model), batch_size=EXAMPLES)
    data = data.astype("float64")
    centered = data - data.mean(-1, keepdims=True)
    given = centered / np.sqrt(data.var(-1, keepdims=True) + 1e-3)
    z = affine(wide, given)
    assert_figures(history, wide, figures(given, z, gelu(z)))
    out = affine(narrow, gelu(z))
    assert_figures(history, narrow, figures(gelu(z), out, out))
    assert set(history["mean"]) == {wide.path, narrow.path}


def test_a_shared_layer_is_seen_in_both_calls():
    layer = layers.Dense(8, "relu")
    a, b = keras.Input((5,)), keras.Input((7, 5))
    each = [layer(a), layers.GlobalMaxPooling1D()(layer(b))]
    model = still([a, b], layers.Add()(each))
    data = [normal(EXAMPLES, 5), 3 + 2 * normal(EXAMPLES, 7, 5, seed=2)]
    history = watch(model, data, zeros_for(model), batch_size=EXAMPLES)
    x = np.concatenate([part.reshape(-1, 5) for part in data])
    z = affine(layer, x)
    assert_figures(history, layer, figures(x, z, relu(z)))


class Snapshots(keras.callbacks.Callback):
    """Keeps the weights that every step starts from."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append(weights_of(self.model))


@pytest.mark.parametrize("every", [1, 4])
def test_equals_a_replay_of_training(every):
    model, first, last = dense(MODES[USUAL])
    model.compile(optimizers.Adam(0.1), "mse", **MODES[USUAL])
    data, y = normal(EXAMPLES, 5), normal(EXAMPLES, 3, seed=2)
    before = Snapshots()
    history = watch(model, data, y, every=every, epochs=2, callbacks=[before])
    steps = [s for s in range(2 * STEPS) if s % STEPS == 0 or s % every == 0]
    assert history["step"].tolist() == steps
    for i, step in enumerate(steps):
        batch = step % STEPS
        x = data[batch * BATCH : (batch + 1) * BATCH].astype("float64")
        k1, b1, k2, b2 = before.weights[step]
        z = x @ k1 + b1
        out = relu(z) @ k2 + b2
        assert_figures(history, first, figures(x, z, relu(z)), i, atol=1e-5)
        assert_figures(history, last, figures(relu(z), out, out), i, atol=1e-5)
    assert np.ptp(history["std"][last.path]) > 0.1


# --- Masks ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", QUICK_MODES)
def test_masked_positions_are_left_out(mode, policy):
    x = keras.Input((6, 5))
    wide, after = layers.Dense(8, "relu", dtype=policy), layers.Activation("tanh")
    last = layers.Dense(3, dtype=policy)
    z = layers.Masking(dtype=policy)(x)
    z = layers.GlobalAveragePooling1D()(last(after(wide(z))))
    model = still(x, z, **MODES[mode])
    wide.bias.assign(np.linspace(-1, 5, 8))
    data = normal(EXAMPLES, 6, 5)
    data[np.arange(6) >= np.arange(EXAMPLES)[:, None] % 5 + 1] = 0.0
    history = watch(model, data, zeros_for(model), batch_size=EXAMPLES)
    kept = np.any(data != 0, axis=-1)
    assert 0 < kept.sum() < kept.size
    given = data[kept]
    z = affine(wide, given)
    bounds = {"rtol": 1e-5} if policy == "float32" else {"rtol": 0.02, "atol": 0.01}
    assert_figures(history, wide, figures(given, z, relu(z)), **bounds)
    (path,) = set(history["mean"]) - {wide.path, last.path}
    t = np.tanh(relu(z))
    assert_figures(history, path, figures(relu(z), relu(z), t), **bounds)
    out = affine(last, t)
    assert_figures(history, last, figures(t, out, out), **bounds)
    assert given.std() > 1.05 * data.std()  # so that a mask that is ignored shows


def test_an_embedding_masks_and_its_input_is_no_signal():
    x = keras.Input((6,), dtype="int32")
    embedding, wide = layers.Embedding(9, 4, mask_zero=True), layers.Dense(8, "relu")
    model = still(x, layers.GlobalAveragePooling1D()(wide(embedding(x))))
    tokens = np.random.default_rng(0).integers(1, 9, (EXAMPLES, 6))
    tokens[:, 4:] = 0
    history = watch(model, tokens, zeros_for(model), batch_size=EXAMPLES)
    (table,) = embedding.get_weights()
    z = table[tokens[:, :4]]
    expected = figures(z, z, z) | {"variance_preservation": np.nan}
    assert_figures(history, embedding, expected)
    assert_figures(history, wide, figures(z, affine(wide, z), relu(affine(wide, z))))


def test_recurrent_layers_keep_the_mask_and_hide_their_pre_activations():
    x = keras.Input((6, 5))
    recurrent, wide = layers.LSTM(4, return_sequences=True), layers.Dense(3)
    sequence = recurrent(layers.Masking()(x))
    model = still(x, [sequence, wide(sequence)])
    data = normal(EXAMPLES, 6, 5)
    data[:, 4:] = 0
    y = [np.zeros((EXAMPLES, 6, units), "float32") for units in (4, 3)]
    history = watch(model, data, y, batch_size=EXAMPLES)
    hidden = ops.convert_to_numpy(model(data)[0])[:, :4]
    expected = figures(data[:, :4], hidden, hidden)
    hidden_kinds = [kind for kind in KINDS if kind.startswith(("pre", "var"))]
    assert_figures(history, recurrent, expected | dict.fromkeys(hidden_kinds, np.nan))
    out = affine(wide, hidden)
    assert_figures(history, wide, figures(hidden, out, out))


# --- Precision -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_low_precision_is_summed_in_float32(policy):
    x = keras.Input((64,))
    layer = layers.Dense(64, "relu", dtype=policy)
    model = still(x, layers.Dense(1)(layer(x)))
    layer.bias.assign(np.full(64, 3.0))
    data = normal(512, 64)
    history = watch(model, data, zeros_for(model, 512), batch_size=512)
    z = affine(layer, data)
    expected = figures(data, z, relu(z))
    assert_figures(history, layer, expected, rtol=0.02, atol=0.01)
    # 32,768 values of mean 3 would not add up in float16.
    np.testing.assert_allclose(history["mean"][layer.path], expected["mean"], 2e-3)


def test_a_mean_far_from_0_leaves_the_deviation():
    x = keras.Input((8,))
    layer = layers.Dense(8)
    model = still(x, layer(x))
    layer.set_weights([np.eye(8), np.zeros(8)])
    data = (1e3 + 1e-2 * normal(2000, 8).astype("float64")).astype("float32")
    history = watch(model, data, zeros_for(model, 2000), batch_size=2000)
    exact = data.astype("float64")
    np.testing.assert_allclose(history["std"][layer.path], exact.std(), 1e-4)
    np.testing.assert_allclose(history["mean"][layer.path], exact.mean(), 1e-7)
    np.testing.assert_allclose(history["variance_preservation"][layer.path], 1, 1e-4)
    naive = np.mean(np.square(data)) - np.square(np.mean(data))
    assert abs(naive - exact.var()) > 0.1 * exact.var()  # as the usual formula loses


def test_constant_input_and_single_numbers():
    x = keras.Input((3,))
    first, last = layers.Dense(4), layers.Dense(1)
    model = still(x, last(first(x)))
    data = np.full((1, 3), 2.0, "float32")
    history = watch(model, data, zeros_for(model, 1))
    z = affine(first, data)
    assert_figures(history, first, figures(data, z, z))
    assert history["variance_preservation"][first.path].tolist() == [0.0]
    assert history["std"][last.path].tolist() == [0.0]


def test_nan_is_nan():
    model, first, _ = dense(MODES["eager"])
    first.bias.assign([np.nan] + [0.0] * 7)
    history = watch(model, normal(EXAMPLES, 5), zeros_for(model))
    assert np.isnan(history["mean"][first.path]).all()
    assert np.isnan(history["std"][first.path]).all()


# --- What cannot be seen -------------------------------------------------------------


class Two(layers.Layer):
    """Returns a tuple, and applies its activation to one of them."""

    def __init__(self):
        super().__init__()
        self.activation = keras.activations.relu

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, x):
        z = ops.matmul(x, self.kernel)
        return self.activation(z), z


@pytest.mark.parametrize("mode", QUICK_MODES)
def test_a_layer_that_returns_a_tuple(mode):
    x = keras.Input((5,))
    both, last = Two(), layers.Dense(3)
    model = still(x, last(layers.Add()(both(x))), **MODES[mode])
    data = normal(EXAMPLES, 5)
    lines = []
    logger = ActivationStatsLogger(1, alerts=lines.append)
    model.fit(data, zeros_for(model), batch_size=32, verbose=0, callbacks=[logger])
    history = logger.history
    z = data @ both.get_weights()[0]
    expected = figures(data, z, z) | dict.fromkeys(KINDS[:5], np.nan)
    assert_figures(history, both, expected)
    out = affine(last, relu(z) + z)
    assert_figures(history, last, figures(relu(z) + z, out, out))
    assert lines == []


# --- Histograms ----------------------------------------------------------------------


def counts(values, edges):
    """The oracle: bins open at both ends; NaN in none."""
    edges = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
    return np.histogram(values[~np.isnan(values)], edges)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "edges", [True, [-1.0, 0.0, 0.5, 2.0], np.array([0.0, 1.0])], ids=["50", "3", "1"]
)
def test_histograms(edges, mode):
    model, first, last = dense(MODES[mode])
    data = 4 * normal(EXAMPLES, 5)
    history = watch(
        model, data, zeros_for(model), histograms=edges, batch_size=EXAMPLES
    )
    expected = np.linspace(-5, 5, 51) if edges is True else np.asarray(edges)
    np.testing.assert_array_equal(history["edges"], expected)
    z = affine(first, data).astype("float32")
    out = affine(last, relu(z))
    for layer, values in ((first, relu(z)), (last, out)):
        (found,) = history["histogram"][layer.path]
        assert found.tolist() == counts(values, expected).tolist()
        assert found.sum() == values.size
    assert np.abs(out).max() > 5


def test_histograms_leave_out_nan_and_what_is_masked():
    x = keras.Input((4, 3))
    layer = layers.Dense(3)
    model = still(x, layer(layers.Masking()(x)), **MODES["eager"])
    layer.set_weights([np.eye(3), np.zeros(3)])
    data = normal(EXAMPLES, 4, 3)
    data[:, 2:] = 0
    history = watch(
        model, data[1:], np.zeros((21, 4, 3)), histograms=[-1, 0, 1], batch_size=32
    )
    (found,) = history["histogram"][layer.path]
    assert found.tolist() == counts(data[1:, :2], np.array([-1, 0, 1])).tolist()
    layer.set_weights([np.eye(3), np.array([np.nan, 0.0, 0.0])])
    history = watch(
        model, data[1:], np.zeros((21, 4, 3)), histograms=[-1, 0, 1], batch_size=32
    )
    (found,) = history["histogram"][layer.path]
    assert found.tolist() == counts(data[1:, :2, 1:], np.array([-1, 0, 1])).tolist()


def test_two_loggers_keep_their_own_bins():
    model, first, _ = dense(MODES["eager"])
    loggers = [
        ActivationStatsLogger(1, histograms=edges) for edges in (True, [0, 1, 2])
    ]
    model.fit(normal(8, 5), zeros_for(model, 8), verbose=0, callbacks=loggers)
    shapes = [one.history["histogram"][first.path].shape for one in loggers]
    assert shapes == [(1, 50), (1, 2)]


# --- The callback --------------------------------------------------------------------


def test_log_to_receives_every_figure_and_histogram():
    class Log:
        def __init__(self):
            self.metrics, self.histograms = [], []

        def __call__(self, metrics, step):
            self.metrics.append((step, metrics))

        def log_histograms(self, histograms, step):
            self.histograms.append((step, histograms))

    model, first, last = dense(MODES["eager"])
    log, calls = Log(), []
    logger = ActivationStatsLogger(
        4, log_to=[log, lambda *call: calls.append(call)], histograms=[-1, 0, 1]
    )
    result = model.fit(
        normal(EXAMPLES, 5), zeros_for(model), batch_size=BATCH, verbose=0,
        callbacks=[logger],
    )  # fmt: skip
    assert set(result.history) == {"loss"}
    history = logger.history
    expected = {
        f"{kind if kind[:3] in ('pre', 'var') else 'activation_' + kind}/{path}": array
        for kind in KINDS
        for path, array in history[kind].items()
    }
    assert [step for step, _ in log.metrics] == history["step"].tolist() == [0, 4]
    for i, (_, metrics) in enumerate(log.metrics):
        assert metrics == {name: array[i] for name, array in expected.items()}
    assert [metrics for metrics, _ in calls] == [metrics for _, metrics in log.metrics]
    assert [step for step, _ in log.histograms] == [0, 4]
    for i, (_, found) in enumerate(log.histograms):
        assert set(found) == {f"activation/{one.path}" for one in (first, last)}
        for layer in (first, last):
            numbers, edges = found[f"activation/{layer.path}"]
            assert edges.tolist() == [-1, 0, 1]
            assert numbers.tolist() == history["histogram"][layer.path][i].tolist()


def test_history_grows_over_fits_and_begins_anew_with_another_model():
    model, first, _ = dense(MODES["eager"])
    logger = ActivationStatsLogger(1, layers=[first], histograms=True)
    assert logger.history["mean"] == logger.history["histogram"] == {}
    for _ in range(2):
        model.fit(normal(8, 5), zeros_for(model, 8), verbose=0, callbacks=[logger])
    assert logger.history["step"].tolist() == [0, 0]
    assert {k: a.shape for k, a in logger.history["std"].items()} == {first.path: (2,)}
    assert logger.history["histogram"][first.path].shape == (2, 50)
    other, hidden, last = dense(MODES["eager"])
    logger.layers = None
    other.fit(normal(8, 5), zeros_for(other, 8), verbose=0, callbacks=[logger])
    assert list(logger.history["std"]) == [hidden.path, last.path]


def test_a_model_that_the_fit_builds():
    model = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1)])
    model.compile("sgd", "mse", **MODES["eager"])
    history = watch(model, normal(8, 5), np.zeros((8, 1)), epochs=2)
    assert list(history["mean"]) == [layer.path for layer in model.layers]
    assert not np.isnan([*history["mean"].values()]).any()


def test_verbose_prints_a_line_an_epoch(capsys):
    model, first, last = dense(MODES["eager"])
    last.set_weights([np.zeros((8, 3)), np.zeros(3)])
    logger = ActivationStatsLogger(1, verbose=1)
    model.fit(normal(8, 5), zeros_for(model, 8), verbose=0, callbacks=[logger])
    std = logger.history["std"][first.path][-1]
    assert capsys.readouterr().out == (
        f"epoch 1: activation std from 0 ({last.path}) to {std:.3g} ({first.path})\n"
    )


class Counting(layers.Layer):
    """Counts how often Python runs it: once a trace, once a step if eager."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def call(self, x):
        self.count += 1
        return x


class Sizes(keras.callbacks.Callback):
    """How many objects Python has, after some of the steps."""

    def __init__(self, at):
        super().__init__()
        self.at, self.sizes = at, []

    def on_train_batch_end(self, batch, logs=None):
        if batch in self.at:
            gc.collect()
            self.sizes.append(len(gc.get_objects()))


@pytest.mark.parametrize("steps", [300, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_long_training_neither_traces_again_nor_grows(steps):
    counter = Counting()
    model = keras.Sequential(
        [keras.Input((6,)), counter, layers.Dense(4, "relu"), layers.Dense(2)]
    )
    model.compile("sgd", "mse", **MODES[USUAL])
    x, y = normal(steps, 6), normal(steps, 2)
    model.evaluate(x[:1], y[:1], verbose=0)  # builds what Keras builds once
    counter.count = 0
    watching = [
        GradientNormLogger(1, clipped=True, updates=True),
        DeadReLULogger(1, threshold=0.01),
        ActivationStatsLogger(1, histograms=True),
    ]
    sizes = Sizes((99, steps - 1))
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[*watching, sizes])
    assert len(watching[2].history["step"]) == steps
    assert sizes.sizes[1] - sizes.sizes[0] < (steps - 100) / 2  # less than one a step
    if BACKEND != "torch":
        assert counter.count == 1


LOADING = """
import sys
sys.modules["keras_initlab"] = None
import keras, numpy as np
folder = sys.argv[1]
x, expected = np.load(folder + "/x.npy"), np.load(folder + "/expected.npy")
model = keras.models.load_model(folder + "/model.keras")
np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
other = keras.models.clone_model(model)
other.load_weights(folder + "/model.weights.h5")
np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
"""


@pytest.mark.slow
def test_checkpoints_of_an_observed_fit_load_without_the_package(tmp_path):
    model, *_ = dense(MODES[USUAL])
    model.compile(optimizers.Adam(0.01), "mse", **MODES[USUAL])
    save = keras.callbacks.ModelCheckpoint
    model.fit(
        normal(EXAMPLES, 5),
        normal(EXAMPLES, 3),
        verbose=0,
        callbacks=[
            save(tmp_path / "model.keras"),
            save(tmp_path / "model.weights.h5", save_weights_only=True),
            GradientNormLogger(1),
            DeadReLULogger(1),
            ActivationStatsLogger(1, histograms=True),
        ],
    )
    x = normal(EXAMPLES, 5)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "expected.npy", model.predict(x, verbose=0))
    command = [sys.executable, "-c", LOADING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "bad",
    ["yes", 3, [1.0], [1.0, 1.0], [0.0, np.inf], [[0, 1]], [2, 1], None],
    ids=repr,
)
def test_bad_edges(bad):
    with pytest.raises(ValueError, match=r"`histograms` must be True.*histograms="):
        ActivationStatsLogger(histograms=bad)


def test_unknown_layers():
    model, *_ = dense(MODES["eager"])
    logger = ActivationStatsLogger(layers=["third"])
    with pytest.raises(ValueError, match=r"`layers` must name.*layers=\['third'\]"):
        model.fit(normal(8, 5), zeros_for(model, 8), verbose=0, callbacks=[logger])
