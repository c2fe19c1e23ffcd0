import json
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from keras_initlab import plots
from keras_initlab.compare import Comparison, Run
from keras_initlab.plots._style import COLORS

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

NAMES = ("loss", "test_loss", "gradient_norm", "accuracy", "test_accuracy")
LABELS = ["he_normal", "zeros", "recommended"]


def curves(label, seed, names=NAMES, epochs=4):
    rng = np.random.default_rng([LABELS.index(label), seed])
    return {name: rng.uniform(1, 90, size=epochs) for name in names}


def comparison(labels=LABELS, seeds=(0, 1, 2), names=NAMES, fail=()):
    runs = [
        Run(label, seed, error="E")
        if (label, seed) in fail
        else Run(label, seed, curves(label, seed, names), 1.0)
        for label in labels
        for seed in seeds
    ]
    return Comparison(labels, seeds, runs, 4, 32)


def expected(label, name, seeds=(0, 1, 2)):
    return np.array([curves(label, seed)[name] for seed in seeds])


def by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def band(collection):
    """`{epoch: (low, high)}` of a filled band."""
    corners = collection.get_paths()[0].vertices
    return {
        epoch: (corners[at, 1].min(), corners[at, 1].max())
        for epoch in range(4)
        if (at := corners[:, 0] == epoch).any()
    }


@pytest.mark.parametrize(
    ("panel", "name", "scale"),
    [(0, "loss", "log"), (1, "test_accuracy", "linear"), (2, "gradient_norm", "log")],
)
def test_panels_show_means_and_ranges(panel, name, scale):
    figure = comparison().plot()
    assert isinstance(figure, Figure)
    axes = figure.axes[panel]
    assert axes.get_yscale() == scale
    for index, label in enumerate(LABELS):
        line = by_label(axes)[label]
        each = expected(label, name)
        np.testing.assert_array_equal(line.get_xdata(), range(4))
        np.testing.assert_allclose(line.get_ydata(), each.mean(axis=0))
        assert line.get_color() == COLORS[index]
        drawn = band(axes.collections[index])
        for epoch in range(4):
            values = each[:, epoch]
            np.testing.assert_allclose(drawn[epoch], (values.min(), values.max()))


def test_bars_show_final_figures_and_convergence():
    compared = comparison()
    *_, finals, epochs = compared.plot().axes
    for axes, metric, form in (
        (finals, "final_accuracy", "{:.1f}"),
        (epochs, "convergence_epoch", "{:.3g}"),
    ):
        scores = {score.label: score for score in compared.ranking(metric)}
        bars = [c for c in axes.containers if hasattr(c, "patches")]
        texts = [text.get_text() for text in axes.texts]
        for index, label in enumerate(LABELS):
            (bar,) = bars[index].patches
            assert bar.get_height() == scores[label].mean
            assert bar.get_facecolor()[:3] == to_rgb(COLORS[index])
            assert texts[index] == form.format(scores[label].mean)
            (whisker,) = bars[index].errorbar[2]
            low, high = whisker.get_segments()[0][:, 1]
            assert high - low == pytest.approx(2 * scores[label].standard_error)
    assert [tick.get_text() for tick in finals.get_xticklabels()] == LABELS
    centers = [bar.get_x() + bar.get_width() / 2 for bar in finals.patches]
    np.testing.assert_allclose(centers, np.arange(3) - 0.2)


def test_learning_curves_name_the_final_accuracy():
    compared = comparison()
    (axes,) = plots.learning_curves(compared, "digits").axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    order = [f"{s.label}: {s.mean:.1f} %" for s in compared.ranking()]
    assert legend == [*order, "in training"]  # the best first
    handles = axes.get_legend().legend_handles
    for handle, score in zip(handles, compared.ranking(), strict=False):
        assert handle.get_color() == COLORS[LABELS.index(score.label)]
        mean = expected(score.label, "test_accuracy").mean(axis=0)
        line = by_label(axes)[f"{score.label}: {score.mean:.1f} %"]
        np.testing.assert_allclose(line.get_ydata(), mean)
    dashed = [one for one in axes.get_lines() if one.get_linestyle() == "--"]
    for line, label in zip(dashed, LABELS, strict=False):
        mean = expected(label, "accuracy").mean(axis=0)
        np.testing.assert_allclose(line.get_ydata(), mean)


def test_a_comparison_is_a_sequence_of_its_runs():
    compared = comparison(fail={("zeros", 1)})
    assert isinstance(compared, Sequence)
    assert len(compared) == len(LABELS) * 3
    assert list(compared) == list(compared.runs)
    assert compared[1] is compared.runs[1]
    assert [run.seed for run in compared if run.error] == [1]
    lines = repr(compared).splitlines()
    assert lines[0].startswith("3 initializers, 3 seeds, 4 epochs")
    assert max(map(len, lines)) <= 80
    assert json.loads(compared.to_json())["best"] == compared.best


def test_one_seed_has_no_band():
    figure = comparison(seeds=(0,)).plot()
    assert [len(axes.collections) for axes in figure.axes[:3]] == [0, 0, 0]


def test_without_an_accuracy_losses_are_drawn():
    compared = comparison(names=NAMES[:3])
    figure = compared.plot()
    assert [axes.get_yscale() for axes in figure.axes[:3]] == ["log"] * 3
    assert figure.axes[1].get_title(loc="left") == "Test loss"
    assert figure.axes[3].get_ylabel() == "final test loss"
    (axes,) = plots.learning_curves(compared).axes
    final = compared.ranking()[0]
    first = axes.get_legend().get_texts()[0].get_text()
    assert first == f"{final.label}: {final.mean:.3g}"


def test_colors_stay_with_initializers_where_one_failed():
    fail = {("he_normal", seed) for seed in range(3)} | {("zeros", 0)}
    compared = comparison(fail=fail)
    figure = compared.plot()
    lines = by_label(figure.axes[0])
    assert set(lines) == {"zeros", "recommended"}
    assert lines["zeros"].get_color() == COLORS[1]
    mean = expected("zeros", "loss", seeds=(1, 2)).mean(axis=0)
    np.testing.assert_allclose(lines["zeros"].get_ydata(), mean)
    assert len(plots.learning_curves(compared).axes[0].get_lines()) == 5


def test_what_is_not_finite_is_a_gap(tmp_path):
    compared = comparison(seeds=(0, 1))
    compared.runs[0].curves["loss"][1:] = [np.nan, np.inf, 1]
    compared.runs[0].curves["test_accuracy"][-1] = np.nan
    figure = compared.plot()
    drawn = by_label(figure.axes[0])["he_normal"].get_ydata()
    assert np.ma.getmaskarray(drawn).tolist() == [False, True, True, False]
    figure.savefig(tmp_path / "x.png")
    assert "–" in [text.get_text() for text in figure.axes[3].texts]


@pytest.mark.parametrize("count", [1, 9])
def test_any_number_of_initializers_can_be_told_apart(count, tmp_path):
    labels = [f"VarianceScaling(scale={i}, mode=fan_avg)" for i in range(count)]
    shared = {name: np.array([2.0, 1.0]) for name in NAMES}
    runs = [Run(label, 0, shared, 1.0) for label in labels]
    figure = Comparison(labels, [0], runs, 2, 32).plot()
    looks = {
        (line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()
    }
    assert len(looks) == count
    figure.savefig(tmp_path / "x.png")


@pytest.mark.parametrize("draw", [plots.comparison, plots.learning_curves])
def test_anything_else_is_refused(draw):
    with pytest.raises(ValueError, match=r"`compared` must be.*compared=int"):
        draw(3)


def test_without_matplotlib_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"without it.*keras_initlab\[plot\]"):
        comparison().plot()
