"""The benchmarks run, and their rivals measure what they say."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow_on_jax

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def overhead(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import monitoring_overhead

    return monitoring_overhead


def check(rows, cases):
    assert [row["case"] for row in rows] == cases
    for row in rows:
        assert row["pairs"] >= 2
        assert 0 < row["plain_step_seconds"] < 10
        assert 0.1 < row["ratio"] < 100


@pytest.mark.slow
def test_overhead_is_measured(overhead, tmp_path, capsys):
    path = tmp_path / "overhead.json"
    cases = ["both-1"]
    options = ["--quick", "--models", "mlp", "--cases", *cases, "--json", str(path)]
    rows = overhead.main(options)
    check(rows, ["control-1", *cases])
    assert json.loads(path.read_text()) == rows
    assert "both-1" in capsys.readouterr().out


@pytest.mark.slow
def test_every_second_pair_of_steps_is_observed(overhead):
    data = overhead.data_for("mlp", 64, 16)
    norms = overhead.GradientNormLogger(lambda step: step % 4 in (1, 2))
    case = overhead.ByStep(
        overhead.compiled(overhead.mlp, 64), data, lambda wants: [norms]
    )
    case.add_pairs()
    assert list(norms.history["step"][-9:]) == [0, 1, 2, 5, 6, 9, 10, 13, 14]
    assert len(case.clock.starts) == 16
    begun = np.diff(np.array(case.clock.starts)[:, 0])
    # The last step has no end, so its four are left out, like the first.
    expected = [(begun[i] + begun[i + 3], begun[i + 1] + begun[i + 2]) for i in (4, 8)]
    np.testing.assert_allclose(
        [times[:, 0] for times in case.times], np.array(expected) / 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_every_case_is_measured(overhead, model):
    rows = overhead.main(["--quick", "--models", model])
    check(rows, ["control-1", "control-10", *overhead.NAMES[1:5], *overhead.NAMES[6:]])


@pytest.mark.parametrize(
    ("case", "change", "settled"),
    [
        ("control-1", {}, True),
        ("control-1", {"ratio": 1.03}, False),
        ("control-10", {"ratio": 0.97}, False),
        ("control-1", {"error": 0.02}, False),
        ("control-10", {"pairs": 9}, False),
        ("both-1", {"ratio": 2.0, "error": 0.015}, True),
        ("both-1", {"ratio": 1.0, "error": 0.015}, False),
    ],
)
def test_pairs_are_added_until_the_control_is_near_1(overhead, case, change, settled):
    near = {"ratio": 1.01, "error": 0.005, "pairs": 10}
    cases = ("control-1", "control-10", "both-1")
    results = {**dict.fromkeys(cases, near), case: {**near, **change}}
    assert overhead.is_settled(results, overhead.parsed([])) is settled


def test_rivals_measure_what_the_callbacks_do(overhead):
    """On weights that stay as they are, both see the same norms and dead units."""
    x, y = overhead.data_for("mlp", 64, 2)
    model = overhead.mlp(64)
    model.layers[0].bias.assign(np.where(np.arange(64) < 5, -100.0, 0.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    norms, dead = overhead.CASES["both"](x, y, 1)
    passes = overhead.CASES["extra-pass"](x, y, 1)[0]
    outputs = overhead.CASES["activation-pass"](x, y, 1)[0]
    callbacks = [norms, dead, passes, outputs]
    options = {"shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(x, y, overhead.BATCH, **options)
    expected = np.stack(list(norms.history["variables"].values()), axis=-1)
    np.testing.assert_allclose(np.stack(passes.history), expected, rtol=1e-4)
    counts = [len(units[0]) for units in dead.history["dead_units"].values()]
    assert outputs.history == [counts]
    assert counts[0] == 5


@pytest.mark.slow
@pytest.mark.tensorflow
def test_confidence_is_how_often_the_std_comes(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    import confidence

    found = confidence.main([])
    assert set(found) == {0.95, 0.7, 0.55}
    for stated, ratios in found.items():
        assert confidence.shares_of(ratios)[1] == pytest.approx(stated, abs=0.06)
    assert "confidence" in capsys.readouterr().out


def test_shares_count_both_directions(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import confidence

    assert confidence.shares_of([1.0, 0.95, 1 / 1.2, 1.9, 0.4]) == [0.4, 0.6, 0.8]


@pytest.mark.slow
def test_a_probe_is_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    import probing

    (row,) = probing.main(["--models", "mlp", "--turns", "2", "--size", "8"])
    assert 0.1 < row["ratio"] < 100
    assert "mlp" in capsys.readouterr().out
