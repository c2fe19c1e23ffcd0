import contextlib
import copy
import functools
import gc
import io
import json
import os
import pickle
import re
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from custom_training import OneOptimizer
from keras import layers, optimizers
from oracles import BACKEND, MODES, USUAL, gradient_norms

from keras_initlab.callbacks import DeadReLULogger, GradientNormLogger
from keras_initlab.observing._recipe import Traced

EXAMPLES, BATCH, STEPS = 24, 6, 4
OWN_KEYS = {"grad_norm", "dead_relu_fraction"}
SHAPES = {"dense": (6,), "convolution": (6, 6, 1)}
OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
}


def inputs(kind="dense"):
    rng = np.random.default_rng(1)
    return rng.normal(size=(EXAMPLES, *SHAPES[kind])).astype("float32")


def targets():
    return np.random.default_rng(2).normal(size=(EXAMPLES, 2)).astype("float32")


def network(kind="dense"):
    hidden = {
        "dense": [layers.Dense(8, "relu"), layers.Dropout(0.3)],
        "convolution": [
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
        ],
    }[kind]
    return keras.Sequential([keras.Input(SHAPES[kind]), *hidden, layers.Dense(2)])


def compiled(kind="dense", optimizer="momentum", **arguments):
    keras.utils.set_random_seed(3)
    model = network(kind)
    arguments = arguments or {"run_eagerly": True}
    model.compile(OPTIMIZERS[optimizer](), "mse", metrics=["mae"], **arguments)
    return model


def watchers(every=1):
    return [GradientNormLogger(every), DeadReLULogger(every)]


def fit(model, callbacks=(), epochs=2, **arguments):
    arguments = {"x": inputs(), "y": targets(), "batch_size": BATCH, **arguments}
    return model.fit(epochs=epochs, verbose=0, callbacks=[*callbacks], **arguments)


def assert_same(these, those):
    assert len(these) == len(those)
    for this, that in zip(these, those, strict=True):
        np.testing.assert_array_equal(this, that)


def arrays(variables):
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def figures(callbacks):
    """All numbers that callbacks have gathered, in one flat list of arrays."""
    return [
        np.asarray(leaf) for c in callbacks for leaf in keras.tree.flatten(c.history)
    ]


@functools.cache
def run(kind, optimizer, mode, every=None):
    """Three epochs of a fit with both callbacks, or with none: model and history."""
    model = compiled(kind, optimizer, **MODES[mode])
    callbacks = watchers(every) if every else []
    return model, fit(model, callbacks, 3, x=inputs(kind)).history


@pytest.fixture(
    params=[
        ("dense", "adam", USUAL, 3),
        ("dense", "momentum", USUAL, 3),
        ("convolution", "adam", USUAL, 1),
        ("convolution", "adam", USUAL, 3),
        ("convolution", "momentum", "eager", 1),
        ("convolution", "momentum", "eager", 3),
    ],
    ids=str,
)
def runs(request):
    *case, every = request.param
    return run(*case), run(*case, every)


def test_weights_are_bit_identical(runs):
    (plain, _), (observed, _) = runs
    assert_same(arrays(plain.variables), arrays(observed.variables))


def test_optimizer_state_is_bit_identical(runs):
    (plain, _), (observed, _) = runs
    assert_same(arrays(plain.optimizer.variables), arrays(observed.optimizer.variables))


def test_metrics_are_bit_identical(runs):
    (_, plain), (_, observed) = runs
    assert set(observed) - set(plain) == OWN_KEYS
    assert {key: observed[key] for key in plain} == plain


def test_nothing_is_added(runs):
    (plain, _), (observed, _) = runs
    assert set(vars(plain)) == set(vars(observed))
    assert set(vars(plain.optimizer)) == set(vars(observed.optimizer))
    for one, other in zip(plain.layers, observed.layers, strict=True):
        assert set(vars(one)) == set(vars(other))


def test_weights_are_equal_but_for_rounding_where_a_graph_is_optimized():
    # TensorFlow folds the gradient of a normalization's scale into the momentum, unless
    # something else reads that gradient.
    case = ("convolution", "momentum", USUAL)
    plain, observed = run(*case)[0], run(*case, 1)[0]
    for one, other in zip(
        [*arrays(plain.variables), *arrays(plain.optimizer.variables)],
        [*arrays(observed.variables), *arrays(observed.optimizer.variables)],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)


def test_training_moves_the_weights():
    """So that equal weights mean something."""
    model, history = run("dense", "adam", USUAL, 3)
    assert history["loss"][2] != history["loss"][0]
    assert not np.array_equal(model.get_weights()[0], compiled().get_weights()[0])


def test_metrics_with_validation_data_are_unchanged():
    histories = []
    for callbacks in ([], watchers()):
        model = compiled()
        data = (inputs()[:7], targets()[:7])
        histories.append(fit(model, callbacks, 1, validation_data=data).history)
    plain, observed = histories
    assert {"val_loss", "val_mae"} <= set(plain)
    assert {key: observed[key] for key in plain} == plain


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_checkpoints_hold_what_they_would_hold_unobserved(name, tmp_path):
    contents = []
    for callbacks in ([], watchers()):
        path = tmp_path / str(len(contents)) / name
        path.parent.mkdir()
        only_weights = name.endswith(".h5")
        checkpoint = keras.callbacks.ModelCheckpoint(
            path, save_weights_only=only_weights
        )
        model = compiled(**MODES[USUAL])
        fit(model, [checkpoint, *callbacks])
        contents.append(stored(path))
        if not only_weights:
            loaded = keras.models.load_model(path)
            assert_same(model.get_weights(), loaded.get_weights())
            own, other = model.optimizer.variables, loaded.optimizer.variables
            assert_same(arrays(own), arrays(other))
    plain, observed = contents
    assert set(plain) == set(observed)
    for key, value in plain.items():
        np.testing.assert_equal(observed[key], value)


def stored(path):
    """The arrays of a checkpoint by name, and the configuration beside them."""
    found = {}
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            # Names count on from model to model.
            found["config"] = re.sub(r"_\d+", "", json.dumps(config))
            found["names"] = sorted(archive.namelist())
            weights = io.BytesIO(archive.read("model.weights.h5"))
    else:
        weights = path
    with h5py.File(weights) as file:

        def note(name, node):
            if isinstance(node, h5py.Dataset):
                found[re.sub(r"_\d+/", "/", name)] = node[()]

        file.visititems(note)
    return found


class Do(keras.callbacks.Callback):
    """Does something with the model at one moment of the training."""

    def __init__(self, moment, action, only_at=None):
        super().__init__()

        def act(index=None, logs=None):
            if only_at is None or index == only_at:
                action(self.model)

        setattr(self, moment, act)


def test_a_model_can_be_pickled_and_copied_in_the_middle_and_after():
    copies = []

    def copy_model(model):
        copies.append(pickle.loads(pickle.dumps(model)))
        copies.append(keras.models.clone_model(model))

    model = compiled()
    fit(model, [Do("on_epoch_end", copy_model), *watchers()], 1)
    copy_model(model)
    assert_same(model.get_weights(), copies[0].get_weights())
    assert_same(model.get_weights(), copies[2].get_weights())
    history = fit(copies[2]).history
    assert not OWN_KEYS & set(history)
    copies[3].compile("sgd", "mse", run_eagerly=True)
    assert not OWN_KEYS & set(fit(copies[3]).history)


class Counting(layers.Layer):
    """Counts how often Python runs it: once a trace, once a step if eager."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def call(self, x):
        self.count += 1
        return x


def counted():
    counter = Counting()
    model = keras.Sequential(
        [keras.Input((6,)), counter, layers.Dense(4, "relu"), layers.Dense(2)]
    )
    model.compile("sgd", "mse", **MODES[USUAL])
    model.evaluate(inputs(), targets(), verbose=0)  # builds what Keras builds once
    counter.count = 0
    return model, counter


needs_tracing = pytest.mark.skipif(
    BACKEND == "torch", reason="on PyTorch every step runs in Python"
)


@needs_tracing
def test_one_observation_serves_all_callbacks():
    model, counter = counted()
    fit(model, [*watchers(2), *watchers(3)])
    assert counter.count == 2  # the plain function and the observing one


@needs_tracing
def test_every_step_observed_traces_once():
    model, counter = counted()
    fit(model, watchers(1))
    assert counter.count == 1


@pytest.mark.seconds
@pytest.mark.parametrize("every", [1, pytest.param(7, marks=pytest.mark.slow)], ids=str)
def test_long_training_neither_traces_again_nor_grows(every):
    model, counter = counted()
    sizes = []

    def measure(model):
        gc.collect()
        sizes.append(len(gc.get_objects()))

    steps = 300
    x, y = (np.resize(a, (steps, *a.shape[1:])) for a in (inputs(), targets()))
    observers = watchers(every)
    moments = [Do("on_train_batch_end", measure, only_at=at) for at in (99, 299)]
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[*observers, *moments])
    assert len(observers[0].history["step"]) == len(range(0, steps, every))
    assert sizes[1] - sizes[0] < 100  # of which there would be 200 at one a step
    if BACKEND != "torch":
        assert counter.count == (1 if every == 1 else 2)


@needs_tracing
def test_a_later_fit_without_callbacks_does_not_trace_again():
    model, counter = counted()
    fit(model)
    function = model.train_function
    assert counter.count == 1
    fit(model, watchers(2))
    assert model.train_function is function
    assert counter.count == 2
    fit(model)
    assert model.train_function is function
    assert counter.count == 2


@needs_tracing
def test_a_later_fit_with_the_callbacks_does_not_trace_again():
    model, counter = counted()
    observers = watchers(1)
    fit(model, observers)
    assert counter.count == 1
    fit(model, observers, epochs=3, initial_epoch=2)
    assert counter.count == 1
    assert observers[0].history["step"].tolist() == list(range(3 * STEPS))


def test_the_train_function_of_a_first_fit_is_restored():
    functions = []
    model = compiled()
    remember = Do(
        "on_train_begin", lambda model: functions.append(model.train_function)
    )
    fit(model, [remember, *watchers()])
    assert functions == [model.train_function]


def test_early_stopping_restores_the_train_function():
    model = compiled()
    fit(model)
    function = model.train_function

    def stop(model):
        model.stop_training = True

    callbacks = watchers()
    fit(model, [*callbacks, Do("on_train_batch_end", stop, only_at=1)], 5)
    assert model.train_function is function
    assert callbacks[0].history["step"].tolist() == [0, 1]


class InterruptionError(Exception):
    """Stands for whatever ends a fit early."""


def fail(error=InterruptionError):
    raise error("on purpose")


class Failing(layers.Layer):
    """Fails in its n-th eager call or trace, if told so."""

    def __init__(self):
        super().__init__()
        self.calls_left, self.error = None, None

    def call(self, x):
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.calls_left = None
                fail(self.error)
        return x


def failing_generator():
    yield inputs()[:BATCH], targets()[:BATCH]
    yield inputs()[:BATCH], targets()[:BATCH]
    fail()


def by_callback(moment, error, only_at=None):
    def run_fit(model, observers):
        failing = Do(moment, lambda model: fail(error), only_at)
        fit(model, [failing, *observers])

    return run_fit


def by_layer(error, calls):
    def run_fit(model, observers):
        layer = model.layers[0]
        layer.calls_left, layer.error = calls, error
        fit(model, observers)

    return run_fit


def by_data(source):
    def run_fit(model, observers):
        model.fit(
            source(),
            steps_per_epoch=STEPS,
            shuffle=False,
            verbose=0,
            callbacks=observers,
        )

    return run_fit


# What ends a fit, and the mode in which it does: eager costs less time.
FAILURES = {
    "train begin": (by_callback("on_train_begin", InterruptionError), "eager"),
    "epoch begin": (by_callback("on_epoch_begin", InterruptionError, 1), "eager"),
    "batch begin": (by_callback("on_train_batch_begin", InterruptionError, 2), "eager"),
    "batch end": (by_callback("on_train_batch_end", InterruptionError, 2), USUAL),
    "epoch end": (by_callback("on_epoch_end", InterruptionError), "eager"),
    "train end": (by_callback("on_train_end", InterruptionError), "eager"),
    "Ctrl-C at batch end": (
        by_callback("on_train_batch_end", KeyboardInterrupt, 2),
        "eager",
    ),
    "Ctrl-C at epoch end": (by_callback("on_epoch_end", KeyboardInterrupt, 0), "eager"),
    "train step": (by_layer(InterruptionError, 2), "eager"),
    "Ctrl-C in a train step": (by_layer(KeyboardInterrupt, 2), "eager"),
    "generator": (by_data(failing_generator), "eager"),
}


def fragile(mode):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), Failing(), layers.Dense(8, "relu"), layers.Dense(2)]
    )
    model.compile(OPTIMIZERS["momentum"](), "mse", **MODES[mode])
    return model


def interrupt(how, model, observers):
    # TensorFlow has errors of its own for what fails inside its data.
    keras.utils.set_random_seed(4)
    with pytest.raises(BaseException, match="on purpose"):
        how(model, observers)


RARE = ("epoch begin", "batch begin", "train end", "Ctrl-C at epoch end")
# A producer thread that fails ends at no fixed step on a loaded machine.
RARE += ("generator",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in RARE))
        for name in FAILURES
    ],
)
def test_after_a_failure_nothing_is_left(name):
    how, mode = FAILURES[name]
    model, twin = fragile(mode), fragile(mode)
    observers = watchers(2)
    for one, callbacks in [(model, observers), (twin, [])]:
        interrupt(how, one, callbacks)
    before = figures(observers)
    for one in (model, twin):
        fit(one, epochs=1, shuffle=False)
        one.train_on_batch(inputs()[:BATCH], targets()[:BATCH])
    assert_same(arrays(model.variables), arrays(twin.variables))
    assert_same(arrays(model.optimizer.variables), arrays(twin.optimizer.variables))
    assert set(vars(model)) == set(vars(twin))
    assert set(vars(model.optimizer)) == set(vars(twin.optimizer))

    fresh, expected = watchers(), watchers()
    fit(model, fresh, epochs=1, shuffle=False)
    fit(twin, expected, epochs=1, shuffle=False)
    assert_same(figures(fresh), figures(expected))
    assert_same(before, figures(observers))  # unobserved since the failure


@pytest.mark.slow
def test_a_failure_while_the_observing_function_is_traced():
    model, twin = fragile(USUAL), fragile(USUAL)
    for one in (model, twin):
        fit(one, epochs=1, shuffle=False)
    function = model.train_function
    interrupt(by_layer(InterruptionError, 0), model, watchers())
    assert model.train_function is function
    norms = GradientNormLogger()
    fit(model, [norms], epochs=1, shuffle=False)
    fit(twin, epochs=1, shuffle=False)
    assert_same(arrays(model.variables), arrays(twin.variables))
    assert norms.history["step"].tolist() == [0]


def test_train_on_batch_right_after_a_failure_is_not_observed():
    model, twin = fragile("eager"), fragile("eager")
    observers = watchers()
    how = by_callback("on_train_batch_end", InterruptionError, 1)
    interrupt(how, model, observers)
    interrupt(how, twin, [])
    before = figures(observers)
    for one in (model, twin):
        one.train_on_batch(inputs()[:BATCH], targets()[:BATCH])
    assert_same(before, figures(observers))
    assert_same(model.get_weights(), twin.get_weights())


def test_the_same_callbacks_work_after_a_failure():
    model, twin = fragile("eager"), fragile("eager")
    observers, expected = watchers(), watchers()
    how = by_callback("on_train_batch_end", InterruptionError, 1)
    interrupt(how, model, observers)
    interrupt(how, twin, [])
    assert observers[0].history["step"].tolist() == [0, 1]
    history = fit(model, observers, shuffle=False).history
    assert fit(twin, expected, shuffle=False).history == history
    norms = observers[0].history
    assert norms["step"].tolist() == [0, 1, *range(2 * STEPS)]
    np.testing.assert_array_equal(
        norms["global_norm"][2:], expected[0].history["global_norm"]
    )
    assert_same(figures(observers[1:]), figures(expected[1:]))


def test_a_history_object_used_again_after_a_failure():
    model = fragile("eager")
    norms, history = GradientNormLogger(1), keras.callbacks.History()
    failing = Do("on_epoch_end", lambda model: fail())
    with pytest.raises(InterruptionError):
        fit(model, [norms, history, failing])
    count = len(norms.history["step"])
    fit(model, [norms, history])
    assert norms.history["step"][count:].tolist() == list(range(2 * STEPS))
    assert norms.history["epoch"][count:].tolist() == [0] * STEPS + [1] * STEPS


def test_a_history_object_used_again_without_the_callback():
    model = fragile("eager")
    norms, history = GradientNormLogger(1), keras.callbacks.History()
    failing = Do("on_train_batch_end", lambda model: fail(), only_at=1)
    with pytest.raises(InterruptionError):
        fit(model, [norms, history, failing])
    before = figures([norms])
    fit(model, [history])
    assert_same(before, figures([norms]))


@pytest.mark.slow
@pytest.mark.parametrize("moment", [None, "on_train_batch_end", "on_epoch_end"])
def test_no_model_is_kept_alive(moment):
    model = fragile("eager")
    failing = [Do(moment, lambda model: fail(), only_at=0)] if moment else []
    with contextlib.suppress(InterruptionError):
        fit(model, [*watchers(), *failing])
    reference = weakref.ref(model)
    del model, failing
    gc.collect()
    assert reference() is None


@pytest.mark.once_a_day
@pytest.mark.parametrize(
    "logger",
    [
        GradientNormLogger(log_to=lambda metrics, step: fail(KeyboardInterrupt)),
        GradientNormLogger(lambda step: fail()),
        DeadReLULogger(log_to=lambda metrics, step: fail(KeyboardInterrupt)),
    ],
    ids=["Ctrl-C in a log", "schedule", "Ctrl-C in a log of an epoch"],
)
def test_errors_in_the_users_functions_come_through(logger):
    model, twin = fragile("eager"), fragile("eager")
    with pytest.raises((InterruptionError, KeyboardInterrupt)):
        fit(model, [logger])
    twin.set_weights(model.get_weights())
    twin.optimizer.build(twin.trainable_variables)
    for own, other in zip(
        twin.optimizer.variables, model.optimizer.variables, strict=True
    ):
        own.assign(other)
    for one in (model, twin):
        fit(one, shuffle=False)
    assert_same(arrays(model.variables), arrays(twin.variables))


def test_a_callback_that_refuses_the_model_leaves_nothing():
    model = compiled()
    norms = GradientNormLogger(1)
    with pytest.raises(ValueError, match=r"`layers` must name .*\['no such'\]"):
        fit(model, [norms, DeadReLULogger(layers="no such")])
    history = fit(model).history
    assert set(history) == {"loss", "mae"}
    assert len(norms.history["step"]) == 0


def test_other_uses_of_the_model_inside_an_observed_fit_are_not_counted():
    def use(model):
        if BACKEND == "jax":
            model.jax_state_sync()
        model.train_on_batch(9 * inputs()[:2], targets()[:2])
        model.test_on_batch(inputs()[:2], targets()[:2])
        model.evaluate(inputs(), targets(), verbose=0)
        model.predict(inputs(), verbose=0)

    observed = []
    for others in ([], [Do("on_train_batch_end", use, only_at=1)]):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(2, "relu")])
        model.set_weights([np.ones((6, 2)), np.zeros(2)])
        model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
        observers = watchers()
        fit(model, [*observers, *others], shuffle=False)
        observed.append(observers)
    assert observed[1][0].history["step"].tolist() == list(range(2 * STEPS))
    assert_same(*(figures([norms]) for norms, _ in observed))
    assert_same(*(figures([dead]) for _, dead in observed))


def test_the_same_callback_twice_in_the_list():
    once, twice = watchers(), watchers()
    first = fit(compiled(), once).history
    second = fit(compiled(), [*twice, *twice]).history
    assert first == second
    assert_same(figures(once), figures(twice))


def test_the_same_callback_twice_logs_once():
    calls = []
    observers = [
        kind(1, log_to=lambda *call: calls.append(call))
        for kind in (GradientNormLogger, DeadReLULogger)
    ]
    fit(compiled(), [*observers, *observers], epochs=1)
    assert len(calls) == STEPS + 1


def test_a_second_model_starts_the_history_anew():
    observers, fresh = watchers(), watchers()
    fit(compiled("convolution"), observers, 1, x=inputs("convolution"))
    model = compiled()
    fit(model, observers, epochs=1)
    twin = compiled()
    fit(twin, fresh, epochs=1)
    assert observers[0].history["step"].tolist() == list(range(STEPS))
    assert list(observers[0].history["variables"]) == [
        variable.path for variable in model.trainable_variables
    ]
    assert_same(figures(observers), figures(fresh))


def test_compile_between_fits():
    model = compiled()
    observers, fresh = watchers(), watchers()
    fit(model, observers, epochs=1)
    twin = compiled()
    fit(twin, epochs=1)
    for one, callbacks in [(model, observers), (twin, fresh)]:
        one.compile(optimizers.SGD(0.1), "mae", run_eagerly=True)
        keras.utils.set_random_seed(5)
        fit(one, callbacks, epochs=1)
    assert_same(arrays(model.trainable_variables), arrays(twin.trainable_variables))
    norms = observers[0].history
    assert norms["step"].tolist() == [*range(STEPS), *range(STEPS)]
    np.testing.assert_array_equal(
        norms["global_norm"][STEPS:], fresh[0].history["global_norm"]
    )


@pytest.mark.skipif(BACKEND == "jax", reason="Keras refuses this on JAX")
def test_a_layer_frozen_without_compile_trains_as_unobserved():
    """Keras goes on with the variables of the last compile."""
    weights = []
    for callbacks in ([], watchers(2)):
        model = compiled(**MODES[USUAL])
        fit(model, callbacks, epochs=1)
        model.layers[0].trainable = False
        fit(model, callbacks, epochs=1)
        weights.append(model.get_weights())
    assert_same(*weights)


def test_a_deep_copy_of_a_callback_is_on_its_own():
    originals = watchers()
    copies = copy.deepcopy(originals)
    fit(compiled(), originals)
    assert [len(c.history["epoch"]) for c in copies] == [0, 0]
    fit(compiled(), copies)
    assert_same(figures(originals), figures(copies))


@pytest.mark.once_a_day
@pytest.mark.parametrize("mode", MODES)
def test_a_train_step_of_the_users(mode):
    runs = []
    for callbacks in ([], watchers()):
        keras.utils.set_random_seed(3)
        model = OneOptimizer()
        model(inputs())
        start = model.get_weights()
        model.compile(OPTIMIZERS["momentum"](), **MODES[mode])
        runs.append((model, fit(model, callbacks, shuffle=False, epochs=1).history))
    (plain, plain_history), (observed, history) = runs
    assert set(history) == {"own", *OWN_KEYS}
    assert history["own"] == plain_history["own"]
    assert_same(plain.get_weights(), observed.get_weights())
    model.set_weights(start)
    x, y = inputs()[:BATCH], targets()[:BATCH]
    expected = gradient_norms(model, x, lambda z: model.loss_of(y, z))
    norms = callbacks[0].history["variables"].values()
    np.testing.assert_allclose([norm[0] for norm in norms], expected, 1e-5)


@pytest.mark.parametrize("after", ["nothing", "a fit", "a failure"])
def test_nothing_is_left_on_model_layers_and_optimizer(after):
    model = fragile("eager")
    fit(model, epochs=1)
    owners = [model, model.optimizer, *model.layers]
    before = [set(vars(owner)) for owner in owners]
    if after == "a fit":
        fit(model, watchers())
    elif after == "a failure":
        interrupt(by_layer(InterruptionError, 2), model, watchers())
    assert [set(vars(owner)) for owner in owners] == before
    assert not {"call", "apply", "train_step"} & set().union(*before)


def test_saving_after_an_observed_fit(tmp_path):
    model = compiled("convolution")
    fit(model, watchers(), epochs=1, x=inputs("convolution"))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(model.get_weights(), loaded.get_weights())
    loaded.load_weights(tmp_path / "model.weights.h5")
    for one in (model, loaded):
        fit(one, watchers(), epochs=1, x=inputs("convolution"), shuffle=False)
    assert_same(model.get_weights(), loaded.get_weights())


def test_two_models_observed_at_once():
    """A fit of another model inside a callback."""
    inner_callbacks, outer_callbacks = watchers(), watchers()
    inner = compiled()
    nested = Do("on_epoch_end", lambda model: fit(inner, inner_callbacks, 1), only_at=0)
    fit(compiled(), [*outer_callbacks, nested])
    assert inner_callbacks[0].history["step"].tolist() == list(range(STEPS))
    assert outer_callbacks[0].history["step"].tolist() == list(range(2 * STEPS))


@pytest.mark.tensorflow
def test_several_replicas_of_an_unknown_strategy_are_refused():
    """What MirroredStrategy gives, test_modes.py compares."""

    class OtherStrategy:
        num_replicas_in_sync = 4

    model = compiled()
    model._distribute_strategy = OtherStrategy()
    model.train_function = function = object()
    logger = GradientNormLogger()
    logger.set_model(model)
    with pytest.raises(RuntimeError) as caught:
        logger.on_train_begin()
    assert str(caught.value) == (
        "Training on several replicas is observed under `MirroredStrategy`. Received: "
        f"model={model.name!r} under `OtherStrategy`. Leave the callbacks out, or "
        "train on one device."
    )
    assert model.train_function is function


@pytest.mark.skipif(BACKEND != "jax", reason="Flax NNX belongs to JAX")
def test_a_train_function_that_ignores_the_train_step_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "is_nnx_enabled", lambda: True)
    with pytest.raises(RuntimeError, match=r"without Flax NNX.*is_nnx_enabled"):
        fit(compiled(), watchers())


def test_an_interrupt_while_a_step_is_read_loses_no_weights(monkeypatch):
    """There Python waits for the device, so that is where most of them come."""
    model, twin = fragile(USUAL), fragile(USUAL)
    measured = Traced.measured
    left = iter(range(2))

    def interrupted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(Traced, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, watchers(), shuffle=False)
    x, y = inputs()[: 3 * BATCH], targets()[: 3 * BATCH]
    twin.fit(x, y, BATCH, shuffle=False, verbose=0)
    for one in (model, twin):
        fit(one, shuffle=False)
    assert_same(arrays(model.variables), arrays(twin.variables))
    assert_same(arrays(model.optimizer.variables), arrays(twin.optimizer.variables))


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_ctrl_c_in_a_log_loses_no_weights():
    """The first step of a fit is in nobody's hands yet when the log is called."""
    model, twin = fragile(USUAL), fragile(USUAL)
    norms = GradientNormLogger(log_to=lambda *call: fail(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [norms], shuffle=False)
    twin.fit(inputs()[:BATCH], targets()[:BATCH], BATCH, shuffle=False, verbose=0)
    assert_same(model.get_weights(), twin.get_weights())
    own, other = model.optimizer.variables, twin.optimizer.variables
    assert_same(arrays(own), arrays(other))


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile")
@pytest.mark.filterwarnings("ignore")
def test_a_model_compiled_by_pytorch():
    """Without dropout, whose draws PyTorch's compiler changes."""
    weights = []
    for callbacks in ([], watchers(3)):
        model = fragile("eager")
        model.compile(OPTIMIZERS["momentum"](), "mse", jit_compile=True)
        history = fit(model, callbacks, shuffle=False).history
        weights.append(model.get_weights())
    assert set(history) >= OWN_KEYS
    assert callbacks[0].history["step"].tolist() == [0, 3, 4, 6]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-6)


OPTIMIZED = """
import keras
import numpy as np
from keras_initlab.callbacks import DeadReLULogger, GradientNormLogger

rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8, 8, 2)).astype("float32")
y = rng.normal(size=(256, 1)).astype("float32")
{before}
weights, norms = [], []
for callbacks in ([], [GradientNormLogger(1), DeadReLULogger(1)]):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((8, 8, 2)),
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1),
    ])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
    weights.append(model.get_weights())
for one, other in zip(*weights, strict=True):
    np.testing.assert_allclose(one, other, 1e-5, 1e-5)
{after}
print("done")
"""

# The gradient of the first batch, from a model on one device.
WHOLE_BATCH = """
keras.distribution.set_distribution(None)
import jax
keras.utils.set_random_seed(0)
twin = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
twin.compile("sgd", "mse")
start = twin.get_weights()
flat = x[:, 0, 0, :1] * np.ones((1, 8), "float32") + x[:, :1, 0, 1]
residual = flat[:16] @ start[0] + start[1] - y[:16]
kernel = 2 * flat[:16].T @ residual / 16
expected = np.sqrt(np.sum(kernel**2) + (2 * residual.mean()) ** 2)
keras.distribution.set_distribution(two)
sharded = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
sharded.set_weights(start)
sharded.compile("sgd", "mse")
norms = GradientNormLogger(1)
sharded.fit(flat, y, batch_size=16, shuffle=False, verbose=0, callbacks=[norms])
np.testing.assert_allclose(norms.history["global_norm"][0], expected, 1e-5)
assert len(norms.history["step"]) == 16
"""


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [
        pytest.param("", "", "", marks=pytest.mark.slow),
        (
            "assert len(keras.distribution.list_devices()) == 2\n"
            "two = keras.distribution.DataParallel()\n"
            "keras.distribution.set_distribution(two)",
            WHOLE_BATCH,
            "--xla_force_host_platform_device_count=2",
        ),
    ],
    ids=["one device", "two devices"],
)
def test_weights_under_all_of_the_compilers_optimizations(before, after, flags):
    """In a process of its own, which other tests do not tell to optimize little."""
    environment = {**os.environ, "XLA_FLAGS": flags}
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    result = subprocess.run(
        [sys.executable, "-c", OPTIMIZED.format(before=before, after=after)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    assert result.stdout == "done\n", result.stderr
