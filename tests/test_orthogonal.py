import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab.initializers import DeltaOrthogonal, Orthogonal


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


def singular_values(matrices):
    return np.linalg.svd(matrices, compute_uv=False)


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


# --- Orthogonal, in layers ---


def is_orthogonal(matrix):
    return np.allclose(singular_values(np.asarray(matrix)), 1, rtol=1e-5)


def test_as_the_kernel_initializer_of_a_dense_layer():
    layer = layers.Dense(12, kernel_initializer=Orthogonal())
    layer.build((None, 24))
    assert is_orthogonal(to_numpy(layer.kernel))


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


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has float64 only in its x64 mode"
)
def test_float64_kernels_are_drawn_in_float64():
    kernel = Orthogonal(seed=3)((24, 12), dtype="float64")
    matrix = ops.convert_to_numpy(kernel)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(12), atol=1e-13)


def matrices_of(layer):
    """Stacks (matrices, rows, columns) of each kernel that should be orthogonal."""
    kernels = [to_numpy(w) for w in layer.weights if w.name != "bias"]
    match layer:
        case layers.Conv2D(groups=groups):
            kernel = kernels[0]
            return [np.stack(np.split(kernel.reshape(-1, kernel.shape[-1]), groups, 1))]
        case layers.SeparableConv2D():
            return [
                kernels[0].transpose(2, 0, 1, 3).reshape(6, 9, 2),
                kernels[1].reshape(1, 12, 8),
            ]
        case layers.DepthwiseConv2D():
            return [kernels[0].transpose(2, 0, 1, 3).reshape(6, 9, 2)]
        case layers.Conv2DTranspose():
            return [kernels[0].transpose(0, 1, 3, 2).reshape(1, 54, 8)]
        case layers.ConvLSTM2D():
            return [
                np.stack(np.split(k.reshape(-1, k.shape[-1]), 4, 1)) for k in kernels
            ]
        case layers.LSTM() | layers.Bidirectional():
            return [np.stack(np.split(k, 4, 1)) for k in kernels]
        case layers.GRU():
            return [np.stack(np.split(k, 3, 1)) for k in kernels]
        case layers.Embedding():
            return [kernels[0][:, None, :]]
    *projections, output = kernels  # attention
    return [
        *(k.reshape(1, k.shape[0], -1) for k in projections),
        output.reshape(1, -1, output.shape[-1]),
    ]


BUILT = {
    "grouped convolution": (
        layers.Conv2D(72, 3, groups=3, kernel_initializer=Orthogonal()),
        [(None, 5, 5, 6)],
    ),
    "depthwise": (
        layers.DepthwiseConv2D(
            3, depth_multiplier=2, depthwise_initializer=Orthogonal()
        ),
        [(None, 5, 5, 6)],
    ),
    "separable": (
        layers.SeparableConv2D(
            8,
            3,
            depth_multiplier=2,
            depthwise_initializer=Orthogonal(),
            pointwise_initializer=Orthogonal(),
        ),
        [(None, 5, 5, 6)],
    ),
    "transposed": (
        layers.Conv2DTranspose(8, 3, kernel_initializer=Orthogonal()),
        [(None, 5, 5, 6)],
    ),
    "LSTM": (
        layers.LSTM(
            12, kernel_initializer=Orthogonal(), recurrent_initializer=Orthogonal()
        ),
        [(None, 9, 24)],
    ),
    "GRU": (
        layers.GRU(
            12, kernel_initializer=Orthogonal(), recurrent_initializer=Orthogonal()
        ),
        [(None, 9, 24)],
    ),
    "bidirectional": (
        layers.Bidirectional(
            layers.LSTM(
                12, kernel_initializer=Orthogonal(), recurrent_initializer=Orthogonal()
            )
        ),
        [(None, 9, 24)],
    ),
    "convolutional LSTM": (
        layers.ConvLSTM2D(
            4, 1, kernel_initializer=Orthogonal(), recurrent_initializer=Orthogonal()
        ),
        [(None, 4, 5, 5, 6)],
    ),
    "attention": (
        layers.MultiHeadAttention(4, 6, value_dim=3, kernel_initializer=Orthogonal()),
        [(None, 9, 24), (None, 9, 24)],
    ),
    "grouped attention": (
        layers.GroupQueryAttention(6, 4, 2, kernel_initializer=Orthogonal()),
        [(None, 9, 24), (None, 9, 24)],
    ),
    "embedding": (
        layers.Embedding(5, 12, embeddings_initializer=Orthogonal()),
        [(None, 9)],
    ),
}


@pytest.mark.parametrize(("layer", "inputs"), BUILT.values(), ids=BUILT)
def test_every_layer_tells_its_blocks(layer, inputs):
    layer = type(layer).from_config(layer.get_config())
    layer.build(*inputs)
    for matrices in matrices_of(layer):
        np.testing.assert_allclose(singular_values(matrices), 1, atol=1e-5)
        assert all(abs(m - matrices[0]).max() > 0.05 for m in matrices[1:])


@pytest.mark.parametrize("name", [name for name in BUILT if name != "embedding"])
def test_kerass_own_leaves_them_apart(name):
    layer, inputs = BUILT[name]
    config = layer.get_config()
    keras_own = keras.initializers.serialize(keras.initializers.Orthogonal())
    for holder in (config, config.get("layer", {}).get("config", {})):
        for key in holder:
            if key.endswith("_initializer") and "bias" not in key:
                holder[key] = keras_own
    layer = type(layer).from_config(config)
    layer.build(*inputs)
    errors = [abs(singular_values(m) - 1).max() for m in matrices_of(layer)]
    assert max(errors) > 0.01


@pytest.mark.parametrize(
    ("layer", "projections"),
    [
        (layers.MultiHeadAttention(4, 6, value_dim=3), [4, 4, 4]),
        (layers.GroupQueryAttention(6, 4, 2), [4, 2, 2]),
    ],
    ids=["attention", "grouped"],
)
@pytest.mark.parametrize("inputs", [24, 18])
def test_per_head_every_head_is_orthogonal(layer, projections, inputs):
    config = keras.initializers.serialize(Orthogonal(gain=1.3, per_head=True, seed=3))
    layer = type(layer).from_config(
        {**layer.get_config(), "kernel_initializer": config}
    )
    layer.build((None, 9, inputs), (None, 9, inputs))
    *kernels, output = (to_numpy(w) for w in layer.weights if w.name == "kernel")
    for kernel, heads in zip(kernels, projections, strict=True):
        matrices = kernel.transpose(1, 0, 2)
        assert len(matrices) == heads
        np.testing.assert_allclose(singular_values(matrices), 1.3, rtol=1e-5)
        whole = singular_values(kernel.reshape(inputs, -1))
        assert abs(whole - 1.3).max() > 0.01  # heads are drawn apart
    np.testing.assert_allclose(singular_values(output), 1.3, rtol=1e-5)


def test_per_head_on_a_shape_alone():
    axes = {"input_axes": (0,), "output_axes": (1, 2)}
    kernel = draw(Orthogonal(per_head=True, seed=0, **axes), (12, 4, 6))
    heads = singular_values(kernel.transpose(1, 0, 2))
    np.testing.assert_allclose(heads, 1, rtol=1e-5)


def test_all_heads_together_need_not_be_orthogonal_each_where_they_widen():
    axes = {"input_axes": (0,), "output_axes": (1, 2)}
    kernel = draw(Orthogonal(seed=0, **axes), (12, 4, 6))
    heads = singular_values(kernel.transpose(1, 0, 2))
    assert abs(heads - 1).max() > 0.1


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


def test_delta_orthogonal_groups_are_orthogonal_each():
    layer = layers.Conv2D(12, 3, groups=3, kernel_initializer=DeltaOrthogonal(seed=0))
    layer.build((None, 5, 5, 6))
    kernel = to_numpy(layer.kernel)
    assert np.count_nonzero(kernel) == 2 * 12
    groups = np.stack(np.split(kernel[1, 1], 3, axis=1))
    np.testing.assert_allclose(singular_values(groups), 1, rtol=1e-5)
    assert abs(groups[0] - groups[1]).max() > 0.05


def periodic_convolution(x, kernel):
    """What a convolution with circular padding computes, written with shifts."""
    taps = np.ndindex(*kernel.shape[:-2])
    axes = tuple(range(1, x.ndim - 1))
    parts = [
        np.roll(
            x, [(n - 1) // 2 - i for i, n in zip(tap, kernel.shape, strict=False)], axes
        )
        @ kernel[tap]
        for tap in taps
    ]
    return np.sum(parts, axis=0)


@pytest.mark.parametrize("shape", [(3, 6, 8), (4, 8, 8), (3, 3, 6, 8), (2, 4, 8, 8)])
def test_delta_orthogonal_keeps_the_norm_of_a_periodic_signal(shape, rng):
    kernel = draw(DeltaOrthogonal(seed=0), shape)
    x = rng.normal(size=(2, *[6] * (len(shape) - 2), shape[-2]))
    y = periodic_convolution(x, kernel)
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-4)
    spectrum = np.fft.fftn(kernel, s=[6] * (len(shape) - 2), axes=range(len(shape) - 2))
    np.testing.assert_allclose(singular_values(spectrum), 1, atol=1e-5)


def test_the_periodic_check_finds_a_kernel_that_is_orthogonal_only_as_a_matrix(rng):
    kernel = draw(Orthogonal(seed=0), (3, 3, 6, 8))
    x = rng.normal(size=(2, 6, 6, 6))
    y = periodic_convolution(x, kernel)
    assert abs(np.linalg.norm(y) / np.linalg.norm(x) - 1) > 0.01


def test_the_periodic_convolution_is_kerass_inside(rng):
    kernel = rng.normal(size=(3, 2, 6, 8)).astype("float32")
    x = rng.normal(size=(2, 6, 6, 6)).astype("float32")
    y = to_numpy(ops.conv(x, kernel, padding="same"))
    inside = (slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(
        periodic_convolution(x, kernel)[inside], y[inside], atol=1e-4
    )
