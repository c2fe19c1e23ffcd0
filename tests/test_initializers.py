import itertools
import json
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats
from scipy.integrate import quad

from keras_initlab import NotPointwiseError
from keras_initlab.initializers import (
    AdaptiveHe,
    DeltaOrthogonal,
    LayerSequential,
    MirroredOrthogonal,
    Orthogonal,
    ScaledNoise,
    SpectralNorm,
    WidthAware,
)
from keras_initlab.initializers._base import LayoutInitializer

CLASSES = [
    AdaptiveHe,
    DeltaOrthogonal,
    LayerSequential,
    MirroredOrthogonal,
    Orthogonal,
    ScaledNoise,
    SpectralNorm,
    WidthAware,
]
# Every class can fill this one. JAX compiles each new shape, so the shapes are few.
CONV = (3, 3, 6, 8)
DENSE = (1000, 500)
IMAGES = (4, 5, 100, 250)


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


# --- The scale -----------------------------------------------------------------------


def gain_of(function):
    """1/√E[φ(z)²], the gain that makes up for an activation."""

    def integrand(z):
        return function(z) ** 2 * stats.norm.pdf(z)

    below, above = (quad(integrand, *half)[0] for half in [(-12, 0), (0, 12)])
    return 1 / math.sqrt(below + above)


class Scale(NamedTuple):
    initializer: LayoutInitializer
    std: float
    wrong: tuple[float, ...]
    shape: tuple[int, ...] = DENSE


# fan_in = 1000 and fan_out = 500, unless a shape is given.
HE, LECUN = math.sqrt(2 / 1000), math.sqrt(1 / 1000)
TANH, LEAKY = gain_of(math.tanh), math.sqrt(2 / (1 + 0.3**2))
NOISY = 2 / (1500 * 2), 0.05**2

SCALES = {
    "adaptive He": Scale(
        AdaptiveHe(seed=0),
        HE / math.sqrt(1.1),
        # no damping, one layer too deep, no root, fan_out, fan_avg, LeCun's scale
        (
            HE,
            HE / math.sqrt(1.2),
            HE / 1.1,
            math.sqrt(2 / 500 / 1.1),
            math.sqrt(2 / 750 / 1.1),
            LECUN / math.sqrt(1.1),
        ),
    ),
    "adaptive He, deep": Scale(
        AdaptiveHe(depth=7, seed=0),
        HE / math.sqrt(1.7),
        (HE / math.sqrt(1.6), HE / math.sqrt(1.8)),
    ),
    "adaptive He, depth 0": Scale(
        AdaptiveHe(depth=0, seed=0), HE, (HE / math.sqrt(1.1),)
    ),
    "adaptive He, decay": Scale(
        AdaptiveHe(depth=2, decay=0.3, seed=0),
        HE / math.sqrt(1.6),
        (HE / math.sqrt(1.2), HE / math.sqrt(1.3), HE / 1.3),
    ),
    "adaptive He, no decay": Scale(
        AdaptiveHe(depth=5, decay=0, seed=0), HE, (HE / math.sqrt(1.5),)
    ),
    "adaptive He, leaky": Scale(
        AdaptiveHe(activation=layers.LeakyReLU(negative_slope=0.3), seed=0),
        LEAKY * LECUN / math.sqrt(1.1),
        (HE / math.sqrt(1.1), LECUN / math.sqrt(1.1)),
    ),
    "adaptive He, tanh": Scale(
        AdaptiveHe(activation="tanh", seed=0),
        TANH * LECUN / math.sqrt(1.1),
        (HE / math.sqrt(1.1), 5 / 3 * LECUN / math.sqrt(1.1)),
    ),
    "adaptive He, fan_out": Scale(
        AdaptiveHe(mode="fan_out", seed=0),
        math.sqrt(2 / 500 / 1.1),
        (math.sqrt(2 / 1000 / 1.1), math.sqrt(2 / 750 / 1.1)),
    ),
    "adaptive He, fan_avg": Scale(
        AdaptiveHe(mode="fan_avg", seed=0),
        math.sqrt(2 / 750 / 1.1),
        (math.sqrt(2 / 1000 / 1.1), math.sqrt(2 / 1500 / 1.1)),
    ),
    "adaptive He, truncated": Scale(
        AdaptiveHe(distribution="truncated_normal", seed=0),
        HE / math.sqrt(1.1),
        (0.8796 * HE / math.sqrt(1.1), HE / math.sqrt(1.1) / 0.8796),
    ),
    "adaptive He, uniform": Scale(
        AdaptiveHe(distribution="uniform", seed=0),
        HE / math.sqrt(1.1),
        (HE / math.sqrt(3 * 1.1), math.sqrt(2) * HE / math.sqrt(1.1)),
    ),
    "adaptive He, window": Scale(
        AdaptiveHe(seed=0),
        math.sqrt(2 / 2000 / 1.1),
        (math.sqrt(2 / 100 / 1.1), math.sqrt(2 / 5000 / 1.1)),
        IMAGES,
    ),
    "adaptive He, depthwise": Scale(
        AdaptiveHe(seed=0, input_axes=(0, 1), output_axes=(0, 1, 3)),
        math.sqrt(2 / 20 / 1.1),
        (math.sqrt(2 / 2000 / 1.1), math.sqrt(2 / 5000 / 1.1)),
        IMAGES,
    ),
    "adaptive He, inputs last": Scale(
        AdaptiveHe(seed=0, input_axes=(-1,), output_axes=(0, 1, 2)),
        math.sqrt(2 / 250 / 1.1),
        (math.sqrt(2 / 2000 / 1.1),),
        IMAGES,
    ),
    "layer sequential": Scale(LayerSequential(seed=0), HE, (0.95 * HE, LECUN)),
    "layer sequential, fourth": Scale(
        LayerSequential(index=4, seed=0), 0.95**3 * HE, (0.95**4 * HE, 0.95**2 * HE)
    ),
    "layer sequential, decay": Scale(
        LayerSequential(index=3, decay=0.8, seed=0),
        0.8**2 * HE,
        (0.95**2 * HE, 0.8**3 * HE, 0.8 * HE),
    ),
    "layer sequential, tanh": Scale(
        LayerSequential(index=2, activation="tanh", seed=0),
        0.95 * LECUN,
        (0.95 * HE, LECUN, 0.95 * TANH * LECUN),
    ),
    "layer sequential, leaky": Scale(
        LayerSequential(activation="leaky_relu", seed=0), LECUN, (HE, LEAKY * LECUN)
    ),
    "layer sequential, a ReLU layer": Scale(
        LayerSequential(activation=layers.ReLU(), seed=0), HE, (LECUN,)
    ),
    "layer sequential, an Activation layer": Scale(
        LayerSequential(activation=layers.Activation("relu"), seed=0), HE, (LECUN,)
    ),
    "layer sequential, depthwise": Scale(
        LayerSequential(seed=0, input_axes=(0, 1), output_axes=(0, 1, 3)),
        math.sqrt(2 / 20),
        (math.sqrt(2 / 2000),),
        IMAGES,
    ),
    "width aware": Scale(
        WidthAware(seed=0),
        math.sqrt(500 / 1500) * LECUN,
        # fans swapped in either place, no factor for the widths
        (
            math.sqrt(1000 / 1500) * LECUN,
            math.sqrt(500 / 1500 / 500),
            LECUN,
            math.sqrt(1 / 1500),
        ),
    ),
    "width aware, target": Scale(
        WidthAware(target_std=2.5, seed=0),
        2.5 * math.sqrt(500 / 1500) * LECUN,
        (math.sqrt(2.5 * 500 / 1500) * LECUN, math.sqrt(500 / 1500) * LECUN),
    ),
    "width aware, window": Scale(
        WidthAware(seed=0),
        math.sqrt(5000 / 7000 / 2000),
        (math.sqrt(250 / 350 / 100), math.sqrt(2000 / 7000 / 2000)),
        IMAGES,
    ),
    "scaled noise": Scale(
        ScaledNoise(seed=0),
        math.sqrt(2 / 1500 + 0.01**2),
        # no noise, noise_std taken for a variance, fan_in
        (math.sqrt(2 / 1500), math.sqrt(2 / 1500 + 0.01), math.sqrt(1e-3 + 0.01**2)),
    ),
    "scaled noise, both": Scale(
        ScaledNoise(scale=2, noise_std=0.05, seed=0),
        math.sqrt(sum(NOISY)),
        # no noise, scale as a factor, both parts drawn from the same bits
        (
            math.sqrt(NOISY[0]),
            math.sqrt(4 * NOISY[0] + NOISY[1]),
            math.sqrt(sum(NOISY) + 2 * math.sqrt(3 / math.pi * NOISY[0] * NOISY[1])),
        ),
    ),
    "scaled noise, window": Scale(
        ScaledNoise(noise_std=0, seed=0),
        math.sqrt(2 / 7000),
        (math.sqrt(2 / 350), math.sqrt(2 / 7000 + 0.01**2)),
        IMAGES,
    ),
}


@pytest.mark.parametrize("case", SCALES.values(), ids=SCALES)
def test_std_is_the_formula_and_no_near_one(case):
    values = draw(case.initializer, case.shape)
    measured = math.sqrt(np.mean(values**2))
    # The relative standard error of a std is largest for the normal distribution.
    tolerance = 5 * measured / math.sqrt(2 * values.size)
    assert measured == pytest.approx(case.std, abs=tolerance)
    assert all(abs(measured - wrong) > tolerance for wrong in case.wrong)
    assert abs(values.mean()) < 5 * measured / math.sqrt(values.size)


def test_stds_for_given_fans():
    assert AdaptiveHe(depth=10).std(50, 100) == pytest.approx(math.sqrt(2 / 50 / 2))
    assert LayerSequential(index=2).std(50) == pytest.approx(0.95 * math.sqrt(2 / 50))
    assert WidthAware().std(50, 100) == pytest.approx(math.sqrt(100 / 150 / 50))
    assert ScaledNoise(scale=4).limit(50, 100) == pytest.approx(math.sqrt(6 / 600))


# --- The distribution ----------------------------------------------------------------

TRUNCATED = float(stats.truncnorm.stats(-2, 2, moments="k")) + 3
KURTOSES = {1.8, TRUNCATED, 3.0}
DISTRIBUTIONS = {
    "untruncated": (AdaptiveHe(seed=0), 3.0, math.inf),
    "truncated": (
        AdaptiveHe(distribution="truncated_normal", seed=0),
        TRUNCATED,
        2 / stats.truncnorm.std(-2, 2),
    ),
    "uniform": (AdaptiveHe(distribution="uniform", seed=0), 1.8, math.sqrt(3)),
    "layer sequential": (LayerSequential(seed=0), 3.0, math.inf),
    "width aware": (WidthAware(seed=0), 3.0, math.inf),
    "noise-free": (ScaledNoise(noise_std=0, seed=0), 1.8, math.sqrt(3)),
}


@pytest.mark.parametrize(
    ("initializer", "kurtosis", "bound"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS
)
def test_distribution(initializer, kurtosis, bound):
    values = draw(initializer, DENSE)
    z = values / math.sqrt(np.mean(values**2))
    tolerance = 5 * math.sqrt(24 / z.size)
    measured = np.mean(z**4)
    assert measured == pytest.approx(kurtosis, abs=tolerance)
    assert all(abs(measured - k) > tolerance for k in KURTOSES - {kurtosis})
    # 500,000 draws come this close to the edge; the normal ones go far beyond.
    assert abs(z).max() > min(0.995 * bound, 4)
    # On PyTorch, Keras gives up truncating after four tries: 4 draws in a million.
    assert np.mean(abs(z) > 1.005 * bound) < 2e-5


def test_uniform_limits_are_exact():
    limit = math.sqrt(6 / 1500)
    largest = abs(draw(ScaledNoise(noise_std=0, seed=0), DENSE)).max()
    assert 0.9999 * limit < largest <= limit * (1 + 1e-6)


# --- Orthogonal ----------------------------------------------------------------------


def gates_apart(count):
    return lambda kernel: np.stack(np.split(kernel, count, axis=1))


class Layout(NamedTuple):
    arguments: dict
    shape: tuple[int, ...]
    matrices: Callable  # from the kernel to a stack (matrices, inputs, outputs)
    keras_is_right: bool


# Nearly all come down to 24 x 12 matrices or their transposes.
LAYOUTS = {
    "tall": Layout({}, (24, 12), lambda k: k[None], True),
    "wide": Layout({}, (12, 24), lambda k: k[None], True),
    "convolution": Layout({}, (2, 2, 6, 12), lambda k: k.reshape(1, 24, 12), True),
    "transposed convolution": Layout(
        {"input_axes": (0, 1, 3), "output_axes": (0, 1, 2)},
        (2, 2, 12, 6),
        lambda k: k.transpose(0, 1, 3, 2).reshape(1, 24, 12),
        False,
    ),
    "depthwise": Layout(
        {"input_axes": (0, 1), "output_axes": (0, 1, 3)},
        (4, 6, 5, 12),
        lambda k: k.transpose(2, 0, 1, 3).reshape(5, 24, 12),
        False,
    ),
    "batch axis": Layout(
        {"input_axes": (1,), "output_axes": (2,)}, (5, 24, 12), lambda k: k, False
    ),
    "batch axis in the middle": Layout(
        {"input_axes": (0,), "output_axes": (-1,)},
        (24, 5, 12),
        lambda k: k.transpose(1, 0, 2),
        False,
    ),
    "query, key or value": Layout(
        {"input_axes": (0,), "output_axes": (1, 2)},
        (12, 4, 6),
        lambda k: k.reshape(1, 12, 24),
        False,
    ),
    "attention output": Layout(
        {"input_axes": (0, 1), "output_axes": (2,)},
        (4, 6, 12),
        lambda k: k.reshape(1, 24, 12),
        True,
    ),
    "LSTM": Layout({"gates": 4}, (12, 48), gates_apart(4), False),
    "GRU, more units than inputs": Layout(
        {"gates": 3}, (12, 72), gates_apart(3), False
    ),
}


def singular_values(matrices):
    return np.linalg.svd(matrices, compute_uv=False)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_matrix_is_orthogonal(layout):
    kernel = draw(Orthogonal(gain=1.3, seed=0, **layout.arguments), layout.shape)
    matrices = layout.matrices(kernel)
    np.testing.assert_allclose(singular_values(matrices), 1.3, rtol=1e-5)
    assert all(abs(m - matrices[0]).max() > 0.1 for m in matrices[1:])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_check_tells_layouts_apart(layout, rng):
    # Keras's `Orthogonal` flattens all axes but the last, whatever they mean.
    *inputs, outputs = layout.shape
    flat = math.prod(inputs), outputs
    u, _, v = np.linalg.svd(rng.normal(size=flat), full_matrices=False)
    values = singular_values(layout.matrices((u @ v).reshape(layout.shape)))
    assert np.allclose(values, 1, rtol=1e-5) == layout.keras_is_right


def test_orthogonal_matrices_are_uniformly_distributed(rng):
    count, size = 4000, 4
    initializer = Orthogonal(seed=0, input_axes=(1,), output_axes=(2,))
    matrices = draw(initializer, (count, size, size))
    raw = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    # An entry has variance 1/size, so five standard errors of its mean are:
    tolerance = 5 / math.sqrt(size * count)
    assert abs(matrices.mean(axis=0)).max() < tolerance
    assert abs(raw.mean(axis=0)).max() > tolerance  # QR without the signs


def test_traces_and_determinants_are_those_of_the_orthogonal_group():
    initializer = Orthogonal(seed=0, input_axes=(1,), output_axes=(2,))
    matrices = draw(initializer, (4000, 4, 4))
    traces = np.trace(matrices, axis1=1, axis2=2)
    # Diaconis and Shahshahani 1994: the moments of the trace are a normal's.
    assert np.mean(traces**2) == pytest.approx(1, abs=5 * math.sqrt(2 / 4000))
    assert np.mean(traces**4) == pytest.approx(3, abs=5 * math.sqrt(96 / 4000))
    assert np.mean(np.linalg.det(matrices) > 0) == pytest.approx(
        0.5, abs=2.5 / math.sqrt(4000)
    )


# --- DeltaOrthogonal -----------------------------------------------------------------


@pytest.mark.parametrize("window", [(3,), (4,), (3, 3), (4, 4), (2, 5), (3, 2, 3)])
def test_delta_orthogonal_is_one_matrix_at_every_position(window, rng):
    initializer = DeltaOrthogonal(gain=1.3, seed=0)
    convolution = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[len(window)]
    layer = convolution(8, window, padding="same", kernel_initializer=initializer)
    x = rng.normal(size=(2, *[5] * len(window), 6)).astype("float32")
    y = to_numpy(layer(x))
    center = tuple((size - 1) // 2 for size in window)
    tap = to_numpy(layer.kernel)[center]
    np.testing.assert_allclose(singular_values(tap), 1.3, rtol=1e-5)
    np.testing.assert_allclose(y, x @ tap, atol=1e-5)
    assert np.linalg.norm(y) == pytest.approx(1.3 * np.linalg.norm(x), rel=1e-5)


def test_delta_orthogonal_with_fewer_outputs_is_a_projection():
    kernel = draw(DeltaOrthogonal(seed=0), (3, 3, 8, 6))
    assert np.count_nonzero(kernel) == 8 * 6
    np.testing.assert_allclose(singular_values(kernel[1, 1]), 1, rtol=1e-5)


def test_delta_orthogonal_depthwise():
    axes = {"input_axes": (0, 1), "output_axes": (0, 1, 3)}
    kernel = draw(DeltaOrthogonal(seed=0, **axes), (3, 3, 6, 8))
    assert np.count_nonzero(kernel) == 6 * 8
    np.testing.assert_allclose(np.linalg.norm(kernel[1, 1], axis=1), 1, rtol=1e-5)


# --- MirroredOrthogonal --------------------------------------------------------------


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


EXACT = {
    "relu": 1,
    "gelu": 1,
    "silu": 1,
    "hard_silu": 1,
    "softplus": 1,
    "leaky_relu": 1.2,
}


@pytest.mark.parametrize(("activation", "slope"), EXACT.items())
def test_a_hundred_mirrored_layers_are_an_orthogonal_map(activation, slope, rng):
    network = stack([8, *[16] * 99, 8], activation, later_gain=1 / slope)
    matrix = linear_map(network, 8, rng)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-4)


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


# --- Seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", CLASSES)
def test_the_same_seed_gives_the_same_values(initializer):
    once = initializer(seed=3)
    first = draw(once, CONV)
    assert (draw(once, CONV) == first).all()
    assert (draw(initializer(seed=3), CONV) == first).all()
    assert (draw(initializer(seed=4), CONV) != first).any()


@pytest.mark.parametrize("initializer", CLASSES)
def test_without_a_seed_every_instance_has_its_own(initializer):
    first, second = initializer(), initializer()
    assert (draw(first, CONV) != draw(second, CONV)).any()
    assert (draw(first, CONV) == draw(first, CONV)).all()


@pytest.mark.parametrize("initializer", CLASSES)
def test_the_global_seed_decides_without_a_seed(initializer):
    keras.utils.set_random_seed(5)
    first = draw(initializer(), CONV)
    keras.utils.set_random_seed(5)
    assert (draw(initializer(), CONV) == first).all()


@pytest.mark.parametrize("initializer", CLASSES)
def test_a_seed_generator_advances(initializer):
    advancing = initializer(seed=keras.random.SeedGenerator(3))
    first, second = draw(advancing, CONV), draw(advancing, CONV)
    assert (first != second).any()
    again = initializer(seed=keras.random.SeedGenerator(3))
    assert (draw(again, CONV) == first).all()


# --- In layers -----------------------------------------------------------------------


def is_orthogonal(matrix):
    return np.allclose(singular_values(np.asarray(matrix)), 1, rtol=1e-5)


@pytest.mark.parametrize("initializer", CLASSES)
def test_as_the_kernel_initializer_of_a_convolution(initializer):
    layer = layers.Conv2D(8, 3, kernel_initializer=initializer(seed=3))
    layer.build((None, 5, 5, 6))
    assert (to_numpy(layer.kernel) == draw(initializer(seed=3), CONV)).all()


def test_as_the_kernel_initializer_of_a_dense_layer():
    layer = layers.Dense(12, kernel_initializer=Orthogonal())
    layer.build((None, 24))
    assert is_orthogonal(to_numpy(layer.kernel))


WITH_AXES = [
    AdaptiveHe(depth=2, activation=layers.LeakyReLU(negative_slope=0.3), seed=3),
    LayerSequential(index=2, activation="tanh", seed=3),
    Orthogonal(seed=3),
    MirroredOrthogonal(seed=3),
    ScaledNoise(seed=3),
    SpectralNorm(seed=3),
    WidthAware(seed=3),
]


@pytest.mark.parametrize("initializer", WITH_AXES, ids=lambda i: type(i).__name__)
def test_einsum_dense_hands_over_the_axes(initializer):
    layer = layers.EinsumDense(
        "abc,cde->abde", (None, 4, 4), kernel_initializer=initializer
    )
    layer.build((None, 9, 16))
    config = {**initializer.get_config(), "input_axes": (0,), "output_axes": (1, 2)}
    told = type(initializer).from_config(config)
    assert (to_numpy(layer.kernel) == draw(told, (16, 4, 4))).all()
    assert (to_numpy(layer.kernel) != draw(initializer, (16, 4, 4))).any()


def test_axes_given_by_hand_win_over_those_of_einsum_dense():
    initializer = Orthogonal(seed=3, input_axes=(1,), output_axes=(2,))
    layer = layers.EinsumDense("bhd,hde->bhe", (5, 12), kernel_initializer=initializer)
    layer.build((None, 5, 24))
    assert all(is_orthogonal(head) for head in to_numpy(layer.kernel))


def test_in_attention_every_projection_is_orthogonal():
    layer = layers.MultiHeadAttention(
        num_heads=4, key_dim=6, kernel_initializer=Orthogonal()
    )
    layer.build((None, 9, 12), (None, 9, 12))
    query, key, value, output = (to_numpy(w) for w in layer.weights if w.ndim == 3)
    assert all(is_orthogonal(k.reshape(12, 24)) for k in (query, key, value))
    assert is_orthogonal(output.reshape(24, 12))


def test_in_an_lstm_every_gate_is_orthogonal():
    layer = layers.LSTM(
        12,
        kernel_initializer=Orthogonal(gates=4),
        recurrent_initializer=Orthogonal(gates=4),
    )
    layer.build((None, 9, 12))
    of_inputs = np.split(to_numpy(layer.cell.kernel), 4, axis=1)
    of_state = np.split(to_numpy(layer.cell.recurrent_kernel), 4, axis=1)
    assert all(is_orthogonal(gate) for gate in [*of_inputs, *of_state])


# --- Precision -----------------------------------------------------------------------


@pytest.mark.parametrize("initializer", CLASSES)
@pytest.mark.parametrize(
    ("dtype", "resolution"), [("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_half_precision_is_rounded_at_the_end(initializer, dtype, resolution):
    kernel = initializer(seed=3)(CONV, dtype=dtype)
    exact = draw(initializer(seed=3), CONV)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    np.testing.assert_allclose(to_numpy(kernel), exact, rtol=resolution, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "dtype"), [("mixed_float16", "float16"), ("bfloat16", "bfloat16")]
)
def test_layers_of_a_lower_precision(policy, dtype):
    layer = layers.Dense(12, dtype=policy, kernel_initializer=Orthogonal(seed=3))
    output = layer(np.ones((2, 24), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert np.isfinite(to_numpy(output)).all()


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has float64 only in its x64 mode"
)
def test_float64_kernels_are_drawn_in_float64():
    kernel = Orthogonal(seed=3)((24, 12), dtype="float64")
    matrix = ops.convert_to_numpy(kernel)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(12), atol=1e-13)


@pytest.mark.parametrize("initializer", CLASSES)
def test_floatx_is_the_default_dtype(initializer):
    assert keras.backend.standardize_dtype(initializer()(CONV).dtype) == "float32"


def compiled(function):
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            return tensorflow.function(function)
        case "jax":
            import jax

            return jax.jit(function)
    return function


@pytest.mark.parametrize(
    "initializer", [ScaledNoise, Orthogonal, MirroredOrthogonal, SpectralNorm]
)
def test_values_are_the_same_in_a_compiled_function(initializer):
    eager = draw(initializer(seed=3), CONV)
    traced = compiled(lambda: initializer(seed=3)(CONV))()
    np.testing.assert_allclose(to_numpy(traced), eager, atol=1e-5)


@pytest.mark.parametrize("initializer", CLASSES)
def test_variables_can_be_created_in_a_stateless_scope(initializer):
    with keras.StatelessScope():
        variable = keras.Variable(initializer(seed=3), shape=CONV, dtype="float32")
    assert (to_numpy(variable) == draw(initializer(seed=3), CONV)).all()


# --- Configuration -------------------------------------------------------------------


@keras.saving.register_keras_serializable("test_initializers")
def squared_relu(x):
    return ops.square(ops.relu(x))


AXES = {"input_axes": (0, 1), "output_axes": (0, 1, 3)}
CONFIGURED = {
    "AdaptiveHe": AdaptiveHe(4, "gelu", 0.2, "fan_avg", "uniform", 3, **AXES),
    "AdaptiveHe, leaky": AdaptiveHe(
        activation=layers.LeakyReLU(negative_slope=0.3), seed=3
    ),
    "AdaptiveHe, function": AdaptiveHe(activation=keras.activations.tanh, seed=3),
    "AdaptiveHe, registered": AdaptiveHe(activation=squared_relu, seed=3),
    "AdaptiveHe, linear": AdaptiveHe(activation=None, seed=3),
    "LayerSequential": LayerSequential(2, 0.9, "tanh", 3, **AXES),
    "LayerSequential, leaky": LayerSequential(
        activation=layers.LeakyReLU(negative_slope=0.3), seed=3
    ),
    "WidthAware": WidthAware(2.5, 3, **AXES),
    "ScaledNoise": ScaledNoise(2.0, 0.05, 3, **AXES),
    "SpectralNorm": SpectralNorm(1.5, seed=3, **AXES),
    "Orthogonal": Orthogonal(1.5, 4, 3, **AXES),
    "DeltaOrthogonal": DeltaOrthogonal(1.5, 3, **AXES),
    "MirroredOrthogonal": MirroredOrthogonal(1.5, False, False, 3),
    "MirroredOrthogonal, inputs": MirroredOrthogonal(1.5, True, False, 3),
}


@pytest.mark.parametrize("initializer", CONFIGURED.values(), ids=CONFIGURED)
def test_configuration_survives_json(initializer):
    text = json.dumps(keras.initializers.serialize(initializer))
    restored = keras.initializers.deserialize(json.loads(text))
    assert type(restored) is type(initializer)
    assert restored.get_config() == initializer.get_config()
    assert (draw(restored, CONV) == draw(initializer, CONV)).all()


@pytest.mark.parametrize("initializer", CONFIGURED.values(), ids=CONFIGURED)
def test_clones_are_equal(initializer):
    config = initializer.get_config()
    clone = type(initializer).from_config(config)
    assert clone.get_config() == initializer.get_config() == config
    assert initializer.clone().get_config() == config


@pytest.mark.parametrize("initializer", CLASSES)
def test_every_argument_is_in_the_configuration(initializer):
    arguments = initializer.__init__.__code__.co_varnames
    count = initializer.__init__.__code__.co_argcount
    assert set(initializer().get_config()) == set(arguments[1:count])


def test_seeds_in_the_configuration():
    assert Orthogonal().get_config()["seed"] is None
    assert Orthogonal(seed=3).get_config()["seed"] == 3
    advancing = Orthogonal(seed=keras.random.SeedGenerator(3))
    restored = Orthogonal.from_config(advancing.get_config())
    assert (draw(restored, (24, 12)) == draw(advancing, (24, 12))).all()


@pytest.mark.parametrize("initializer", CLASSES)
def test_names_with_the_package_work_as_strings(initializer):
    found = keras.initializers.get(f"keras_initlab>{initializer.__name__}")
    assert type(found) is initializer


def test_a_layer_takes_the_name():
    layer = layers.Conv2D(8, 3, kernel_initializer="keras_initlab>AdaptiveHe")
    layer.build((None, 5, 5, 6))
    assert tuple(layer.kernel.shape) == CONV
    assert type(layer.kernel_initializer) is AdaptiveHe


def test_saved_models_load(tmp_path):
    leaky = layers.LeakyReLU(negative_slope=0.3)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, kernel_initializer=AdaptiveHe(2, leaky, seed=3)),
            layers.Dense(8, kernel_initializer=MirroredOrthogonal(seed=3)),
            layers.Dense(8, kernel_initializer=Orthogonal(1.5)),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for layer, original in zip(loaded.layers, model.layers, strict=True):
        found, expected = layer.kernel_initializer, original.kernel_initializer
        assert type(found) is type(expected)
        assert found.get_config() == expected.get_config()
        assert (to_numpy(layer.kernel) == to_numpy(original.kernel)).all()


def test_repr_shows_the_arguments():
    assert repr(Orthogonal(gates=4, seed=3)) == (
        "Orthogonal(gain=1.0, gates=4, per_head=False, seed=3)"
    )
    leaky = AdaptiveHe(activation=layers.LeakyReLU(), seed=3)
    assert "activation=LeakyReLU, " in repr(leaky)
    assert "activation='relu', " in repr(AdaptiveHe())


def test_whole_numbers_may_be_floats():
    assert AdaptiveHe(depth=2.0).get_config()["depth"] == 2
    assert Orthogonal(gates=np.int64(4)).get_config()["gates"] == 4


# --- Shapes and errors ---------------------------------------------------------------


@pytest.mark.parametrize("initializer", CLASSES)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 3, 0, 4), (0,)])
def test_empty_shapes(initializer, shape):
    kernel = initializer()(shape, dtype="float16")
    assert tuple(kernel.shape) == shape
    assert keras.backend.standardize_dtype(kernel.dtype) == "float16"


@pytest.mark.parametrize("initializer", [AdaptiveHe, ScaledNoise, WidthAware])
def test_vectors_have_a_scale(initializer):
    assert np.isfinite(draw(initializer(), (24,))).all()


def constant(x):
    return ops.zeros_like(x)


ARGUMENTS = {
    "scale": (lambda: ScaledNoise(scale=0), r"`scale` must be .*: scale=0\. The usual"),
    "noise": (lambda: ScaledNoise(noise_std=-0.1), "`noise_std` .*: noise_std=-0.1"),
    "noise, nan": (lambda: ScaledNoise(noise_std=math.nan), "noise_std=nan"),
    "noise, bool": (lambda: ScaledNoise(noise_std=True), "noise_std=True"),
    "depth": (lambda: AdaptiveHe(depth=-1), "whole number of at least 0.*: depth=-1"),
    "depth, half": (lambda: AdaptiveHe(depth=1.5), "`depth` must be .*: depth=1.5"),
    "depth, bool": (lambda: AdaptiveHe(depth=True), "depth=True"),
    "depth, inf": (lambda: AdaptiveHe(depth=math.inf), "depth=inf"),
    "decay": (lambda: AdaptiveHe(decay=-0.1), "`decay` .* not negative.*: decay=-0.1"),
    "mode": (
        lambda: AdaptiveHe(mode="fan_sum"),
        "'fan_avg', 'fan_in', 'fan_out'. Received: mode='fan_sum'",
    ),
    "distribution": (
        lambda: AdaptiveHe(distribution="normal"),
        "'truncated_normal', 'uniform', 'untruncated_normal'. "
        "Received: distribution='normal'",
    ),
    "activation": (lambda: AdaptiveHe(activation="relux"), "activation='relux'"),
    "activation, layer": (
        lambda: LayerSequential(activation="relux"),
        "activation='relux'",
    ),
    "no gain": (lambda: AdaptiveHe(activation=constant), "activation='constant'"),
    "index": (lambda: LayerSequential(index=0), "at least 1.*: index=0"),
    "sequential decay": (lambda: LayerSequential(decay=0), "`decay` .*: decay=0"),
    "target": (lambda: WidthAware(target_std=0.0), "target_std=0.0"),
    "gain": (lambda: Orthogonal(gain=0), r"gain=0\. The usual value is 1\.0"),
    "gain, delta": (lambda: DeltaOrthogonal(gain=-2), "gain=-2"),
    "gain, mirrored": (lambda: MirroredOrthogonal(gain=0), "gain=0"),
    "gates": (lambda: Orthogonal(gates=0), "`gates` must be .*: gates=0"),
    "gates, half": (lambda: Orthogonal(gates=2.5), "gates=2.5"),
    "gates that do not divide": (
        lambda: Orthogonal(gates=4)((32, 10)),
        r"divide into its gates .*: shape=\(32, 10\), gates=4",
    ),
    "vector": (lambda: Orthogonal()((5,)), r"`Orthogonal` needs .*: shape=\(5,\)"),
    "vector, delta": (
        lambda: DeltaOrthogonal()((5,)),
        r"`DeltaOrthogonal` needs .*: shape=\(5,\)",
    ),
    "vector, mirrored": (
        lambda: MirroredOrthogonal()((5,)),
        r"`MirroredOrthogonal` needs .*: shape=\(5,\)",
    ),
    "scalar": (lambda: Orthogonal()(()), r"shape=\(\)"),
    "no window": (
        lambda: DeltaOrthogonal()((4, 3)),
        r"needs a kernel with a window\. Received: shape=\(4, 3\)",
    ),
    "no window among the axes": (
        lambda: DeltaOrthogonal(input_axes=(0,), output_axes=(1, 2))((4, 3, 2)),
        r"shape=\(4, 3, 2\)",
    ),
    "one input to mirror": (
        lambda: MirroredOrthogonal()((1, 8)),
        r"`mirror_inputs` needs .*: shape=\(1, 8\), 1 unit",
    ),
    "one output to mirror": (
        lambda: MirroredOrthogonal()((8, 1)),
        r"`mirror_outputs` needs .*: shape=\(8, 1\), 1 unit",
    ),
    "axis out of range": (
        lambda: WidthAware(input_axes=(0,), output_axes=(2,))((4, 3)),
        r"must lie in \[-2, 1\]\. Received: axes=\(2,\)",
    ),
    "an axis twice": (
        lambda: Orthogonal(input_axes=(0, -2), output_axes=(1,))((4, 3)),
        r"Received: axes=\(0, -2\)",
    ),
    "only the inputs": (
        lambda: WidthAware(input_axes=(0,))((4, 3)),
        r"given together\. Received: input_axes=\(0,\), output_axes=None",
    ),
    "only the outputs": (
        lambda: WidthAware(output_axes=(1,))((4, 3)),
        r"Received: input_axes=None, output_axes=\(1,\)",
    ),
    "seed": (lambda: Orthogonal(seed="three"), "seed=three"),
}


@pytest.mark.parametrize(("act", "received"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments(act, received):
    with pytest.raises(ValueError, match=received):
        act()


def test_an_activation_that_mixes_units_has_no_gain():
    with pytest.raises(NotPointwiseError, match="activation='softmax'"):
        AdaptiveHe(activation="softmax")


def test_mirroring_can_be_left_out_for_one_unit():
    assert draw(MirroredOrthogonal(mirror_outputs=False), (8, 1)).shape == (8, 1)
    assert draw(MirroredOrthogonal(mirror_inputs=False), (1, 8)).shape == (1, 8)


def test_the_base_class_draws_nothing():
    with pytest.raises(NotImplementedError, match="LayoutInitializer does not draw"):
        LayoutInitializer()((4, 3))
