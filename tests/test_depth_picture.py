"""The picture of the depth benchmark shows its runs, each where it belongs."""

import json
from pathlib import Path

import numpy as np
import pytest

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

FOLDER = Path(__file__).parent / "benchmarks"
BUDGETS = {50: (3e-4, 10), 100: (3e-4, 10), 1000: (3e-5, 8)}
CELLS = {
    ("relu", 100, "he"): [0.3, None],
    ("relu", 50, "he"): [0.85, 0.83],
    ("tanh", 50, "he"): [None],
    ("selu", 50, "he"): [0.5],
    ("relu", 50, "ours"): [0.95],
    ("relu", 100, "ours"): [0.96],
    ("tanh", 50, "ours"): [0.98],
    ("tanh", 1000, "ours"): [0.97],
}


@pytest.fixture
def depth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import depth

    return depth


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def texts(axes):
    """`{(row, column): what is written there}`."""
    return {text.get_position()[::-1]: text.get_text() for text in axes.texts}


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_every_cell_is_where_it_belongs(depth):
    runs = [
        {"activation": a, "depth": d, "arm": arm, "accuracy": one}
        for (a, d, arm), accuracies in CELLS.items()
        for one in accuracies
    ]
    figure = depth.depth_picture(runs, {"he": "He et al.", "ours": "ours"}, "title")
    he, ours = panels(figure)
    assert [he.get_title(), ours.get_title()] == ["He et al.", "ours"]
    # From ours, tanh does best, and there is nothing of SELU.
    assert labels(he.get_yticklabels()) == ["tanh", "relu", "selu"]
    assert labels(he.get_xticklabels()) == ["50", "100", "1,000"]
    assert texts(he) == {(0, 0): "×", (1, 0): "84", (1, 1): "30", (2, 0): "50"}
    assert texts(ours) == {(0, 0): "98", (0, 2): "97", (1, 0): "95", (1, 1): "96"}
    (image,) = ours.images
    nan = np.nan
    shown = [[98, nan, 97], [95, 96, nan], [nan, nan, nan]]
    np.testing.assert_allclose(image.get_array().filled(nan), shown)
    assert image.get_clim() == (0, 100)
    colors = {text.get_text(): text.get_color() for text in he.texts}
    assert (colors["84"], colors["30"]) == ("black", "white")


def test_it_draws_the_runs_of_the_budget(depth, tmp_path):
    path = FOLDER / "results" / "depth.jsonl"
    figure = depth.as_figure(depth.Results(path), list(BUDGETS))
    expected = {}
    for line in map(json.loads, path.read_text().splitlines()):
        budget = (line["learning_rate"], line["epochs"])
        if line["width"] == 128 and BUDGETS.get(line["depth"]) == budget:
            key = line["activation"], line["depth"], line["arm"]
            expected.setdefault(key, []).append(100 * line["accuracy"])
    assert len(expected) == 3 * (23 + 23 + 4)
    rows = labels(figure.axes[0].get_yticklabels())
    found = {
        (rows[row], list(BUDGETS)[column], arm): text
        for axes, arm in zip(panels(figure), depth.ARMS, strict=True)
        for (row, column), text in texts(axes).items()
    }
    assert found == {key: f"{np.mean(each):.0f}" for key, each in expected.items()}
    assert [axes.get_title() for axes in panels(figure)] == list(depth.HEADINGS)
    depth.main(["--figure", str(tmp_path / "x.png"), "--depths", "50"])
    assert (tmp_path / "x.png").stat().st_size > 30_000
