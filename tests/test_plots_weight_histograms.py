import itertools

import keras
import numpy as np
import pytest
from keras import initializers, layers
from matplotlib.colors import to_hex

import keras_initlab.initializers as ours
from keras_initlab import plots

BLUE, VERMILION = "#0072b2", "#d55e00"
CUT = 0.8796256610342398  # std of a standard normal cut at two standard deviations
backend_free = pytest.mark.tensorflow


def outline(axes):
    """Shares and edges of a histogram, of the patch that is drawn as its outline."""
    filled, line = axes.patches
    np.testing.assert_array_equal(filled.get_data().values, line.get_data().values)
    assert to_hex(line.get_edgecolor()) == BLUE
    return line.get_data().values, line.get_data().edges


def at(axes, color, dashes):
    """Where vertical lines of one look stand."""
    return sorted(
        line.get_xdata()[0]
        for line in axes.get_lines()
        if to_hex(line.get_color()) == color
        and line.get_linestyle() == dashes
        and len(line.get_xdata())
    )


def mean_of(axes):
    (mean,) = at(axes, "#000000", "-")
    return mean


def titles(figure):
    return [axes.get_title().splitlines() for axes in figure.axes]


def test_bars_are_the_shares_of_the_draws():
    he = initializers.HeNormal(seed=1)
    values = keras.ops.convert_to_numpy(he((64, 48))).astype("float64")
    figure = plots.weight_histograms({"he": he}, (64, 48), title="a title")
    (axes,) = figure.axes
    shares, edges = outline(axes)
    assert len(shares) == 55  # the root of 3,072
    assert shares.sum() == pytest.approx(100)
    inside = [
        np.mean((values >= low) & (values < high))
        for low, high in itertools.pairwise(edges)
    ]
    np.testing.assert_allclose(shares, 100 * np.array(inside), atol=1e-9)
    np.testing.assert_allclose(mean_of(axes), values.mean(), rtol=1e-6)
    band = [values.mean() - values.std(), values.mean() + values.std()]
    np.testing.assert_allclose(at(axes, VERMILION, "--"), band)
    assert titles(figure)[0][0] == "he"
    assert titles(figure)[0][1].endswith(f"std {values.std():.3g}")
    assert figure.get_suptitle() == "a title"
    assert figure.legends[0].get_title().get_text() == "weight"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["mean", "mean ± std", "by the initializer's formula"]


# By the papers' formulas, for a kernel of (64, 48).
THEORY = {
    "glorot_normal": np.sqrt(2 / 112),
    "glorot_uniform": np.sqrt(2 / 112),
    "he_uniform": np.sqrt(2 / 64),
    "lecun_normal": np.sqrt(1 / 64),
    "orthogonal": np.sqrt(1 / 64),
    initializers.RandomNormal(2.0, 0.3): 0.3,
    initializers.TruncatedNormal(stddev=0.3): 0.3 * CUT,
    initializers.VarianceScaling(3.0, "fan_out"): np.sqrt(3 / 48),
    ours.AdaptiveHe(depth=2): np.sqrt(2 / 64 / 1.2),
    ours.AdaptiveHe(depth=0, input_axes=(1,), output_axes=(0,)): np.sqrt(2 / 48),
    ours.Orthogonal(gain=2.0): 2 * np.sqrt(1 / 64),
    ours.MatchPretrained(std=0.7): 0.7,
    ours.ScaledNoise(scale=2.0, noise_std=0.1): np.sqrt(2 / 112 / 2 + 0.01),
    ours.WidthAware(): np.sqrt(48 / 112 / 64),
    ours.SpectralNorm(): None,
    ours.MirroredOrthogonal(): None,
}


@backend_free
def test_a_dotted_line_is_the_formula():
    given = {str(i): initializer for i, initializer in enumerate(THEORY)}
    figure = plots.weight_histograms(given, (64, 48), most=20)
    for axes, std in zip(figure.axes, THEORY.values(), strict=True):
        mean = mean_of(axes)
        expected = [] if std is None else [mean - std, mean + std]
        np.testing.assert_allclose(at(axes, "#000000", ":"), expected, rtol=1e-6)
        if std is not None:  # and it is what was drawn
            low, high = at(axes, VERMILION, "--")
            assert (high - low) / 2 == pytest.approx(std, rel=0.06)


@backend_free
def test_the_formula_goes_by_the_axes_that_an_initializer_was_told():
    options = {"input_axes": (2,), "output_axes": (0, 1)}
    try:
        told = initializers.VarianceScaling(2.0, "fan_in", **options)
    except TypeError:
        pytest.skip("Keras before 3.15 takes no axes")
    (axes,) = plots.weight_histograms({"told": told}, (16, 16, 4)).axes
    low, high = at(axes, "#000000", ":")
    assert (high - low) / 2 == pytest.approx(np.sqrt(2 / 4))
    low, high = at(axes, VERMILION, "--")
    assert (high - low) / 2 == pytest.approx(np.sqrt(2 / 4), rel=0.06)
    dense = layers.Dense(
        64,
        kernel_initializer=initializers.VarianceScaling(
            2.0, "fan_in", input_axes=(1,), output_axes=(0,)
        ),
    )
    dense.build((None, 16))
    (axes,) = plots.weight_histograms(dense).axes
    low, high = at(axes, "#000000", ":")
    assert (high - low) / 2 == pytest.approx(np.sqrt(2 / 64))


def test_a_layer_shows_its_kernels_and_how_they_were_drawn():
    cell = layers.LSTM(6, name="lstm")
    cell.build((None, 5, 8))
    figure = plots.weight_histograms({"lstm": cell})
    low, high = at(figure.axes[0], "#000000", ":")
    assert (high - low) / 2 == pytest.approx(np.sqrt(2 / (8 + 24)))
    for variable in cell.trainable_variables:
        variable.assign(3 * variable)
    figure = plots.weight_histograms({"lstm": cell})
    assert [lines[0] for lines in titles(figure)] == [
        "lstm: kernel",
        "lstm: recurrent_kernel",
    ]
    std = 3 * np.sqrt(2 / (8 + 24))
    low, high = at(figure.axes[0], VERMILION, "--")
    assert (high - low) / 2 == pytest.approx(std, rel=0.2)
    assert not at(figure.axes[0], "#000000", ":")  # nobody knows what drew them now


@backend_free
def test_panels_share_an_axis_unless_one_would_be_a_spike():
    rng = np.random.default_rng(0)
    near = {str(std): rng.normal(0, std, size=(50, 50)) for std in (1.0, 3.0)}
    figure = plots.weight_histograms(near)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert figure.legends[0].get_title().get_text() == "weight"
    figure = plots.weight_histograms({**near, "0.01": near["1.0"] / 100})
    assert len({axes.get_xlim() for axes in figure.axes}) == 3
    assert (
        figure.legends[0].get_title().get_text()
        == "weight · each on an axis of its own"
    )
    for axes in figure.axes:
        low, high = at(axes, VERMILION, "--")
        assert (high - low) * 2 < np.diff(axes.get_xlim()) < (high - low) * 7


@backend_free
def test_bins_at_the_ends_hold_all_beyond():
    values = np.random.default_rng(0).normal(size=9999)
    values = np.append(values, 100.0)
    (axes,) = plots.weight_histograms({"a": values}).axes
    shares, edges = outline(axes)
    mean, std = values.mean(), values.std()
    assert edges[-1] < mean + 8 * std < 100
    assert shares[-1] == pytest.approx(0.01)
    assert shares.sum() == pytest.approx(100)


@backend_free
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0])
def test_a_constant_is_one_bar(constant, tmp_path):
    values = np.full((30, 30), constant, "float32")
    figure = plots.weight_histograms({"a": values})
    (axes,) = figure.axes
    shares, edges = outline(axes)
    (bar,) = np.flatnonzero(shares)
    assert shares[bar] == 100
    assert np.mean(edges[bar : bar + 2]) == pytest.approx(constant, abs=1e-6)
    assert titles(figure)[0][1] == f"mean {constant:.3g}, std 0"
    figure.savefig(tmp_path / "x.png")


@backend_free
def test_what_is_not_finite_is_counted(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 20))
    values[0, :3] = [np.nan, np.inf, -np.inf]
    figure = plots.weight_histograms({"a": values, "b": np.full((2, 2), np.nan)})
    some, none = titles(figure)
    finite = values[np.isfinite(values)]
    assert some[1:] == [
        f"mean {finite.mean():.1g}, std {finite.std():.3g}",
        "3 NaN or infinite",
    ]
    assert none == ["b", "4 NaN or infinite"]
    assert outline(figure.axes[0])[0].sum() == pytest.approx(100)
    figure.savefig(tmp_path / "x.png")


@backend_free
def test_of_many_kernels_some_are_shown_and_it_says_so():
    values = {f"k{i}": np.random.default_rng(i).normal(size=90) for i in range(50)}
    figure = plots.weight_histograms(values)
    assert len(figure.axes) == 12
    assert titles(figure)[0][0] == "k0"
    assert titles(figure)[-1][0] == "k49"
    assert figure.legends[0].get_title().get_text() == "weight · 12 of 50 kernels"
