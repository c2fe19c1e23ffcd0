"""Whatever stops a function that writes or looks, the model is whole afterwards.

Real signals, errors of assignments and errors on any line that runs: all variables of
the model and its optimizer are as before or as after the call, its layers' attributes
and the process's signal handlers as they were, and the same call can be made again.
"""

import signal
import time

import keras
import numpy as np
import pytest
from interruptions import ERRORS, Lines, failing_assigns, killed
from keras import layers

from keras_initlab import audit, calibrate, probe, recommend, reinitialize
from keras_initlab.callbacks._recyclable import recyclable
from keras_initlab.callbacks._renewal import renew

# What is raised in a callback of JAX's garbage collection is lost there.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.ones((32, 2), "float32")
STOPPED = (Exception, KeyboardInterrupt, SystemExit)
ROUNDS = 200  # of each function with `-m slow`, and a few every day


def trained():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.Dense(8, "relu"),
            layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    model.train_on_batch(X, Y)
    return model


def applying(model):
    advice = recommend(model)
    return lambda: advice.apply(seed=1, overwrite=True, reset_optimizer=True)


def applying_calibrated(model):
    advice = recommend(model, "calibrated", data=X)
    return lambda: advice.apply(seed=1, overwrite=True, reset_optimizer=True)


def undoing(model):
    return applying(model)().undo


def calibrating(model):
    options = {"orthogonal": True, "center_bias": True, "overwrite": True}
    return lambda: calibrate(model, X, seed=1, **options)


def calibrating_in_training(model):
    return lambda: calibrate(model, X, 2.0, training=True, overwrite=True)


def reinitializing(model):
    return lambda: reinitialize(model, seed=1, reset_optimizer=True)


def renewing(model):
    chosen = [(one, np.array([1, 3])) for one in recyclable(model)[0].values()]
    assert len(chosen) == 2
    return lambda: renew(model, chosen, seed=1)


WRITING = (
    *(applying, applying_calibrated, undoing, calibrating, calibrating_in_training),
    *(reinitializing, renewing),
)
LOOKING = {
    "probe": lambda model: lambda: probe(model, X),
    "probe with labels": lambda model: lambda: probe(model, X, Y),
    "audit": lambda model: lambda: audit(model, data=X),
    "recommend": lambda model: lambda: recommend(model, data=X),
    "dry run": lambda model: (
        lambda: recommend(model, "calibrated", data=X).apply(
            seed=1, overwrite=True, dry_run=True
        )
    ),
}
FUNCTIONS = {one.__name__: one for one in WRITING} | LOOKING


def values(model):
    listed = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(one.value)) for one in listed]


def same(first, second, tolerance=0.0):
    pairs = zip(first, second, strict=True)
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def attributes(model):
    """What an interrupted pass may leave on layers: their attributes by identity."""
    parts = [model, *model._flatten_layers(include_self=False), model.optimizer]
    return [{key: id(value) for key, value in vars(one).items()} for one in parts]


def handlers():
    return [signal.getsignal(number) for number in signal.valid_signals()]


class Bench:
    """One function on one model, of which states before and after are known."""

    def __init__(self, name):
        self.model = trained()
        self.action = FUNCTIONS[name](self.model)
        self.old = values(self.model)
        self.put_back()
        self.action()
        self.new = values(self.model)
        assert same(self.old, self.new) == (name in LOOKING)
        self.put_back()
        start = time.perf_counter()
        self.action()  # what Keras and backends make once is there by now
        self.seconds = time.perf_counter() - start
        self.put_back()
        with Lines(None) as lines:
            self.action()
        self.lines = lines.seen
        self.put_back()
        self.attributes, self.handlers = attributes(self.model), handlers()

    def put_back(self):
        keras.utils.set_random_seed(0)  # on PyTorch, dropout has no state of its own
        listed = [*self.model.variables, *self.model.optimizer.variables]
        for variable, value in zip(listed, self.old, strict=True):
            variable.assign(value)

    def is_new(self, now):
        return same(now, self.new, 1e-5)  # sums of a pass may be rounded otherwise

    def fault(self):
        """What is wrong after an interruption, None for nothing."""
        now = values(self.model)
        if not (same(now, self.old) or self.is_new(now)):
            return "half written"
        if attributes(self.model) != self.attributes:
            return "attributes left"
        if handlers() != self.handlers:
            return "signal handlers left"
        self.put_back()
        self.action()
        if not self.is_new(values(self.model)):
            return "not usable again"
        self.put_back()
        return "not writable" if not same(values(self.model), self.old) else None


def stop_at_a_line(bench, rng):
    error = ERRORS[rng.integers(len(ERRORS))]
    at = int(rng.integers(bench.lines))
    with Lines(at, error):
        try:
            bench.action()
        except STOPPED as caught:
            return f"{caught!r}"
    return f"nothing at {at}"


def stop_at_an_assignment(bench, rng):
    error = ERRORS[rng.integers(len(ERRORS))]
    first = int(rng.integers(24))
    numbers = {first} | set(map(int, first + rng.integers(1, 6, size=2)))
    is_late = bool(rng.integers(2))
    with failing_assigns(numbers, error, is_late):
        try:
            bench.action()
        except STOPPED as caught:
            return f"{caught!r}"
    return f"nothing at {numbers}"


def stop_by_signals(bench, rng):
    delays = [rng.uniform(0, 1.2 * bench.seconds), rng.exponential(2e-4)]
    killed(bench.action, delays)
    return f"signals {delays}"


WAYS = (stop_at_a_line, stop_at_an_assignment, stop_by_signals)


def faults(name, rounds):
    bench, rng, found = Bench(name), np.random.default_rng(1), []
    for number in range(rounds):
        how = WAYS[number % len(WAYS)](bench, rng)
        fault = bench.fault()
        if fault is not None:
            found.append(f"{how}: {fault}")
            bench = Bench(name)
    return found


@pytest.mark.seconds
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_few_interruptions(name):
    assert not faults(name, 6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_many_interruptions(name):
    found = faults(name, ROUNDS)
    assert not found, f"{len(found)} of {ROUNDS}: {found}"
