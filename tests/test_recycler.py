"""Recycling of dormant units: which, what of them is written, and what is not."""

import random
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from abilities import require
from custom_training import OneOptimizer
from keras import layers, ops, optimizers
from oracles import BACKEND, MODES, USUAL, needs_steps_per_execution
from sklearn.datasets import load_digits

import keras_initlab as initlab
from keras_initlab.callbacks import DormantUnitRecycler, _recycler

EXAMPLES, UNITS = 8, 6
DEAD = [1, 4]
# Where one step is all there is, compiling it takes longer than it.
FAST = {"tensorflow": "eager"}.get(BACKEND, USUAL)


def never(step):
    return False


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def arrays(variables):
    return {id(v): np.array(ops.convert_to_numpy(v.value)) for v in variables}


def kill(layer, units=DEAD):
    """Makes units of a ReLU layer return 0 for every input."""
    kernel, bias = layer.get_weights()
    bias[units] = -1e4
    layer.set_weights([kernel, bias])


def outputs_of(model, x):
    return np.array(ops.convert_to_numpy(ops.stop_gradient(model(x))))


def targets_of(model):
    return numbers(EXAMPLES, *model.output_shape[1:], seed=2)


def inputs_of(model):
    return numbers(EXAMPLES, *model.input_shape[1:])


def train(model, recycler=None, epochs=1, batch_size=EXAMPLES, **arguments):
    """A fit of one step an epoch, unless told otherwise."""
    callbacks = [*arguments.pop("callbacks", []), *([recycler] if recycler else [])]
    return model.fit(
        inputs_of(model),
        targets_of(model),
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    )


def compiled(model, optimizer=None, mode=FAST, **arguments):
    optimizer = optimizer or optimizers.SGD(0.0)
    model.compile(optimizer, "mse", **MODES[mode], **arguments)
    return model


def recycled_once(model, **arguments):
    """A step that trains nothing, and a recycling."""
    recycler = DormantUnitRecycler(every=1, **{"seed": 0, "alerts": False, **arguments})
    train(compiled(model), recycler)
    return recycler


def chain(shape, *parts):
    """A Functional model, whose paths do not begin with a name that counts up."""
    given = x = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(given, x)


def lively(units, name):
    """A layer whose units fire, also when they start over."""
    return layers.Dense(units, "relu", True, POSITIVE, LARGE, name=name)


POSITIVE = keras.initializers.RandomUniform(0.0, 0.3)
LARGE = keras.initializers.Constant(3.0)


def mlp():
    return chain(
        (5,),
        lively(UNITS, "first"),
        lively(UNITS + 1, "second"),
        layers.Dense(2, name="head"),
    )


# --- Scores --------------------------------------------------------------------------


def affine(x, kernel, bias=0.0, data_format="channels_last"):
    """Pre-activations of a dense or a valid convolution layer, units last."""
    x, kernel = np.asarray(x, "float64"), np.asarray(kernel, "float64")
    if kernel.ndim == 2:
        return x @ kernel + bias
    if data_format == "channels_first":
        x = np.moveaxis(x, 1, -1)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + bias


def score(h):
    """Definition 3.1 of Sokar et al., units last."""
    sizes = np.abs(h).mean(axis=tuple(range(h.ndim - 1)))
    return sizes / sizes.mean()


def normalized(z):
    axes = tuple(range(z.ndim - 1))
    return (z - z.mean(axes)) / np.sqrt(z.var(axes) + 1e-3)


def relu(z):
    return np.maximum(z, 0)


# What the first layer has as its activation, what follows it, and both in NumPy.
STYLES = {
    "activation": ("relu", [], relu),
    "Activation": (None, [lambda: layers.Activation("relu")], relu),
    "raw": (None, [lambda: ops.relu], relu),
    "tanh": ("tanh", [], np.tanh),
    "leaky": (
        None,
        [lambda: layers.LeakyReLU(0.1)],
        lambda z: np.where(z > 0, z, 0.1 * z),
    ),
    "normalized": (
        None,
        [layers.BatchNormalization, layers.ReLU],
        lambda z: relu(normalized(z)),
    ),
    "dropped": ("relu", [lambda: layers.Dropout(0.5)], relu),
}


@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize("style", STYLES)
def test_scores_equal_the_definition(style, kind):
    activation, between, function = STYLES[style]
    dense = kind == "dense"
    given = keras.Input((5,) if dense else (5, 6, 2))
    layer = layers.Dense(UNITS) if dense else layers.Conv2D(UNITS, (2, 3))
    layer.activation = keras.activations.get(activation)
    x = layer(given)
    for make in between:
        x = make()(x)
    model = keras.Model(given, layers.Dense(1)(layers.Flatten()(x)))
    scale = np.geomspace(1e-3, 10, UNITS)
    kernel, _ = layer.get_weights()
    layer.set_weights([kernel * scale, numbers(UNITS) * scale])
    history = recycled_once(model, tau=0.0).history
    weights = [kernel * scale.astype("float32"), numbers(UNITS) * scale]
    expected = score(function(affine(inputs_of(model), *weights)))
    assert expected.max() > 2 * expected.min()
    (found,) = history["scores"].values()
    np.testing.assert_allclose(found, [expected], rtol=2e-4)


@pytest.mark.onednn
@pytest.mark.parametrize("separate", [False, True])
def test_units_of_channels_first(separate):
    model = channels_first(separate)
    layer = model.layers[1]
    kernel, _ = layer.get_weights()
    layer.set_weights([kernel, np.linspace(-1, 0.5, UNITS)])
    expected = score(
        relu(
            affine(inputs_of(model), *layer.get_weights(), data_format="channels_first")
        )
    )
    (found,) = recycled_once(model, tau=0.0).history["scores"].values()
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


def require_channels_first():
    shapes = (1, 2, 7, 9), (3, 3, 2, 1)
    require(ops.conv, *shapes, data_format="channels_first")


def channels_first(separate=False):
    require_channels_first()
    # Keras on TensorFlow takes a last axis as long as the channels for theirs.
    given = keras.Input((2, 5, 9))
    layer = layers.Conv2D(UNITS, (2, 3), data_format="channels_first")
    layer.activation = keras.activations.get(None if separate else "relu")
    x = layer(given)
    if separate:
        x = layers.ReLU()(x)
    flat = layers.Flatten(data_format="channels_last")(x)
    return keras.Model(given, layers.Dense(1)(flat))


def test_masked_positions_do_not_count():
    given = keras.Input((3, 5))
    x = layers.Masking()(given)
    model = keras.Model(
        given, layers.Dense(1)(layers.Dense(UNITS, "relu", bias_initializer="ones")(x))
    )
    compiled(model)
    x, y = numbers(EXAMPLES, 3, 5), numbers(EXAMPLES, 3, 1)
    x[:, 1:] = 0
    recycler = DormantUnitRecycler(every=1, tau=0.0)
    weights = model.layers[2].get_weights()
    model.fit(x, y, EXAMPLES, verbose=0, callbacks=[recycler])
    (found,) = recycler.history["scores"].values()
    expected = score(relu(affine(x[:, 0], *weights)))
    assert not np.allclose(expected, score(relu(affine(x, *weights))), rtol=1e-2)
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.3])
def test_dormant_is_what_scores_at_most_tau(tau):
    model = mlp()
    layer = model.get_layer("first")
    layer.set_weights([numbers(5, UNITS) * [1, 0, 0.1, 1, 0.01, 1], np.zeros(UNITS)])
    expected = score(relu(affine(inputs_of(model), *layer.get_weights())))
    history = recycled_once(model, tau=tau, layers="first").history
    expected = np.flatnonzero(expected <= tau)
    assert len(expected) == {0.0: 1, 0.05: 2, 0.3: 3}[tau]
    (found,) = history["recycled"].values()
    assert [each.tolist() for each in found] == [expected.tolist()]


def test_a_layer_that_is_dead_as_a_whole_is_recycled_as_a_whole():
    model = mlp()
    kill(model.get_layer("first"), slice(None))
    history = recycled_once(model).history
    assert history["scores"]["first"].tolist() == [[0.0] * UNITS]
    assert history["recycled"]["first"][0].tolist() == list(range(UNITS))
    assert np.all(model.get_layer("first").get_weights()[1] == 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_recycled(bad):
    model = mlp()
    kernel, bias = model.get_layer("first").get_weights()
    bias[0] = bad
    model.get_layer("first").set_weights([kernel, bias])
    history = recycled_once(model, layers=["first"]).history
    assert np.isnan(history["scores"]["first"]).all()
    assert history["recycled"]["first"][0].tolist() == []


# --- What is written -----------------------------------------------------------------


def deep(optimizer, mode=FAST):
    """Convolutions, a flattening and dense layers, with dead units in every layer."""
    keras.utils.set_random_seed(3)
    model = chain(
        (6, 7, 2),
        layers.Conv2D(UNITS, 3, activation="relu", bias_initializer=LARGE, name="one"),
        layers.Conv2D(UNITS, 2, name="two"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.MaxPooling2D((2, 1)),
        layers.Flatten(),
        lively(UNITS, "three"),
        lively(UNITS, "four"),
        layers.Dense(2, name="head"),
    )
    kill(model.get_layer("one"))
    norm = model.get_layer("norm")
    gamma, beta, mean, variance = norm.get_weights()
    beta[DEAD] = -1e4
    norm.set_weights([gamma + 1, beta, mean + 1, variance])
    kill(model.get_layer("three"), [0])
    kill(model.get_layer("four"), [0, 2])
    return compiled(model, optimizer, mode)


PLANTED = {"one": DEAD, "two": DEAD, "three": [0], "four": [0, 2]}


def planted_entries(model):
    """Which entries of each variable are the planted units', and which of them go out
    to a unit that is not recycled."""
    entries = {v.path: np.zeros(v.shape, bool) for v in model.variables}
    outgoing = {v.path: np.zeros(v.shape, bool) for v in model.variables}
    flat = np.arange(outgoing["three/kernel"].shape[0]) % UNITS  # channels last
    for name, index in {
        "two/kernel": (slice(None), slice(None), DEAD),
        "three/kernel": np.isin(flat, DEAD),
        "four/kernel": [0],
        "head/kernel": [0, 2],
    }.items():
        outgoing[name][index] = entries[name][index] = True
    for name, units in PLANTED.items():
        entries[f"{name}/kernel"][..., units] = True
        outgoing[f"{name}/kernel"][..., units] = False  # drawn, from new units too
        entries[f"{name}/bias"][units] = True
    for kind in ("gamma", "beta", "moving_mean", "moving_variance"):
        entries[f"norm/{kind}"][DEAD] = True
    return entries, outgoing


def slots_of(optimizer, variable):
    """An optimizer's slots of a variable, as Keras names them, with those names."""
    start = variable.path.replace("/", "_") + "_"
    return {
        slot.name.removeprefix(start): ops.convert_to_numpy(slot.value)
        for slot in optimizer.variables
        if slot.name.startswith(start) and tuple(slot.shape) == tuple(variable.shape)
    }


# Optimizers, and what their slots start at, if not 0; "weight" for the weight itself.
OPTIMIZERS = {
    "SGD": (lambda: optimizers.SGD(1e-4, momentum=0.9), {"momentum": 0}),
    "Adam": (lambda: optimizers.Adam(0.01), {"momentum": 0, "velocity": 0}),
    "AMSGrad": (
        lambda: optimizers.AdamW(0.01, amsgrad=True),
        {"momentum": 0, "velocity": 0, "velocity_hat": 0},
    ),
    "RMSprop": (
        lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
        {"momentum": 0, "velocity": 0, "average_gradient": 0},
    ),
    "Adagrad": (
        lambda: optimizers.Adagrad(0.01, initial_accumulator_value=0.25),
        {"accumulator": 0.25},
    ),
    "Ftrl": (
        lambda: optimizers.Ftrl(0.01, initial_accumulator_value=0.25),
        {"accumulator": 0.25, "linear": 0},
    ),
    "Muon": (lambda: optimizers.Muon(0.01), {"momentum": 0}),
    "average": (
        lambda: optimizers.SGD(1e-4, momentum=0.9, use_ema=True),
        {"momentum": 0, "average": "weight"},
    ),
    "accumulated": (
        lambda: optimizers.SGD(1e-4, momentum=0.9, gradient_accumulation_steps=4),
        {"momentum": 0, "gradient_accumulator": 0},
    ),
    "scaled": (
        lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=8.0),
        {"momentum": 0, "velocity": 0},
    ),
    "schedule-free": (
        lambda: optimizers.ScheduleFreeAdamW(0.01),
        {"momentum": "weight", "velocity": 0},
    ),
}


RARE = (
    "AMSGrad",
    "Adagrad",
    "Ftrl",
    "Muon",
    "RMSprop",
    "accumulated",
    "schedule-free",
)


def slow(names, table):
    """The cases of a table, some of which are left to the slow suite."""
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(name, marks=marks[name in names]) for name in table]


@pytest.mark.parametrize("name", slow(RARE, OPTIMIZERS))
def test_only_the_entries_of_planted_units_are_written(name):
    make, starts = OPTIMIZERS[name]
    model, twin = deep(make()), deep(make())
    recycler = DormantUnitRecycler(0.0, every=2, seed=0)
    train(model, recycler, epochs=2)
    train(twin, DormantUnitRecycler(every=never), epochs=2)
    found = {p: each[0].tolist() for p, each in recycler.history["recycled"].items()}
    assert found == PLANTED
    entries, outgoing = planted_entries(model)
    for variable, other in zip(model.variables, twin.variables, strict=True):
        if variable.path not in entries:
            continue
        new, old = (ops.convert_to_numpy(v.value) for v in (variable, other))
        mine = entries[variable.path]
        np.testing.assert_array_equal(new[~mine], old[~mine])
        assert np.all(new[outgoing[variable.path]] == 0)
        if variable.path in STARTS:
            assert np.all(new[mine] == STARTS[variable.path])
        if variable.name == "kernel":
            drawn = mine & ~outgoing[variable.path]
            assert np.all(new[drawn] != old[drawn])
            assert not np.any(new[drawn] == 0)
    for variable, other in zip(
        model.trainable_variables, twin.trainable_variables, strict=True
    ):
        mine = entries[variable.path]
        news, olds = (
            slots_of(model.optimizer, variable),
            slots_of(twin.optimizer, other),
        )
        assert set(news) >= set(starts) or name == "Muon"
        for slot, values in news.items():
            start = starts.get(slot, 0)
            start = ops.convert_to_numpy(variable.value) if start == "weight" else start
            start = np.broadcast_to(start, values.shape)
            np.testing.assert_array_equal(values[mine], start[mine])
            np.testing.assert_array_equal(values[~mine], olds[slot][~mine])
            if (name, slot) != ("accumulated", "momentum"):  # no update was made yet
                assert np.any(olds[slot][~mine] != 0)


STARTS = {
    "one/bias": 3,
    "two/bias": 0,
    "three/bias": 3,
    "four/bias": 3,
    "norm/gamma": 1,
    "norm/beta": 0,
    "norm/moving_mean": 0,
    "norm/moving_variance": 1,
}


@pytest.mark.slow
def test_slots_of_another_shape_are_left():
    def trained(schedule):
        keras.utils.set_random_seed(0)
        model = compiled(mlp(), optimizers.Adafactor(1e-4))
        kill(model.get_layer("first"))
        recycler = DormantUnitRecycler(0.0, every=schedule, seed=0)
        train(model, recycler)
        return model, recycler

    (model, recycler), (twin, _) = trained(1), trained(never)
    assert recycler.history["recycled"]["first"][0].tolist() == DEAD
    kernels = [m.get_layer("first").kernel for m in (model, twin)]
    pairs = zip(model.optimizer.variables, twin.optimizer.variables, strict=True)
    sums = [pair for pair in pairs if tuple(pair[0].shape) in ((5,), (UNITS,))]
    assert len(sums) >= 2  # over the columns and rows of the kernel's gradients
    for mine, other in sums:
        if "bias" not in mine.name:
            np.testing.assert_array_equal(*map(ops.convert_to_numpy, (mine, other)))
    new, old = (ops.convert_to_numpy(kernel.value) for kernel in kernels)
    assert np.all(new[:, DEAD] != old[:, DEAD])
    assert np.all(np.isfinite(outputs_of(model, inputs_of(model))))


@pytest.mark.skipif(
    not hasattr(optimizers, "MultiOptimizer"), reason="needs a later Keras"
)
def test_several_optimizers():
    """Each variable's slots lie in the optimizer that trains it."""
    inner = {"four/.*": optimizers.Adam(0.01)}
    default = optimizers.SGD(1e-4, momentum=0.9)
    whole = optimizers.MultiOptimizer(
        optimizers.OptimizerMap(default, inner)
        if hasattr(optimizers, "OptimizerMap")
        else _optimizer_map()(default, inner)
    )
    model = deep(whole)
    train(model, DormantUnitRecycler(0.0, every=2), epochs=2)
    entries, _ = planted_entries(model)
    kernel = model.get_layer("four").kernel
    slots = slots_of(whole, kernel)
    assert set(slots) == {"momentum", "velocity"}
    mine = entries["four/kernel"]
    for values in slots.values():
        assert np.all(values[mine] == 0)
        assert np.any(values[~mine] != 0)


def _optimizer_map():
    from keras.src.optimizers.multi_optimizer import OptimizerMap

    return OptimizerMap


@pytest.mark.slow
@pytest.mark.parametrize("mode", slow({*MODES} - {USUAL}, MODES))
def test_training_goes_on_from_what_was_written_in_mid_epoch(mode):
    """As if the fit had ended at that step and begun again."""
    models = []
    for epochs in (1, 3):
        model = deep(optimizers.Adam(0.01), mode)
        recycler = DormantUnitRecycler(0.0, every=lambda step: step == 1, seed=5)
        x, y = numbers(12, 6, 7, 2), numbers(12, 2, seed=2)
        for epoch in range(epochs):
            rows = slice(None) if epochs == 1 else slice(4 * epoch, 4 * epoch + 4)
            model.fit(
                x[rows],
                y[rows],
                4,
                epochs=epoch + 1,
                initial_epoch=epoch,
                shuffle=False,
                verbose=0,
                callbacks=[recycler],
            )
        assert recycler.history["step"].tolist() == [1]
        assert recycler.history["recycled"]["one"][0].tolist() == DEAD
        models.append(model)
    one, other = (
        [ops.convert_to_numpy(v.value) for v in (*m.variables, *m.optimizer.variables)]
        for m in models
    )
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_output_is_the_same_to_the_last_bit():
    model = mlp()
    kill(model.get_layer("first"))
    kill(model.get_layer("second"), [0, 3])
    x = inputs_of(model)
    before = outputs_of(model, x)
    weights = arrays(model.variables)
    history = recycled_once(model, tau=0.0).history
    assert history["recycled"]["first"][0].tolist() == DEAD
    assert not np.array_equal(
        weights[id(model.get_layer("first").kernel)],
        model.get_layer("first").get_weights()[0],
    )
    np.testing.assert_array_equal(outputs_of(model, x), before)


def test_layers_of_new_units_can_learn():
    """Two layers dead as a whole: weights between them must not be 0."""
    model = mlp()
    for name in ("first", "second"):
        kill(model.get_layer(name), slice(None))
    recycled_once(model)
    x = inputs_of(model)
    inner = keras.Model(model.input, model.get_layer("second").output)
    assert np.any(outputs_of(inner, x) > 0)


def test_draws_are_by_the_seed_and_never_the_same():
    def kernels(seed, epochs=1):
        keras.utils.set_random_seed(0)
        model = mlp()
        kill(model.get_layer("first"), [0])
        found = []

        def note(epoch, logs):
            found.append(model.get_layer("first").get_weights()[0][:, 0])
            kill(model.get_layer("first"), [0])

        recycler = DormantUnitRecycler(0.0, every=1, seed=seed, layers="first")
        watch = keras.callbacks.LambdaCallback(on_epoch_end=note)
        train(compiled(model), recycler, epochs, callbacks=[watch])
        return found

    first, second = kernels(0, epochs=2)
    assert not np.any(first == second)
    assert np.array_equal(kernels(0)[0], first)
    assert not np.any(kernels(1)[0] == first)


@pytest.mark.parametrize("dormant", [[], DEAD], ids=["none", "some"])
def test_only_a_recycling_draws_from_numbers_that_others_draw_from(dormant):
    """A seed of its own would shuffle a `PyDataset` otherwise, and start new layers."""
    model = compiled(mlp())
    train(model)
    kill(model.get_layer("first"), dormant)
    former = random.getstate()
    train(model, DormantUnitRecycler(0.0, every=1, alerts=False))
    assert (random.getstate() == former) == (not dormant)


def test_the_initializer_of_the_layer_draws():
    layer = layers.Dense(
        UNITS,
        "relu",
        kernel_initializer=keras.initializers.Constant(0.5),
        bias_initializer=keras.initializers.Constant(0.25),
    )
    model = chain((5,), layer, layers.Dense(1))
    layer.set_weights([numbers(5, UNITS), np.full(UNITS, 9.0)])
    kill(layer)
    recycled_once(model)
    kernel, bias = layer.get_weights()
    assert np.all(kernel[:, DEAD] == 0.5)
    assert not np.any(kernel[:, [0, 2, 3, 5]] == 0.5)
    assert bias.tolist() == [9.0, 0.25, 9.0, 9.0, 0.25, 9.0]


@pytest.mark.parametrize("victim", ["weight", "slot"])
def test_an_interruption_while_writing_leaves_all_as_it_was(victim, monkeypatch):
    model = deep(optimizers.Adam(0.01))
    twin = deep(optimizers.Adam(0.01))
    train(twin, DormantUnitRecycler(every=never))
    train(model, DormantUnitRecycler(every=never))
    slots = {slot.name: slot for slot in model.optimizer.variables}
    last = {
        "weight": model.get_layer("norm").moving_variance,
        "slot": slots["one_kernel_velocity"],
    }
    kind, renew = type(last[victim]), _recycler.renew

    def interrupted(*arguments):
        assign, state = kind.assign, {"is_first": True}

        def failing(variable, value):
            if variable is last[victim] and state.pop("is_first", False):
                raise KeyboardInterrupt
            return assign(variable, value)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "assign", failing)
            renew(*arguments)

    monkeypatch.setattr(_recycler, "renew", interrupted)
    arguments = {"initial_epoch": 1, "epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        train(model, DormantUnitRecycler(0.0, every=2), **arguments)
    train(twin, DormantUnitRecycler(every=never), **arguments)
    for new, old in (
        (model.variables, twin.variables),
        (model.optimizer.variables, twin.optimizer.variables),
    ):
        for a, b in zip(new, old, strict=True):
            pair = [ops.convert_to_numpy(v.value) for v in (a, b)]
            np.testing.assert_array_equal(*pair)


# --- Readers -------------------------------------------------------------------------


def image(*after, channels=UNITS, data_format="channels_last"):
    """A convolution with dead units, and what reads them."""
    first = data_format == "channels_first"
    if first:
        require_channels_first()
    given = keras.Input((2, 7, 9) if first else (7, 8, 2))
    x = layers.Conv2D(channels, 3, data_format=data_format, name="units")(given)
    x = layers.ReLU()(x)
    for layer in after:
        x = layer(x)
    return keras.Model(given, x)


def signal(*after):
    given = keras.Input((7, 2))
    x = layers.Conv1D(UNITS, 3, activation="relu", name="units")(given)
    for layer in after:
        x = layer(x)
    return keras.Model(given, x)


def volume(*after):
    given = keras.Input((4, 5, 6, 2))
    x = layers.Conv3D(UNITS, 3, activation="relu", name="units")(given)
    for layer in after:
        x = layer(x)
    return keras.Model(given, x)


def vector(*after):
    given = keras.Input((5,))
    x = layers.Dense(UNITS, "relu", name="units")(given)
    for layer in after:
        x = layer(x)
    return keras.Model(given, x)


def two_readers():
    given = keras.Input((5,))
    x = layers.Dense(UNITS, "relu", name="units")(given)
    one = layers.Dense(2, name="reader")(layers.Dropout(0.5)(x))
    other = layers.Dense(2, name="other")(layers.Activation("tanh")(x))
    return keras.Model(given, layers.Add()([one, other]))


def nested():
    given = keras.Input((5,))
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(UNITS, name="units")])
    activation = keras.Sequential([keras.Input((UNITS,)), layers.ReLU()])
    x = layers.Dense(2, name="reader")(activation(inner(given)))
    return keras.Model(given, x)


def flat_first(of_flatten):
    return image(
        layers.MaxPooling2D(2, data_format="channels_first"),
        layers.Flatten(data_format=of_flatten),
        layers.Dense(2, name="reader"),
        data_format="channels_first",
    )


READERS = {
    "Dense": lambda: vector(layers.Dense(3, name="reader")),
    "sequence": lambda: signal(layers.Dense(3, name="reader")),
    "Conv1D": lambda: signal(layers.Conv1D(3, 2, name="reader")),
    "Conv2D": lambda: image(layers.Conv2D(3, 2, name="reader")),
    "Conv3D": lambda: volume(layers.Conv3D(3, 2, name="reader")),
    "grouped": lambda: image(layers.Conv2D(4, 2, groups=2, name="reader")),
    "depthwise": lambda: image(
        layers.DepthwiseConv2D(2, depth_multiplier=2, name="reader")
    ),
    "depthwise 1D": lambda: signal(layers.DepthwiseConv1D(2, name="reader")),
    "separable": lambda: image(
        layers.SeparableConv2D(3, 2, depth_multiplier=2, name="reader")
    ),
    "separable 1D": lambda: signal(layers.SeparableConv1D(3, 2, name="reader")),
    "transposed": lambda: image(layers.Conv2DTranspose(3, 2, name="reader")),
    "transposed 1D": lambda: signal(layers.Conv1DTranspose(3, 2, name="reader")),
    "flattened": lambda: image(
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(2, name="reader"),
    ),
    "flattened twice": lambda: signal(
        layers.Flatten(), layers.Flatten(), layers.Dense(2, name="reader")
    ),
    "channels first, flattened so": lambda: flat_first("channels_first"),
    "channels first, flattened otherwise": lambda: flat_first("channels_last"),
    "pooled as a whole": lambda: image(
        layers.GlobalAveragePooling2D(), layers.Dense(2, name="reader")
    ),
    "pooled with axes": lambda: image(
        layers.GlobalMaxPooling2D(keepdims=True), layers.Conv2D(2, 1, name="reader")
    ),
    "resized": lambda: image(
        layers.ZeroPadding2D(1),
        layers.UpSampling2D(2),
        layers.Cropping2D(1),
        layers.AveragePooling2D(2),
        layers.SpatialDropout2D(0.5),
        layers.Conv2D(2, 1, name="reader"),
    ),
    "normalized before": lambda: vector(
        layers.BatchNormalization(), layers.Dense(2, name="reader")
    ),
    "two": two_readers,
    "nested": nested,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.onednn) if "channels" in name else name
        for name in READERS
    ],
)
def test_nothing_reads_a_new_unit(name):
    """Whatever its incoming weights are, the output is the same; before, it was not."""
    keras.utils.set_random_seed(1)
    model = READERS[name]()
    (layer,) = (la for la in model._flatten_layers() if la.name == "units")
    x = inputs_of(model)

    def outputs():
        found = []
        for seed in range(2):
            kernel, bias = layer.get_weights()
            kernel[..., DEAD] = numbers(*kernel.shape, seed=seed)[..., DEAD]
            bias[DEAD] = 3.0
            layer.set_weights([kernel, bias])
            found.append(outputs_of(model, x))
        return found

    one, other = outputs()
    assert not np.allclose(one, other, rtol=1e-2)
    kill(layer)
    before, weights = outputs_of(model, x), arrays(model.variables)
    recycler = recycled_once(model, tau=0.0)
    (path,) = recycler.history["recycled"]
    assert recycler.history["recycled"][path][0].tolist() == DEAD
    if name != "normalized before":  # there a dead unit is moved, too
        np.testing.assert_array_equal(outputs_of(model, x), before)
    after = arrays(model.variables)
    for reader in model._flatten_layers():
        if reader.name in ("reader", "other"):
            kernel = reader.weights[0]  # all weights of the units, and no more
            changed = after[id(kernel)] != weights[id(kernel)]
            assert changed.sum() == changed.size * len(DEAD) // UNITS
            assert np.all(after[id(kernel)][changed] == 0)
    one, other = outputs()
    np.testing.assert_array_equal(one, other)


# --- What is left alone --------------------------------------------------------------


class Own(layers.Layer):
    def call(self, x):
        return keras.ops.flip(x, -1)


def joined(join):
    given = keras.Input((5,))
    x = layers.Dense(5, "relu", name="units")(given)
    return keras.Model(given, layers.Dense(2)(join([x, given])))


def shared(which):
    given = keras.Input((UNITS,))
    units = layers.Dense(UNITS, "relu", name="units")
    reader = layers.Dense(2, name="reader")
    x = units(given)
    if which == "units":
        x = units(x)
    out = reader(x)
    if which == "reader":
        out = layers.Add()([out, reader(given)])
    return keras.Model(given, out)


def frozen(name):
    model = vector(
        layers.BatchNormalization(name="norm"), layers.Dense(2, name="reader")
    )
    model.get_layer(name).trainable = False
    return model


def two_outputs():
    given = keras.Input((5,))
    x = layers.Dense(UNITS, "relu", name="units")(given)
    return keras.Model(given, [x, layers.Dense(2)(x)])


def inner_output():
    given = keras.Input((5,))
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(UNITS, "relu", name="units")]
    )
    x = inner(given)
    return keras.Model(given, [x, layers.Dense(2)(x)])


class Passing(layers.Layer):
    """Returns what a layer inside returns, which changes no unit."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dropout(0.0)

    def call(self, x):
        return self.inner(x)


def passed_output():
    given = keras.Input((5,))
    x = layers.Dense(UNITS, "relu", name="units")(given)
    return keras.Model(given, [Passing()(x), layers.Dense(2)(x)])


def one_activation():
    given, relu = keras.Input((5,)), layers.ReLU(name="relu")
    x = relu(layers.Dense(UNITS, name="units")(given))
    return keras.Model(given, layers.Dense(1)(relu(layers.Dense(4)(x))))


class Tied(layers.Layer):
    """Uses another layer's kernel, which no graph tells."""

    def __init__(self, other, holds):
        super().__init__()
        if holds:
            self.other = other
        else:
            self.borrowed = other.kernel

    def call(self, x):
        return x


def tied(holds):
    units = layers.Dense(UNITS, "relu", name="units")
    units.build((None, 5))
    return chain((5,), units, dense(2), Tied(units, holds))


def before_activation():
    given = keras.Input((5,))
    z = layers.Dense(UNITS, name="units")(given)
    one, other = layers.ReLU()(z), layers.Activation("tanh")(z)
    return keras.Model(
        given, layers.Add()([layers.Dense(2)(one), layers.Dense(2)(other)])
    )


def other_axis():
    rectifier = layers.ReLU()
    rectifier.data_format = "channels_first"
    given = keras.Input((4, 3))
    x = rectifier(layers.Dense(UNITS, name="units")(given))
    return keras.Model(given, dense(2)(x))


dense = layers.Dense
SKIPPED = {
    "add": (lambda: joined(layers.Add()), "goes into 'add"),
    "concatenate": (lambda: joined(layers.Concatenate()), "(Concatenate)"),
    "recurrent": (lambda: signal(layers.LSTM(2)), "(LSTM)"),
    "attention": (
        lambda: joined_attention(),
        "(MultiHeadAttention)",
    ),
    "layer normalization": (
        lambda: vector(layers.LayerNormalization(), dense(2)),
        "(LayerNormalization)",
    ),
    "masking": (lambda: signal(layers.Masking(), dense(2)), "(Masking)"),
    "reshape": (lambda: vector(layers.Reshape((2, 3)), dense(2)), "(Reshape)"),
    "softmax": (lambda: vector(layers.Softmax(), dense(2)), "mixes units"),
    "another axis": (lambda: other_axis(), "another axis"),
    "custom": (lambda: vector(Own(), dense(2)), "(Flip)"),
    "wrapped": (
        lambda: signal(layers.TimeDistributed(dense(2))),
        "(TimeDistributed)",
    ),
    "output": (two_outputs, "returns the model's output"),
    "output of a custom layer": (passed_output, "returns an output of the model"),
    "output of a nested model": (inner_output, "returns the model's output"),
    "shared": (lambda: shared("units"), "is called several times"),
    "shared reader": (lambda: shared("reader"), "'reader' (Dense), which is called"),
    "shared activation": (one_activation, "shares its activation, 'relu' (ReLU)"),
    "frozen": (lambda: frozen("units"), "'units' (Dense), which is frozen"),
    "frozen reader": (lambda: frozen("reader"), "'reader' (Dense), which is frozen"),
    "frozen norm": (
        lambda: frozen("norm"),
        "'norm' (BatchNormalization), which is fro",
    ),
    "other axis": (
        lambda: image(layers.BatchNormalization(axis=1), layers.Conv2D(2, 1)),
        "which has another axis",
    ),
    "other channels": (
        lambda: image(layers.Conv2D(2, 1, data_format="channels_first")),
        "which reads another axis",
    ),
    "other flattening": (
        lambda: image(layers.Flatten(data_format="channels_first"), dense(2)),
        "(Flatten)",
    ),
    "held twice": (lambda: tied(True), "'units' (Dense), which shares its weights"),
    "tied": (lambda: tied(False), "'units' (Dense), which shares its weights"),
    "several activations": (before_activation, "read by other than one layer"),
}


def joined_attention():
    given = keras.Input((4, 5))
    x = layers.Dense(UNITS, "relu", name="units")(given)
    return keras.Model(given, layers.MultiHeadAttention(2, 3)(x, x))


class Turned(layers.Dense):
    """A dense layer whose kernel is `(outputs, inputs)`."""

    def build(self, shape):
        self._kernel = self.add_weight((self.units, shape[-1]), name="kernel")
        self.bias = self.add_weight((self.units,), "zeros", name="bias")
        self.built = True

    def call(self, x):
        return self.activation(ops.einsum("bi,oi->bo", x, self._kernel) + self.bias)


def test_axes_of_a_users_own_are_no_units(monkeypatch):
    from keras_initlab._keras.kinds import _records

    monkeypatch.setattr(_records, "_registered", {})
    monkeypatch.setattr(_records, "_known", {})
    axes = initlab.KernelAxes(inputs=(1,), outputs=(0,))
    initlab.register_fans(Turned, lambda layer: {"kernel": axes})
    model = vector(Turned(UNITS, "relu", name="turned"), dense(2))
    found, skipped = _recycler.recyclable(model)
    assert not any("turned" in path for path in found)
    assert any("turned" in path for path in skipped)


@pytest.mark.parametrize("name", SKIPPED)
def test_what_cannot_be_let_go_is_skipped(name):
    make, reason = SKIPPED[name]
    found, skipped = _recycler.recyclable(make())
    assert not any(path.endswith("units") for path in found)
    (skip,) = (skip for path, skip in skipped.items() if path.endswith("units"))
    assert reason in str(skip)


def test_each_layer_with_a_kernel_is_recycled_or_has_a_reason():
    given = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, UNITS, name="tokens")(given)
    x = layers.LSTM(UNITS, return_sequences=True)(x)
    x = layers.Dense(UNITS, "relu", name="units")(x)
    x = layers.Dense(UNITS, name="linear")(x)
    x = layers.Dense(UNITS, "relu", name="added")(x)
    add = layers.Add()
    x = add([x, layers.Dense(UNITS, name="head")(x)])
    model = keras.Model(given, x)
    lines = []
    recycler = DormantUnitRecycler(alerts=lines.append)
    compiled(model)
    data = np.zeros((4, 5), "int32"), np.zeros((4, 5, UNITS))
    for _ in range(2):
        model.fit(*data, verbose=0, callbacks=[recycler], epochs=2)
    (cell,) = (path for path in recycler.skipped if path.startswith("lstm"))
    assert recycler.skipped == {
        "tokens": "is a Embedding, neither a dense layer of Keras nor a convolution",
        cell: "is a LSTMCell, neither a dense layer of Keras nor a convolution",
        "linear": "has no activation",
        "added": f"goes into {add.name!r} (Add)",
        "head": f"goes into {add.name!r} (Add)",
    }
    assert list(recycler._watched) == ["units"]
    assert "added keeps its dormant units: it goes into 'add" in "".join(lines)
    assert [alert.path for alert in recycler.alerts][:1] == ["added"]


# --- When ----------------------------------------------------------------------------

SCHEDULES = {
    "every step": ({"every": 1}, [0, 1, 2, 3, 4, 5]),
    "every second": ({"every": 2}, [1, 3, 5]),
    "every fourth": ({"every": 4}, [3]),
    "never so far": ({}, []),
    "a function": ({"every": lambda step: step in (0, 4)}, [0, 4]),
    "from a step on": ({"every": 1, "start": 4}, [4, 5]),
    "up to a step": ({"every": 1, "stop": 2}, [0, 1]),
    "between": ({"every": 2, "start": 2, "stop": 5}, [3]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule(name):
    arguments, expected = SCHEDULES[name]
    recycler = DormantUnitRecycler(**arguments)
    train(compiled(mlp()), recycler, epochs=2, batch_size=3)  # three steps an epoch
    history = recycler.history
    assert history["step"].tolist() == expected
    assert history["epoch"].tolist() == [step // 3 for step in expected]


@needs_steps_per_execution
def test_several_steps_per_execution():
    recycler = DormantUnitRecycler(every=3)
    model = compiled(mlp(), steps_per_execution=2)
    train(model, recycler, epochs=2, batch_size=2)  # 0 1 | 2 3 || 4 5 | 6 7
    assert recycler.history["step"].tolist() == [3, 5]


def test_a_later_fit_appends_and_another_model_starts_over():
    recycler = DormantUnitRecycler(every=1)
    model = compiled(mlp())
    train(model, recycler)
    train(model, recycler, epochs=2, initial_epoch=1)
    assert recycler.history["step"].tolist() == [0, 1]
    assert recycler.history["scores"]["first"].shape == (2, UNITS)
    model.get_layer("first").trainable = False
    train(compiled(model), recycler, epochs=3, initial_epoch=2)
    assert recycler.history["step"].tolist() == [0, 1, 2]
    scores = recycler.history["scores"]
    assert scores["second"].shape == (3, UNITS + 1)
    assert np.isfinite(scores["second"]).all()
    assert np.isfinite(scores["first"]).all(axis=1).tolist() == [True, True, False]
    assert np.isnan(scores["first"][2]).all()
    assert [len(units) for units in recycler.history["recycled"]["first"]][2] == 0
    train(compiled(mlp()), recycler)
    assert recycler.history["step"].tolist() == [0]


def test_asynchronous_dispatch_stays_on():
    plain, own = (
        keras.callbacks.CallbackList(callbacks)._async_train
        for callbacks in ([], [DormantUnitRecycler()])
    )
    assert own == plain


# --- What is told --------------------------------------------------------------------


def test_logs_line_and_frame(capsys):
    model = mlp()
    kill(model.get_layer("first"))
    calls = []
    recycler = DormantUnitRecycler(
        0.0, every=2, log_to=lambda *call: calls.append(call), verbose=1
    )
    fitted = train(compiled(model), recycler, epochs=2, batch_size=4)
    assert fitted.history["recycled_units"] == [2.0, 0.0]
    keys = ("recycled_units", "recycled_units/first", "recycled_units/second")
    assert calls[0] == (dict(zip(keys, (2, 2, 0), strict=True)), 1)
    assert calls[1] == (dict.fromkeys(keys, 0), 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "epoch 1: 2 units recycled, most in first (2)",
        "epoch 2: 0 units recycled",
    ]
    frame = recycler.to_frame()
    assert frame.index.tolist() == [1, 3]
    assert frame["recycled_units/first"].tolist() == [2, 0]
    assert frame["recycled_units"].tolist() == [2, 0]
    assert DormantUnitRecycler().to_frame().empty


def test_there_is_no_picture():
    with pytest.raises(
        NotImplementedError, match=r"`DormantUnitRecycler` draws no picture"
    ):
        DormantUnitRecycler().plot()


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"tau": -0.1}, "tau=-0.1"),
        ({"tau": "small"}, "tau='small'"),
        ({"tau": 1}, "tau=1"),
        ({"every": 0}, "every=0"),
        ({"every": "epoch"}, "every='epoch'"),
        ({"start": -1}, "start=-1"),
        ({"stop": 2.5}, "stop=2.5"),
        ({"start": 5, "stop": 5}, "stop=5, start=5"),
        ({"seed": -1}, "seed=-1"),
        ({"verbose": 3}, "verbose=3"),
        ({"log_to": 3}, "log_to=3"),
    ],
)
def test_arguments_are_checked(arguments, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        DormantUnitRecycler(**arguments)


def test_layers_must_be_recyclable():
    with pytest.raises(ValueError, match=r"units can be recycled.*\['head'\].*'first'"):
        recycled_once(mlp(), layers="head")


def test_a_model_without_units_to_recycle():
    model = chain((5,), layers.Dense(2, name="head"))
    with pytest.warns(UserWarning, match=r"needs a layer.*where head returns the mod"):
        recycled_once(model)


def test_a_model_without_a_graph():
    model = OneOptimizer()
    model(np.ones((4, 3)))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"\(OneOptimizer\), which has a `call`"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), callbacks=[DormantUnitRecycler()])


def test_a_graph_that_is_not_what_runs():
    class Twice(keras.Model):
        def call(self, x):
            return 2 * super().call(x)

    given = keras.Input((5,))
    inner = Twice(given, layers.Dense(UNITS, "relu")(given))
    model = keras.Model(given, layers.Dense(1)(inner(given)))
    with pytest.warns(UserWarning, match=r"\(Twice\), which has a `call`"):
        recycled_once(model)


@pytest.mark.seconds
@pytest.mark.tensorflow
def test_a_model_that_the_first_step_builds():
    model = keras.Sequential([layers.Dense(UNITS, "relu"), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="not built"):
        model.fit(np.ones((4, 3)), np.ones((4, 1)), callbacks=[DormantUnitRecycler()])


def test_an_optimizer_that_cannot_be_made_again():
    class Closed(optimizers.SGD):
        def __init__(self, secret):
            super().__init__(0.1)

    with pytest.warns(UserWarning, match=r"make again.*Closed, which raises TypeError"):
        train(compiled(mlp(), Closed(1)), DormantUnitRecycler())


# --- As a whole ----------------------------------------------------------------------


def digits():
    data = load_digits()
    return (data.data[:1400] / 16).astype("float32"), data.target[:1400]


def count_dead(model, x):
    """Units that fire on no example, by NumPy."""
    dead = 0
    for layer in model.layers[:-1]:
        x = relu(affine(x, *layer.get_weights()))
        dead += int(np.sum(np.all(x == 0, axis=0)))
    return dead


def trained_on_digits(callbacks):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(50, "relu"),
            layers.Dense(50, "relu"),
            layers.Dense(10),
        ]
    )
    for layer in model.layers[:-1]:
        kill(layer, slice(0, 30))  # 60 %
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(3e-3), loss, **MODES[USUAL])
    x, y = digits()
    fitted = model.fit(x, y, 100, epochs=6, verbose=0, callbacks=callbacks)
    return model, count_dead(model, x), fitted.history["loss"][-1]


@pytest.mark.slow
def test_fewer_units_are_dead_in_the_end():
    _, dead, loss = trained_on_digits([])
    recycler = DormantUnitRecycler(every=20, seed=0)
    _, fewer, lower = trained_on_digits([recycler])
    assert dead >= 60
    assert fewer <= 10
    assert lower < loss


def test_a_recycled_model_saves_and_loads(tmp_path):
    model = deep(optimizers.Adam(0.01))
    train(model, DormantUnitRecycler(0.0, every=1), epochs=2, batch_size=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs_of(loaded, x), outputs_of(model, x))


REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import keras
from keras_initlab.callbacks import DormantUnitRecycler
keras.utils.set_random_seed(0)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    first = keras.layers.Dense(4, "relu")
    model = keras.Sequential([keras.Input((2,)), first, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
kernel, bias = first.get_weights()
bias[1] = -100
first.set_weights([kernel, bias])
recycler = DormantUnitRecycler(0.0, every=lambda step: step == 1, seed=0)
x = np.random.default_rng(0).normal(size=(16, 2)) + 2
model.fit(x, np.ones((16, 1)), 4, verbose=0, callbacks=[recycler])
(found,) = recycler.history["recycled"].values()
assert 1 in found[0]  # and others that are dead on four examples
assert -1 < first.get_weights()[1][1] < 1
for variable in [*model.variables, *model.optimizer.variables]:
    one, other = (np.array(part) for part in variable.value.values)
    assert np.array_equal(one, other), variable.path
print("all replicas hold the same")
"""


@pytest.mark.slow
@pytest.mark.tensorflow
def test_replicas():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False
    )
    assert "all replicas hold the same" in result.stdout, result.stderr[-2000:]
