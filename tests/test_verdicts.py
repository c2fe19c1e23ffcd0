"""Verdicts on starts at their best rates, against hand-made scores and curves."""

import math
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "benchmarks"
OTHERS = ("default", "textbook", "calibrated")


@pytest.fixture
def verdicts(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import verdicts

    return verdicts


def verdict(verdicts, scores, tests=None):
    """A verdict from scores by arm at one rate, a seed each."""
    arms = {arm: [verdicts.at_rate(1e-3, s, (), tests)] for arm, s in scores.items()}
    return verdicts.Verdict("any", arms)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("scores", "tests", "word"),
    [
        # Without seeds that differ and without a test set the margin is 0.01.
        ({"default": [0.9] * 3, "ours": [0.9] * 3}, None, "level"),
        ({"default": [0.9] * 3, "ours": [0.892] * 3}, None, "level"),
        ({"default": [0.9] * 3, "ours": [0.888] * 3}, None, "harmful"),
        ({"default": [0.9] * 3, "ours": [0.912] * 3}, None, "ahead"),
        (
            {"default": [0.8] * 3, "textbook": [0.9] * 3, "ours": [0.85] * 3},
            None,
            "behind",
        ),
        (
            {"default": [0.8] * 3, "textbook": [0.9] * 3, "ours": [0.905] * 3},
            None,
            "level",
        ),
        (
            {"default": [0.9] * 3, "calibrated": [0.95] * 3, "ours": [0.85] * 3},
            None,
            "harmful",
        ),
        # Seeds that differ by 0.1 widen it to 2·√(2·0.01/3) = 0.163.
        ({"default": [0.6, 0.7, 0.8], "ours": [0.45, 0.55, 0.65]}, None, "level"),
        ({"default": [0.6, 0.7, 0.8], "ours": [0.4, 0.5, 0.6]}, None, "harmful"),
        # 397 images: 2·√(2·0.9·0.1/397) = 0.043; 1,000: 0.027.
        ({"default": [0.9] * 3, "ours": [0.865] * 3}, 397, "level"),
        ({"default": [0.9] * 3, "ours": [0.865] * 3}, 1000, "harmful"),
        ({"default": [0.9] * 3}, None, "open"),
        ({"textbook": [0.9] * 3, "ours": [0.9] * 3}, None, "open"),
        # The cross-entropy of a language model is below zero.
        ({"default": [-2.3] * 3, "ours": [-2.1] * 3}, None, "ahead"),
    ],
)
def test_the_word(verdicts, scores, tests, word):
    assert verdict(verdicts, scores, tests).word == word


def test_the_margin(verdicts):
    ours, default = [0.95, 0.97, 0.96], [0.9, 0.93, 0.84]
    made = verdict(verdicts, {"ours": ours, "default": default}, 397)
    seeds = (np.var(ours, ddof=1) + np.var(default, ddof=1)) / 3
    tests = (0.96 * 0.04 + 0.89 * 0.11) / 397
    found = made.margin(made.best("ours"), made.best("default"))
    assert found == pytest.approx(2 * math.sqrt(seeds + tests))
    assert made.nearest == "default"


def test_an_arm_is_judged_at_its_best_rate(verdicts):
    arms = {
        "default": [verdicts.at_rate(rate, [0.8]) for rate in (1e-3, 3e-3)],
        "ours": [
            verdicts.at_rate(rate, [score])
            for rate, score in ((3e-4, 0.5), (1e-3, 0.9), (3e-3, 0.895), (1e-2, 0.1))
        ],
    }
    made = verdicts.Verdict("any", arms)
    assert made.word == "ahead"
    assert made.best("ours").rate == 1e-3
    assert (made.good_rates("ours"), made.good_rates("default")) == (2, 2)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("curve", "target", "share"),
    [
        ((0.0, 0.5, 1.0), 0.5, 0.5),
        ((0.0, 0.5, 1.0), 0.75, 0.75),
        ((0.0, 1.0, 0.5), 0.5, 0.25),  # when it is first there
        ((0.0, 0.4), 0.5, math.inf),
        ((0.5, 0.6, 0.7), 0.5, 0.0),  # before the first step
        ((0.2, 0.2, 0.2), 0.2, 0.0),
        ((-4.0, -2.0), -3.0, 0.5),
    ],
)
def test_when_a_curve_is_at_a_target(verdicts, curve, target, share):
    made = verdicts.at_rate(1e-3, [curve[-1]], [curve])
    assert made.reaches(target) == pytest.approx(share)


def test_steps_are_relative_to_what_the_default_takes(verdicts):
    curves = {"default": (0.0, 0.9, 0.8), "ours": (0.0, 1.0, 1.0)}
    arms = {
        arm: [verdicts.at_rate(1e-3, [curve[-1]], [curve])]
        for arm, curve in curves.items()
    }
    made = verdicts.Verdict("any", arms)
    # 0.8 of one epoch, against 0.8/0.9 of one.
    assert made.steps("ours") == pytest.approx(0.9)
    assert made.steps("default") == 1
    assert verdict(verdicts, {"default": [0.8], "ours": [0.8]}).steps("ours") is None


def test_a_default_that_ends_where_it_began_takes_no_steps(verdicts):
    arms = {
        arm: [verdicts.at_rate(1e-3, [last], [(0.1, last)])]
        for arm, last in (("default", 0.1), ("ours", 0.9))
    }
    assert verdicts.Verdict("any", arms).steps("ours") is None


def test_the_summary_counts(verdicts):
    scores = [0.9, 0.92, 0.87, 0.5]
    cases = [verdict(verdicts, {"default": [0.9], "ours": [score]}) for score in scores]
    best = {"default": [0.5], "textbook": [0.9], "ours": [0.7]}
    cases += [verdict(verdicts, best), verdict(verdicts, {"default": [0.9]})]
    assert verdicts.summary(cases) == [
        "Within the margin of the best: 2 of 5 (40%) "
        "(ahead of all others in 1 of 5 (20%)).",
        "Below Keras's default by more than the margin: 2.",
    ]
    assert "yet" in verdicts.summary(cases[-1:])[0]


@pytest.mark.parametrize(
    ("last", "told"), [(1.0, "0.80 of the default's"), (0.7, "never")]
)
def test_the_summary_tells_of_steps(verdicts, last, told):
    curves = {"default": (0.0, 0.8), "ours": (0.0, last)}
    arms = {
        arm: [verdicts.at_rate(rate, [c[-1]], [c]) for rate in (1e-3, 3e-3)]
        for arm, c in curves.items()
    }
    *_, steps, rates = verdicts.summary([verdicts.Verdict("any", arms)])
    assert steps == f"Median steps to the default's final score: {told}, over 1."
    assert rates == "As many good rates as the default or more: 1 of 1 (100%)."
