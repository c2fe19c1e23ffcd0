"""Workers that are forked or spawned while a model is observed, and after."""

import multiprocessing
import os

import data_workers
import keras
import numpy as np
import pytest
from awkward import KINDS, alive
from data_workers import WIDTH
from keras import layers
from oracles import MODES, USUAL

# JAX and Python warn of forks beside their threads, with and without callbacks.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning"
)
SOURCES = {
    "threads": lambda: data_workers.batches(workers=2),
    "processes": lambda: data_workers.batches(workers=2, use_multiprocessing=True),
    "forked": lambda: data_workers.loader("fork"),
    "forked and kept": lambda: data_workers.loader("fork", persistent_workers=True),
    "spawned": lambda: data_workers.loader("spawn"),
}
DAILY = {"threads", "forked"}


def network():
    keras.utils.set_random_seed(0)
    hidden = [alive(), layers.Dropout(0.2), alive(6)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(2)])
    model.compile(keras.optimizers.Adam(1e-3), "mse", **MODES[USUAL])
    return model


def trained(source, callbacks):
    """A model after two fits, of which the first is observed, and their losses."""
    model, losses = network(), []
    for own in (callbacks, []):
        data = source()  # a `DataLoader` shuffles by itself
        options = {"shuffle": isinstance(data, keras.utils.PyDataset), "verbose": 0}
        history = model.fit(data, epochs=2, callbacks=own, **options).history
        losses.append(history["loss"])
    return model, losses


@pytest.mark.seconds
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in DAILY))
        for name in SOURCES
    ],
)
def test_workers_during_and_after_an_observed_fit(name):
    callbacks = [make(3) for make in KINDS.values()]
    model, losses = trained(SOURCES[name], callbacks)
    plain, expected = trained(SOURCES[name], [])
    assert losses == expected
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert callbacks[0].history["step"].tolist() == [0, 3, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_pool_after_an_observed_fit(context):
    callbacks = [make(1) for make in KINDS.values()]
    model, _ = trained(SOURCES["threads"], callbacks)
    history = callbacks[0].history
    with multiprocessing.get_context(context).Pool(2) as pool:
        found = pool.map(data_workers.total, [history] * 4)
    assert found == [data_workers.total(history)] * 4
    trained(SOURCES["threads"], callbacks)
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_ends_in_an_observed_fit_leaves_it_alone():
    """A forked child takes down what it inherits; the observation goes on."""

    def fork(_):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)

    model, callbacks = network(), [make(1) for make in KINDS.values()]
    own = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: fork(epoch))
    model.fit(SOURCES["threads"](), epochs=2, verbose=0, callbacks=[*callbacks, own])
    assert callbacks[0].history["step"].tolist() == list(range(8))
