import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab.initializers import MirroredOrthogonal

pytestmark = pytest.mark.slow_on_jax


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


def singular_values(matrices):
    return np.linalg.svd(matrices, compute_uv=False)


def stack(widths, activation, later_gain=1.0, window=()):
    """A deep network of mirrored kernels, as a function on arrays."""
    last = len(widths) - 2
    kernels = [
        MirroredOrthogonal(
            gain=later_gain if i > 0 else 1.0,
            mirror_inputs=i > 0,
            mirror_outputs=i < last,
            seed=i,
        )((*window, *sizes))
        for i, sizes in enumerate(itertools.pairwise(widths))
    ]
    function = keras.activations.get(activation)

    def apply(x, kernel):
        return ops.conv(x, kernel, padding="same") if window else ops.matmul(x, kernel)

    def network(x):
        x = ops.convert_to_tensor(x, "float32")
        for kernel in kernels[:-1]:
            x = function(apply(x, kernel))
        return to_numpy(apply(x, kernels[-1]))

    return network


def linear_map(network, inputs, rng):
    """The matrix of a network, after checking that it is a linear map."""
    matrix = network(np.eye(inputs))
    x, y = rng.normal(size=(2, 5, inputs))
    np.testing.assert_allclose(network(x), x @ matrix, atol=1e-4)
    np.testing.assert_allclose(network(x + y), network(x) + network(y), atol=1e-4)
    np.testing.assert_allclose(network(-20 * x), -20 * network(x), atol=2e-3)
    return matrix


@pytest.mark.parametrize("activation", ["tanh", "mish"])
def test_the_check_finds_what_is_not_linear(activation, rng):
    with pytest.raises(AssertionError):
        linear_map(stack([8, *[16] * 9, 8], activation), 8, rng)


def test_the_difference_of_the_halves_is_the_signal(rng):
    first = MirroredOrthogonal(mirror_inputs=False, seed=0)((8, 16))
    second = MirroredOrthogonal(seed=1)((16, 16))
    x = rng.normal(size=(5, 8)).astype("float32")
    y = to_numpy(ops.relu(ops.matmul(ops.relu(ops.matmul(x, first)), second)))
    assert np.allclose(
        np.linalg.norm(y[:, :8] - y[:, 8:], axis=1), np.linalg.norm(x, axis=1)
    )
    assert (y[:, :8] * y[:, 8:] == 0).all()  # of a ReLU pair one is silent


def test_the_kernel_is_made_of_four_blocks():
    kernel = draw(MirroredOrthogonal(gain=1.3, seed=0), (16, 16))
    block = kernel[:8, :8]
    np.testing.assert_allclose(singular_values(block), 1.3, rtol=1e-5)
    assert (kernel == np.block([[block, -block], [-block, block]])).all()


WIDENING = {
    "even": [8, 16, 16, 32, 16],
    "odd": [8, 17, 17, 33, 16],
    "odd to even": [8, 17, 16, 17, 8],
    "odd and deep": [8, *[17] * 49, 8],
}


@pytest.mark.parametrize("widths", WIDENING.values(), ids=WIDENING)
def test_widths_that_never_shrink_keep_the_whole_signal(widths, rng):
    matrix = linear_map(stack(widths, "relu"), widths[0], rng)
    np.testing.assert_allclose(singular_values(matrix), 1, rtol=1e-4)


@pytest.mark.parametrize("widths", [[8, 32, 16, 16, 8], [8, 33, 17, 17, 8]])
def test_widths_that_shrink_stay_linear_and_never_amplify(widths, rng):
    matrix = linear_map(stack(widths, "relu"), 8, rng)
    assert singular_values(matrix).max() <= 1 + 1e-5
    assert np.linalg.norm(matrix) > 0.5


def test_the_last_of_an_odd_number_of_units_stands_alone():
    kernel = draw(MirroredOrthogonal(seed=0), (17, 17))
    assert (kernel[16] == 0).all()
    assert (kernel[:8, :8] == -kernel[:8, 8:16]).all()
    assert np.linalg.norm(kernel[:, 16]) > 0
    assert (kernel[:8, 16] == -kernel[8:16, 16]).all()


@pytest.mark.parametrize("window", [(3, 3), (2, 4)])
def test_mirrored_convolutions_are_an_orthogonal_map(window, rng):
    network = stack([4, *[8] * 19, 4], "gelu", window=window)
    matrix = network(np.eye(4).reshape(4, 1, 1, 4))[:, 0, 0]
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-4)
    x, y = rng.normal(size=(2, 2, 5, 5, 4))
    np.testing.assert_allclose(network(x), x @ matrix, atol=1e-4)
    np.testing.assert_allclose(network(x + y), network(x) + network(y), atol=1e-4)


# --- A hundred layers ----------------------------------------------------------------


def assert_isometric(matrix):
    np.testing.assert_allclose(singular_values(matrix), 1, atol=1e-3)


def assert_linear(network, x, matrix):
    """To 1e-3 of the output, also far from where the matrix was read off."""
    for scale in (1.0, 30.0):
        expected = scale * x @ matrix
        error = np.linalg.norm(network(scale * x) - expected)
        assert error < 1e-3 * np.linalg.norm(expected)


# With the slope of φ(x) − φ(−x).
EXACT = {
    "relu": 1,
    "gelu": 1,
    "silu": 1,
    "hard_silu": 1,
    "softplus": 1,
    "leaky_relu": 1.2,
}
HUNDRED = {
    "width 32": [16, *[32] * 99, 16],
    "width 33": [16, *[33] * 99, 16],
    "unequal widths": [8, *[16] * 33, *[24] * 33, *[33] * 33, 16],
}


@pytest.mark.parametrize(("activation", "slope"), EXACT.items())
@pytest.mark.parametrize("widths", HUNDRED.values(), ids=HUNDRED)
def test_a_hundred_dense_layers(widths, activation, slope, rng):
    network = stack(widths, activation, later_gain=1 / slope)
    matrix = network(np.eye(widths[0]))
    assert_isometric(matrix)
    assert_linear(network, rng.normal(size=(5, widths[0])), matrix)


@pytest.mark.parametrize(("activation", "slope"), EXACT.items())
def test_sixty_convolutions(activation, slope, rng):
    network = stack([4, *[8] * 59, 4], activation, 1 / slope, window=(3, 3))
    matrix = network(np.eye(4).reshape(4, 1, 1, 4))[:, 0, 0]
    assert_isometric(matrix)
    assert_linear(network, rng.normal(size=(2, 5, 5, 4)), matrix)


@pytest.mark.seconds
@pytest.mark.parametrize(
    "activation", ["relu", pytest.param("silu", marks=pytest.mark.slow)]
)
def test_a_hundred_layers_that_are_built_by_keras(activation, rng):
    model = keras.Sequential([keras.Input((5, 5, 4))])
    for i in range(100):
        kernel = MirroredOrthogonal(mirror_inputs=i > 0, mirror_outputs=i < 99, seed=i)
        model.add(
            layers.Conv2D(
                4 if i == 99 else 9,
                3,
                padding="same",
                activation=activation if i < 99 else None,
                kernel_initializer=kernel,
            )
        )

    def network(x):
        return to_numpy(model(x.astype("float32")))

    matrix = network(np.broadcast_to(np.eye(4)[:, None, None], (4, 5, 5, 4)))[:, 2, 2]
    assert_isometric(matrix)
    assert_linear(network, rng.normal(size=(2, 5, 5, 4)), matrix)


@pytest.mark.parametrize("size", [(6, 6), (9, 3)])
def test_a_spread_kernel_keeps_the_norm_where_its_windows_tile_the_input(size, rng):
    first, second = (
        layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            activation="relu",
            kernel_initializer=MirroredOrthogonal(
                mirror_inputs=not is_first, spread=is_first, seed=1
            ),
        )
        for filters, strides, is_first in ((40, 3, True), (40, 1, False))
    )
    x = rng.normal(size=(4, *size, 2)).astype("float32")
    for y in (first(x), second(first(x))):
        y = ops.convert_to_numpy(y)
        u = y[..., :20] - y[..., 20:]
        norms = np.sqrt((u**2).sum(axis=(1, 2, 3)) / (x**2).sum(axis=(1, 2, 3)))
        np.testing.assert_allclose(norms, 1, rtol=1e-5)
    used = np.abs(ops.convert_to_numpy(first.kernel)).sum(axis=(2, 3))
    assert used.min() > 0.1 * used.max()  # every tap


def test_a_spread_kernel_reads_the_difference_of_its_pairs(rng):
    kernel = MirroredOrthogonal(mirror_outputs=False, spread=True, seed=0)((3, 6, 5))
    kernel = ops.convert_to_numpy(kernel)
    np.testing.assert_array_equal(kernel[:, :3], -kernel[:, 3:])
    matrix = kernel[:, :3].reshape(9, 5)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(5), atol=1e-5)
