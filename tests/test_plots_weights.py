import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from keras_initlab import NoKernelsError, UnbuiltModelError, plots

NAN = np.nan
backend_free = pytest.mark.tensorflow


def filled(layer, shape):
    """The built layer, its kernel full of distinct numbers, and these."""
    layer.build(shape)
    variable = layer.trainable_variables[0]
    values = np.random.default_rng(0).normal(size=variable.shape).astype("float32")
    variable.assign(values)
    return layer, values


def images(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def titles(figure):
    return [axes.get_title().splitlines() for axes in figure.axes]


def drawn(layer, shape):
    layer, values = filled(layer, shape)
    (image,) = images(plots.weights(layer))
    return image, values


def test_a_dense_kernel_is_inputs_by_outputs():
    image, values = drawn(layers.Dense(3), (None, 5))
    np.testing.assert_array_equal(image, values)


def test_a_convolution_is_a_grid_of_windows():
    image, values = drawn(layers.Conv2D(5, (3, 2)), (None, 8, 8, 4))
    assert image.shape == (4 * 3, 5 * 2)
    for a, b, i, j in np.ndindex(3, 2, 4, 5):
        assert image[3 * i + a, 2 * j + b] == values[a, b, i, j]


def test_a_transposed_convolution_has_its_outputs_before_its_inputs():
    image, values = drawn(layers.Conv2DTranspose(5, (3, 2)), (None, 8, 8, 4))
    assert values.shape == (3, 2, 5, 4)
    assert image.shape == (4 * 3, 5 * 2)
    for a, b, j, i in np.ndindex(3, 2, 5, 4):
        assert image[3 * i + a, 2 * j + b] == values[a, b, j, i]


@backend_free
def test_windows_of_one_and_of_three_axes():
    image, values = drawn(layers.Conv1D(5, 3), (None, 8, 4))
    assert image.shape == (4, 5 * 3)
    for a, i, j in np.ndindex(3, 4, 5):
        assert image[i, 3 * j + a] == values[a, i, j]
    image, values = drawn(layers.Conv3D(5, (2, 3, 4)), (None, 8, 8, 8, 2))
    assert image.shape == (2 * 6, 5 * 4)
    for a, b, c, i, j in np.ndindex(2, 3, 4, 2, 5):
        assert image[6 * i + 3 * a + b, 4 * j + c] == values[a, b, c, i, j]


@backend_free
def test_a_strip_of_tiles_is_broken_into_rows():
    image, values = drawn(layers.DepthwiseConv2D(3), (None, 8, 8, 10))
    assert image.shape == (3 * 3, 4 * 3)  # ten tiles in rows of four
    for a, b, channel in np.ndindex(3, 3, 10):
        row, column = divmod(channel, 4)
        assert image[3 * row + a, 3 * column + b] == values[a, b, channel, 0]
    assert np.ma.getmaskarray(image)[6:, 6:].all()
    assert np.ma.count_masked(image) == 2 * 9
    image, values = drawn(layers.Conv2D(4, 3), (None, 8, 8, 1))
    assert image.shape == (6, 6)
    np.testing.assert_array_equal(image[3:, :3], values[:, :, 0, 2])


@backend_free
def test_a_window_of_one_is_a_matrix():
    image, values = drawn(layers.Conv2D(5, 1), (None, 8, 8, 4))
    np.testing.assert_array_equal(image, values[0, 0])


@backend_free
def test_many_tiles_are_cut_and_said_to_be():
    layer, values = filled(layers.Conv2D(40, 2), (None, 8, 8, 13))
    figure = plots.weights(layer)
    (image,) = images(figure)
    assert image.shape == (24, 24)
    np.testing.assert_array_equal(image[-2:, -2:], values[:, :, 11, 11])
    assert titles(figure)[0][-1] == "first 12 × 12 of 13 × 40 tiles"
    layer, _ = filled(layers.DepthwiseConv2D(2), (None, 8, 8, 150))
    assert titles(plots.weights(layer))[0][-1] == "first 144 of 150 tiles"


def test_heads_lie_beside_each_other():
    attention = layers.MultiHeadAttention(2, 3)
    attention.build((None, 5, 8), (None, 5, 8))
    figure = plots.weights(attention)
    query, *_, output = images(figure)
    kernels = [keras.ops.convert_to_numpy(v) for v in attention.variables]
    np.testing.assert_array_equal(query, kernels[0].reshape(8, 6))
    np.testing.assert_array_equal(output, kernels[-2].reshape(6, 8))


@backend_free
def test_kernels_of_a_batch_axis_lie_below_each_other():
    layer, values = filled(layers.EinsumDense("bhd,hde->bhe", (2, 3)), (None, 2, 4))
    (image,) = images(plots.weights(layer))
    np.testing.assert_array_equal(image, np.vstack([values[0], values[1]]))


@backend_free
def test_colors_are_symmetric_about_0():
    values = np.random.default_rng(0).normal(1.0, 1.0, size=(200, 100))
    (axes,) = plots.weights({"a": values}).axes
    picture = axes.images[0]
    low, high = picture.get_clim()
    assert low == -high
    assert np.mean(np.abs(values) > high) == pytest.approx(0.005)
    assert picture.get_cmap().name == "RdBu_r"  # red is positive
    assert type(picture.norm) is Normalize
    # Smoothing would draw noise of many weights a pixel as if it were near 0.
    assert picture.get_interpolation() == "nearest"


@backend_free
@pytest.mark.parametrize(
    ("values", "limit"),
    [
        (np.zeros((3, 3)), 1.0),
        (np.full((3, 3), -2.0), 2.0),
        (np.eye(300), 1.0),  # fewer than 0.5 % are not 0
        (np.full((2, 2), NAN), 1.0),
    ],
)
def test_there_are_always_colors(values, limit, tmp_path):
    figure = plots.weights({"a": values})
    assert figure.axes[0].images[0].get_clim() == (-limit, limit)
    figure.savefig(tmp_path / "x.png")


@backend_free
def test_what_is_not_finite_is_black():
    values = np.random.default_rng(0).normal(size=(6, 4))
    values[2, 1], values[3, 3], values[0, 0] = NAN, np.inf, -np.inf
    figure = plots.weights({"a": values})
    image, black = figure.axes[0].images
    expected = ~np.isfinite(values)
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), expected)
    np.testing.assert_array_equal(~np.ma.getmaskarray(black.get_array()), expected)
    assert black.cmap(black.norm(1.0))[:3] == (0, 0, 0)
    std = values[np.isfinite(values)].std()
    assert titles(figure) == [["a", f"6 × 4, std {std:.3g}, 3 NaN or infinite"]]


@backend_free
def test_a_gap_at_the_end_of_a_strip_is_not_black():
    layer, _ = filled(layers.DepthwiseConv2D(3), (None, 8, 8, 10))
    assert len(plots.weights(layer).axes[0].images) == 1


def test_a_model_has_a_panel_for_each_kernel():
    inner = [layers.Dense(4, "relu", name=f"d{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dropout(0.5)])
    figure = plots.weights(model, title="a title")
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "a title"
    assert [lines[0] for lines in titles(figure)] == ["d0", "d1", "d2"]
    for image, layer in zip(images(figure), inner, strict=True):
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        np.testing.assert_array_equal(image, kernel)
    same = plots.weights(inner)
    np.testing.assert_array_equal(images(same)[2], images(figure)[2])


@backend_free
def test_of_many_kernels_some_are_shown_and_it_says_so(tmp_path):
    values = {f"k{i}": np.full((2, 2), i + 1.0) for i in range(50)}
    figure = plots.weights(values, most=4)
    assert [int(image[0, 0]) for image in images(figure)] == [1, 17, 34, 50]
    assert figure.get_supxlabel() == "outputs · 4 of 50 kernels"
    few = {label: values[label] for label in list(values)[:3]}
    assert plots.weights(few, most=3).get_supxlabel() == "outputs"
    assert len(plots.weights(values, most=1).axes) == 1
    five = plots.weights({k: values[k] for k in list(values)[:5]})
    assert len(five.axes) == 5  # no empty panel in the second row
    five.savefig(tmp_path / "x.png")


@backend_free
def test_of_a_very_large_kernel_some_rows_are_drawn_in_their_place():
    values = np.arange(4500.0)[:, None] * np.ones(3)
    (axes,) = plots.weights({"a": values}).axes
    picture = axes.images[0]
    np.testing.assert_array_equal(picture.get_array(), values[::5])
    assert tuple(picture.get_extent()) == (-0.5, 2.5, 4499.5, -0.5)
    assert axes.get_ylim() == (4499.5, -0.5)


@backend_free
def test_only_what_is_shown_is_read(monkeypatch):
    from keras_initlab.plots import _weights_given

    read, to_numpy = [], _weights_given.to_numpy

    def watched(variable):
        read.append(variable.path)
        return to_numpy(variable)

    monkeypatch.setattr(_weights_given, "to_numpy", watched)
    hidden = [layers.Dense(2, name=f"d{i}") for i in range(9)]
    plots.weights(keras.Sequential([keras.Input((2,)), *hidden]), most=3)
    assert [path.split("/")[-2] for path in read] == ["d0", "d4", "d8"]


@backend_free
def test_values_of_every_kind(tmp_path):
    layer, kernel = filled(layers.Dense(3), (None, 5))
    cell = layers.LSTM(2, name="lstm")
    cell.build((None, 4, 3))
    given = {
        "an array": np.arange(6.0).reshape(2, 3),
        "a list": [[1, 2], [3, 4]],
        "a vector": np.arange(4.0),
        "a variable": layer.kernel,
        "a layer": layer,
        "two": cell,
        "an initializer": keras.initializers.HeNormal(seed=1),
        "a name": "ones",
        "a class": keras.initializers.Zeros,
    }
    figure = plots.weights(given, shape=(6, 2))
    names = [lines[0] for lines in titles(figure)]
    found = dict(zip(names, images(figure), strict=True))
    assert {k: v.shape for k, v in found.items()} == {
        "an array": (2, 3),
        "a list": (2, 2),
        "a vector": (1, 4),
        "a variable": (5, 3),
        "a layer": (5, 3),
        "two: kernel": (3, 8),
        "two: recurrent_kernel": (2, 8),
        "an initializer": (6, 2),
        "a name": (6, 2),
        "a class": (6, 2),
    }
    np.testing.assert_array_equal(found["a layer"], kernel)
    np.testing.assert_array_equal(found["a vector"], [[0, 1, 2, 3]])
    drawn = keras.initializers.HeNormal(seed=1)((6, 2))
    np.testing.assert_array_equal(found["an initializer"], drawn)
    figure.savefig(tmp_path / "x.png")


@backend_free
@pytest.mark.parametrize("draw", [plots.weights, plots.weight_histograms])
def test_what_is_no_weight_is_refused(draw):
    with pytest.raises(ValueError, match=r"must be a built model.*=int\. A value is"):
        draw(3)
    with pytest.raises(NoKernelsError, match=r"must hold a kernel.*=\{\}"):
        draw({})
    with pytest.raises(NoKernelsError, match=r"must hold a kernel.*=\[\]"):
        draw([])
    with pytest.raises(NoKernelsError, match=r"hold a kernel.*=dict without any"):
        draw({"a": np.ones((0, 3))})
    dropout = layers.Dropout(0.5, name="drop")
    dropout.build((None, 3))
    with pytest.raises(NoKernelsError, match=r"='drop' \(Dropout\) without any"):
        draw(dropout)
    with pytest.raises(UnbuiltModelError, match=r"must be built.*'d' \(Dense\)"):
        draw(layers.Dense(3, name="d"))
    with pytest.raises(TypeError, match=r"must be a Keras layer.*'he_normal'"):
        draw(["he_normal"])
    for value in (None, [["a"]], "no_such_name"):
        rule = r"Each value of.*Received: 'x': (None|\[\['a'\]\]|'no_such_name')"
        with pytest.raises(ValueError, match=rule):
            draw({"x": value}, shape=(3, 3))


@backend_free
@pytest.mark.parametrize("draw", [plots.weights, plots.weight_histograms])
def test_numbers_are_checked(draw):
    with pytest.raises(ValueError, match=r"`most` must be.*most=0"):
        draw({"x": np.eye(3)}, most=0)
    with pytest.raises(ValueError, match=r"`shape` must be.*shape=None.*as 'x'"):
        draw({"x": "ones"})
    with pytest.raises(ValueError, match=r"`shape` must be.*shape=5,"):
        draw({"x": "ones"}, shape=5)
    with pytest.raises(ValueError, match=r"`shape` must be.*shape=0\."):
        draw({"x": "ones"}, shape=(3, 0))


@backend_free
def test_a_packed_kernel_is_shown_as_it_is_stored():
    layer, _ = filled(layers.Dense(6), (None, 8))
    layer.quantize("int4")
    figure = plots.weights(layer)
    stored = keras.ops.convert_to_numpy(layer._kernel)
    assert stored.shape != (8, 6)
    np.testing.assert_array_equal(images(figure)[0], stored)
