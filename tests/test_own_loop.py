"""Loops of the user's own: a `CallbackList` and `train_on_batch`."""

import copy
import functools
import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
from callback_kinds import KINDS, STEPS, X, fit, new, relu_model
from keras import layers
from oracles import BACKEND, MODES, USUAL, gradient_norms

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)

Y = X[:, :2]
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def listed(model, *callbacks, **params):
    return keras.callbacks.CallbackList([*callbacks], model=model, **params)


def loop(model, *callbacks, epochs=2, announces=("epoch", "batch"), between=None):
    """Trains as Keras's guide to writing a loop does, and says what it is told to."""
    called = listed(model, *callbacks)
    called.on_train_begin()
    for epoch in range(epochs):
        if "epoch" in announces:
            called.on_epoch_begin(epoch)
        for batch, (x, y) in enumerate(BATCHES):
            if "batch" in announces:
                called.on_train_batch_begin(batch)
            model.train_on_batch(x, y)
            model.test_on_batch(x, y)
            if "batch" in announces:
                called.on_train_batch_end(batch, {})
        if "epoch" in announces or "end" in announces:
            called.on_epoch_end(epoch, {})
        if between is not None:
            between(model)
    called.on_train_end()


def weights(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def assert_same(these, those):
    for this, that in zip(these, those, strict=True):
        np.testing.assert_array_equal(this, that)


def dense_model(mode="eager"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu")])
    model.add(layers.Dense(2))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", **MODES[mode])
    return model


@pytest.mark.parametrize("mode", ["eager", USUAL])
@pytest.mark.parametrize("before", ["nothing", "train_on_batch", "fit"])
def test_a_loop_is_observed_and_trains_as_unobserved(before, mode):
    losses, trained = [], []
    watching = [GradientNormLogger(1), DeadReLULogger(1, alerts=False)]
    watching.append(ActivationStatsLogger(1, alerts=False))
    for callbacks in ([], watching):
        model = dense_model(mode)
        if before == "fit":
            fit(model)
        elif before == "train_on_batch":
            model.train_on_batch(*BATCHES[0])
        loop(model, *callbacks)
        losses.append(model.fit(X, Y, verbose=0, shuffle=False).history["loss"])
        trained.append(weights(model))
    assert_same(*trained)
    assert losses[0] == losses[1]
    norms, dead, stats = (callback.history for callback in watching)
    assert norms["step"].tolist() == stats["step"].tolist() == [0, 1, 2, 3]
    assert norms["epoch"].tolist() == stats["epoch"].tolist() == [0, 0, 1, 1]
    assert dead["epoch"].tolist() == [0, 1]
    assert not dead["sampled"].any()


def test_the_norms_are_those_of_every_step():
    model, norms = dense_model(), GradientNormLogger(1)
    twin = dense_model()
    loop(model, norms, epochs=1)
    expected = []
    for x, y in BATCHES:
        loss = functools.partial(keras.losses.MeanSquaredError(), y)
        expected.append(gradient_norms(twin, x, loss))
        twin.train_on_batch(x, y)
    found = np.array([*norms.history["variables"].values()]).T
    np.testing.assert_allclose(found, expected, 1e-5)


@pytest.mark.parametrize(
    ("announces", "epochs"),
    [
        (("epoch", "batch"), [0, 0, 1, 1]),
        (("epoch",), [0, 0, 1, 1]),
        (("end",), [0, 0, 1, 1]),
        (("end", "batch"), [0, 0, 1, 1]),
        ((), [0, 0, 0, 0]),
    ],
    ids=str,
)
def test_epochs_and_steps_are_those_that_are_announced(announces, epochs):
    norms, stats = GradientNormLogger(1), ActivationStatsLogger(2, alerts=False)
    loop(dense_model(), norms, stats, announces=announces)
    assert norms.history["epoch"].tolist() == epochs
    assert norms.history["step"].tolist() == [0, 1, 2, 3]
    assert stats.history["step"].tolist() == [0, 2]


def test_a_loop_that_leaves_batches_out_and_goes_on_elsewhere():
    model, norms = dense_model(), GradientNormLogger(1)
    called = listed(model, norms)
    called.on_train_begin()
    for epoch, batches in ((3, (0, 4)), (7, (2,))):
        called.on_epoch_begin(epoch)
        for batch in batches:
            called.on_train_batch_begin(batch)
            model.train_on_batch(*BATCHES[0])
        called.on_epoch_end(epoch, {})
    called.on_train_end()
    assert norms.history["epoch"].tolist() == [3, 3, 7]
    assert norms.history["step"].tolist() == [0, 4, 5 + 2]


def test_keras_logs_get_the_summary():
    model = dense_model()
    called = listed(model, GradientNormLogger(1), add_history=True)
    called.on_train_begin()
    called.on_epoch_begin(0)
    model.train_on_batch(*BATCHES[0])
    called.on_epoch_end(0, {"loss": 1.0})
    called.on_train_end()
    assert set(model.history.history) == {"loss", "grad_norm"}


@each_kind
def test_a_fit_before_between_and_after(kind):
    model, callback = relu_model(), new(kind)
    fit(model, callback)
    loop(model, callback, between=lambda model: fit(model))
    assert callback.history["epoch"].tolist() == observations(kind, [0, 0, 1])
    fit(model, callback)
    assert callback.history["epoch"].tolist() == observations(kind, [0, 0, 1, 0])


def observations(kind, epochs):
    count = 1 if kind is DeadReLULogger else STEPS
    return [epoch for epoch in epochs for _ in range(count)]


@each_kind
@pytest.mark.parametrize("end", ["missing", "raised", "in train_on_batch"])
def test_a_loop_without_an_end_leaves_the_model_free(kind, end):
    model, callback = relu_model(), new(kind)

    def half_a_loop():
        called = listed(model, callback)
        called.on_train_begin()
        called.on_epoch_begin(0)
        model.train_on_batch(*BATCHES[0])
        if end == "in train_on_batch":
            model.train_on_batch(X[:, :1], Y)  # of another shape
        if end == "raised":
            raise KeyboardInterrupt
        return called

    own = relu_model()
    own.train_on_batch(*BATCHES[0])
    function = None
    if end == "missing":
        called = half_a_loop()
    else:
        called = None
        with pytest.raises(BaseException):  # noqa: B017, PT011
            half_a_loop()
    before = len(callback.history["epoch"])
    fit(model)
    fit(own)
    if kind is not DormantUnitRecycler:
        assert_same(weights(model), weights(own))
    assert len(callback.history["epoch"]) == before
    assert "dispatch" not in repr(model.train_function)
    del called, function


def test_a_loop_whose_list_is_gone_is_over():
    model, norms = dense_model(), GradientNormLogger(1)
    called = listed(model, norms)
    called.on_train_begin()
    assert "dispatch" in repr(model.train_function)
    del called
    assert model.train_function is None  # as before the loop
    model.train_on_batch(*BATCHES[0])
    assert len(norms.history["step"]) == 0


def test_no_model_is_kept_alive_by_a_loop_without_an_end():
    model, norms = dense_model(), GradientNormLogger(1)
    called = listed(model, norms)
    called.on_train_begin()
    called.on_epoch_begin(0)
    model.train_on_batch(*BATCHES[0])
    reference = weakref.ref(model)
    del called, norms, model
    gc.collect()
    assert reference() is None


def test_compile_and_errors_that_a_loop_survives():
    model, norms = dense_model(), GradientNormLogger(1)
    called = listed(model, norms)
    called.on_train_begin()
    for epoch in range(3):
        called.on_epoch_begin(epoch)
        model.compile("sgd", "mse", run_eagerly=True)
        with pytest.raises(Exception):  # noqa: B017, PT011
            model.train_on_batch(X[:, :1], Y)
        called.on_train_batch_begin(0)
        model.train_on_batch(*BATCHES[0])
        called.on_epoch_end(epoch, {})
    called.on_train_end()
    assert norms.history["epoch"].tolist() == [0, 1, 2]


def test_between_announced_epochs_nothing_is_counted():
    model, norms = dense_model(), GradientNormLogger(1)
    loop(model, norms, between=lambda model: model.train_on_batch(*BATCHES[0]))
    assert norms.history["step"].tolist() == [0, 1, 2, 3]


def test_callbacks_that_are_called_without_a_list():
    model, norms = dense_model(), GradientNormLogger(1)
    norms.set_model(model)
    norms.on_epoch_begin(0)  # nor did it say that it begins
    model.train_on_batch(*BATCHES[0])
    norms.on_epoch_end(0)
    norms.on_train_end()
    assert norms.history["step"].tolist() == [0]
    assert "dispatch" not in repr(model.train_function)


@each_kind
def test_a_loop_that_cannot_be_observed_is_told_so_once(kind):
    model, callbacks = relu_model(), [new(kind), new(kind)]
    called = listed(model, *callbacks)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        called.on_train_begin()
        for epoch in range(2):
            called.on_epoch_begin(epoch)
            model(X, training=True)  # and gradients of the user's own
            called.on_epoch_end(epoch, {})
        called.on_train_end()
    found = [str(one.message) for one in told if "is observed" in str(one.message)]
    assert len(found) == 1
    assert found[0].startswith("Training is observed in `fit` and `train_on_batch`.")
    assert len(callbacks[0].history["epoch"]) == 0
    fit(model)


def test_a_loop_inside_a_fit_and_a_fit_inside_a_loop():
    model = dense_model()
    outer, inner = GradientNormLogger(1), GradientNormLogger(1)

    class Inside(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            loop(model, inner, epochs=1)

    fit(model, outer, Inside(), epochs=2)
    assert outer.history["step"].tolist() == [0, 1, 2, 3]
    assert inner.history["step"].tolist() == [0, 1, 0, 1]

    outer, inner = GradientNormLogger(1), GradientNormLogger(1)
    loop(model, outer, between=lambda model: fit(model, inner))
    assert outer.history["step"].tolist() == [0, 1, 2, 3]
    assert inner.history["step"].tolist() == [0, 1, 0, 1]


def test_a_fit_of_the_same_model_inside_a_callback_of_a_fit():
    model, outer, inner = dense_model(), GradientNormLogger(1), GradientNormLogger(1)

    class Inside(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            fit(model)
            fit(model, inner)

    fit(model, outer, Inside(), epochs=3)
    assert outer.history["epoch"].tolist() == [0, 0, 1, 1, 2, 2]
    assert inner.history["epoch"].tolist() == [0] * 6


@pytest.mark.skipif(BACKEND == "torch", reason="on PyTorch every step runs in Python")
def test_a_loop_is_compiled_once():
    traces = []

    class Counting(layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = keras.Sequential([keras.Input((3,)), Counting(), layers.Dense(2)])
    model.compile("sgd", "mse", **MODES[USUAL])
    model.test_on_batch(*BATCHES[0])
    traces.clear()
    called = listed(model, GradientNormLogger(2))
    called.on_train_begin()
    for epoch in range(3):
        called.on_epoch_begin(epoch)
        for x, y in BATCHES:
            model.train_on_batch(x, y)
        called.on_epoch_end(epoch, {})
    called.on_train_end()
    assert len(traces) == 2  # the plain function and the observing one


def test_a_copy_made_in_a_loop_watches_nothing():
    model, norms = dense_model(), GradientNormLogger(1)
    called = listed(model, norms)
    called.on_train_begin()
    called.on_epoch_begin(0)
    model.train_on_batch(*BATCHES[0])
    made = copy.deepcopy(norms)
    model.train_on_batch(*BATCHES[1])
    assert made.history["step"].tolist() == [0]
    assert norms.history["step"].tolist() == [0, 1]
