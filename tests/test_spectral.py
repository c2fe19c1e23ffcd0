import itertools
import json
import math
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats
from scipy.linalg import eig_banded

from keras_initlab.initializers import SpectralNorm
from keras_initlab.initializers._singular import krylov_steps, largest_singular_value

CONV = (3, 3, 4, 6)
TRANSPOSED = {"input_axes": (0, 1, 3), "output_axes": (0, 1, 2)}
DEPTHWISE = {"input_axes": (0, 1), "output_axes": (0, 1, 3)}


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


def norms_of(matrices):
    return np.linalg.svd(matrices, compute_uv=False)[..., 0]


# --- The matrix ----------------------------------------------------------------------

SPECTRA = {
    # shape, axes, from the kernel to a stack (matrices, rows, columns)
    "one number": ((1, 1), {}, lambda k: k[None]),
    "two by two": ((2, 2), {}, lambda k: k[None]),
    "one row": ((1, 50), {}, lambda k: k[None]),
    "one column": ((50, 1), {}, lambda k: k[None]),
    "small": ((20, 30), {}, lambda k: k[None]),
    "the largest solved in full": ((89, 89), {}, lambda k: k[None]),
    "the smallest projected": ((90, 90), {}, lambda k: k[None]),
    "large": ((300, 200), {}, lambda k: k[None]),
    "tall": ((2000, 100), {}, lambda k: k[None]),
    "wide": ((100, 2000), {}, lambda k: k[None]),
    "square": ((512, 512), {}, lambda k: k[None]),
    "convolution": ((2, 2, 5, 30), {}, lambda k: k.reshape(1, 20, 30)),
    "large convolution": ((5, 5, 40, 100), {}, lambda k: k.reshape(1, 1000, 100)),
    "batch axis": (
        (4, 100, 110),
        {"input_axes": (1,), "output_axes": (2,)},
        lambda k: k,
    ),
    "depthwise": (
        (4, 5, 7, 30),
        DEPTHWISE,
        lambda k: k.transpose(2, 0, 1, 3).reshape(7, 20, 30),
    ),
}


@pytest.mark.parametrize(("shape", "axes", "matrices"), SPECTRA.values(), ids=SPECTRA)
def test_the_norm_of_the_matrix(shape, axes, matrices):
    kernel = draw(SpectralNorm(0.9, seed=0, **axes), shape)
    np.testing.assert_allclose(norms_of(matrices(kernel)), 0.9, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2048, 2048), (2048, 300), (300, 2048), (2048, 1)])
def test_the_norm_of_a_very_large_matrix(shape):
    for seed in range(3):
        kernel = draw(SpectralNorm(0.9, seed=seed), shape)
        assert norms_of(kernel) == pytest.approx(0.9, rel=1e-5)


def test_the_norm_is_met_for_every_seed():
    batch = SpectralNorm(0.9, seed=0, input_axes=(1,), output_axes=(2,))
    for shape in [(100, 2, 2), (50, 20, 300), (20, 100, 120)]:
        np.testing.assert_allclose(norms_of(draw(batch, shape)), 0.9, rtol=1e-5)


def test_the_kernel_is_proportional_to_the_norm():
    first, second = (draw(SpectralNorm(n, seed=0), (20, 30)) for n in (0.9, 2.7))
    np.testing.assert_allclose(second, 3 * first, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"operator": "convolution"}])
def test_normal_draws_are_only_rescaled(arguments):
    if arguments:
        arguments = {**arguments, "input_size": 5}
    values = draw(SpectralNorm(seed=0, **arguments), (5, 5, 40, 70))
    kurtosis = np.mean(values**4) / np.mean(values**2) ** 2
    tolerance = 5 * math.sqrt(24 / values.size)
    truncated = float(stats.truncnorm.stats(-2, 2, moments="k")) + 3
    assert kurtosis == pytest.approx(3, abs=tolerance)
    assert abs(kurtosis - truncated) > tolerance


# --- The largest singular value ------------------------------------------------------


def special_matrices(rng):
    orthogonal = np.linalg.qr(rng.normal(size=(200, 120)))[0]
    pair = np.linalg.qr(rng.normal(size=(120, 120)))[0]
    values = np.r_[3.0, 3.0, 2.0, np.linspace(1, 0, 117)]
    return {
        "all equal": orthogonal,
        "two equal": (orthogonal * values) @ pair,
        "zeros": np.zeros((200, 120)),
        "identity": np.eye(200, 120),
        "diagonal": np.eye(200, 120) * values,
        "tiny": 1e-6 * rng.normal(size=(200, 120)),
        "huge": 1e6 * rng.normal(size=(200, 120)),
    }


@pytest.mark.parametrize("transposed", [False, True])
def test_special_matrices_have_their_largest_singular_value(transposed, rng):
    matrices = np.stack(list(special_matrices(rng).values()))
    if transposed:
        matrices = matrices.swapaxes(1, 2)
    found = to_numpy(largest_singular_value(ops.convert_to_tensor(matrices, "float32")))
    np.testing.assert_allclose(found, norms_of(matrices), rtol=1e-5, atol=1e-12)


def projected_norm_error(rows, columns, block, steps, rng):
    """How much of a Gaussian matrix's norm `steps` blocks miss, in exact arithmetic.

    Block bidiagonalization from a fixed start turns a Gaussian matrix into a band with
    independent entries: chi on the diagonal and at the band's edge, normal between.
    So one draw of the band is one draw of the whole run. (Dumitriu and Edelman 2002,
    "Matrix models for beta ensembles", theorem 3.1, for one vector.)
    """
    size = min(2 * steps * block, columns)
    places = np.arange(size)
    band = np.zeros((size, size))
    for offset in range(1, block):
        band[places[:-offset], places[offset:]] = rng.normal(size=size - offset)
    band[places, places] = np.sqrt(rng.chisquare(rows - places))
    rest = np.maximum(columns - block - places[:-block], 1)
    band[places[:-block], places[block:]] = np.sqrt(rng.chisquare(rest))
    part = steps * block
    return 1 - math.sqrt(
        largest_eigenvalue(band[:part, :part], block) / largest_eigenvalue(band, block)
    )


def largest_eigenvalue(factor, bandwidth):
    gram, size = factor.T @ factor, len(factor)
    bands = [np.pad(np.diagonal(gram, -k), (0, k)) for k in range(bandwidth + 1)]
    last = (size - 1, size - 1)
    return eig_banded(bands, True, True, select="i", select_range=last)[0]


LAWS = [(100, 100), (128, 128), (4000, 128), (512, 512), (2048, 2048), (20000, 1000)]


@pytest.mark.parametrize(("rows", "columns"), LAWS)
def test_the_number_of_steps_suffices(rows, columns, rng):
    steps = krylov_steps(rows, columns)
    errors = [projected_norm_error(rows, columns, 8, steps, rng) for _ in range(30)]
    assert 0 <= max(errors) + 1e-12 < 5e-6


def test_the_law_finds_too_few_steps(rng):
    half = krylov_steps(2048, 2048) // 2
    errors = [projected_norm_error(2048, 2048, 8, half, rng) for _ in range(30)]
    assert max(errors) > 1e-5
    single = [projected_norm_error(2048, 2048, 1, 48, rng) for _ in range(100)]
    assert np.median(single) < 1e-6 < max(single)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [*LAWS, (8192, 8192), (2048, 300)])
def test_the_number_of_steps_suffices_for_many_seeds(rows, columns, rng):
    steps = krylov_steps(rows, columns)
    errors = [projected_norm_error(rows, columns, 8, steps, rng) for _ in range(500)]
    assert max(errors) < 5e-6


# --- The convolution -----------------------------------------------------------------


def circulant(kernel, sizes):
    """The matrix of a circular convolution, from the sum that defines it."""
    window, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
    matrix = np.zeros((*sizes, inputs, *sizes, outputs))
    for here in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, window)):
            there = tuple((h + t) % n for h, t, n in zip(here, tap, sizes, strict=True))
            matrix[(*there, slice(None), *here)] += kernel[tap]
    return matrix.reshape(math.prod(sizes) * inputs, -1)


class Circular(NamedTuple):
    shape: tuple[int, ...]
    input_size: int | tuple[int, ...]
    sizes: tuple[int, ...]
    arguments: dict = {}
    kernels: object = lambda k: [k]  # each laid out (*window, inputs, outputs)


CIRCULAR = {
    "1-D": Circular((3, 4, 2), 8, (8,)),
    "1-D, odd size": Circular((3, 2, 4), 7, (7,)),
    "1-D, even window": Circular((4, 3, 3), 6, (6,)),
    "1-D, one tap": Circular((1, 3, 3), 6, (6,)),
    "1-D, as small as the window": Circular((5, 3, 3), 5, (5,)),
    "one channel": Circular((3, 3, 1, 1), 5, (5, 5)),
    "one input": Circular((3, 3, 1, 4), 5, (5, 5)),
    "one output": Circular((3, 3, 4, 1), 4, (4, 4)),
    "2-D": Circular(CONV, 4, (4, 4)),
    "2-D, unequal": Circular((3, 2, 3, 4), (4, 5), (4, 5)),
    "2-D, one row": Circular((1, 3, 3, 4), (4, 6), (4, 6)),
    "2-D, even window": Circular((2, 4, 3, 3), (5, 4), (5, 4)),
    "3-D": Circular((2, 3, 1, 2, 3), (3, 4, 2), (3, 4, 2)),
    "transposed": Circular(
        (3, 2, 4, 2), 4, (4, 4), TRANSPOSED, lambda k: [k.swapaxes(-1, -2)]
    ),
    "depthwise": Circular(
        (3, 3, 5, 2),
        (4, 5),
        (4, 5),
        DEPTHWISE,
        lambda k: [k[:, :, c : c + 1] for c in range(5)],
    ),
    "window last": Circular(
        (2, 4, 3),
        6,
        (6,),
        {"input_axes": (0, 2), "output_axes": (1, 2)},
        lambda k: [k.transpose(2, 0, 1)],
    ),
}


@pytest.mark.parametrize("case", CIRCULAR.values(), ids=CIRCULAR)
def test_the_norm_of_the_convolution(case):
    initializer = SpectralNorm(
        0.9, "convolution", case.input_size, seed=0, **case.arguments
    )
    kernels = case.kernels(draw(initializer, case.shape))
    norms = [norms_of(circulant(kernel, case.sizes)) for kernel in kernels]
    np.testing.assert_allclose(norms, 0.9, rtol=1e-5)


@pytest.mark.parametrize("case", CIRCULAR.values(), ids=CIRCULAR)
def test_the_norm_of_the_matrix_is_another(case):
    matrix = SpectralNorm(0.9, seed=0, **case.arguments)
    kernels = case.kernels(draw(matrix, case.shape))
    norms = np.array([norms_of(circulant(kernel, case.sizes)) for kernel in kernels])
    taps = math.prod(kernels[0].shape[:-2])
    if taps == 1:
        np.testing.assert_allclose(norms, 0.9, rtol=1e-5)
        return
    assert (norms > 0.9 * 1.01).all()
    assert (norms <= 0.9 * math.sqrt(taps) * (1 + 1e-5)).all()


def test_the_same_seed_gives_the_same_draw_for_both_operators():
    matrix = draw(SpectralNorm(seed=0), CONV)
    convolution = draw(SpectralNorm(0.9, "convolution", 8, seed=0), CONV)
    ratios = convolution / matrix
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=1e-4)


def test_a_larger_input_only_adds_frequencies():
    def size(n):
        return draw(SpectralNorm(0.9, "convolution", n, seed=0), CONV).std()

    assert size(16) <= size(8) * (1 + 1e-6) <= size(4) * (1 + 1e-6)


def test_many_frequencies_are_solved_in_parts(monkeypatch):
    whole = draw(SpectralNorm(0.9, "convolution", (5, 6), seed=0), CONV)
    monkeypatch.setattr("keras_initlab.initializers._spectral._AT_ONCE", 500)
    parts = draw(SpectralNorm(0.9, "convolution", (5, 6), seed=0), CONV)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_large_channels_are_projected():
    shape, n = (3, 60, 50), 6  # real matrices of twice these channels
    kernel = draw(SpectralNorm(0.9, "convolution", n, seed=0), shape)
    norms = norms_of(np.fft.fft(kernel, n=n, axis=0))
    assert norms.max() == pytest.approx(0.9, rel=1e-5)


def with_zeros_around(kernel, sizes):
    """The matrix of a convolution with `padding="same"`."""
    window = kernel.shape[:-2]
    wider = tuple(n + w - 1 for n, w in zip(sizes, window, strict=True))
    channels = kernel.shape[-2:]
    matrix = circulant(kernel, wider).reshape(*wider, channels[0], *wider, channels[1])
    inside = [slice(0, n) for n in sizes]
    shifted = np.roll(
        matrix,
        [(w - 1) // 2 for w in window],
        axis=[len(sizes) + 1 + i for i in range(len(sizes))],
    )
    part = shifted[(*inside, slice(None), *inside)]
    return part.reshape(math.prod(sizes) * channels[0], -1)


def test_zero_padding_never_exceeds_the_norm_of_the_padded_size():
    for seed in range(5):
        wide = SpectralNorm(0.9, "convolution", 6, seed=seed)
        assert norms_of(with_zeros_around(draw(wide, CONV), (4, 4))) <= 0.9 + 1e-5


# --- In layers and models ------------------------------------------------------------


@pytest.mark.parametrize("strides", [1, 2])
def test_a_layer_on_periodic_inputs_has_this_gain(strides, rng):
    n, inputs = 5, 3
    initializer = SpectralNorm(0.9, "convolution", n, seed=0)
    layer = layers.Conv2D(
        4, 3, strides=strides, use_bias=False, kernel_initializer=initializer
    )

    def apply(x):
        wrapped = np.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0)), mode="wrap")
        return to_numpy(layer(wrapped.astype("float32"))).reshape(len(x), -1)

    # What the layer does to every unit impulse is its matrix.
    matrix = apply(np.eye(n * n * inputs).reshape(-1, n, n, inputs))
    x = rng.normal(size=n * n * inputs)
    for _ in range(2000):  # power iteration
        x = matrix @ (x @ matrix)
        x /= np.linalg.norm(x)
    reached = np.linalg.norm(apply(x.reshape(1, n, n, inputs)))
    if strides == 1:
        assert reached == pytest.approx(0.9, rel=1e-5)
    assert reached <= 0.9 * (1 + 1e-5)
    others = rng.normal(size=(50, n, n, inputs))
    lengths = np.linalg.norm(others.reshape(50, -1), axis=1)
    gains = np.linalg.norm(apply(others), axis=1) / lengths
    assert gains.max() < 0.9


def compiled(function):
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            return tensorflow.function(function)
        case "jax":
            import jax

            return jax.jit(function)
    return function


TRACED = {
    "matrix": (SpectralNorm(seed=3), (100, 120)),
    "convolution": (SpectralNorm(0.9, "convolution", (4, 6), seed=3), CONV),
    "large convolution": (SpectralNorm(0.9, "convolution", 3, seed=3), (2, 50, 50)),
}


@pytest.mark.parametrize(("initializer", "shape"), TRACED.values(), ids=TRACED)
def test_in_a_compiled_function(initializer, shape):
    traced = compiled(lambda: initializer(shape))()
    np.testing.assert_allclose(to_numpy(traced), draw(initializer, shape), atol=1e-5)


@pytest.mark.parametrize(("initializer", "shape"), TRACED.values(), ids=TRACED)
def test_in_a_stateless_scope(initializer, shape):
    with keras.StatelessScope():
        variable = keras.Variable(initializer, shape=shape, dtype="float32")
        value = to_numpy(variable)
    np.testing.assert_allclose(value, draw(initializer, shape), atol=1e-6)


CONFIGURED = {
    "one size": SpectralNorm(1.5, "convolution", 8, 3),
    "sizes": SpectralNorm(1.5, "convolution", (5, 6), 3, **TRANSPOSED),
    "list": SpectralNorm(1.5, "convolution", [5, np.int64(6)], 3),
    "matrix": SpectralNorm(1.5, seed=3),
}


@pytest.mark.parametrize("initializer", CONFIGURED.values(), ids=CONFIGURED)
def test_configuration_survives_json(initializer):
    text = json.dumps(keras.initializers.serialize(initializer))
    restored = keras.initializers.deserialize(json.loads(text))
    assert restored.get_config() == initializer.get_config()
    assert SpectralNorm.from_config(restored.get_config()).get_config() == (
        initializer.get_config()
    )
    assert (draw(restored, CONV) == draw(initializer, CONV)).all()


def test_saved_and_cloned_models(tmp_path):
    initializer = SpectralNorm(0.9, "convolution", (6, 6), seed=3)
    layer = layers.Conv2D(4, 3, padding="same", kernel_initializer=initializer)
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (loaded, keras.models.clone_model(model)):
        found = other.layers[0]
        assert found.kernel_initializer.get_config() == initializer.get_config()
        assert (to_numpy(found.kernel) == to_numpy(layer.kernel)).all()


# --- Precision -----------------------------------------------------------------------

KINDS = {
    "matrix": SpectralNorm(seed=3),
    "convolution": SpectralNorm(0.9, "convolution", 5, seed=3),
}


def norm_of_kind(kind, kernel):
    if kind == "matrix":
        return norms_of(kernel.reshape(-1, kernel.shape[-1]))
    return norms_of(circulant(kernel, (5, 5)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "resolution"), [("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_half_precision_rounds_the_kernel_only(kind, dtype, resolution):
    kernel = KINDS[kind](CONV, dtype=dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    exact = draw(KINDS[kind], CONV)
    np.testing.assert_allclose(to_numpy(kernel), exact, rtol=resolution, atol=1e-6)
    assert norm_of_kind(kind, to_numpy(kernel)) == pytest.approx(0.9, rel=resolution)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has float64 only in its x64 mode"
)
@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_met_to_its_own_precision(kind):
    kernel = ops.convert_to_numpy(KINDS[kind](CONV, dtype="float64"))
    assert kernel.dtype == np.float64
    assert norm_of_kind(kind, kernel) == pytest.approx(0.9, rel=1e-13)


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [("mixed_float16", "float32"), ("mixed_bfloat16", "float32"), ("float16",) * 2],
)
def test_layers_of_a_lower_precision(policy, dtype):
    layer = layers.Conv2D(
        6, 3, dtype=policy, kernel_initializer=SpectralNorm(0.9, "convolution", 5)
    )
    layer.build((None, 5, 5, 4))
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == dtype
    norm = norm_of_kind("convolution", to_numpy(layer.kernel))
    assert norm == pytest.approx(0.9, rel=1e-5 if dtype == "float32" else 1e-3)


# --- Errors --------------------------------------------------------------------------


def convolution(input_size, shape=None, **arguments):
    made = SpectralNorm(0.9, "convolution", input_size, **arguments)
    return made(shape) if shape else made


ARGUMENTS = {
    "norm": (lambda: SpectralNorm(norm=-1.0), r"norm=-1\.0\. The usual value is 0\.9"),
    "norm, zero": (lambda: SpectralNorm(norm=0), "`norm` must be .*: norm=0"),
    "norm, nan": (lambda: SpectralNorm(norm=math.nan), "`norm` must be .*: norm=nan"),
    "norm, inf": (lambda: SpectralNorm(norm=math.inf), "norm=inf"),
    "norm, bool": (lambda: SpectralNorm(norm=True), "norm=True"),
    "norm, text": (lambda: SpectralNorm(norm="0.9"), "norm='0.9'"),
    "norm, None": (lambda: SpectralNorm(norm=None), "norm=None"),
    "operator": (
        lambda: SpectralNorm(operator="conv"),
        r"one of 'convolution', 'matrix'\. Received: operator='conv'",
    ),
    "operator, None": (lambda: SpectralNorm(operator=None), "operator=None"),
    "operator, a list": (lambda: SpectralNorm(operator=["matrix"]), r"=\['matrix'\]"),
    "operator, a number": (lambda: SpectralNorm(0.9, 3), "operator=3"),
    "no input size": (
        lambda: SpectralNorm(operator="convolution"),
        "needs the size of the input. Received: input_size=None. Pass the height",
    ),
    "input size for a matrix": (
        lambda: SpectralNorm(input_size=8),
        "Received: input_size=8, operator='matrix'. Leave it out",
    ),
    "size zero": (lambda: convolution(0), "positive int, .*: input_size=0"),
    "size negative": (lambda: convolution(-8), "input_size=-8"),
    "size bool": (lambda: convolution(True), "input_size=True"),
    "size NumPy bool": (lambda: convolution(np.True_), "input_size=.*True"),
    "size float": (lambda: convolution(8.0), r"input_size=8\.0"),
    "size nan": (lambda: convolution(math.nan), "input_size=nan"),
    "size text": (lambda: convolution("8"), "input_size='8'"),
    "size empty": (lambda: convolution(()), r"input_size=\(\)"),
    "sizes with a bool": (lambda: convolution((8, True)), r"input_size=\(8, True\)"),
    "sizes with a float": (lambda: convolution((8, 8.5)), r"input_size=\(8, 8\.5\)"),
    "sizes with None": (lambda: convolution((8, None)), r"input_size=\(8, None\)"),
    "sizes nested": (lambda: convolution([[8, 8]]), r"input_size=\[\[8, 8\]\]"),
    "size smaller than the window": (
        lambda: convolution(2, CONV),
        r"none smaller .*: input_size=2, shape=\(3, 3, 4, 6\) with the window \(3, 3\)"
        r".* at least `input_size=\(3, 3\)`",
    ),
    "one size smaller than the window": (
        lambda: convolution((8, 2), CONV),
        r"Received: input_size=\(8, 2\), shape=\(3, 3, 4, 6\)",
    ),
    "too many sizes": (
        lambda: convolution((8, 8, 8), CONV),
        r"one number for each axis .*: input_size=\(8, 8, 8\), shape",
    ),
    "too few sizes": (lambda: convolution((8,), CONV), r"input_size=\(8,\), shape"),
    "no window": (
        lambda: convolution(8, (4, 3)),
        r"needs a kernel with a window\. Received: shape=\(4, 3\)",
    ),
    "no window among the axes": (
        lambda: convolution(8, (4, 3, 2), input_axes=(0,), output_axes=(1, 2)),
        r"with a window\. Received: shape=\(4, 3, 2\)",
    ),
    "vector": (lambda: SpectralNorm()((5,)), r"`SpectralNorm` needs .*: shape=\(5,\)"),
    "scalar": (lambda: SpectralNorm()(()), r"shape=\(\)"),
    "vector, convolution": (lambda: convolution(8, (5,)), r"shape=\(5,\)"),
}


@pytest.mark.parametrize(("act", "received"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments(act, received):
    with pytest.raises(ValueError, match=received):
        act()


@pytest.mark.parametrize("shape", [(3, 3, 0, 4), (3, 3, 4, 0), (0, 3, 4, 4)])
def test_empty_kernels(shape):
    assert tuple(convolution(8, shape).shape) == shape


@pytest.mark.parametrize("operator", ["matrix", "convolution"])
def test_every_group_of_a_convolution_has_the_norm(operator):
    size = 6 if operator == "convolution" else None
    initializer = SpectralNorm(0.7, operator, size, seed=0)
    layer = layers.Conv1D(8, 3, groups=2, kernel_initializer=initializer)
    layer.build((None, 6, 4))
    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    for group in np.split(kernel, 2, axis=-1):
        response = np.fft.fft(group, n=6, axis=0) if size else group.reshape(1, 6, 4)
        assert np.linalg.norm(response, 2, axis=(1, 2)).max() == pytest.approx(
            0.7, rel=1e-5
        )
