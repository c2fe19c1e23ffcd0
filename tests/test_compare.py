"""What is derived from recorded curves: nothing is trained here."""

import json
import math
import sys

import numpy as np
import pytest
from scipy import stats

from keras_initlab.compare import Comparison, Run, Score
from keras_initlab.compare import _student as student

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

NAN, INF = math.nan, math.inf
NAMES = ("loss", "test_loss", "gradient_norm", "accuracy", "test_accuracy")


def run(label="a", seed=0, accuracy=None, loss=None, seconds=1.0):
    """A run with the same curve in training and on the test set."""
    length = len(accuracy if accuracy is not None else loss)
    losses = np.linspace(2, 1, length) if loss is None else np.array(loss, float)
    curves = {"loss": losses, "test_loss": losses, "gradient_norm": losses}
    if accuracy is not None:
        values = np.array(accuracy, float)
        curves |= {"accuracy": values, "test_accuracy": values}
    return Run(label, seed, curves, seconds)


def comparison(runs):
    labels = list(dict.fromkeys(one.label for one in runs))
    seeds = sorted({one.seed for one in runs})
    return Comparison(labels, seeds, runs, epochs=3, batch_size=32)


def finals(**values):
    """A comparison by the final accuracies of each label, a seed each."""
    runs = [
        run(label, seed, [10, final])
        for label, each in values.items()
        for seed, final in enumerate(each)
    ]
    return comparison(runs)


def by_hand(accuracies, seconds):
    """The source's definitions, written once more, epoch by epoch."""
    final = accuracies[-1]
    tail = accuracies[max(0, len(accuracies) - 50) :]
    middle = sum(tail) / len(tail)
    variance = sum((value - middle) ** 2 for value in tail) / len(tail)
    convergence = len(accuracies)
    for epoch, value in enumerate(accuracies):
        if value >= 0.9 * final:
            convergence = epoch
            break
    return {
        "final_accuracy": final,
        "best_accuracy": sorted(accuracies)[-1],
        "stability": 1 / (variance + 1e-8),
        "convergence_epoch": convergence,
        "seconds": seconds,
    }


@pytest.mark.parametrize("epochs", [1, 2, 49, 50, 51, 130])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_the_sources(epochs, seed):
    rng = np.random.default_rng([epochs, seed])
    curve = np.clip(100 * (1 - np.exp(-np.arange(epochs) / 20)), 0, 100)
    curve = np.clip(curve + rng.normal(scale=4, size=epochs), 0, 100)
    found = run(accuracy=curve, seconds=3.5).metrics
    expected = by_hand(curve.tolist(), 3.5)
    assert {name: found[name] for name in expected} == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize(
    ("accuracies", "metric", "expected"),
    [
        ([10, 89.9, 90, 100], "convergence_epoch", 2),  # 90 % of the final, not of 100
        ([10, 44.9, 45, 50], "convergence_epoch", 2),
        ([8, 8, 8], "convergence_epoch", 0),  # never learns, and is there at once
        ([90, 20, 50], "convergence_epoch", 0),
        ([NAN, NAN], "convergence_epoch", 2),  # never reached
        ([90, 20, 50], "best_accuracy", 90),
        ([8, 8, 8], "stability", 1e8),
        ([10, 12], "stability", 1 / (1 + 1e-8)),  # in percent; ddof=1 gives a half
        ([100] * 10 + [10, 12] * 25, "stability", 1 / (1 + 1e-8)),
    ],
)
def test_metrics_at_their_edges(accuracies, metric, expected):
    assert run(accuracy=accuracies).metrics[metric] == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([10, 2, 1.0, 0.5, 0], {"final_loss": 0, "convergence_epoch": 2}),
        ([10, 0, 5], {"final_loss": 5, "best_loss": 0, "convergence_epoch": 1}),
        ([1, 2], {"convergence_epoch": 2}),  # worse than at the start
        ([1, NAN], {"convergence_epoch": 2, "final_loss": NAN, "best_loss": 1}),
        ([1, INF], {"final_loss": INF, "stability": NAN}),
        ([1, 3], {"stability": 1 / (1 + 1e-8)}),
    ],
)
def test_without_an_accuracy_the_loss_counts(losses, expected):
    found = run(loss=losses).metrics
    assert "final_accuracy" not in found
    chosen = {name: found[name] for name in expected}
    assert chosen == pytest.approx(expected, 1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("metric", "order"),
    [
        (None, ["high", "middle", "low"]),
        ("final_accuracy", ["high", "middle", "low"]),
        ("best_accuracy", ["middle", "high", "low"]),
        ("stability", ["low", "high", "middle"]),
        # Of equal ones, here in epoch 0, the better comes first.
        ("convergence_epoch", ["middle", "low", "high"]),
        ("seconds", ["middle", "low", "high"]),
        ("final_loss", ["low", "middle", "high"]),
    ],
)
def test_each_metric_ranks(metric, order):
    runs = [
        run("low", 0, [8, 8, 8], [3, 2, 1.0], seconds=2),
        run("middle", 0, [95, 30, 60], [3, 2, 1.5], seconds=1),
        run("high", 0, [30, 60, 90], [3, 2, 1.8], seconds=3),
    ]
    found = comparison(runs)
    assert [score.label for score in found.ranking(metric)] == order
    assert (found.best, found.fastest) == ("high", "middle")


def test_scores_are_means_with_standard_errors():
    values = {"a": [80.0, 90, 85], "b": [10.0, 20, 60]}
    scores = finals(**values).ranking()
    for score in scores:
        sample = values[score.label]
        error = stats.sem(sample)  # n − 1
        assert score == Score(score.label, np.mean(sample), pytest.approx(error), 3)


def test_one_seed_has_no_standard_error():
    (score,) = finals(a=[80.0]).ranking()
    assert math.isnan(score.standard_error)


def test_what_failed_counts_in_nothing():
    runs = [run("a", 0, [10, 80]), Run("a", 1, error="E: x"), Run("b", 0, error="E: y")]
    found = comparison([*runs, Run("b", 1, error="E: y")])
    first, last = found.ranking()
    assert (first.label, first.mean, first.runs) == ("a", 80, 1)
    assert (last.label, last.runs, math.isnan(last.mean)) == ("b", 0, True)
    assert [one.label for one in found.failed] == ["a", "b", "b"]
    assert found.verdict == "Only a finished: there is nothing to compare it with."
    text = repr(found)
    assert "Failed: b, seed 1: E: y" in text
    assert "failed" in next(line for line in text.splitlines() if line[:3] == " b ")


def test_what_is_no_number_comes_last():
    runs = [
        run(label, 0, loss=[2, end])
        for label, end in (("a", NAN), ("b", 1), ("c", INF))
    ]
    assert [score.label for score in comparison(runs).ranking()] == ["b", "c", "a"]


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"`metric` must be one of.*metric='speed'"):
        finals(a=[1]).ranking("speed")


@pytest.mark.parametrize("freedom", [*range(1, 60), 100, 10_000])
def test_critical_values_are_students(freedom):
    exact = stats.t.ppf(0.975, freedom)
    assert student.critical_value(freedom) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("pairs", [2, 5, 40])
def test_the_margin_is_that_of_a_paired_test(pairs):
    rng = np.random.default_rng(pairs)
    one, other = rng.normal(size=(2, pairs)) + rng.normal(scale=10, size=pairs)
    found = student.paired_difference(one, other)
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.margin == pytest.approx((high - low) / 2, 1e-4)
    unpaired = stats.ttest_ind(one, other).confidence_interval(0.95)
    assert abs(unpaired.high - unpaired.low) > 2.5 * found.margin


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        # Pairing sees a small difference under a large spread over seeds.
        (
            {"a": [60.0, 70, 80], "b": [58.9, 69, 79.1]},
            "a is ahead of b by 1.00 points of final accuracy (± 0.25, 95 % "
            "confidence, paired over 3 seeds): a real difference.",
        ),
        (
            {"a": [60.0, 80], "b": [70.0, 69]},
            "a is ahead of b by 0.50 points of final accuracy (± 133.42, 95 % "
            "confidence, paired over 2 seeds): it may well be chance.",
        ),
        (
            {"a": [60.0], "b": [50.0]},
            "a is ahead of b by 10.00 points of final accuracy, but one seed cannot "
            "tell whether that is real: pass more, as `seeds=range(5)`.",
        ),
        (
            {"a": [60.0, 70], "b": [59.0, 69]},
            "a is ahead of b by 1.00 points of final accuracy in each of 2 seeds, "
            "which show no spread to judge it by: pass more, as `seeds=range(5)`.",
        ),
        (
            {"a": [60.0, 70], "b": [60.0, 70]},
            "a and b end equal in each of 2 seeds.",
        ),
    ],
)
def test_the_verdict(values, sentence):
    assert finals(**values).verdict == sentence


def test_the_verdict_on_losses_counts_less_as_better():
    losses = {"a": [1.0, 1.1, 1.2], "b": [0.5, 0.62, 0.71]}
    runs = [
        run(label, seed, loss=[2, end])
        for label, each in losses.items()
        for seed, end in enumerate(each)
    ]
    found = comparison(runs)
    assert found.best == "b"
    assert found.verdict.startswith("b is ahead of a by 0.49 in final loss (± 0.02")
    assert "Ranked by test loss: the model has no accuracy." in repr(found)
    assert "90 % of the way to its own final loss" in repr(found)


def test_seeds_that_only_one_finished_are_not_paired():
    runs = [run("a", 0, [1, 60]), run("b", 1, [1, 50])]
    assert "no seed gave both a number" in comparison(runs).verdict
    runs += [run("b", 0, [1, 40])]
    assert "by 20.00 points" in comparison(runs).verdict


def test_the_table():
    text = repr(finals(glorot_uniform=[80.0, 82.0], he_normal=[91.0, 93.0]))
    lines = text.splitlines()
    assert lines[0] == "2 initializers, 2 seeds, 3 epochs in batches of 32"
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if " ± " in line][:2]
    assert rows[0][:7] == ["he_normal", *(2 * ["92.0", "±", "1.0"])]
    assert rows[1][:4] == ["glorot_uniform", "81.0", "±", "1.0"]
    assert "Fastest: he_normal, in epoch 1 at 90 % of its own final accuracy" in text


def test_long_labels_fit():
    label = "VarianceScaling(scale=2, mode=fan_avg, distribution=uniform)"
    runs = [
        run(
            label, seed, [*([0] * 300 * seed), *([final] * (600 - 300 * seed))], None, s
        )
        for seed, (final, s) in enumerate([(100, 98765.4), (80, 1e5)])
    ]
    text = repr(comparison(runs))
    assert max(map(len, text.splitlines())) <= 80
    for figures in ("90.0 ± 10.0", "150 ± 150", "99383", "seconds", "stability"):
        assert figures in text


def test_it_is_plain_values():
    runs = [run("a", 0, [10, 80]), run("b", 0, [10, NAN]), Run("a", 1, error="E")]
    found = comparison([*runs, run("b", 1, [10, 20])])
    loaded = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert loaded["best"] == found.best == "a"
    assert loaded["verdict"] == found.verdict
    assert loaded["runs"][0]["curves"]["test_accuracy"] == [10, 80]
    assert loaded["runs"][1]["metrics"]["final_accuracy"] == "nan"
    assert loaded["runs"][2] == {"label": "a", "seed": 1, "error": "E"}
    assert set(loaded["rankings"]) == set(found.metrics)


def test_frames():
    runs = [run("a", 0, [10, 80]), Run("a", 1, error="E"), run("b", 0, [10, 20])]
    found = comparison([*runs, run("b", 1, [10, 30])])
    frame = found.to_frame()
    assert frame["initializer"].tolist() == ["a", "a", "b", "b"]
    np.testing.assert_array_equal(frame["final_accuracy"], [80, NAN, 20, 30])
    assert frame["error"].tolist()[1] == "E"
    curves = found.to_frame(curves=True)
    assert curves["epoch"].tolist() == [0, 1] * 3
    assert curves["test_accuracy"].tolist() == [10, 80, 10, 20, 10, 30]
    assert set(NAMES) < set(curves.columns)


def test_without_pandas_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"without it.*keras_initlab\[frame\]"):
        finals(a=[1]).to_frame()
