"""Callbacks and logs as tuners and workers handle them: copied and pickled."""

import copy
import pickle

import cloudpickle
import keras
import numpy as np
import pytest
from callback_kinds import KINDS, figures, fit, new, relu_model

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    CSVLog,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
    JSONLinesLog,
    TensorBoardLog,
)

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "cloudpickle": lambda one: pickle.loads(cloudpickle.dumps(one)),
}
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class CopyAt(keras.callbacks.Callback):
    """Copies another callback at the end of an epoch, as a checkpoint may."""

    def __init__(self, callback, way):
        super().__init__()
        self.callback, self.way, self.found = callback, way, []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append((self.way(self.callback), self.callback.history))


def assert_equal(one, other):
    assert list(one) == list(other)
    for key, value in one.items():
        np.testing.assert_equal(value, other[key])


def assert_same_figures(one, other):
    """Names count on from model to model."""
    for these, those in zip(figures(one), figures(other), strict=True):
        np.testing.assert_equal(these, those)


@each_kind
@each_way
def test_a_copy_holds_the_history_and_goes_its_own_way(kind, way):
    settings = {"seed": 0} if kind is DormantUnitRecycler else {}
    model, callback = relu_model(), new(kind, **settings)
    fresh, during = way(callback), CopyAt(callback, way)
    fit(model, callback, during, epochs=2)
    after = way(callback)
    then = callback.history
    for found, history in [*during.found, (after, then)]:
        assert_equal(found.history, history)
    assert [one.kind for one in after.alerts] == [one.kind for one in callback.alerts]
    assert not [found for found in vars(after).values() if found is model]

    for one in (fresh, after):
        fit(relu_model(), one, epochs=2)
        assert_same_figures(one.history, then)  # of a twin, from the beginning
    assert_equal(callback.history, then)
    fit(model, callback)
    assert len(callback.history["epoch"]) > len(then["epoch"])
    assert_same_figures(after.history, then)


SETTINGS = {
    "every": (GradientNormLogger, {"every": 7, "clipped": True, "updates": True}),
    "threshold": (DeadReLULogger, {"threshold": 0.01, "verbose": 1}),
    "bins": (ActivationStatsLogger, {"histograms": [-1.0, 0.0, 1.0]}),
    "recycler": (DormantUnitRecycler, {"tau": 0.1, "seed": 3, "start": 2, "stop": 9}),
}


@pytest.mark.parametrize("name", SETTINGS)
@each_way
def test_a_copy_has_the_settings(name, way):
    kind, arguments = SETTINGS[name]
    callback = kind(**arguments)
    made = way(callback)
    assert [made.wants(step) for step in range(2000)] == [
        callback.wants(step) for step in range(2000)
    ]
    for key in {*arguments} - {"every", "histograms"}:
        assert getattr(made, key) == getattr(callback, key)


@each_way
def test_layers_that_were_given_as_objects_are_found_again(way):
    model = relu_model()
    norms = GradientNormLogger(1, layers=[model.layers[0], model.layers[1].name])
    fit(model, norms)
    made, again = way(norms), relu_model()
    again.layers[0].name = model.layers[0].name
    paths = list(norms.history["layers"])
    assert list(made.history["layers"]) == paths
    assert made.layers == [paths[0], model.layers[1].name]


class Tracker:
    """What cannot be copied: it holds a connection."""

    def __init__(self):
        self.got = []

    def log(self, metrics, step):
        self.got.append(step)

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle a connection")


def test_what_the_users_functions_belong_to_is_shared():
    tracker = Tracker()
    norms = GradientNormLogger(1, log_to=tracker.log, alerts=lambda line: tracker)
    for way in (copy.copy, copy.deepcopy):
        fit(relu_model(), way(norms))
    assert tracker.got == [0, 1, 0, 1]


LOGS = {
    "csv": lambda folder: CSVLog(folder / "log.csv"),
    "json lines": lambda folder: JSONLinesLog(folder / "log.jsonl"),
    "tensorboard": lambda folder: TensorBoardLog(folder / "board"),
}


@pytest.mark.parametrize("name", LOGS)
@each_way
def test_logs(name, way, tmp_path):
    log = LOGS[name](tmp_path)
    way(log)({"grad_norm": 1.0}, 0)
    log({"grad_norm": 2.0}, 1)
    copied = way(log)
    copied({"grad_norm": 3.0}, 2)
    norms = GradientNormLogger(1, log_to=log)
    fit(relu_model(), way(norms))
    fit(relu_model(), norms)
    assert any(tmp_path.iterdir())


@each_kind
def test_a_history_is_that_of_one_model(kind):
    settings = {"seed": 0} if kind is DormantUnitRecycler else {}
    model, callback = relu_model(), new(kind, **settings)
    index = {"DeadReLULogger": "epoch"}.get(kind.__name__, "step")
    for _ in range(2):
        fit(model, callback)
    whole = len(callback.history[index])
    copied = copy.deepcopy(callback)
    assert len(copied.history[index]) == whole
    fit(model, copied)
    fit(relu_model(), callback)
    assert 2 * len(copied.history[index]) == whole
    assert 2 * len(callback.history[index]) == whole
