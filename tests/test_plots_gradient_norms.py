from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

STEPS = [0, 10, 20, 23, 30]
NORMS = 10.0 ** np.random.default_rng(0).normal(size=(3, 5))
NAN, INF = np.nan, np.inf


def logger(norms=NORMS, steps=STEPS, paths=None, first=None, **more):
    paths = paths or [f"model/dense_{i}" for i in range(len(norms))]
    history = {
        "step": np.array(steps),
        "layers": dict(zip(paths, norms, strict=True)),
        "global_norm": np.sqrt(np.sum(np.square(norms), axis=0)),
    }
    return SimpleNamespace(history=history | more, first_nonfinite=first)


def meshes(axes):
    return [c for c in axes.collections if hasattr(c, "get_coordinates")]


def labels(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def legend(axes):
    found = axes.get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


def by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def changed(row, column, value):
    norms = NORMS.copy()
    norms[row, column] = value
    return norms


def test_the_map_shows_every_norm():
    figure = plots.gradient_norms(logger(), "norms")
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "norms"
    heat, _ = figure.axes
    (mesh,) = meshes(heat)
    np.testing.assert_array_equal(mesh.get_array(), NORMS)
    assert isinstance(mesh.norm, LogNorm)
    assert mesh.get_cmap().name == "viridis"
    np.testing.assert_allclose(mesh.get_clim(), [NORMS.min(), NORMS.max()])


def test_layers_lie_from_top_to_bottom():
    heat, _ = plots.gradient_norms(logger()).axes
    (mesh,) = meshes(heat)
    rows = mesh.get_coordinates()[:, 0, 1]
    np.testing.assert_array_equal(rows, [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_array_equal(heat.get_yticks(), [0, 1, 2])
    assert labels(heat) == ["dense_0", "dense_1", "dense_2"]
    assert heat.get_ylabel() == "layer of model"
    assert heat.yaxis_inverted()


def test_observations_lie_at_their_steps():
    heat, line = plots.gradient_norms(logger()).axes
    (mesh,) = meshes(heat)
    edges = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_array_equal(edges, [-5, 5, 15, 21.5, 26.5, 33.5])
    np.testing.assert_array_equal(line.get_lines()[0].get_xdata(), STEPS)
    assert line.get_xlabel() == "step"
    assert line.get_xlim() == heat.get_xlim() == (-5, 33.5)


def test_a_second_fit_from_0_is_shown_in_order():
    heat, line = plots.gradient_norms(logger(steps=[0, 10, 20, 0, 10])).axes
    np.testing.assert_array_equal(line.get_lines()[0].get_xdata(), [1, 2, 3, 4, 5])
    assert line.get_xlabel() == "observation"
    np.testing.assert_array_equal(meshes(heat)[0].get_array(), NORMS)


def test_the_global_norm_is_on_a_log_axis():
    watched = logger()
    _, axes = plots.gradient_norms(watched).axes
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), watched.history["global_norm"])
    assert axes.get_yscale() == "log"
    assert axes.get_legend() is None


def test_clipping_is_a_further_line():
    _, axes = plots.gradient_norms(logger(clipped_global_norm=np.arange(1.0, 6))).axes
    lines = by_label(axes)
    np.testing.assert_array_equal(lines["after clipping"].get_ydata(), [1, 2, 3, 4, 5])
    assert legend(axes) == ["as computed", "after clipping"]


def test_update_ratios_are_a_further_panel():
    ratio = np.array([1.0, 2, 3, 4, 5]) * 1e-3
    ratios = {"a": ratio * 2, "b": ratio / 5, "c": np.full(5, NAN)}
    watched = logger(update_ratio=ratio, update_ratios=ratios)
    *_, axes = plots.gradient_norms(watched).axes
    lines = by_label(axes)
    np.testing.assert_array_equal(lines["whole model"].get_ydata(), ratio)
    assert list(lines["usual"].get_ydata()) == [1e-3, 1e-3]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for x, y in zip(STEPS, ratio, strict=True):
        at = corners[corners[:, 0] == x, 1]
        np.testing.assert_allclose([at.min(), at.max()], [y / 5, y * 2])
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("place", [(1, 3), (0, 2), (slice(0, 2), slice(2, 5))])
@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_is_painted(place, value):
    row, column = place
    norms = changed(row, column, value)
    heat, _ = plots.gradient_norms(logger(norms)).axes
    assert legend(heat) == ["NaN or infinite"]
    painted = ~np.ma.getmaskarray(meshes(heat)[1].get_array())
    np.testing.assert_array_equal(painted, ~np.isfinite(norms))


@pytest.mark.parametrize(
    ("path", "row", "name"),
    [("model/dense_2", 2, "dense_2"), ("model/relu", None, "model/relu")],
)
def test_the_first_that_the_logger_has_found_is_marked(path, row, name):
    found = SimpleNamespace(path=path, step=20)
    heat, line = plots.gradient_norms(logger(changed(0, 3, NAN), first=found)).axes
    for axes in (heat, line):
        assert [20, 20] in [list(one.get_xdata()) for one in axes.get_lines()]
    assert legend(heat)[-1] == f"first: {name}, step 20"
    marks = [one for one in heat.get_lines() if one.get_marker() == "X"]
    assert [int(one.get_ydata()[0]) for one in marks] == ([] if row is None else [row])


def test_finite_norms_have_no_mark():
    heat, line = plots.gradient_norms(logger()).axes
    assert len(line.get_lines()) == 1
    assert heat.get_legend() is None


def test_zeros_are_told_apart():
    heat, _ = plots.gradient_norms(logger(changed(1, slice(0, 5), 0.0))).axes
    (mesh,) = meshes(heat)
    assert legend(heat) == ["0"]
    positive = NORMS[[0, 2]]
    np.testing.assert_allclose(mesh.get_clim(), [positive.min(), positive.max()])


@pytest.mark.parametrize(
    ("paths", "shown", "scope"),
    [
        (["m/a/x", "m/a/y"], ["x", "y"], "layer of m/a"),
        (["m/a/x", "m/b/x"], ["a/x", "b/x"], "layer of m"),
        (["m/x", "m"], ["m/x", "m"], "layer"),  # the model's own weights
        (["m/x"], ["x"], "layer of m"),
        (["dense", "dense_1"], ["dense", "dense_1"], "layer"),
        (
            ["m/block_1/attention/output_projection", "m/out"],
            ["block_1/…output_projection", "out"],
            "layer of m",
        ),
        # Labels keep as much as tells the layers apart.
        (
            [f"m/{'a' * 20}{i}{'b' * 18}" for i in range(2)],
            [f"{'a' * 9}…a{i}{'b' * 18}" for i in range(2)],
            "layer of m",
        ),
    ],
)
def test_labels_are_short_and_distinct(paths, shown, scope):
    norms = np.ones((len(paths), 2))
    heat, _ = plots.gradient_norms(logger(norms, [0, 1], paths)).axes
    assert labels(heat) == shown
    assert heat.get_ylabel() == scope


@pytest.mark.parametrize("count", [1, 50, 120])
def test_labels_do_not_overlap(count):
    paths = [f"m/block_{i}/attention_with_a_long_name/output/k" for i in range(count)]
    norms = np.ones((count, 2))
    figure = plots.gradient_norms(logger(norms, [0, 1], paths))
    figure.draw_without_rendering()
    heat = figure.axes[0]
    shown = [tick.label1 for tick in heat.yaxis.get_major_ticks()]
    boxes = [label.get_window_extent() for label in shown]
    lows = [box.y0 for box in boxes]
    highs = [box.y1 for box in boxes]
    assert all(low >= high for low, high in zip(lows, highs[1:], strict=False))
    assert len(set(labels(heat))) == len(shown) >= min(count, 40)
    assert min(box.x0 for box in boxes) >= 0


@pytest.mark.parametrize(
    ("norms", "steps"),
    [
        (NORMS[:, :1], [0]),
        (np.zeros((2, 3)), [0, 1, 2]),
        (np.full((2, 3), 0.7), [0, 1, 2]),
    ],
)
def test_odd_histories_are_drawn(norms, steps, tmp_path):
    watched = logger(norms, steps)
    plots.gradient_norms(watched).savefig(tmp_path / "x.png")
    figure = plots.gradient_norms(watched)
    np.testing.assert_array_equal(meshes(figure.axes[0])[0].get_array(), norms)


def test_without_a_layer_only_the_whole_is_drawn():
    watched = logger()
    watched.history["layers"] = {}
    (axes,) = plots.gradient_norms(watched).axes
    assert axes.get_title(loc="left") == "Global gradient norm"


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match=r"observed training.*SimpleNamespace with an"):
        plots.gradient_norms(logger(NORMS[:, :0], []))


@pytest.mark.parametrize("other", [SimpleNamespace(history={"epoch": [0]}), 3])
def test_another_history_is_refused(other):
    rule = (
        r"`logger` must be a `GradientNormLogger`.*Received: (Simple.*\['epoch'\]|int)"
    )
    with pytest.raises(ValueError, match=rule):
        plots.gradient_norms(other)
