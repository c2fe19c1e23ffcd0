"""All reports are alike: a sequence, a table, plain values, one kind of JSON."""

import json
import math
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

from keras_initlab import audit, calibrate, probe, recommend, reinitialize
from keras_initlab._core.reports import Record, Report

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def network(depth=1):
    hidden = [layers.Dense(8, "tanh", name=f"[{n}]") for n in range(depth)]
    head = layers.Dense(3, kernel_initializer="zeros", name="head")
    return keras.Sequential([keras.Input((6,)), *hidden, head], name="net")


def with_nan():
    model = network()
    model.layers[0].bias.assign(np.full(8, np.nan))
    return model


REPORTS = {
    "recommend": lambda: recommend(network()),
    "rules": lambda: recommend(network(), "rules"),
    "two policies": lambda: recommend(m := network()).compare(recommend(m, "rules")),
    "audit": lambda: audit(with_nan()),
    "probe": lambda: probe(network(), X),
    "probe of NaN": lambda: probe(with_nan(), X),
    "apply": lambda: recommend(network()).apply(seed=0),
    "dry run": lambda: recommend(network()).apply(seed=0, dry_run=True),
    "calibrated": lambda: recommend(network(), "calibrated", data=X).apply(seed=0),
    "calibrate": lambda: calibrate(network(), X),
    "reinitialize": lambda: reinitialize(network(), seed=0),
}


@pytest.fixture
def report(request):
    # A function, since an `Applied` does not keep the model alive.
    return REPORTS[request.param]()


def leaves(values):
    if isinstance(values, dict):
        assert all(isinstance(key, str) for key in values)
        values = list(values.values())
    if isinstance(values, list):
        return [leaf for inner in values for leaf in leaves(inner)]
    return [values]


@pytest.mark.whole
@pytest.mark.parametrize("report", REPORTS, indirect=True)
def test_every_report_is_like_the_others(report):
    assert isinstance(report, Report)
    assert len(list(report)) == len(report) > 0
    assert report[0] is next(iter(report))
    text = str(report)
    assert text == repr(report)
    assert text.startswith("net: ")
    assert "\x1b" not in text
    assert type(report).to_dict is Report.to_dict
    assert type(report).to_json is Report.to_json
    found = report.to_dict()
    assert json.loads(report.to_json(), parse_constant=pytest.fail) == found
    assert found["model"] == "net"
    for leaf in leaves(found):
        assert leaf is None or type(leaf) in (bool, float, int, str)
        assert type(leaf) is not float or leaf == float(f"{leaf:.4g}")


@pytest.mark.whole
@pytest.mark.parametrize("report", REPORTS, indirect=True)
def test_every_record_is_like_the_others(report):
    paths = [record.path for record in report]
    for record, path in zip(report, paths, strict=True):
        assert isinstance(record, Record)
        assert type(record).to_dict is Record.to_dict
        assert path in json.dumps(record.to_dict(), allow_nan=False)


@dataclass(frozen=True)
class Size(Record):
    std: float
    inner: tuple = ()

    _derived = ("double",)

    @property
    def double(self):
        return 2 * self.std


def test_a_record_goes_out_with_what_follows_from_it():
    found = Size(math.nan, (Size(1 / 3), Size(-math.inf))).to_dict()
    assert (found["std"], found["double"]) == ("nan", "nan")
    assert found["inner"][0] == {"std": 0.3333, "inner": [], "double": 0.6667}
    assert found["inner"][1]["double"] == "-inf"


def test_what_was_written_is_a_table():
    model = network(depth=12)
    former = model.layers[0].get_weights()[0]
    applied = reinitialize(model, seed=0)
    first = applied[0]
    kernels = (former, model.layers[0].get_weights()[0])
    sizes = [math.sqrt(np.mean(kernel**2)) for kernel in kernels]
    assert (first.path, len(applied)) == (applied.changed[0], 26)
    assert [first.before, first.after] == pytest.approx(sizes, rel=1e-5)
    assert applied.magnitudes[first.path] == (first.before, first.after)
    text = " ".join(repr(applied).split())
    assert "26 variables changed, seed 0, undo holds 0.0 MiB" in text
    assert f"{first.after:.4g}" in text
    assert "… 6 more" in text
    assert "[0]/kernel" in text
