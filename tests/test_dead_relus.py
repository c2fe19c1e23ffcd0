import keras
import numpy as np
import pytest
from custom_training import Gan
from keras import layers, optimizers
from oracles import BACKEND, MODES, USUAL, needs_steps_per_execution, weights_of
from scipy.special import expit, ndtr

from keras_initlab.callbacks import DeadReLULogger

EXAMPLES, BATCH, UNITS = 22, 4, 8  # the last batch has 2 examples
STEPS = 6
SHAPES = {"dense": (5,), "convolution": (5, 6, 2)}


def inputs(kind="dense", seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(EXAMPLES, *SHAPES[kind])).astype("float32")


def targets():
    return np.random.default_rng(2).normal(size=(EXAMPLES, 1)).astype("float32")


def kernel_layer(kind, activation=None):
    if kind == "dense":
        return layers.Dense(UNITS, activation)
    return layers.Conv2D(UNITS, (2, 3), activation=activation)


# What the kernel layer has as its activation, and what makes what comes after it.
STYLES = {
    "activation": ("relu", layers.Identity),
    "relu6": ("relu6", layers.Identity),
    "Activation": (None, lambda: layers.Activation("relu")),
    "ReLU": (None, layers.ReLU),
    "bounded ReLU": (None, lambda: layers.ReLU(max_value=6)),
    "raw": (None, lambda: keras.ops.relu),
    "function": (lambda z: keras.ops.maximum(z, 0.0), layers.Identity),
}


def network(kind="dense", style="activation", normalized=False):
    activation, after = STYLES[style]
    x = keras.Input(SHAPES[kind])
    z = kernel_layer(kind, activation)(x)
    if normalized:
        z = layers.BatchNormalization()(z)
    return keras.Model(x, layers.Dense(1)(layers.Flatten()(after()(z))))


def affine(x, kernel, bias):
    """Pre-activations of a dense or a convolution layer, in float64."""
    x, kernel = np.asarray(x, "float64"), np.asarray(kernel, "float64")
    if kernel.ndim == 2:
        return x @ kernel + bias
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + bias


def normalize(z, gamma, beta):
    axes = tuple(range(z.ndim - 1))
    return gamma * (z - z.mean(axes)) / np.sqrt(z.var(axes) + 1e-3) + beta


def largest(z):
    """The largest pre-activation of every unit, none too near 0 to judge."""
    peaks = z.max(axis=tuple(range(z.ndim - 1)))
    assert np.all(np.abs(peaks) > 1e-5)
    return peaks


def dead_of(*pre_activations):
    """The units that are positive nowhere."""
    peaks = np.max([largest(z) for z in pre_activations], axis=0)
    return np.flatnonzero(peaks <= 0)


def batches(*arrays):
    for start in range(0, EXAMPLES, BATCH):
        yield tuple(array[start : start + BATCH] for array in arrays)


def shift_biases(layer, lowest=-4.0):
    """Gives the units biases that kill some and not others."""
    kernel, _ = layer.get_weights()
    layer.set_weights([kernel, np.linspace(lowest, 0.5, UNITS)])


def watch(model, *data, every=1, epochs=1, **arguments):
    """A fit with a logger, whose history it returns."""
    logger = DeadReLULogger(every)
    callbacks = [*arguments.pop("callbacks", []), logger]
    arguments.setdefault("batch_size", BATCH)
    model.fit(
        *data, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **arguments
    )
    return logger.history


def only(dictionary):
    (value,) = dictionary.values()
    return value


def is_mixed(dead, units=UNITS):
    """Whether some units are dead and some alive, so that a test has teeth."""
    return 0 < len(dead) < units


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("style", STYLES)
def test_equals_brute_force(style, kind):
    model = network(kind, style)
    shift_biases(model.layers[1])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, inputs(kind), targets())
    expected = dead_of(affine(inputs(kind), *model.layers[1].get_weights()))
    assert is_mixed(expected)
    assert only(history["dead_units"])[0].tolist() == expected.tolist()
    assert only(history["dead_fraction"]).tolist() == [len(expected) / UNITS]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("mode", sorted({*MODES} - {USUAL}))
def test_equals_brute_force_in_other_modes(mode, kind):
    model = network(kind)
    shift_biases(model.layers[1])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    history = watch(model, inputs(kind), targets())
    expected = dead_of(affine(inputs(kind), *model.layers[1].get_weights()))
    assert is_mixed(expected)
    assert only(history["dead_units"])[0].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", SHAPES)
def test_normalization_between_uses_the_statistics_of_each_batch(kind):
    model = network(kind, "ReLU", normalized=True)
    normalization = model.layers[2]
    gamma, _, mean, variance = normalization.get_weights()
    beta = np.linspace(-4.0, 0.5, UNITS)
    normalization.set_weights([gamma, beta, mean, variance])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, inputs(kind), targets())
    weights = model.layers[1].get_weights()
    each = [
        normalize(affine(x, *weights), gamma, beta) for (x,) in batches(inputs(kind))
    ]
    assert is_mixed(dead_of(*each))
    assert only(history["dead_units"])[0].tolist() == dead_of(*each).tolist()


class Snapshots(keras.callbacks.Callback):
    """Keeps the weights that every step starts from."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        weights_of(self.model)  # brought back, so that the layers have theirs
        self.weights.append([layer.get_weights() for layer in self.model.layers])


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("kind", SHAPES)
def test_equals_a_replay_of_training(kind, every):
    epochs = 3
    model = keras.Sequential(
        [
            keras.Input(SHAPES[kind]),
            kernel_layer(kind, "relu"),
            layers.Flatten(),
            layers.Dense(UNITS, "relu"),
            layers.Dense(1),
        ]
    )
    shift_biases(model.layers[0], -3.0)
    shift_biases(model.layers[2], -2.0)
    model.compile(optimizers.Adam(0.3), "mse", **MODES[USUAL])
    before = Snapshots()
    history = watch(
        model, inputs(kind), targets(), every=every, epochs=epochs, callbacks=[before]
    )
    data = [x for (x,) in batches(inputs(kind))]
    dead = {model.layers[0].path: [], model.layers[2].path: []}
    for epoch in range(epochs):
        seen = {path: [] for path in dead}
        for batch, x in enumerate(data):
            step = epoch * STEPS + batch
            if batch > 0 and step % every:
                continue
            first, _, second, _ = before.weights[step]
            z = affine(x, *first)
            flat = np.maximum(z, 0).reshape(len(x), -1)
            for path, values in zip(seen, [z, affine(flat, *second)], strict=True):
                seen[path].append(values)
        for path, values in seen.items():
            dead[path].append(dead_of(*values).tolist())
    assert {
        path: [units.tolist() for units in epochs_of]
        for path, epochs_of in history["dead_units"].items()
    } == dead
    assert any(units != each[0] for each in dead.values() for units in each)


@pytest.mark.parametrize("kind", SHAPES)
def test_planted_dead_units_are_found_by_index(kind):
    model = network(kind)
    kernel, bias = model.layers[1].get_weights()
    kernel[...] = np.abs(kernel)
    bias[[1, 6]] = -100.0  # never reached
    kernel[..., 3] = 0.0  # exactly 0 is not positive
    model.layers[1].set_weights([kernel, bias])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, np.abs(inputs(kind)), targets(), epochs=2)
    path = model.layers[1].path
    assert [dead.tolist() for dead in history["dead_units"][path]] == [[1, 3, 6]] * 2
    assert history["dead_fraction"][path].tolist() == [3 / UNITS] * 2
    assert history["epoch"].tolist() == [0, 1]


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((inputs(), targets())).batch(BATCH)


def endless():
    while True:
        yield from batches(inputs(), targets())


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        (lambda: (inputs(), targets()), {"batch_size": BATCH}),
        (lambda: (dataset(),), {"batch_size": None}),
        (lambda: (endless(),), {"batch_size": None, "steps_per_epoch": STEPS}),
    ],
    ids=["arrays", "dataset", "generator"],
)
def test_inputs(data, arguments):
    model = network()
    shift_biases(model.layers[1])
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    history = watch(model, *data(), epochs=2, **arguments)
    expected = dead_of(affine(inputs(), *model.layers[1].get_weights())).tolist()
    assert is_mixed(expected)
    assert [dead.tolist() for dead in only(history["dead_units"])] == [expected] * 2


def identity():
    """A network whose rectified units are its inputs."""
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, "relu"), layers.Dense(1)]
    )
    model.layers[0].set_weights([np.eye(3), np.zeros(3)])
    return model


@pytest.mark.parametrize("mode", MODES)
def test_one_example_of_the_last_batch_keeps_a_unit_alive(mode):
    model = identity()
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    x = -np.ones((EXAMPLES, 3), dtype="float32")
    x[-1, 1] = 1e-6
    history = watch(model, x, targets())
    assert only(history["dead_units"])[0].tolist() == [0, 2]


def test_a_sample_of_steps_can_only_overstate():
    x = -np.ones((40, 3), dtype="float32")
    x[10, 0] = x[11, 1] = 1.0  # one example a step: step 10 is observed, 11 is not
    dead = {}
    for every in (1, 10):
        model = identity()
        model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
        history = watch(model, x, np.zeros((40, 1)), every=every, batch_size=1)
        dead[every] = only(history["dead_units"])[0].tolist()
    assert dead == {1: [2], 10: [1, 2]}


@needs_steps_per_execution
def test_steps_per_execution():
    # What the trainer returns of a group is its last step: 1, 3 and 5.
    model = identity()
    model.compile(optimizers.SGD(0.0), "mse", steps_per_execution=2, **MODES[USUAL])
    x = -np.ones((24, 3), dtype="float32")
    x[0, 0] = x[5, 1] = 1.0  # in step 0 and in step 1
    history = watch(model, x, np.zeros((24, 1)))
    assert only(history["dead_units"])[0].tolist() == [0, 2]


@pytest.mark.parametrize("mode", sorted({*MODES} - {"graph"}))
def test_nan_is_not_dead(mode):
    # In a graph without XLA, TensorFlow may fuse the kernel and the ReLU to an
    # operation that turns NaN into 0, so there is nothing to see.
    model = identity()
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    kernel = np.eye(3)
    kernel[0, 0] = np.nan
    model.layers[0].set_weights([kernel, np.zeros(3)])
    x = -np.ones((EXAMPLES, 3))
    history = watch(model, x, targets(), batch_size=EXAMPLES)
    assert only(history["dead_units"])[0].tolist() == [1, 2]


@pytest.mark.parametrize("mode", MODES)
def test_a_single_nan_unit_is_not_dead(mode):
    x = keras.Input((3,))
    # `* 1` keeps TensorFlow from fusing the ReLU into a kernel that drops NaN.
    model = keras.Model(x, layers.Dense(1)(layers.ReLU()(x * 1.0)))
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    data = -np.ones((EXAMPLES, 3), dtype="float32")
    data[:, 1] = np.nan
    data[5, 2] = 1.0
    history = watch(model, data, targets())
    assert only(history["dead_units"])[0].tolist() == [0]


def test_a_separate_relu_has_the_axis_of_the_layer_that_it_reads():
    given = keras.Input((3, 4, 5))
    x = layers.UpSampling2D(2, data_format="channels_first")(given)
    x = layers.Activation("relu")(layers.Dropout(0.1)(x))
    model = keras.Model(given, layers.Dense(1)(layers.Flatten()(x)))
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    data = np.ones((EXAMPLES, 3, 4, 5), dtype="float32")
    data[:, 1] = -1.0
    history = watch(model, data, targets())
    assert only(history["dead_units"])[0].tolist() == [1]


def test_a_shared_layer_is_dead_only_where_all_its_calls_are():
    layer = layers.Dense(UNITS, "relu")
    a, b = keras.Input((5,)), keras.Input((5,))
    merged = layers.Concatenate()([layer(a), layer(b)])
    model = keras.Model([a, b], layers.Dense(1)(merged))
    shift_biases(layer, -12.0)
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    x = [inputs(), 3 * inputs(seed=5)]
    history = watch(model, x, targets())
    each = [affine(part, *layer.get_weights()) for part in x]
    assert dead_of(*each).tolist() != dead_of(each[0]).tolist()
    assert is_mixed(dead_of(*each))
    assert history["dead_units"][layer.path][0].tolist() == dead_of(*each).tolist()


def test_units_of_a_shared_activation_at_several_widths_follow_one_another():
    shared = layers.ReLU()
    dense = [layers.Dense(UNITS), layers.Dense(4), layers.Dense(UNITS), layers.Dense(1)]
    given = x = keras.Input((5,))
    for one in dense[:3]:
        x = shared(one(x))
    model = keras.Model(given, dense[3](x))
    for one in dense[:3]:
        one.bias.assign(np.linspace(-1.5, 0.5, one.units))
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, inputs(), targets())
    z = [affine(inputs(), *dense[0].get_weights())]
    for one in dense[1:3]:
        z.append(affine(np.maximum(z[-1], 0), *one.get_weights()))
    wide, narrow = dead_of(z[0], z[2]), dead_of(z[1])
    assert is_mixed(np.concatenate([wide, narrow]))
    expected = [*wide.tolist(), *(narrow + UNITS).tolist()]
    ((found,),) = history["dead_units"].values()
    assert found.tolist() == expected


def test_nested_models():
    inner = network(style="ReLU")
    inner = keras.Model(inner.input, inner.layers[2].output, name="inner")
    middle = keras.Sequential([keras.Input((5,)), inner], name="middle")
    model = keras.Sequential(
        [keras.Input((5,)), middle, layers.Dense(UNITS, "relu"), layers.Dense(1)]
    )
    shift_biases(inner.layers[1])
    shift_biases(model.layers[1], -2.0)
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, inputs(), targets())
    first = affine(inputs(), *inner.layers[1].get_weights())
    second = affine(np.maximum(first, 0), *model.layers[1].get_weights())
    assert is_mixed(dead_of(first))
    assert is_mixed(dead_of(second))
    dead = {path: units[0].tolist() for path, units in history["dead_units"].items()}
    assert dead == {
        inner.layers[2].name: dead_of(first).tolist(),
        model.layers[1].path: dead_of(second).tolist(),
    }


@pytest.mark.parametrize("style", ["ReLU", "raw"])
def test_inner_models_with_equal_names_are_told_apart(style):
    """A clone has the operation names of its original."""
    outer = network(style=style)
    parts = [keras.Model(outer.input, outer.layers[2].output, name="left")]
    parts.append(keras.models.clone_model(parts[0]))
    parts[1].name = "right"
    x = keras.Input((5,))
    merged = layers.Concatenate()([part(x) for part in parts])
    model = keras.Model(x, layers.Dense(1)(merged))
    expected = []
    for part, lowest in zip(parts, [-4.0, -2.0], strict=True):
        shift_biases(part.layers[1], lowest)
        expected.append(dead_of(affine(inputs(), *part.layers[1].get_weights())))
    assert expected[0].tolist() != expected[1].tolist()
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    history = watch(model, inputs(), targets())
    found = [units[0].tolist() for units in history["dead_units"].values()]
    assert sorted(found) == sorted(units.tolist() for units in expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_time_distributed(mode):
    layer = layers.Dense(UNITS, "relu")
    model = keras.Sequential(
        [
            keras.Input((3, 5)),
            layers.TimeDistributed(layer),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    shift_biases(layer)
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    x = np.stack([inputs(), 2 * inputs(seed=5), inputs(seed=6)], axis=1)
    history = watch(model, x, targets())
    expected = dead_of(affine(x, *layer.get_weights()))
    assert is_mixed(expected)
    assert only(history["dead_units"])[0].tolist() == expected.tolist()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(UNITS, "relu"), layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))


def test_subclassed_models():
    model = Subclassed()
    model(inputs())
    shift_biases(model.hidden)
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    history = watch(model, inputs(), targets())
    expected = dead_of(affine(inputs(), *model.hidden.get_weights()))
    assert is_mixed(expected)
    assert history["dead_units"][model.hidden.path][0].tolist() == expected.tolist()


def test_a_model_that_the_fit_builds_keeps_its_paths():
    model = keras.Sequential([layers.Dense(UNITS, "relu"), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    logger = DeadReLULogger()
    for _ in range(2):
        model.fit(inputs(), targets(), verbose=0, callbacks=[logger])
    path = model.layers[0].path
    assert list(logger.history["dead_fraction"]) == [path]
    assert logger.history["dead_fraction"][path].shape == (2,)


def gated(z):
    """An activation that asks for a batch axis."""
    return z * keras.ops.sigmoid(keras.ops.flip(z, axis=1))


@pytest.mark.parametrize(
    "other",
    [
        "gelu",
        "tanh",
        "leaky_relu",
        "silu",
        "softplus",
        layers.LeakyReLU(),
        layers.ReLU(negative_slope=0.1),
        layers.PReLU(),
        keras.ops.gelu,
        keras.ops.leaky_relu,
        layers.Activation(gated),
    ],
    ids=lambda other: getattr(other, "name", getattr(other, "__name__", other)),
)
def test_only_rectifiers_are_watched(other):
    x = keras.Input((5,))
    rectified = layers.Dense(4, "relu")
    z = rectified(x)
    z = layers.Dense(4, other)(z) if isinstance(other, str) else other(z)
    model = keras.Model(x, layers.Dense(1)(z))
    model.compile("sgd", "mse", run_eagerly=True)
    history = watch(model, inputs(), targets())
    assert list(history["dead_fraction"]) == [rectified.path]


def test_layers_inside_recurrent_ones_are_not_watched():
    model = keras.Sequential(
        [
            keras.Input((3, 5)),
            layers.SimpleRNN(4, activation="relu"),
            layers.Dense(4, "relu"),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", **MODES[USUAL])
    history = watch(model, np.stack([inputs()] * 3, axis=1), targets())
    assert list(history["dead_fraction"]) == [model.layers[1].path]


class Inside(layers.Layer):
    """Runs a rectified layer inside something that may hide it."""

    def __init__(self, around):
        super().__init__()
        self.inner, self.around = layers.Dense(UNITS, "relu"), around

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.around(self.inner, x)


def looped(layer, x):
    """A loop of one round."""
    start = keras.ops.zeros((keras.ops.shape(x)[0], UNITS))
    return keras.ops.fori_loop(0, 1, lambda i, z: z + layer(x), start)


def outside_and_looped(layer, x):
    return layer(x) + looped(layer, x)


def scanned(layer, x):
    first = keras.ops.expand_dims(x, 0)
    start = keras.ops.zeros((keras.ops.shape(x)[0], UNITS))
    return keras.ops.scan(lambda carry, z: (carry, layer(z)), start, first)[1][0]


def mapped(layer, x):
    first = keras.ops.expand_dims(x, 0)
    return keras.ops.vectorized_map(layer, first)[0]


def rematerialized(layer, x):
    # JAX keeps what it traced by function, and with it what the layer closes over.
    return keras.remat(lambda z: layer(z))(x)


def branched(layer, x):
    return keras.ops.cond(
        keras.ops.sum(x) > -1e9, lambda: layer(x), lambda: 0 * layer(x)
    )


HIDING = [looped, outside_and_looped, scanned, mapped, rematerialized, branched]


@pytest.mark.parametrize("mode", sorted({USUAL, "eager"}))
@pytest.mark.parametrize("around", HIDING, ids=lambda around: around.__name__)
def test_what_cannot_be_seen_is_nan_and_never_wrong(around, mode):
    layer, seen = Inside(around), layers.Dense(4, "relu")
    model = keras.Sequential([keras.Input((5,)), layer, seen, layers.Dense(1)])
    shift_biases(layer.inner)
    expected = dead_of(affine(inputs(), *layer.inner.get_weights()))
    assert is_mixed(expected)
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    history = watch(model, inputs(), targets(), epochs=2)
    (inner,) = (path for path in history["dead_fraction"] if path != seen.path)
    fractions, dead = history["dead_fraction"][inner], history["dead_units"][inner]
    if np.isnan(fractions).all():
        assert [units.tolist() for units in dead] == [[], []]
    else:
        assert [units.tolist() for units in dead] == [expected.tolist()] * 2
    assert not np.isnan(history["dead_fraction"][seen.path]).any()


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles a loop of any kind")
def test_a_model_of_which_nothing_can_be_seen(capsys):
    layer = Inside(scanned)
    model = keras.Sequential([keras.Input((5,)), layer, layers.Dense(1)])
    model.compile(optimizers.SGD(0.1), "mse", **MODES[USUAL])
    calls = []
    logger = DeadReLULogger(1, log_to=lambda *call: calls.append(call), verbose=1)
    history = model.fit(inputs(), targets(), verbose=0, callbacks=[logger])
    assert np.isnan(history.history["dead_relu_fraction"]).tolist() == [True]
    ((metrics, _),) = calls
    assert np.isnan(list(metrics.values())).tolist() == [True, True]
    (path,) = logger.history["dead_fraction"]
    assert capsys.readouterr().out == (
        f"epoch 1: 0 of 0 ReLU units dead; 1 not seen, such as {path}\n"
    )


@pytest.mark.parametrize("mode", MODES)
def test_two_players_with_an_optimizer_each(mode):
    model = Gan()
    hidden = [model.generator.layers[0], model.critic.layers[0]]
    for layer, lowest in zip(hidden, [-4.0, -12.0], strict=True):
        shift_biases(layer, lowest)
    model.own.learning_rate = 0.0
    model.compile(optimizers.SGD(0.0), **MODES[mode])
    real = np.random.default_rng(5).normal(size=(EXAMPLES, 6)).astype("float32")
    noise = inputs()[:, :3]
    history = watch(model, [noise, real])
    first, second = (affine_of(layer) for layer in model.generator.layers)
    generated = second(np.maximum(first(noise), 0))
    judge = affine_of(model.critic.layers[0])
    expected = [dead_of(first(noise)), dead_of(judge(generated), judge(real))]
    assert all(is_mixed(dead) for dead in expected)
    found = [units[0].tolist() for units in history["dead_units"].values()]
    assert found == [dead.tolist() for dead in expected]


def affine_of(layer):
    weights = layer.get_weights()
    return lambda x: affine(x, *weights)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_several_outputs_beside_as_many_variables_that_are_not_trained(mode):
    """Lists of equal length, among which outputs could get lost."""
    x = keras.Input((5,))
    layer = layers.Dense(UNITS, "relu")
    z = layers.BatchNormalization()(layer(x))
    model = keras.Model(x, [layers.Dense(1)(z), layers.Dense(1)(z)])
    shift_biases(layer)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for one in (model, twin):
        one.compile(optimizers.SGD(0.0), ["mse", "mae"], **MODES[mode])
    history = watch(model, inputs(), [targets(), targets()])
    expected = dead_of(affine(inputs(), *layer.get_weights()))
    assert is_mixed(expected)
    assert only(history["dead_units"])[0].tolist() == expected.tolist()
    twin.fit(inputs(), [targets()] * 2, batch_size=BATCH, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class TwoOutputs(layers.Layer):
    def __init__(self):
        super().__init__()
        self.activation = keras.activations.relu
        self.dense = self.add_weight(shape=(5, 4), name="kernel")

    def call(self, x):
        z = keras.ops.matmul(x, self.dense)
        return self.activation(z), z


def test_a_layer_with_several_outputs_does_not_break_training():
    x = keras.Input((5,))
    rectified, _ = TwoOutputs()(x)
    last = layers.Dense(4, "relu")
    model = keras.Model(x, layers.Dense(1)(last(rectified)))
    model.compile("sgd", "mse", run_eagerly=True)
    history = watch(model, inputs(), targets())
    assert last.path in history["dead_fraction"]


def test_a_model_without_relu_trains_unwatched():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(1)], name="smooth"
    )
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match=r"`DeadReLULogger` needs.*model='smooth'"):
        history = watch(model, inputs(), targets())
    assert history["epoch"].shape == (0,)


@pytest.fixture
def two_layers():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(UNITS, "relu", name="first"),
            layers.Dense(4, "relu", name="second"),
            layers.Dense(1, name="head"),
        ],
        name="model",
    )
    shift_biases(model.layers[0])
    model.layers[1].bias.assign([0.5, -100, 0.5, 0.5])
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    return model


@pytest.mark.parametrize("asked", ["second", "model/second", "object"])
def test_layers(two_layers, asked):
    layer = two_layers.layers[1]
    logger = DeadReLULogger(1, [layer if asked == "object" else asked])
    history = two_layers.fit(inputs(), targets(), verbose=0, callbacks=[logger])
    assert list(logger.history["dead_fraction"]) == ["model/second"]
    assert logger.history["dead_units"]["model/second"][0].tolist() == [1]
    assert history.history["dead_relu_fraction"] == [0.25]


@pytest.mark.parametrize("unknown", ["head", "third"])
def test_layers_that_are_not_rectified_are_named(two_layers, unknown):
    with pytest.raises(ValueError, match=rf"`layers` must.*layers=\['{unknown}'\]"):
        two_layers.fit(
            inputs(), targets(), verbose=0, callbacks=[DeadReLULogger(layers=[unknown])]
        )


def test_keras_logs_hold_the_share_of_all_units(two_layers):
    logger = DeadReLULogger(1)
    stopping = keras.callbacks.EarlyStopping(
        "dead_relu_fraction", mode="min", patience=1
    )
    history = two_layers.fit(
        inputs(), targets(), epochs=9, verbose=0, callbacks=[stopping, logger]
    )
    fractions = logger.history["dead_fraction"]
    dead = UNITS * fractions["model/first"] + 4 * fractions["model/second"]
    assert history.history["dead_relu_fraction"] == (dead / (UNITS + 4)).tolist()
    assert len(dead) == 2  # it does not fall, so training stops


def test_log_to_receives_a_line_an_epoch(two_layers):
    calls = []
    logger = DeadReLULogger(4, log_to=[lambda *call: calls.append(call)])
    history = two_layers.fit(
        inputs(), targets(), batch_size=BATCH, epochs=2, verbose=0, callbacks=[logger]
    )
    fractions = logger.history["dead_fraction"]
    assert calls == [
        (
            {
                "dead_relu_fraction": history.history["dead_relu_fraction"][epoch],
                "dead_relu_fraction/model/first": fractions["model/first"][epoch],
                "dead_relu_fraction/model/second": fractions["model/second"][epoch],
            },
            last_observed_step,
        )
        for epoch, last_observed_step in [(0, 4), (1, 8)]
    ]


def test_history_grows_over_epochs_and_fits(two_layers):
    logger = DeadReLULogger()
    for epochs in (3, 2):
        two_layers.fit(
            inputs(), targets(), epochs=epochs, verbose=0, callbacks=[logger]
        )
    history = logger.history
    assert history["epoch"].tolist() == [0, 1, 2, 0, 1]
    assert history["sampled"].tolist() == [False] * 5
    for path in ("model/first", "model/second"):
        assert history["dead_fraction"][path].shape == (5,)
        assert len(history["dead_units"][path]) == 5
        kinds = {units.dtype.kind for units in history["dead_units"][path]}
        assert kinds == {"i"}


def test_an_epoch_that_did_not_end_leaves_nothing():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = identity()
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    logger = DeadReLULogger(1)
    alive, dead = np.ones((BATCH, 3)), -np.ones((BATCH, 3))
    y = targets()[:BATCH]
    with pytest.raises(KeyboardInterrupt):
        model.fit(alive, y, verbose=0, callbacks=[logger, Stop()])
    assert len(logger.history["epoch"]) == 0
    model.fit(dead, y, verbose=0, callbacks=[logger])
    assert [units.tolist() for units in only(logger.history["dead_units"])] == [
        [0, 1, 2]
    ]


def test_history_before_training_is_empty():
    history = DeadReLULogger().history
    assert history["epoch"].shape == (0,)
    assert history["dead_fraction"] == history["dead_units"] == {}


def test_verbose_prints_a_line_an_epoch(two_layers, capsys):
    logger = DeadReLULogger(1, verbose=1)
    two_layers.fit(inputs(), targets(), epochs=2, verbose=0, callbacks=[logger])
    share = logger.history["dead_fraction"]["model/first"][0]
    dead = round(UNITS * share) + 1
    assert capsys.readouterr().out.splitlines() == [
        f"epoch {epoch}: {dead} of {UNITS + 4} ReLU units dead, "
        f"most in model/first ({share:.0%})"
        for epoch in (1, 2)
    ]


def test_silent_by_default(two_layers, capsys):
    two_layers.fit(inputs(), targets(), verbose=0, callbacks=[DeadReLULogger()])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"every": 0}, "every=0"),
        ({"every": 2.5}, "every=2.5"),
        ({"verbose": 3}, "verbose=3"),
        ({"log_to": [None]}, r"log_to=\[None\]"),
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments, received):
    with pytest.raises(ValueError, match=rf"`{next(iter(arguments))}`.*{received}"):
        DeadReLULogger(**arguments)


# --- Both ends, thresholds and masks -------------------------------------------------

# Each in NumPy, with its limits at −∞ and ∞.
SMOOTH = {
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), None, None),
    "gelu": (lambda z: z * ndtr(z), 0.0, None),
    "silu": (lambda z: z * expit(z), 0.0, None),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), -1.0, None),
    "softplus": (lambda z: np.logaddexp(0, z), 0.0, None),
    "tanh": (np.tanh, -1.0, 1.0),
    "sigmoid": (expit, 0.0, 1.0),
    "relu": (lambda z: np.maximum(z, 0), 0.0, None),
    "relu6": (lambda z: np.clip(z, 0, 6), 0.0, 6.0),
}


def flat_units(y, low, high, threshold=0.0):
    """The dead and the saturated units, by the definition."""
    rows = y.reshape(-1, y.shape[-1])
    is_low = rows <= threshold if low is None else np.abs(rows - low) <= threshold
    is_high = rows >= high - threshold if high is not None else np.zeros_like(is_low)
    dead = np.all(is_low, axis=0)
    saturated = np.all(is_low | is_high, axis=0) & ~dead
    return np.flatnonzero(dead).tolist(), np.flatnonzero(saturated).tolist()


def spread_network(activation, mode, low=-16.0, high=16.0, units=33):
    """A layer whose units reach from one end of an activation to the other."""
    layer = layers.Dense(units, activation)
    model = keras.Sequential([keras.Input((5,)), layer, layers.Dense(1)])
    kernel = np.random.default_rng(3).normal(size=(5, units)) / np.sqrt(5)
    kernel[:, ::8] *= 30  # these reach both ends
    layer.set_weights([kernel, np.linspace(low, high, units)])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    return model


def found_units(history):
    return tuple(only(history[f"{kind}_units"])[0].tolist() for kind in KINDS)


KINDS = ("dead", "saturated")


@pytest.mark.parametrize("threshold", [0.01, 0.1])
@pytest.mark.parametrize("name", SMOOTH)
def test_thresholds_equal_brute_force(name, threshold):
    function, low, high = SMOOTH[name]
    mode = "jit" if BACKEND == "jax" else "eager"
    model = spread_network(name, mode)
    logger = DeadReLULogger(1, layers=[model.layers[0]], threshold=threshold)
    model.fit(inputs(), targets(), batch_size=BATCH, verbose=0, callbacks=[logger])
    y = function(affine(inputs(), *model.layers[0].get_weights()))
    dead, saturated = flat_units(y, low, high, threshold)
    assert is_mixed(dead, 33)
    assert is_mixed(saturated, 33) == (high is not None)
    assert found_units(logger.history) == (dead, saturated)
    share = len(saturated) / 33
    assert only(logger.history["saturated_fraction"]).tolist() == [share]


@pytest.mark.parametrize("mode", MODES)
def test_both_ends_of_relu6_without_a_threshold(mode):
    model = spread_network("relu6", mode)
    calls = []
    logger = DeadReLULogger(1, log_to=lambda *call: calls.append(call), verbose=0)
    result = model.fit(inputs(), targets(), verbose=0, callbacks=[logger])
    y = SMOOTH["relu6"][0](affine(inputs(), *model.layers[0].get_weights()))
    dead, saturated = flat_units(y, 0.0, 6.0)
    assert is_mixed(dead, 33)
    assert is_mixed(saturated, 33)
    assert found_units(logger.history) == (dead, saturated)
    path = model.layers[0].path
    shares = {"dead_relu": len(dead) / 33, "saturated": len(saturated) / 33}
    keys = {f"{kind}_fraction{p}" for kind in shares for p in ("", f"/{path}")}
    assert set(calls[0][0]) == keys
    for kind, share in shares.items():
        assert result.history[f"{kind}_fraction"] == [share]


@pytest.mark.once_a_day
@pytest.mark.parametrize("mode", MODES)
def test_a_unit_that_lives_at_masked_positions_only_is_dead(mode):
    layer = layers.Dense(3, "relu")
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Masking(),
            layer,
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    # A masked input is 0, so only the bias speaks there.
    layer.set_weights([np.diag([-9.0, 9.0, 1.0]), np.array([1.0, 1.0, -9.0])])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[mode])
    x = np.ones((EXAMPLES, 4, 3), dtype="float32")
    x[:, 2:] = 0
    history = watch(model, x, targets())
    assert only(history["dead_units"])[0].tolist() == [0, 2]
    x[3, 3, 1] = 1e-3  # takes one position out of the mask
    history = watch(model, x, targets())
    assert only(history["dead_units"])[0].tolist() == [2]


def test_sampled_says_whether_every_step_was_observed():
    model = identity()
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    for every, sampled in ((1, False), (2, True), (lambda step: True, False)):
        history = watch(model, np.ones((EXAMPLES, 3)), targets(), every=every)
        assert history["sampled"].tolist() == [sampled]
    one_step = watch(
        model, np.ones((EXAMPLES, 3)), targets(), every=10, batch_size=EXAMPLES
    )
    assert one_step["sampled"].tolist() == [False]


@pytest.mark.parametrize(
    ("dead", "every", "alerts"),
    [
        (4, 1, 0),  # half of eight
        (5, 1, 1),
        (7, 5, 0),  # two of six steps observed
        (8, 5, 1),
    ],
)
def test_an_alert_names_layers_of_which_most_units_are_dead(dead, every, alerts):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "relu"), layers.Dense(1)]
    )
    model.layers[0].set_weights([np.eye(8), np.repeat([-9.0, 0.0], [dead, 8 - dead])])
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    lines = []
    logger = DeadReLULogger(every, alerts=lines.append)
    x = np.ones((EXAMPLES, 8))
    model.fit(x, targets(), batch_size=BATCH, epochs=2, verbose=0, callbacks=[logger])
    share = f"{model.layers[0].path} has {dead} of 8 units dead ({dead / 8:.0%})"
    assert [share in line for line in lines] == [True] * alerts
    assert len(logger.alerts) == alerts


def test_an_alert_of_saturated_units():
    model = identity()
    model.layers[0].activation = keras.activations.relu6
    model.layers[0].bias.assign([9.0, 9.0, 0.0])
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    logger = DeadReLULogger(1, alerts=False)
    model.fit(np.ones((EXAMPLES, 3)), targets(), verbose=0, callbacks=[logger])
    (alert,) = logger.alerts
    assert (alert.kind, alert.path) == ("saturated units", model.layers[0].path)
    assert "2 of 3 units saturated (67%)" in alert.line()


@pytest.mark.parametrize("threshold", [0, 0.5, -0.1, 1, np.nan, "0.1", True], ids=repr)
def test_bad_thresholds(threshold):
    with pytest.raises(ValueError, match=r"`threshold` must.*threshold=") as error:
        DeadReLULogger(threshold=threshold)
    assert repr(threshold) in str(error.value)


def test_a_model_without_any_limit_trains_unwatched_with_a_threshold():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)], name="linear")
    model.compile("sgd", "mse", run_eagerly=True)
    logger = DeadReLULogger(threshold=0.01)
    with pytest.warns(UserWarning, match=r"`DeadReLULogger` needs.*model='linear'"):
        model.fit(inputs(), targets(), verbose=0, callbacks=[logger])
