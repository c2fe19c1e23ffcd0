from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_initlab as initlab
from keras_initlab import plots
from keras_initlab.plots._style import COLORS
from keras_initlab.probing import LayerSignal, Spread

backend_free = pytest.mark.tensorflow

NAN = np.nan
BROKEN = Spread(100, NAN, NAN, NAN, NAN, 0.0, None, 3)


def of(std, mean=0.0):
    return Spread(100, mean, std, -1.0, 1.0, 0.0, std, 0)


def row(before=None, after=1.0, **others):
    given = {"activation": "relu", "units": 10, **others}
    spread = before if before is None or isinstance(before, Spread) else of(before)
    output = after if isinstance(after, Spread) else of(after)
    return LayerSignal("m/d", "Dense", preactivation=spread, output=output, **given)


def report(*rows):
    class Report(list):
        model_name = "model"

    return Report(rows)


def curves(axes):
    """`{label: (x, y)}` of the lines that a legend names."""
    return {
        line.get_label(): tuple(map(list, line.get_data()))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def marks(axes, kind):
    """`{color: (x, height in the panel)}` of marks at its ends."""
    across = axes.get_xaxis_transform()
    return {
        line.get_color(): tuple(map(list, line.get_data()))
        for line in axes.get_lines()
        if line.get_marker() == kind and line.get_transform() == across
    }


def headings(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


TWO = {
    "a": report(
        row(1.0, of(0.5, 0.3), variance_preservation=0.9, dead_units=(1, 2)),
        row(0.1, of(0.05, 0.1), variance_preservation=0.2, dead_units=(3,)),
    ),
    "b": report(row(2.0, of(1.5, -0.5), variance_preservation=1.1)),
}


@backend_free
def test_panels_show_the_figures_of_every_report():
    figure = plots.activations_over_depth(TWO, "a title")
    before, after, dead, kept = figure.axes
    assert curves(before) == {"a": ([1, 2], [1.0, 0.1]), "b": ([1], [2.0])}
    assert curves(after) == {"a": ([1, 2], [0.5, 0.05]), "b": ([1], [1.5])}
    assert curves(dead) == {"a": ([1, 2], [20, 10]), "b": ([1], [0])}
    assert curves(kept) == {"a": ([1, 2], [0.9, 0.2]), "b": ([1], [1.1])}
    scales = [axes.get_yscale() for axes in figure.axes]
    assert scales == ["log", "log", "linear", "log"]
    (ideal,) = [one for one in kept.get_lines() if one.get_linestyle() == ":"]
    assert list(ideal.get_ydata()) == [1, 1]
    assert [line.get_color() for line in before.get_lines()] == list(COLORS[:2])
    assert figure.get_suptitle() == "a title"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@backend_free
def test_the_ideal_is_always_in_sight():
    figure = plots.activations_over_depth(
        report(*[row(1.0, variance_preservation=40.0)] * 2)
    )
    assert figure.get_suptitle() == "model"
    low, high = figure.axes[3].get_ylim()
    assert low < 1 < 40 < high


@backend_free
def test_without_dead_units_means_are_shown():
    alive = report(row(1.0, of(0.5, 0.3)), row(1.0, of(0.5, -0.2)))
    figure = plots.activations_over_depth({"x": alive})
    assert headings(figure)[2] == "Mean after the activation"
    assert curves(figure.axes[2]) == {"x": ([1, 2], [0.3, -0.2])}
    assert headings(plots.activations_over_depth(TWO))[2] == "Dead units [%]"
    assert figure.legends == []  # one line needs none


@backend_free
def test_layers_that_apply_an_activation_are_shown_at_their_place():
    linear = {"activation": "linear", "units": 8}
    convolution = row(3.0, 3.0, variance_preservation=0.7, **linear)
    normalization = row(1.0, 1.0, **linear)
    block = [convolution, normalization, row(1.0, 0.6, units=8)]
    silent = LayerSignal("m/spare", "Dense")
    figure = plots.activations_over_depth({"net": report(*block, *block, silent)})
    before, after, _, kept = figure.axes
    assert curves(before) == {"net": ([3, 6], [1.0, 1.0])}
    assert curves(after) == {"net": ([3, 6], [0.6, 0.6])}
    assert curves(kept) == {"net": ([1, 4], [0.7, 0.7])}
    plain = plots.activations_over_depth({"net": report(convolution, convolution)})
    assert curves(plain.axes[0]) == {"net": ([1, 2], [3.0, 3.0])}


@backend_free
def test_what_an_axis_cannot_show_is_marked_at_its_end(tmp_path):
    odd = report(
        row(0.0, of(1.0), variance_preservation=0.0),
        row(1.0, of(1.0), variance_preservation=1.0),
        row(None, of(1.0)),
        row(BROKEN, BROKEN, variance_preservation=NAN),
    )
    figure = plots.activations_over_depth({"fine": TWO["b"], "odd": odd})
    before, after, mean, kept = figure.axes
    color = COLORS[1]
    assert curves(before)["odd"] == ([2], [1.0])
    assert marks(before, "x") == {color: ([1], [0.0])}
    assert marks(before, "^") == {color: ([4], [1.0])}
    assert curves(after)["odd"] == ([1, 2, 3], [1.0, 1.0, 1.0])
    assert marks(after, "x") == {}
    assert marks(after, "^") == {color: ([4], [1.0])}
    assert marks(mean, "^") == {color: ([4], [1.0])}
    assert curves(mean)["odd"] == ([1, 2, 3], [0.0, 0.0, 0.0])
    assert marks(kept, "x") == {color: ([1], [0.0])}
    assert marks(kept, "^") == {color: ([4], [1.0])}
    figure.savefig(tmp_path / "x.png")


@backend_free
def test_dead_units_behind_nan_are_not_shown_as_alive():
    broken = report(row(1.0, 1.0, dead_units=(0,)), row(BROKEN, BROKEN))
    figure = plots.activations_over_depth({"x": broken})
    assert curves(figure.axes[2]) == {"x": ([1], [10.0])}


@backend_free
def test_nothing_to_draw_in_a_panel(tmp_path):
    blind = report(row(None, BROKEN))
    plots.activations_over_depth(blind).savefig(tmp_path / "x.png")


@backend_free
def test_activations_are_compared_in_three_panels():
    figure = plots.activation_comparison(TWO, "he_normal")
    before, after, mean = figure.axes
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]
    assert curves(before) == {"a": ([1, 2], [1.0, 0.1]), "b": ([1], [2.0])}
    assert curves(after) == {"a": ([1, 2], [0.5, 0.05]), "b": ([1], [1.5])}
    assert curves(mean) == {"a": ([1, 2], [0.3, 0.1]), "b": ([1], [-0.5])}
    assert headings(figure) == [
        "Std before the activation",
        "Std after the activation",
        "Mean after the activation",
    ]
    assert figure.get_suptitle() == "he_normal"


@backend_free
def test_one_exploding_mean_leaves_the_others_in_sight():
    loud = report(row(1.0, of(1.0, -1e9)), row(1.0, of(1.0, 0.5)))
    mean = plots.activation_comparison({**TWO, "loud": loud}).axes[2]
    assert mean.get_yscale() == "symlog"
    assert curves(mean)["loud"] == ([1, 2], [-1e9, 0.5])


@backend_free
def test_many_activations_can_be_told_apart():
    reports = {str(i): TWO["a"] for i in range(12)}
    figure = plots.activation_comparison(reports)
    lines = figure.axes[0].get_lines()
    assert len({(one.get_color(), one.get_linestyle()) for one in lines}) == 12


def test_figures_are_those_of_the_network():
    """NumPy's own pass through the same weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 20)).astype("float32")
    hidden = [keras.layers.Dense(20, "relu") for _ in range(4)]
    model = keras.Sequential([keras.Input((20,)), *hidden])
    reports = {"relu": initlab.probe(model, x)}
    signal, expected = x.astype("float64"), {"before": [], "after": [], "mean": []}
    for layer in hidden:
        kernel = keras.ops.convert_to_numpy(layer.kernel).astype("float64")
        z = signal @ kernel
        signal = np.maximum(z, 0)
        expected["before"].append(z.std())
        expected["after"].append(signal.std())
        expected["mean"].append(signal.mean())
    figure = plots.activation_comparison(reports)
    for axes, values in zip(figure.axes, expected.values(), strict=True):
        places, drawn = curves(axes)["relu"]
        assert places == [1, 2, 3, 4]
        np.testing.assert_allclose(drawn, values, rtol=1e-4)


@backend_free
@pytest.mark.parametrize(
    "draw", [plots.activations_over_depth, plots.activation_comparison]
)
def test_what_is_no_report_is_refused(draw):
    with pytest.raises(ValueError, match=r"must be \{label: SignalReport\}.*\{\}"):
        draw({})
    with pytest.raises(ValueError, match=r"Received: \{'model': int\}"):
        draw(3)
    with pytest.raises(ValueError, match=r"Received: \{'a': Report, 'b': Simple"):
        draw({"a": TWO["a"], "b": SimpleNamespace()})
    silent = report(LayerSignal("m/spare", "Dense"))
    with pytest.raises(ValueError, match=r"must hold a layer.*none in 'b', 'c'"):
        draw({**TWO, "b": silent, "c": report()})
