"""Names of every sort in files, reports and pictures, and that all is asked."""

import csv
import json
from pathlib import Path

import hostile
import keras
import numpy as np
import pytest
from hostile_models import admitted, hosted
from hostile_report import COLLECTED
from keras import layers

import keras_initlab as initlab
from keras_initlab import observing, plots
from keras_initlab._keras.kinds import channel_axis
from keras_initlab._keras.running import recording
from keras_initlab.callbacks import (
    CSVLog,
    DeadReLULogger,
    GradientNormLogger,
    JSONLinesLog,
    TensorBoardLog,
    UnitEvent,
)
from keras_initlab.compare import Run

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def encodable(name):
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def of(names):
    """A model whose layers have these names."""
    keras.utils.set_random_seed(0)
    inner = [layers.Dense(3, "relu", name=name) for name in names]
    model = keras.Sequential([keras.Input((3,)), *inner], name='a, "b"\n[c]')
    model.compile("sgd", "mse", run_eagerly=True)
    return model


# --- Logs ----------------------------------------------------------------------------


@hostile.asks(
    *("callbacks.CSVLog", "callbacks.JSONLinesLog", "callbacks.TensorBoardLog"),
    *("callbacks.GradientNormLogger", "callbacks.DeadReLULogger"),
)
def test_logs_hold_every_name_and_write_nowhere_else(tmp_path, monkeypatch):
    inside, here = tmp_path / "logs", tmp_path / "here"
    inside.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    seen = []
    logs = [
        lambda metrics, step: seen.append({"step": step, **metrics}),
        CSVLog(inside / "log.csv"),
        JSONLinesLog(inside / "log.jsonl"),
        TensorBoardLog(inside / "board"),
    ]
    names = [name for name in admitted() if encodable(name)]
    norms = GradientNormLogger(every=1, log_to=logs, alerts=False)
    of(names).fit(X, X, verbose=0, callbacks=[norms])
    (expected,) = seen
    assert sum(any(name in key for key in expected) for name in names) == len(names)
    with (inside / "log.csv").open(newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert header == [*expected]
    assert [float(cell) for cell in row] == [*expected.values()]
    (line,) = (inside / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == expected
    assert list(here.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "here"}
    assert {path.name for path in inside.iterdir()} == {"log.csv", "log.jsonl", "board"}


@pytest.mark.parametrize(
    ("log", "name"),
    [
        hostile.case(log, name, asks=f"callbacks.{log.__name__}", id=f"{log.__name__}")
        for log in (CSVLog, JSONLinesLog, TensorBoardLog)
        for name in ["log"]
    ],
)
@pytest.mark.parametrize("value", ["1", None, [1.0, 2.0], {}, object()])
def test_values_that_are_no_numbers(tmp_path, log, name, value):
    written = log(tmp_path / name)
    if log is CSVLog:
        written({"a": value}, 0)  # whatever has a text
        return
    try:
        written({"a": value}, 0)
    except (TypeError, ValueError):
        return
    assert value == "1"


# --- Reports -------------------------------------------------------------------------

REPORTS = {
    "recommend": (initlab.recommend, ["recommend", "Recommendation"]),
    "audit": (initlab.audit, ["audit", "Audit", "Finding"]),
    "probe": (lambda model: initlab.probe(model, X), ["probe", "SignalReport"]),
}


@pytest.mark.parametrize(
    "name",
    [hostile.case(name, asks=asked, id=name) for name, (_, asked) in REPORTS.items()],
)
def test_reports_show_names_as_they_are(name):
    shown = {"[red]": "[red]", "${x}": "${x}", "a,b": "a,b", "nul\0": "nul\\x00"}
    shown = {key: text for key, text in shown.items() if key in admitted()}
    model = of(shown)
    model.layers[0].kernel.assign(np.full((3, 3), np.nan))  # for `audit` to find
    report = REPORTS[name][0](model)
    text, found = repr(report), json.loads(report.to_json())
    assert found == json.loads(json.dumps(report.to_dict()))
    assert text.encode()
    assert all(char.isprintable() or char == "\n" for char in text)
    meant = {*shown.values()} if name != "audit" else {next(iter(shown.values()))}
    assert all(one in text for one in meant)


@pytest.mark.parametrize(
    "function",
    [
        hostile.case(plots.weights, asks="plots.weights", id="weights"),
        hostile.case(
            plots.weight_histograms, asks="plots.weight_histograms", id="histograms"
        ),
    ],
)
def test_pictures_are_drawn_of_every_name(function):
    shown = [one for one in admitted() if len(one) < 9 and one.isprintable()]
    weights = {name: np.ones((2, 2)) for name in shown if name.isascii()}
    function(weights, most=4 if function is plots.weights else 2)


# --- What is returned is a record ----------------------------------------------------

RECORDS = {
    "ActivationStatistics": lambda: initlab.activation_statistics("relu"),
    "CriticalPoint": lambda: initlab.critical_point("tanh"),
    "Fans": lambda: next(iter(initlab.fans(hosted("nested")).values())),
    "Finding": lambda: initlab.audit(hosted("zero weights"))[0],
    "KernelAxes": lambda: initlab.KernelAxes((0,), (1,)),
    "WidthsRecommendation": lambda: initlab.recommend_widths([3, 4, 2]),
    "observing.Recipe": observing.Recipe,
    "observing.Measured": observing.Measured,
    "observing.Reduction": lambda: observing.total(None),
}


@pytest.mark.parametrize(
    "name", [hostile.case(name, asks=name, id=name) for name in RECORDS]
)
def test_records_cannot_be_changed(name):
    record = RECORDS[name]()
    field = next(iter(type(record).__annotations__))
    with pytest.raises(AttributeError):
        setattr(record, field, 3)


@hostile.asks("recommend_widths", "WidthsRecommendation")
@pytest.mark.parametrize(
    "widths",
    [[], [3], [3, 0], [3, -1], [3, 2.5], "34", [3, None], [[3, 4]], [3, np.nan]],
)
def test_widths_that_are_none(widths):
    with pytest.raises(ValueError, match=r"`widths` must .* Received: widths="):
        initlab.recommend_widths(widths)


@hostile.asks("recommend_widths")
def test_widths_without_end():
    assert initlab.recommend_widths([10**30] * 3).params > 10**60
    assert initlab.recommend_widths([2] * 10**5).hidden == 10**5 - 2


@hostile.asks("gain", "activation_statistics", "initializer_for", "NotPointwiseError")
@pytest.mark.parametrize("function", [initlab.gain, initlab.activation_statistics])
def test_activations_that_mix_units(function):
    with pytest.raises(initlab.NotPointwiseError, match="softmax"):
        function("softmax")


@hostile.asks("fans", "UnknownLayerWarning")
def test_a_layer_that_nothing_is_known_of():
    class Own(keras.Layer):
        def build(self, shape):
            self.kernel = self.add_weight((3, 4), name="kernel")

    layer = Own(name='a "b", [c]')
    layer.build((None, 3))
    with pytest.warns(initlab.UnknownLayerWarning, match=r"\(3, 4\) in a Own"):
        initlab.fans(layer)


# --- Reductions of hostile tensors ---------------------------------------------------

TENSORS = {
    "NaN": np.array([[1.0, np.nan], [0.0, 2.0]], "float32"),
    "infinite": np.array([[np.inf, 1.0], [-np.inf, 0.0]], "float32"),
    "empty": np.zeros((0, 2), "float32"),
    "whole": np.array([[1, 0], [2, 3]], "int32"),
    "truth": np.array([[True, False], [True, True]]),
    "half": np.array([[1.0, 60000.0], [0.0, 60000.0]], "float16"),
}


def of_figures(x):
    """Count, mean, squares, minimum, maximum and zeros, in NumPy."""
    if "float" not in x.dtype.name:
        return np.zeros(6)
    wide = x.astype("float64")
    mean = wide.mean() if x.size else 0.0
    squares = np.sum((wide - mean) ** 2)
    low, high = np.min(wide, initial=np.inf), np.max(wide, initial=-np.inf)
    return np.array([x.size, mean, squares, low, high, np.sum(wide == 0)])


@hostile.asks(
    "observing.statistics", "observing.STATISTICS", "observing.total", "observing.Place"
)
@pytest.mark.parametrize("name", TENSORS)
def test_figures_of_hostile_tensors(name):
    x, layer = TENSORS[name], layers.ReLU()
    tensor = keras.ops.convert_to_tensor(x)
    with np.errstate(invalid="ignore"):
        expected = of_figures(x)
        whole = x.astype("float64").sum() if "float" in x.dtype.name else 0.0
    found = keras.ops.convert_to_numpy(observing.statistics(layer).reduce(tensor, None))
    assert len(found) == len(observing.STATISTICS)
    is_clear = np.isfinite(expected[1]) | (x.size == 0)
    shown = slice(None) if is_clear else [0, 5]  # the others are NaN or infinite
    np.testing.assert_allclose(found[shown], expected[shown], rtol=1e-5)
    assert is_clear or not np.isfinite(found[1:3]).all()
    total = keras.ops.convert_to_numpy(observing.total(layer).reduce(tensor, None))
    np.testing.assert_allclose(total, whole, rtol=1e-5)


@hostile.asks(
    *(
        "observing.fires_per_unit",
        "observing.mean_size_per_unit",
        "observing.histogram",
    ),
    "observing.escapes_per_unit",
)
def test_units_of_a_tensor_with_nan():
    layer, tensor = layers.ReLU(), keras.ops.convert_to_tensor(TENSORS["NaN"])
    assert channel_axis(layer) == -1

    def reduced(reduction):
        return keras.ops.convert_to_numpy(reduction.reduce(tensor, None)).tolist()

    assert reduced(observing.fires_per_unit(layer)) == [[1, 1]]
    escapes = observing.escapes_per_unit(layer, "small", [lambda x: x < 5])
    assert reduced(escapes) == [[0, 1]]  # NaN passes no test
    assert reduced(observing.mean_size_per_unit(layer))[0][0] == 1
    edges = np.array([-1.0, 0.5, 1.5, 9.0])
    assert reduced(observing.histogram(layer, edges)) == [1, 1, 1]


def test_recording_ends_whatever_is_raised():
    layer = layers.Dense(2)
    layer.build((None, 3))

    def fail(call):
        raise KeyError("mine")

    with hostile.left_as_it_was(layer):
        with pytest.raises(KeyError, match="mine"), recording([layer], fail):
            layer(X)
        assert layer(X).shape == (4, 2)


# --- All of it -----------------------------------------------------------------------


@hostile.asks("Comparison", "compare.Run", "compare.Score")
def test_a_comparison_of_labels_of_every_sort():
    curves = {name: np.ones(2) for name in ("loss", "test_loss", "gradient_norm")}
    labels = ["[/red]", 'a, "b"\n', ":heart:", "\x1b[31m"]
    runs = [Run(label, 0, curves, 1.0) for label in labels]
    compared = initlab.Comparison(labels, [0], runs, 2, 32)
    text = repr(compared)
    assert "[/red]" in text
    assert ":heart:" in text
    assert "\x1b" not in text
    assert [score.label for score in compared.ranking()] == labels
    assert json.loads(json.dumps(compared.to_dict()))["labels"] == labels


@hostile.asks("callbacks.DeadReLULogger", "Finding", "callbacks.UnitEvent")
def test_units_that_die_under_a_name_of_their_own():
    name = "[red]" if "[red]" in admitted() else "red"
    model, lines = of([name]), []
    model.layers[0].bias.assign([-99.0, 1.0, 1.0])
    dead = DeadReLULogger(every=1, alerts=lines.append)
    model.fit(X, X, verbose=0, callbacks=[dead])
    (events,) = dead.history["events"].values()
    assert all(isinstance(one, UnitEvent) for one in events)
    assert all(isinstance(one, initlab.Finding) for one in dead.alerts)
    assert all(name in line for line in lines)
    assert dead.history["dead_units"].popitem()[1][0].tolist() == [0]


def test_every_public_name_is_asked(request):
    collected = request.config.stash[COLLECTED]
    here = Path(__file__).parent
    files = {path.name for path in [*here.glob("test_hostile_*.py")]}
    files |= {"test_security.py", "test_contract.py"}
    if not files <= {*collected}:
        pytest.skip("not all files with hostile input were collected")
    assert hostile.public_names() <= set().union(*collected.values())
