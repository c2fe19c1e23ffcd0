"""Observed trainings that overlap in threads."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import hostile
import keras
import numpy as np
import pytest
from callback_kinds import KINDS, X, figures, fit, new
from keras import layers
from oracles import BACKEND

from keras_initlab._keras.replacing import all_replaced, held
from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DormantUnitRecycler,
    GradientNormLogger,
)

TIMEOUT = 60


class Meet(layers.Layer):
    """Calls a function in every training step."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def call(self, x, training=False):
        if training:
            self.act()
        return x


def model_with(act, *shared):
    keras.utils.set_random_seed(0)
    first = shared or [layers.Dense(4, "relu"), layers.Dense(4, "relu")]
    model = keras.Sequential([keras.Input((3,)), *first, Meet(act), layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.test_on_batch(X, X[:, :2])  # builds what Keras builds once
    return model


class Overlap:
    """The first step of one fit ends after the first step of another has begun.

    And the other's ends after the whole fit of the first.
    """

    def __init__(self):
        self.inside, self.go = threading.Event(), threading.Event()
        self.thread = None

    def first(self):
        self.inside.set()
        assert self.go.wait(TIMEOUT)

    def second(self):
        self.go.set()
        self.thread.join(TIMEOUT)

    def run(self, one, other):
        """Runs two functions, each a fit."""
        errors = []

        def run_one():
            try:
                one()
            except BaseException as error:
                errors.append(error)
                self.inside.set()

        self.thread = threading.Thread(target=run_one)
        self.thread.start()
        assert self.inside.wait(TIMEOUT)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other).result(TIMEOUT)
        self.thread.join(TIMEOUT)
        assert not errors


def global_functions():
    if BACKEND != "jax":
        return []
    import jax

    return [jax.grad, jax.value_and_grad]


@pytest.mark.seconds
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_overlapping_fits_leave_all_as_it_was_and_see_their_own(kind):
    overlap, before = Overlap(), global_functions()
    models = [model_with(overlap.first), model_with(overlap.second)]
    seed = {"seed": 0} if kind is DormantUnitRecycler else {}
    callbacks = [new(kind, **seed) for _ in models]
    runs = [
        lambda model=model, callback=callback: fit(model, callback)
        for model, callback in zip(models, callbacks, strict=True)
    ]
    overlap.run(*runs)
    assert global_functions() == before
    alone, expected = model_with(lambda: None), new(kind, **seed)
    fit(alone, expected)
    for model, callback in zip(models, callbacks, strict=True):
        assert not any(hostile.snapshot(model)["patched"])
        assert "dispatch" not in repr(model.train_function)
        leaves = map(figures, (callback.history, expected.history))
        for these, those in zip(*leaves, strict=True):
            np.testing.assert_array_equal(these, those)


@pytest.mark.skipif(BACKEND == "jax", reason="a fit on JAX empties the variables")
def test_a_layer_of_two_models_in_two_threads():
    """Each hears its own calls of it, and no others."""
    overlap, shared = Overlap(), layers.Dense(4, "relu", name="shared")
    models = [model_with(f, shared) for f in (overlap.first, overlap.second)]
    shared.trainable = False
    for model in models:
        model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    stats = [ActivationStatsLogger(1, alerts=False) for _ in models]
    overlap.run(
        lambda: fit(models[0], stats[0]), lambda: fit(models[1], stats[1], x=100 * X)
    )
    assert "call" not in vars(shared)
    one, other = (next(iter(each.history["std"].values())) for each in stats)
    np.testing.assert_allclose(other, 100 * one, 1e-4)


class AfterStep(keras.callbacks.Callback):
    """Calls a function after the first step of a fit."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_train_batch_end(self, batch, logs=None):
        act, self.act = self.act, lambda: None
        act()


@pytest.mark.skipif(BACKEND == "jax", reason="a fit on JAX empties the variables")
def test_one_model_in_two_threads():
    """In turns: Keras does not train one model in two steps at once."""
    overlap, model = Overlap(), model_with(lambda: None)
    norms = [GradientNormLogger(1), GradientNormLogger(1)]
    waits = [AfterStep(overlap.first), AfterStep(overlap.second)]
    overlap.run(
        lambda: fit(model, norms[0], waits[0], epochs=3),
        lambda: fit(model, norms[1], waits[1], epochs=3),
    )
    for one in norms:
        assert one.history["step"].tolist() == list(range(6))
        assert one.history["epoch"].tolist() == [0, 0, 1, 1, 2, 2]
    assert "dispatch" not in repr(model.train_function)
    assert not any(hostile.snapshot(model)["patched"])


def test_stand_ins_may_end_in_any_order():
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]):
        owner = SimpleNamespace(value=0)
        contexts = [contextlib.ExitStack() for _ in order]
        for number, context in enumerate(contexts):
            context.enter_context(all_replaced([(owner, "value", number + 1)]))
            assert owner.value == number + 1
        for done, number in enumerate(order):
            contexts[number].close()
            left = [n + 1 for n in range(3) if n not in order[: done + 1]]
            assert owner.value == max(left, default=0)


def test_each_thread_meets_its_own_stand_in():
    owner = SimpleNamespace(function=lambda: "own")
    function = owner.function

    def in_another_thread():
        with all_replaced([(owner, "function", lambda: "other")], only_here=True):
            inside.set()
            assert go.wait(TIMEOUT)
            return owner.function(), held(owner, "function")()

    inside, go = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(in_another_thread)
        assert inside.wait(TIMEOUT)
        assert owner.function() == held(owner, "function")() == "own"
        for _ in range(2000):  # a chain of them would end in a RecursionError
            with all_replaced([(owner, "function", lambda: "mine")], only_here=True):
                assert owner.function() == "mine"
        go.set()
        assert other.result(TIMEOUT) == ("other", "other")
    assert owner.function is function


def test_a_stand_in_that_cannot_be_set_takes_back_the_others():
    owner = SimpleNamespace(a=1)
    with pytest.raises(TypeError), all_replaced([(owner, "a", 2), (3, "b", 4)]):
        pass
    assert owner.a == 1
