"""Callbacks where they are not expected: twice, on two models, again, in threads."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import hostile
import keras
import numpy as np
import pytest
from callback_kinds import KINDS, STEPS, X, fit, new, relu_model
from hostile_models import MineError, admitted
from keras import layers

from keras_initlab.callbacks import (
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)


def state(model, kind=None):
    """What a fit may leave behind, and the weights, to the last bit."""
    found = hostile.snapshot(model)
    # The recycler is there to change weights.
    is_same = kind is not DormantUnitRecycler
    values = [hostile.to_array(v).tobytes() for v in model.variables if is_same]
    return values, found["patched"], found["methods"], found["trainable"]


def observed(callback):
    """The epochs of all observations."""
    return callback.history["epoch"].tolist()


def expected(kind, epochs):
    """An observation a step, of dead units one an epoch."""
    each = 1 if kind is DeadReLULogger else STEPS
    return [epoch for epoch in epochs for _ in range(each)]


def twice_in_the_list(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback, callback)
    return model, callback, [0], 1


def two_of_a_kind(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback, new(kind))
    return model, callback, [0], 1


def two_models(kind):
    callback = new(kind)
    fit(relu_model(), callback, epochs=2)
    model = relu_model()
    fit(model, callback)
    return model, callback, [0], 1  # the history is that of the last


def after_clone_model(kind):
    model, callback = relu_model(), new(kind)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile("sgd", "mse", run_eagerly=True)
    fit(model, callback)
    fit(clone, callback)
    return clone, callback, [0], 1


def across_fits(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback)
    fit(model, callback)
    return model, callback, [0, 0], 2


def with_initial_epoch(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback, epochs=4, initial_epoch=3)
    return model, callback, [3], 1


def after_no_epoch(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback, epochs=0)
    fit(model, callback)
    return model, callback, [0], 1


def compiled_anew(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback)
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, callback)
    return model, callback, [0, 0], 2


def after_an_error(kind):
    model, callback = relu_model(), new(kind)

    def fail(*_, **__):
        raise MineError("this is mine")

    with pytest.raises(MineError, match="this is mine"):
        fit(model, callback, keras.callbacks.LambdaCallback(on_train_batch_begin=fail))
    callback = new(kind)
    fit(model, callback)
    return model, callback, [0], 1


def in_a_thread(kind):
    model, callback = relu_model(), new(kind)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fit, model, callback).result()
    return model, callback, [0], 1


SITUATIONS = (
    *(twice_in_the_list, two_of_a_kind, two_models, after_clone_model, across_fits),
    *(with_initial_epoch, after_no_epoch, compiled_anew, after_an_error, in_a_thread),
)
each_kind = pytest.mark.parametrize(
    "kind",
    [
        hostile.case(kind, asks=f"callbacks.{kind.__name__}", id=kind.__name__)
        for kind in KINDS
    ],
)


def chequered():
    """Every second pair; the others take as long, and are asked with the slow tests."""
    for row, situation in enumerate(SITUATIONS):
        for column, kind in enumerate(KINDS):
            names = [f"callbacks.{kind.__name__}", "observing.TrainingObserver"]
            names += [f"observing.{one}" for one in ("Subscriber", "Training")]
            marks = [hostile.asks(*names, "observing.calling_list")]
            marks += [pytest.mark.slow] if (row + column) % 2 else []
            name = f"{situation.__name__}-{kind.__name__}"
            yield pytest.param(situation, kind, marks=marks, id=name)


@pytest.mark.parametrize(("situation", "kind"), [*chequered()])
def test_training_is_what_it_would_be_and_is_seen(situation, kind):
    model, callback, epochs, fits = situation(kind)
    assert observed(callback) == expected(kind, epochs)
    plain = relu_model()
    for _ in range(fits):
        fit(plain)
    assert state(model, kind) == state(plain, kind)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="global scopes")
@each_kind
def test_two_models_in_two_threads(kind):
    models, callbacks = [relu_model() for _ in "ab"], [new(kind) for _ in "ab"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fit, models, callbacks))
    plain = relu_model()
    fit(plain)
    for model, callback in zip(models, callbacks, strict=True):
        assert observed(callback) == expected(kind, [0])
        assert state(model)[1:] == state(plain)[1:]


# --- Hostile models and data ---------------------------------------------------------


class Raises(layers.Layer):
    def call(self, inputs, training=False):
        if training:
            raise MineError("this is mine")
        return inputs


def named():
    keras.utils.set_random_seed(0)
    inner = [layers.Dense(3, "relu", name=name) for name in admitted()[:6]]
    nest = keras.Sequential([keras.Input((3,)), layers.Dense(3, "relu", name="]")])
    nest.name = "["
    model = keras.Sequential([keras.Input((3,)), *inner, nest, layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@each_kind
def test_a_model_that_raises_while_it_trains(kind):
    model = relu_model(Raises())
    with hostile.left_as_it_was(model, but=("methods", "variables")):
        weights = model.get_weights()
        with pytest.raises(MineError, match="this is mine"):
            fit(model, new(kind))
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@each_kind
@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_broken_data(kind, value):
    model, callback = relu_model(), new(kind, verbose=1)
    fit(model, callback, x=np.full_like(X, value))
    plain = relu_model()
    fit(plain, x=np.full_like(X, value))
    assert observed(callback) == expected(kind, [0])
    assert state(model, kind) == state(plain, kind)


@each_kind
def test_names_of_every_sort(kind, capsys):
    model, callback = named(), new(kind, verbose=1)
    fit(model, callback)
    assert observed(callback) == expected(kind, [0])
    paths = {
        path
        for value in callback.history.values()
        if hasattr(value, "keys")
        for path in value
    }
    assert len(paths) >= 6
    assert callback.to_frame().shape[0] == len(observed(callback))


def frozen():
    return layers.Dense(2, trainable=False)


BARE = {
    "no kernels": (
        lambda: keras.Sequential([keras.Input((3,)), layers.Activation("tanh")]),
        {
            DeadReLULogger: r"needs a model with ReLU units\. Received: model='seq",
            DormantUnitRecycler: r"no layer has a kernel",
            GradientNormLogger: r"needs a model with weights that train\. Received: m",
        },
    ),
    "frozen": (
        lambda: keras.Sequential([keras.Input((3,)), frozen()]),
        {
            DeadReLULogger: r"needs a model with ReLU units\. Received: model='seq",
            DormantUnitRecycler: r"needs a layer .*\. Received: model='seq",
            GradientNormLogger: r"needs a model with weights that train\. Received: m",
        },
    ),
}


@each_kind
@pytest.mark.parametrize("name", BARE)
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_models_with_nothing_to_see(kind, name):
    build, unwatched = BARE[name]
    model = build()
    model.compile("sgd", "mse", run_eagerly=True)
    targets = X[:, : model.output_shape[-1]]
    callback = new(kind)
    warned = contextlib.nullcontext()
    if kind in unwatched:
        warned = pytest.warns(UserWarning, match=unwatched[kind])
    with hostile.left_as_it_was(model, but=("methods", "variables")), warned:
        model.fit(X, targets, verbose=0, callbacks=[callback])
    assert (len(observed(callback)) == 0) == (kind in unwatched)


@each_kind
@pytest.mark.parametrize("wrong", ["nothing", ["dense", "no such"], [None], 2.5])
def test_layers_that_are_not_there(kind, wrong):
    model = relu_model()
    with (
        hostile.left_as_it_was(model, but=("methods",)),
        pytest.raises(ValueError, match=r"`layers` must name .*Received: layers="),
    ):
        fit(model, new(kind, layers=wrong))


@each_kind
def test_logs_that_raise(kind):
    def fail(*_):
        raise MineError("this is mine")

    model, callback = relu_model(), new(kind)
    with (
        pytest.warns(UserWarning, match="rows not taken: "),
        pytest.warns(UserWarning, match=r"MineError: this is mine, from .*\.fail at"),
    ):
        fit(model, new(kind, log_to=fail))
    fit(model, callback)
    assert observed(callback) == expected(kind, [0])
