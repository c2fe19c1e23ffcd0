"""The benchmarks run, and their rivals measure what they say."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def overhead(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import monitoring_overhead

    return monitoring_overhead


def check(rows, cases, pairs=2):
    assert [row["case"] for row in rows] == cases
    for row in rows:
        assert row["pairs"] == pairs
        assert 0 < row["plain_seconds"] < 60
        assert 0.1 < row["ratio"] < 100


def test_overhead_is_measured(overhead, tmp_path, capsys):
    path = tmp_path / "overhead.json"
    options = ["--quick", "--models", "mlp", "--cases", "both-1", "--json", str(path)]
    rows = overhead.main(options)
    check(rows, ["control", "both-1"])
    assert json.loads(path.read_text()) == rows
    assert "both-1" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_every_case_is_measured(overhead, model):
    check(overhead.main(["--quick", "--models", model]), list(overhead.CASES))


@pytest.mark.parametrize(
    ("case", "change", "settled"),
    [
        ("control", {}, True),
        ("control", {"ratio": 1.03}, False),
        ("control", {"ratio": 0.97}, False),
        ("control", {"error": 0.02}, False),
        ("control", {"pairs": 9}, False),
        ("both-1", {"ratio": 2.0, "error": 0.015}, True),
        ("both-1", {"ratio": 1.0, "error": 0.015}, False),
    ],
)
def test_pairs_are_added_until_the_control_is_near_1(overhead, case, change, settled):
    near = {"ratio": 1.01, "error": 0.005, "pairs": 10}
    results = {"control": near, "both-1": near, case: {**near, **change}}
    assert overhead.is_settled(results, overhead.parsed([])) is settled


def test_rivals_measure_what_the_callbacks_do(overhead):
    """On weights that stay as they are, both see the same norms and dead units."""
    x, y = overhead.data_for("mlp", 64, 2)
    model = overhead.mlp(64)
    model.layers[0].bias.assign(np.where(np.arange(64) < 5, -100.0, 0.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    norms, dead = overhead.CASES["both-1"](x, y)
    passes = overhead.CASES["extra-pass-1"](x, y)[0]
    outputs = overhead.CASES["activation-pass"](x, y)[0]
    callbacks = [norms, dead, passes, outputs]
    options = {"shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(x, y, overhead.BATCH, **options)
    expected = np.stack(list(norms.history["variables"].values()), axis=-1)
    np.testing.assert_allclose(np.stack(passes.history), expected, rtol=1e-4)
    counts = [len(units[0]) for units in dead.history["dead_units"].values()]
    assert outputs.history == [counts]
    assert counts[0] == 5
