from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from test_plots_gradient_norms import by_label, labels, legend, meshes

from keras_initlab import plots
from keras_initlab.plots._style import GREY, VERMILION

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow


def logger(dead, units=8, unseen=(), saturated=None):
    """`dead`: {path: dead units by epoch}; `unseen`: (path, epoch) pairs."""
    shares = {
        path: np.array(
            [np.nan if (path, e) in unseen else len(d) / units for e, d in enumerate(x)]
        )
        for path, x in dead.items()
    }
    epochs = len(next(iter(dead.values())))
    zeros = {path: np.zeros(epochs) for path in dead}
    history = {
        "epoch": np.arange(epochs),
        "dead_fraction": shares,
        "dead_units": {p: [np.array(d, "int64") for d in x] for p, x in dead.items()},
        "saturated_fraction": saturated or zeros,
    }
    return SimpleNamespace(history=history)


#            epoch:   1        2       3    4
FEW = {
    "m/a": [[1, 5], [1, 5, 6], [1, 6], [1]],
    "m/b": [[], [], [], []],
    "m/c": [[], [2], [], [2]],
}


def states(axes):
    """For each layer 1 where a unit is dead, 0 where not, NaN where not seen."""
    return [np.ma.filled(mesh.get_array(), np.nan) for mesh in meshes(axes)]


def test_shares_are_a_line_a_layer():
    shares, units = plots.dead_units(logger(FEW), "dead").axes
    lines = by_label(shares)
    assert list(lines) == ["a", "b", "c"]
    np.testing.assert_allclose(lines["a"].get_ydata(), [25, 37.5, 25, 12.5])
    np.testing.assert_allclose(lines["c"].get_ydata(), [0, 12.5, 0, 12.5])
    np.testing.assert_array_equal(lines["a"].get_xdata(), [1, 2, 3, 4])
    assert shares.get_ylabel() == "dead units [%]"
    assert units.get_xlabel() == "epoch"


def test_every_unit_that_was_dead_has_its_row():
    _, axes = plots.dead_units(logger(FEW)).axes
    a, c = states(axes)
    np.testing.assert_array_equal(a, [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(c, [[0, 1, 0, 1]])
    mesh = meshes(axes)[0]
    shades = [to_hex(color) for color in mesh.to_rgba(np.array([0.0, 1.0]))]
    assert shades == [GREY.lower(), VERMILION.lower()]
    edges = [mesh.get_coordinates()[..., 1][:, 0] for mesh in meshes(axes)]
    np.testing.assert_allclose(np.concatenate(edges), [0, 1, 2, 3, 3, 4])
    assert labels(axes) == ["a", "c"]
    assert axes.yaxis_inverted()
    assert axes.get_title(loc="left") == "The 4 units ever dead"
    assert legend(axes) == ["alive", "dead"]


def test_an_epoch_that_saw_nothing_is_a_gap():
    dead = {"m/a": [[1], [], [1], [2]]}
    shares, axes = plots.dead_units(logger(dead, unseen=[("m/a", 1)])).axes
    assert np.isnan(shares.get_lines()[0].get_ydata()[1])
    (found,) = states(axes)
    np.testing.assert_array_equal(found, [[1, np.nan, 1, 0], [0, np.nan, 0, 1]])


def test_saturated_units_are_dashed_lines():
    saturated = {"m/a": np.array([0, 0.5]), "m/b": np.zeros(2)}
    watched = logger({"m/a": [[1], [1]], "m/b": [[], []]}, saturated=saturated)
    shares, _ = plots.dead_units(watched).axes
    lines = by_label(shares)
    assert list(lines) == ["a", "b", "a, saturated"]
    np.testing.assert_allclose(lines["a, saturated"].get_ydata(), [0, 50])
    assert lines["a, saturated"].get_linestyle() == "--"
    assert shares.get_ylim()[1] > 50


def test_many_layers_are_a_map():
    dead = {f"m/r{i}": [list(range(i % 4)), [0]] for i in range(9)}
    saturated = {path: np.array([0.25, 0.5]) for path in dead}
    watched = logger(dead, unseen=[("m/r3", 0)], saturated=saturated)
    figure = plots.dead_units(watched)
    upper, lower, units = figure.axes[:3]
    expected = 100 * np.array(list(watched.history["dead_fraction"].values()))
    values = meshes(upper)[0].get_array()
    np.testing.assert_allclose(values.filled(np.nan), expected)
    assert legend(upper) == ["not seen"]
    np.testing.assert_allclose(meshes(lower)[0].get_array(), [[25, 50]] * 9)
    assert labels(upper) == [f"r{i}" for i in range(9)]
    assert labels(units) == [f"r{i}" for i in range(9)]


def test_a_layer_of_few_units_has_room_for_its_name():
    dead = {"m/a": [list(range(790)), [0]], "m/b": [[], [1]]}
    _, axes = plots.dead_units(logger(dead, units=1000)).axes
    edges = [mesh.get_coordinates()[..., 1][:, 0] for mesh in meshes(axes)]
    assert [(one[0], one[-1]) for one in edges] == [(0, 790), (790, 790 + 791 / 40)]


def test_the_largest_picture_stays_of_a_size(tmp_path):
    dead = {f"m/r{i}": [list(range(30)), list(range(10, 40))] for i in range(100)}
    figure = plots.dead_units(logger(dead, units=40))
    figure.savefig(tmp_path / "x.png")
    width, height = figure.get_size_inches()
    assert width < 10
    assert height < 20


def test_without_a_dead_unit_it_says_so(tmp_path):
    figure = plots.dead_units(logger({"m/a": [[], []]}))
    figure.savefig(tmp_path / "x.png")
    assert figure.axes[1].get_title(loc="left") == "No unit was ever dead"
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), [0, 0])


def test_a_second_fit_from_0_is_shown_in_order():
    watched = logger(FEW)
    watched.history["epoch"] = np.array([0, 1, 0, 1])
    shares, units = plots.dead_units(watched).axes
    np.testing.assert_array_equal(shares.get_lines()[0].get_xdata(), [1, 2, 3, 4])
    assert units.get_xlabel() == "epoch, over all fits"


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match=r"observed training.*SimpleNamespace with an"):
        plots.dead_units(logger({"m/a": []}))


def test_another_history_is_refused():
    rule = r"`logger` must be a `DeadReLULogger`.*SimpleNamespace with \['step'\]"
    with pytest.raises(ValueError, match=rule):
        plots.dead_units(SimpleNamespace(history={"step": [1]}))
