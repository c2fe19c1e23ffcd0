from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from test_plots_gradient_norms import by_label, labels, legend, meshes

from keras_initlab import plots
from keras_initlab.callbacks._lives import Lives

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


def segments(axes, label):
    """`(row, start, stop)` of the lines with a label, rows counted from above."""
    found = next((c for c in axes.collections if c.get_label() == label), None)
    return (
        []
        if found is None
        else [(s[0][1], s[0][0], s[1][0]) for s in found.get_segments()]
    )


def rows_of(axes):
    """The height of every unit's line, numbered from above."""
    lines = [*segments(axes, "dead"), *segments(axes, "alive")]
    return {y: row for row, y in enumerate(sorted({line[0] for line in lines}))}


def test_shares_are_a_line_a_layer():
    shares, lives = plots.dead_units(logger(FEW), "dead").axes
    lines = by_label(shares)
    assert list(lines) == ["a", "b", "c"]
    np.testing.assert_allclose(lines["a"].get_ydata(), [25, 37.5, 25, 12.5])
    np.testing.assert_allclose(lines["c"].get_ydata(), [0, 12.5, 0, 12.5])
    np.testing.assert_array_equal(lines["a"].get_xdata(), [1, 2, 3, 4])
    assert shares.get_ylabel() == "dead units [%]"
    assert lives.get_xlabel() == "epoch"


def test_every_unit_that_was_dead_has_its_line():
    _, axes = plots.dead_units(logger(FEW)).axes
    row = rows_of(axes)
    dead = sorted((row[y], start, stop) for y, start, stop in segments(axes, "dead"))
    alive = sorted((row[y], start, stop) for y, start, stop in segments(axes, "alive"))
    # From above: units 1, 5 and 6 of layer a, unit 2 of layer c.
    assert dead == [
        (0, 0.5, 4.5),
        (1, 0.5, 2.5),
        (2, 1.5, 3.5),
        (3, 1.5, 2.5),
        (3, 3.5, 4.5),
    ]
    assert alive == [
        (1, 2.5, 4.5),
        (2, 0.5, 1.5),
        (2, 3.5, 4.5),
        (3, 0.5, 1.5),
        (3, 2.5, 3.5),
    ]
    assert labels(axes) == ["a", "c"]
    assert axes.yaxis_inverted()
    assert axes.get_title(loc="left") == "Lives of the 4 units ever dead"
    assert legend(axes) == ["alive", "dead", "dead at start", "died", "revived"]


def test_events_are_marked_where_they_happen():
    _, axes = plots.dead_units(logger(FEW)).axes
    row, marks = rows_of(axes), by_label(axes)
    found = {
        kind: [(row[y], x) for x, y in zip(*marks[kind].get_data(), strict=True)]
        for kind in ("dead at start", "died", "revived")
    }
    assert found == {
        "dead at start": [(0, 0.5), (1, 0.5)],
        "died": [(2, 1.5), (3, 1.5), (3, 3.5)],
        "revived": [(1, 2.5), (2, 3.5), (3, 2.5)],
    }


def test_an_epoch_that_saw_nothing_is_a_gap():
    dead = {"m/a": [[1], [], [1], [2]]}
    shares, axes = plots.dead_units(logger(dead, unseen=[("m/a", 1)])).axes
    assert np.isnan(shares.get_lines()[0].get_ydata()[1])
    row = rows_of(axes)
    lines = sorted((row[y], start, stop) for y, start, stop in segments(axes, "dead"))
    assert lines == [(0, 0.5, 1.5), (0, 2.5, 3.5), (1, 3.5, 4.5)]
    marks = by_label(axes)
    assert list(marks["revived"].get_xdata()) == [3.5]
    assert list(marks["died"].get_xdata()) == [3.5]


@pytest.mark.parametrize("seed", range(5))
def test_marks_are_the_events_of_the_logger(seed):
    rng = np.random.default_rng(seed)
    lives, steps = Lives(), 0
    for _ in range(6):
        lives.begin_epoch()
        silent = rng.random(9) < 0.5
        for step in range(steps, steps + 3):
            lives.observe(step, (rng.random((1, 9)) < 0.7) & ~silent)
        lives.finish_epoch()
        steps += 3
    axes = plots.dead_units(logger({"a": lives.dead}, units=9)).axes[1]
    marks = by_label(axes)
    assert Counter(event.kind for event in lives.events) == {
        kind: len(line.get_xdata()) for kind, line in marks.items()
    }
    # Unit by unit: the lines lie in the order of first death, longest death, number.
    ever = sorted({int(unit) for dead in lives.dead for unit in dead})
    first = {u: next(e for e, d in enumerate(lives.dead) if u in d) for u in ever}
    days = {u: sum(u in d for d in lives.dead) for u in ever}
    order = sorted(ever, key=lambda u: (first[u], -days[u], u))
    row = rows_of(axes)
    for kind, line in marks.items():
        units = [order[row[y]] for y in line.get_ydata()]
        expected = [event.unit for event in lives.events if event.kind == kind]
        assert Counter(units) == Counter(expected)


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
    upper, lower, lives = figure.axes
    expected = 100 * np.array(list(watched.history["dead_fraction"].values()))
    values = meshes(upper)[0].get_array()
    np.testing.assert_allclose(values.filled(np.nan), expected)
    assert legend(upper) == ["not seen"]
    np.testing.assert_allclose(meshes(lower)[0].get_array(), [[25, 50]] * 9)
    assert labels(upper) == [f"r{i}" for i in range(9)]
    assert labels(lives) == [f"r{i}" for i in range(9)]


def test_too_many_units_share_lines():
    rng = np.random.default_rng(0)
    states = {path: rng.random((2000, 5)) < 0.4 for path in ("m/a", "m/b")}
    dead = {p: [np.flatnonzero(e) for e in s.T] for p, s in states.items()}
    figure = plots.dead_units(logger(dead, units=2000))
    _, axes, events = figure.axes
    ever = {path: int(state.any(axis=1).sum()) for path, state in states.items()}
    share = -(-sum(ever.values()) // 160)
    total = f"{sum(ever.values()):,}"
    assert (
        axes.get_title(loc="left")
        == f"Lives of the {total} units ever dead, {share} to a line"
    )
    for mesh, (path, state) in zip(meshes(axes), states.items(), strict=True):
        shares = np.asarray(mesh.get_array())
        assert len(shares) == -(-ever[path] // share)
        sizes = np.full(len(shares), share)
        sizes[-1] = ever[path] - share * (len(shares) - 1)
        # No dead unit is lost or counted twice in any epoch.
        np.testing.assert_allclose(sizes @ shares / 100, state.sum(axis=0))
        assert mesh.get_clim() == (0, 100)
    both = np.concatenate(list(states.values()))
    changes = np.diff(both.astype(int), axis=1)
    expected = {
        "dead at start": [both[:, 0].sum(), 0, 0, 0, 0],
        "died": [0, *(changes == 1).sum(axis=0)],
        "revived": [0, *-(changes == -1).sum(axis=0)],
    }
    for bars in events.containers:
        heights = [bar.get_height() for bar in bars]
        np.testing.assert_array_equal(heights, expected.pop(bars.get_label()))
    assert not expected


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
    shares, lives = plots.dead_units(watched).axes
    np.testing.assert_array_equal(shares.get_lines()[0].get_xdata(), [1, 2, 3, 4])
    assert lives.get_xlabel() == "epoch, over all fits"


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match=r"observed training.*SimpleNamespace with an"):
        plots.dead_units(logger({"m/a": []}))


def test_another_history_is_refused():
    rule = r"`logger` must be a `DeadReLULogger`.*SimpleNamespace with \['step'\]"
    with pytest.raises(ValueError, match=rule):
        plots.dead_units(SimpleNamespace(history={"step": [1]}))
