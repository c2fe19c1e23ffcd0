"""Logs that fail while a model trains: a warning, and training goes on."""

import contextlib
import csv
import json
import shutil
import warnings

import keras
import numpy as np
import pytest
from test_log_faults import largest_file

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    CSVLog,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
    JSONLinesLog,
    TensorBoardLog,
)
from keras_initlab.callbacks._logs import Logs

KINDS = [
    lambda log_to: GradientNormLogger(1, log_to=log_to, alerts=False),
    lambda log_to: DeadReLULogger(1, log_to=log_to, alerts=False),
    lambda log_to: ActivationStatsLogger(
        1, log_to=log_to, alerts=False, histograms=True
    ),
    lambda log_to: DormantUnitRecycler(
        0.0, every=1, start=0, log_to=log_to, alerts=False
    ),
]
each_kind = pytest.mark.parametrize(
    "new", KINDS, ids=["norms", "dead", "stats", "recycler"]
)
X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
STEPS = 3  # an epoch


def relu_model():
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(4, "relu", name="hidden")
    layers = [keras.Input((3,)), hidden, keras.layers.Dense(3, name="head")]
    model = keras.Sequential(layers, name="model")
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def fit(model, callbacks=(), epochs=2):
    return model.fit(
        X, X, 8, epochs, shuffle=False, verbose=0, callbacks=[*callbacks]
    ).history


@contextlib.contextmanager
def heard():
    """Gathers the texts of all warnings to the user."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(one.message) for one in caught if one.category is UserWarning]


def fail(*_):
    raise OSError("the disk is on fire")


@each_kind
def test_every_callback_goes_on(new):
    rows, expected = [], []
    kept = new(lambda *row: expected.append(row))
    model, twin = relu_model(), relu_model()
    fit(model, [kept])
    with heard() as texts:
        fit(twin, [new([fail, lambda *row: rows.append(row), fail])])
    assert len(expected) >= 2
    assert repr(rows) == repr(expected)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    *first, last = texts
    assert len(first) == 2
    name = f"{__name__}.fail"
    step = expected[0][1]
    assert first[0] == (
        "A log that fails does not end training; its row is lost. Received: OSError: "
        f"the disk is on fire, from {name} at step {step}. Later rows are tried all "
        "the same; those lost are counted at the end."
    )
    n = len(expected)
    assert last == (
        f"A log should take every row. Received: rows not taken: {n} of {n} by {name}, "
        f"{n} of {n} by {name}. They are not in that log; `callback.history` holds "
        "them."
    )


def test_later_rows_are_kept(tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLog(path)

    def at_times(metrics, step):
        if step in (1, 2, 4):
            raise ConnectionError("no network")
        log(metrics, step)

    with heard() as texts:
        fit(relu_model(), [GradientNormLogger(1, log_to=at_times, alerts=False)])
    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "3", "5"]
    assert len(texts) == 2
    assert "ConnectionError: no network" in texts[0]
    assert "3 of 6 by " in texts[1]


def test_every_fit_warns_anew():
    model, norms = relu_model(), GradientNormLogger(1, log_to=fail, alerts=False)
    for _ in range(2):
        with heard() as texts:
            fit(model, [norms], epochs=1)
        assert len(texts) == 2
        assert f"{STEPS} of {STEPS} by" in texts[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_a_run_ends_it(error):
    def stop(*_):
        raise error

    model, twin = relu_model(), relu_model()
    with pytest.raises(error):
        fit(model, [GradientNormLogger(1, log_to=stop)])
    fit(model)  # as if nothing had been there
    twin.fit(X[:8], X[:8], 8, shuffle=False, verbose=0)
    fit(twin)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_full_disk(tmp_path):
    """All logs at once: what was written stays, and is whole."""
    logs = [CSVLog(tmp_path / "csv"), JSONLinesLog(tmp_path / "json")]
    board = TensorBoardLog(tmp_path / "board")
    norms = GradientNormLogger(1, log_to=[*logs, board], alerts=False)
    with heard() as texts, largest_file(250):
        fit(relu_model(), [norms])
    assert len(texts) == 4
    with (tmp_path / "csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert f"{2 * STEPS - len(written)} of 6 by {logs[0]!r}" in texts[-1]
    lines = (tmp_path / "json").read_text().splitlines()
    assert f"{2 * STEPS - len(lines)} of 6 by {logs[1]!r}" in texts[-1]
    for row, line in zip(written, lines, strict=False):
        assert int(row["step"]) == json.loads(line)["step"]
    assert f"of 6 by {board!r}" in texts[-1]


def test_files_and_folders_that_are_removed(tmp_path):
    """Files come back; a folder that the log did not make does not."""
    (tmp_path / "mine").mkdir()
    paths = [tmp_path / "csv", tmp_path / "board", tmp_path / "mine"]
    logs = [CSVLog(paths[0]), TensorBoardLog(paths[1]), CSVLog(paths[2] / "csv")]

    def remove(_, step):
        if step == 2:
            paths[0].unlink()
            shutil.rmtree(paths[1])
            shutil.rmtree(paths[2])

    norms = GradientNormLogger(1, log_to=[*logs, remove], alerts=False)
    with heard() as texts:
        fit(relu_model(), [norms])
    with paths[0].open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "4", "5"]
    (events,) = paths[1].iterdir()
    assert b"brain.Event:2" in events.read_bytes()
    assert not paths[2].exists()
    assert len(texts) == 2
    assert f"3 of 6 by {logs[2]!r}" in texts[1]


def test_a_log_that_changes_the_metrics_changes_nothing_else():
    seen = []
    logs = [lambda metrics, step: metrics.clear(), lambda *row: seen.append(row)]
    dead = DeadReLULogger(1, log_to=logs, alerts=False)
    history = fit(relu_model(), [dead])
    assert "dead_relu_fraction" in history
    assert all("dead_relu_fraction" in metrics for metrics, _ in seen)


def only_metrics(metrics):
    raise AssertionError("never called")


def too_many(metrics, step, run):
    raise AssertionError("never called")


@pytest.mark.parametrize("log", [only_metrics, too_many, lambda: None])
def test_a_function_that_takes_no_row_is_refused_at_once(log):
    with pytest.raises(ValueError, match=r"functions of \(metrics, step\).*log_to="):
        GradientNormLogger(log_to=log)


@pytest.mark.parametrize(
    "log", [lambda *a, **k: None, lambda data, step=None, commit=None: None, dict, max]
)
def test_a_function_that_takes_a_row_is_not(log):
    assert Logs(log)
    assert Logs([log])
    assert not Logs([])


@each_kind
def test_nothing_is_said_where_all_is_well(new, tmp_path):
    logs = [CSVLog(tmp_path / "csv"), TensorBoardLog(tmp_path / "board")]
    with heard() as texts:
        fit(relu_model(), [new(logs)])
    assert texts == []


def test_an_alert_that_cannot_be_sent_is_a_warning():
    """Training goes on, and the line is not lost."""
    model = relu_model()
    model.get_layer("head").kernel.assign(np.full((4, 3), np.nan))
    norms = GradientNormLogger(1, alerts=fail)
    with heard() as texts:
        fit(model, [norms])
    assert len(norms.history["step"]) == 2 * STEPS
    (first, *_) = norms.alerts
    assert first.kind == "not finite"
    assert first.line() in texts[0]
    assert "(This alert could not be sent.) Received: OSError: the disk" in texts[0]


def test_ctrl_c_in_an_alert_ends_training():
    def stop(line):
        raise KeyboardInterrupt

    model = relu_model()
    model.get_layer("head").kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [GradientNormLogger(1, alerts=stop)])
