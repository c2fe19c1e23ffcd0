from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from test_plots_gradient_norms import labels, meshes

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

KINDS = ("std", "preactivation_std", "variance_preservation", "mean", "zero_share")
RNG = np.random.default_rng(0)
VALUES = {kind: RNG.uniform(0.1, 0.9, (4, 5)) for kind in KINDS}
EDGES = np.array([-2.0, -1.0, 0.0, 2.0])
COUNTS = RNG.integers(1, 100, (4, 5, 3)).astype("float64")
EMPTY = {kind: {} for kind in KINDS}


def logger(values=VALUES, observations=5, histograms=False, **more):
    paths = [f"model/dense_{i}" for i in range(4)]
    history = {
        kind: dict(zip(paths, rows[:, :observations], strict=True))
        for kind, rows in values.items()
    }
    history["step"] = 10 * np.arange(observations)
    if histograms:
        history["edges"] = EDGES
        history["histogram"] = dict(zip(paths, COUNTS, strict=True))
    return SimpleNamespace(history=history | more)


def profiles(axes):
    """What the lines over the layers show, `{(color, dashes): values}`."""
    return {
        (line.get_color(), line.get_linestyle()): line.get_xdata()
        for line in axes.get_lines()
        if len(line.get_ydata()) == 4
    }


def explained(figure):
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


BEFORE, AFTER, GREEN = "#0072B2", "#D55E00", "#009E73"


def test_profiles_show_first_and_last():
    figure = plots.activation_statistics(logger(), "signal")
    std, preservation, zeros, _ = figure.axes
    expected = {
        std: {BEFORE: VALUES["preactivation_std"], AFTER: VALUES["std"]},
        preservation: {GREEN: VALUES["variance_preservation"]},
        zeros: {AFTER: 100 * VALUES["zero_share"]},
    }
    for axes, each in expected.items():
        found = profiles(axes)
        assert len(found) == 2 * len(each)
        for color, values in each.items():
            np.testing.assert_allclose(found[color, "--"], values[:, 0])
            np.testing.assert_allclose(found[color, "-"], values[:, -1])
    assert std.get_xscale() == preservation.get_xscale() == "log"
    assert zeros.get_xscale() == "linear"
    assert zeros.get_title() == "Zero share"
    places = ["before the activation", "after it"]
    assert explained(figure) == [*places, "step 0", "step 40"]
    assert figure.get_suptitle() == "signal"


def test_layers_lie_from_top_to_bottom():
    figure = plots.activation_statistics(logger(histograms=True))
    for axes in figure.axes:
        assert axes.get_ylim() == (3.5, -0.5)
    std = figure.axes[0]
    for line in std.get_lines():
        assert list(line.get_ydata()) in ([0, 1, 2, 3], [])
    assert labels(std) == [f"dense_{i}" for i in range(4)]


def test_the_ideal_preservation_is_a_line():
    axes = plots.activation_statistics(logger()).axes[1]
    assert [1, 1] in [list(line.get_xdata()) for line in axes.get_lines()]


def test_without_zeros_the_mean_is_shown():
    values = VALUES | {"zero_share": np.zeros((4, 5))}
    axes = plots.activation_statistics(logger(values)).axes[2]
    np.testing.assert_allclose(profiles(axes)[AFTER, "-"], VALUES["mean"][:, -1])
    assert axes.get_title() == "Mean"


@pytest.mark.parametrize(("observations", "has_map"), [(1, 0), (2, 0), (3, 1), (5, 1)])
def test_many_steps_are_a_map(observations, has_map):
    figure = plots.activation_statistics(logger(observations=observations))
    assert len(figure.axes) == 3 + has_map
    if has_map:
        axes = figure.axes[3]
        (mesh,) = meshes(axes)
        np.testing.assert_array_equal(mesh.get_array(), VALUES["std"][:, :observations])
        assert isinstance(mesh.norm, LogNorm)
        edges = 10 * np.arange(observations + 1) - 5
        np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], edges)
        assert axes.get_xlabel() == "step"


def test_one_observation_is_one_line():
    figure = plots.activation_statistics(logger(observations=1))
    assert [style for _, style in profiles(figure.axes[0])] == ["-", "-"]
    assert explained(figure)[2:] == ["step 0"]


def test_histograms_are_ridges():
    figure = plots.activation_statistics(logger(histograms=True))
    axes = figure.axes[-1]
    filled = [patch for patch in axes.patches if patch.get_fill()]
    assert len(filled) == 4
    for row, patch in enumerate(filled):
        top, edges, baseline = patch.get_data()
        density = COUNTS[row, -1] / np.array([1.0, 1.0, 2.0])
        heights = np.sqrt(density / density.max())
        np.testing.assert_allclose(row + 0.5 - top, 0.92 * heights)
        np.testing.assert_array_equal(edges, EDGES)
        assert baseline == row + 0.5
    assert axes.get_xlim() == (-2, 2)
    assert axes.get_xlabel() == "value at step 40"


def test_what_is_not_finite_ends_the_profiles(tmp_path):
    values = {kind: rows.copy() for kind, rows in VALUES.items()}
    for kind, rows in values.items():
        if kind != "zero_share":  # NaN only of what was not seen
            rows[:, 3:] = np.nan
    counts = COUNTS.copy()
    counts[1] = np.nan
    watched = logger(values, histograms=True)
    watched.history["histogram"]["model/dense_1"] = counts[1]
    figure = plots.activation_statistics(watched)
    found = profiles(figure.axes[0])
    np.testing.assert_allclose(found[AFTER, "-"], VALUES["std"][:, 2])
    assert explained(figure)[2:] == ["step 0", "step 20", "NaN or infinite"]
    painted = ~np.ma.getmaskarray(meshes(figure.axes[3])[1].get_array())
    np.testing.assert_array_equal(painted, np.isnan(values["std"]))
    assert len([p for p in figure.axes[-1].patches if p.get_fill()]) == 3
    figure.savefig(tmp_path / "x.png")


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0])
def test_odd_histories_are_drawn(value, tmp_path):
    values = dict.fromkeys(KINDS, np.full((4, 5), value))
    figure = plots.activation_statistics(logger(values))
    figure.savefig(tmp_path / "x.png")
    np.testing.assert_array_equal(profiles(figure.axes[0])[AFTER, "-"], [value] * 4)


@pytest.mark.parametrize(
    "empty", [EMPTY | {"step": []}, logger(observations=0).history]
)
def test_an_empty_history_is_refused(empty):
    with pytest.raises(ValueError, match=r"observed training.*SimpleNamespace with an"):
        plots.activation_statistics(SimpleNamespace(history=empty))


def test_another_history_is_refused():
    rule = r"`logger` must be a `ActivationStatsLogger`.*dict with \['step'\]"
    with pytest.raises(ValueError, match=rule):
        plots.activation_statistics({"step": [1]})
