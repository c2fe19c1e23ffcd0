import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import Normalize, to_hex

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

FOLDER = Path(__file__).parent / "benchmarks"
CELLS = {
    ("relu", 100, "he"): 0.41,
    ("relu", 50, "he"): [0.85, 0.83],
    ("tanh", 50, "he"): 0.96,
    ("relu", 50, "ours"): 0.95,
    ("relu", 100, "ours"): 0.96,
    ("tanh", 50, "ours"): 0.98,
    ("tanh", 1000, "ours"): 0.97,
}


def records(cells=CELLS, **more):
    return [
        {"activation": a, "depth": d, "arm": arm, "accuracy": one, "seed": seed, **more}
        for (a, d, arm), given in cells.items()
        for seed, one in enumerate(np.atleast_1d(given).tolist())
    ]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def values(axes):
    (mesh,) = [c for c in axes.collections if hasattr(c, "get_coordinates")]
    return mesh.get_array().filled(np.nan)


def texts(axes):
    """`{(row, column): what is written there}`."""
    return {
        (text.get_position()[1], text.get_position()[0]): text.get_text()
        for text in axes.texts
    }


def labels(ticks):
    return [tick.get_text() for tick in ticks]


@pytest.mark.parametrize("results", [CELLS, records()], ids=["mapping", "records"])
def test_every_cell_is_where_it_belongs(results):
    figure = plots.depth_by_activation(results, title="a title")
    he, ours = panels(figure)
    nan = np.nan
    assert [he.get_title(), ours.get_title()] == ["he", "ours"]
    # From ours, tanh does best.
    assert labels(he.get_yticklabels()) == ["tanh", "relu"]
    assert labels(he.get_xticklabels()) == ["50", "100", "1,000"]
    np.testing.assert_allclose(values(he), [[96, nan, nan], [84, 41, nan]])
    np.testing.assert_allclose(values(ours), [[98, nan, 97], [95, 96, nan]])
    assert texts(he) == {(0, 0): "96", (1, 0): "84", (1, 1): "41"}
    assert he.get_ylim() == (1.5, -0.5)
    for axes in (he, ours):
        (mesh,) = axes.collections
        assert mesh.get_clim() == (0, 100)
        assert type(mesh.norm) is Normalize
        assert mesh.get_cmap().name == "viridis"
    assert figure.get_suptitle() == "a title"
    assert figure.get_supxlabel() == "hidden layers"


def test_starts_can_be_chosen_and_named():
    figure = plots.depth_by_activation(CELLS, ["ours", "he"])
    assert [axes.get_title() for axes in panels(figure)] == ["ours", "he"]
    # The last start decides which lies on top: (85 + 41) / 2 is less than 96.
    assert labels(panels(figure)[0].get_yticklabels()) == ["tanh", "relu"]
    figure = plots.depth_by_activation(CELLS, {"he": "He et al."})
    (axes,) = panels(figure)
    assert axes.get_title() == "He et al."


def test_a_run_that_failed_is_a_cross_and_counts_in_no_mean():
    cells = {**CELLS, ("relu", 100, "he"): [0.3, None], ("tanh", 100, "he"): None}
    cells["selu", 50, "he"] = float("nan")
    figure = plots.depth_by_activation(cells)
    he, ours = panels(figure)
    assert labels(he.get_yticklabels())[2] == "selu"  # nothing of it from ours
    assert texts(he)[1, 1] == "30"
    assert texts(he)[0, 1] == "×"
    assert texts(he)[2, 0] == "×"
    assert (2, 0) not in texts(ours)


def test_numbers_can_be_read_on_their_color():
    shades = {}
    figure = plots.depth_by_activation(
        {("a", depth, "x"): depth / 100 for depth in range(0, 101, 5)}
    )
    (axes,) = panels(figure)
    (mesh,) = axes.collections
    for text in axes.texts:
        back = np.array(mesh.get_cmap()(float(text.get_text()) / 100)[:3])
        front = np.array(
            [0, 0, 0] if to_hex(text.get_color()) == "#000000" else [1] * 3
        )
        shades[text.get_text()] = contrast(front, back)
    assert len(shades) == 21
    assert min(shades.values()) > 3  # WCAG 2, for large text and graphics


def contrast(one, other):
    def luminance(color):
        linear = np.where(
            color > 0.04045, ((color + 0.055) / 1.055) ** 2.4, color / 12.92
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("results", "rule"),
    [
        ([], r"must hold an accuracy.*\[\]"),
        ({}, r"must hold an accuracy.*\{\}"),
        ({("relu", 5, "he"): 84}, r"0 to 1.*\('relu', 5, 'he', 84\)"),
        ({("relu", 5, "he"): ["x"]}, r"0 to 1.*\('relu', 5, 'he', 'x'\)"),
        ([{"activation": "relu", "depth": 3}], r"must have 'activation'.*'depth': 3"),
    ],
)
def test_what_is_no_result_is_refused(results, rule):
    with pytest.raises(ValueError, match=rule):
        plots.depth_by_activation(results)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match=r"some of 'he', 'ours'.*arms=\['her'\]"):
        plots.depth_by_activation(CELLS, ["her"])
    with pytest.raises(ValueError, match=r"some of 'he', 'ours'.*arms=\[\]"):
        plots.depth_by_activation(CELLS, [])


@pytest.mark.parametrize("key", ["width", "learning_rate", "epochs", "batch"])
def test_runs_of_different_budgets_are_not_averaged(key):
    mixed = [*records(**{key: 1}), *records(**{key: 2})]
    rule = rf"seed alone.*{key}=1 and 2 for \('relu', 100, 'he'\)"
    with pytest.raises(ValueError, match=rule):
        plots.depth_by_activation(mixed)


def test_the_benchmark_draws_the_runs_of_its_budget(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    import depth

    path = FOLDER / "results" / "depth.jsonl"
    figure = depth.as_figure(depth.Results(path), [50, 100, 1000])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    budgets = {50: (3e-4, 10), 100: (3e-4, 10), 1000: (3e-5, 8)}
    expected = {}
    for line in lines:
        budget = (line["learning_rate"], line["epochs"])
        if line["width"] == 128 and budgets.get(line["depth"]) == budget:
            key = line["activation"], line["depth"], line["arm"]
            expected.setdefault(key, []).append(100 * line["accuracy"])
    names = ("default", "textbook", "ours")
    seen = 0
    rows = labels(figure.axes[0].get_yticklabels())
    for axes, arm in zip(panels(figure), names, strict=True):
        for (row, column), value in np.ndenumerate(values(axes)):
            runs = expected.get((rows[row], (50, 100, 1000)[column], arm))
            assert np.isnan(value) if runs is None else value == np.mean(runs)
            seen += runs is not None
    assert seen == len(expected) == 3 * (23 + 23 + 4)
    depth.main(["--figure", str(tmp_path / "x.png"), "--depths", "50"])
    assert (tmp_path / "x.png").stat().st_size > 30_000
    assert [axes.get_title() for axes in panels(figure)] == list(depth.HEADINGS)
