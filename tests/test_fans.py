import math
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

from keras_initlab import UnbuiltModelError, fans
from keras_initlab._axes import read_axes


class Fallback(layers.Layer):
    def build(self, input_shape):
        self.filters = self.add_weight(shape=(3, 3, 4, 8), name="filters")
        self.offset = self.add_weight(shape=(8,), name="offset")


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(6, name="first")
        self.second = layers.DepthwiseConv1D(3, name="second")

    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(5, 6), name="mixing")
        self.first.build(input_shape)
        self.second.build((None, 9, 6))


class ScaledDepthwise(layers.DepthwiseConv2D):
    pass


@pytest.fixture(autouse=True)
def _no_draws(monkeypatch):
    # JAX compiles a draw for every new shape, and no test here looks at its values.
    for name in ("VarianceScaling", "RandomUniform", "Orthogonal"):
        drawing = getattr(keras.initializers, name)
        monkeypatch.setattr(drawing, "__call__", keras.initializers.Zeros.__call__)


def built(layer, *input_shapes):
    """A built copy, so that one table can serve several tests."""
    fresh = type(layer).from_config(layer.get_config())
    fresh.build(*input_shapes)
    return fresh


def fans_by_name(layer):
    return {path.split("/", 1)[1]: tuple(fan) for path, fan in fans(layer).items()}


IMAGE = (None, 8, 8, 4)

SINGLE_KERNELS = {
    "Dense": (layers.Dense(7), (None, 5), (5, 7)),
    "Dense on a sequence": (layers.Dense(7), (None, 9, 5), (5, 7)),
    "EinsumDense": (layers.EinsumDense("ab,bc->ac", 7), (None, 5), (5, 7)),
    "EinsumDense, any batch": (
        layers.EinsumDense("...b,bc->...c", 7),
        (None, 9, 5),
        (5, 7),
    ),
    "EinsumDense, two inputs": (
        layers.EinsumDense("abc,bcd->ad", 7),
        (None, 3, 5),
        (15, 7),
    ),
    "EinsumDense, two outputs": (
        layers.EinsumDense("abd,dhk->abhk", (None, 2, 7)),
        (None, 9, 5),
        (5, 14),
    ),
    "EinsumDense, a batch label": (
        layers.EinsumDense("bhd,hde->bhe", (3, 7)),
        (None, 3, 5),
        (5, 7),
    ),
    "EinsumDense, outputs first": (
        layers.EinsumDense("ab,cb->ac", 7),
        (None, 5),
        (5, 7),
    ),
    "Conv1D": (layers.Conv1D(6, 5), (None, 9, 4), (20, 30)),
    "Conv1D, causal, dilated": (
        layers.Conv1D(6, 5, padding="causal", dilation_rate=2),
        (None, 9, 4),
        (20, 30),
    ),
    "Conv2D": (layers.Conv2D(6, (3, 2)), IMAGE, (24, 36)),
    "Conv2D, strides": (layers.Conv2D(6, 3, strides=2), IMAGE, (36, 54)),
    "Conv2D, groups": (layers.Conv2D(6, 3, groups=2), IMAGE, (18, 27)),
    "Conv2D, one channel a group": (layers.Conv2D(8, 3, groups=4), IMAGE, (9, 18)),
    "Conv3D": (layers.Conv3D(6, (3, 2, 1)), (None, 8, 8, 8, 4), (24, 36)),
    "DepthwiseConv1D": (layers.DepthwiseConv1D(5), (None, 9, 4), (5, 5)),
    "DepthwiseConv1D, multiplier": (
        layers.DepthwiseConv1D(5, depth_multiplier=3),
        (None, 9, 4),
        (5, 15),
    ),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3), IMAGE, (9, 9)),
    "DepthwiseConv2D, multiplier": (
        layers.DepthwiseConv2D((3, 2), depth_multiplier=5),
        IMAGE,
        (6, 30),
    ),
    "Conv1DTranspose": (layers.Conv1DTranspose(6, 5), (None, 9, 4), (20, 30)),
    "Conv1DTranspose, strides": (
        layers.Conv1DTranspose(6, 6, strides=3),
        (None, 9, 4),
        (8, 36),
    ),
    "Conv2DTranspose": (layers.Conv2DTranspose(6, 3), IMAGE, (36, 54)),
    "Conv2DTranspose, 4x4 by 2": (
        layers.Conv2DTranspose(6, 4, strides=2),
        IMAGE,
        (16, 96),
    ),
    "Conv2DTranspose, unequal strides": (
        layers.Conv2DTranspose(6, (3, 2), strides=(2, 1)),
        IMAGE,
        (12, 36),
    ),
    "Conv2DTranspose, a fraction": (
        layers.Conv2DTranspose(6, 3, strides=2),
        (None, 8, 8, 5),
        (11.25, 54),
    ),
    "Conv3DTranspose": (
        layers.Conv3DTranspose(6, 2, strides=2),
        (None, 4, 4, 4, 8),
        (8, 48),
    ),
    "Embedding": (layers.Embedding(100, 7), (None, 9), (1, 7)),
    "custom layer": (Fallback(), (None,), (36, 72)),
    "subclass of a Keras layer": (ScaledDepthwise(3), IMAGE, (9, 9)),
}

SEVERAL_KERNELS = {
    "SeparableConv1D": (
        layers.SeparableConv1D(6, 5, depth_multiplier=3),
        [(None, 9, 4)],
        {"depthwise_kernel": (5, 15), "pointwise_kernel": (12, 6)},
    ),
    "SeparableConv2D": (
        layers.SeparableConv2D(6, 3, depth_multiplier=2),
        [IMAGE],
        {"depthwise_kernel": (9, 18), "pointwise_kernel": (8, 6)},
    ),
    "LSTM": (
        layers.LSTM(3),
        [(None, 9, 5)],
        {"lstm_cell/kernel": (5, 3), "lstm_cell/recurrent_kernel": (3, 3)},
    ),
    "GRU": (
        layers.GRU(3),
        [(None, 9, 5)],
        {"gru_cell/kernel": (5, 3), "gru_cell/recurrent_kernel": (3, 3)},
    ),
    "SimpleRNN": (
        layers.SimpleRNN(3),
        [(None, 9, 5)],
        {
            "simple_rnn_cell/kernel": (5, 3),
            "simple_rnn_cell/recurrent_kernel": (3, 3),
        },
    ),
    "ConvLSTM2D": (
        layers.ConvLSTM2D(6, (3, 2)),
        [(None, 9, 8, 8, 4)],
        {
            "conv_lstm_cell/kernel": (24, 36),
            "conv_lstm_cell/recurrent_kernel": (36, 36),
        },
    ),
    "MultiHeadAttention": (
        layers.MultiHeadAttention(num_heads=3, key_dim=2, value_dim=5),
        [(None, 9, 12), (None, 7, 10)],
        {
            "query/kernel": (12, 6),
            "key/kernel": (10, 6),
            "value/kernel": (10, 15),
            "attention_output/kernel": (15, 12),
        },
    ),
    "GroupQueryAttention": (
        layers.GroupQueryAttention(4, num_query_heads=6, num_key_value_heads=2),
        [(None, 9, 12), (None, 9, 12)],
        {
            "query/kernel": (12, 24),
            "key/kernel": (12, 8),
            "value/kernel": (12, 8),
            "attention_output/kernel": (24, 12),
        },
    ),
    "Bidirectional": (
        layers.Bidirectional(layers.GRU(3, name="gru")),
        [(None, 9, 5)],
        {
            "forward_gru/gru_cell/kernel": (5, 3),
            "forward_gru/gru_cell/recurrent_kernel": (3, 3),
            "backward_gru/gru_cell/kernel": (5, 3),
            "backward_gru/gru_cell/recurrent_kernel": (3, 3),
        },
    ),
    "stacked cells": (
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]),
        [(None, 9, 5)],
        {
            "stacked_rnn_cells/lstm_cell/kernel": (5, 3),
            "stacked_rnn_cells/lstm_cell/recurrent_kernel": (3, 3),
            "stacked_rnn_cells/gru_cell/kernel": (3, 4),
            "stacked_rnn_cells/gru_cell/recurrent_kernel": (4, 4),
        },
    ),
    "TimeDistributed": (
        layers.TimeDistributed(layers.Conv2D(6, 3, name="conv")),
        [(None, 9, 8, 8, 4)],
        {"conv/kernel": (36, 54)},
    ),
    "custom layer with inner layers": (
        Block(),
        [(None, 4)],
        {"mixing": (5, 6), "first/kernel": (4, 6), "second/kernel": (3, 3)},
    ),
}


@pytest.mark.filterwarnings("ignore::keras_initlab.UnknownLayerWarning")
@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"), SINGLE_KERNELS.values(), ids=SINGLE_KERNELS
)
def test_fans_of_one_kernel(layer, input_shape, expected):
    found = fans(built(layer, input_shape))
    assert [tuple(fan) for fan in found.values()] == [expected]


@pytest.mark.filterwarnings("ignore::keras_initlab.UnknownLayerWarning")
@pytest.mark.parametrize(
    ("layer", "input_shapes", "expected"),
    SEVERAL_KERNELS.values(),
    ids=SEVERAL_KERNELS,
)
def test_fans_of_several_kernels(layer, input_shapes, expected):
    assert fans_by_name(built(layer, *input_shapes)) == expected


def test_whole_fans_are_ints():
    layer = built(layers.Conv2DTranspose(6, 4, strides=2), IMAGE)
    (found,) = fans(layer).values()
    assert (type(found.fan_in), type(found.fan_out)) == (int, int)


def test_paths_are_the_variables_own():
    layer = built(layers.SeparableConv2D(6, 3, name="separable"), IMAGE)
    assert set(fans(layer)) == {
        layer.depthwise_kernel.path,
        layer.pointwise_kernel.path,
    }


def test_a_model_lists_every_kernel_once():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.Dense(3)])
    inputs = keras.Input((4,))
    outputs = layers.Dense(2, name="head")(inner(shared(inputs)))
    model = keras.Model(inputs, outputs)
    kernels = [weight for weight in model.weights if weight.name == "kernel"]
    assert set(fans(model)) == {kernel.path for kernel in kernels}
    assert sorted(map(tuple, fans(model).values())) == [(3, 2), (4, 3), (4, 4)]


def test_a_low_rank_update_leaves_the_kernel_in_place():
    layer = built(layers.Dense(7, name="dense"), (None, 5))
    layer.enable_lora(2)
    assert fans(layer) == {"dense/kernel": (5, 7)}


def test_untied_reverse_embeddings_are_a_dense_kernel():
    layer = layers.ReversibleEmbedding(100, 7, tie_weights=False)
    assert fans_by_name(built(layer, (None, 9))) == {
        "embeddings": (1, 7),
        "reverse_embeddings": (7, 100),
    }


def test_unbuilt_layer_is_refused():
    with pytest.raises(UnbuiltModelError, match=r"layer='late' \(Dense\), not built"):
        fans(layers.Dense(3, name="late"))


class Measured(NamedTuple):
    layer: keras.Layer
    input_shape: tuple[int, ...]
    keras_fan_in_holds: bool
    keras_fan_out_holds: bool


# The dense layers see a sequence, so that many positions share one kernel draw.
MEASURED = {
    "Dense": Measured(layers.Dense(96), (64, 128), True, True),
    "Conv2D": Measured(layers.Conv2D(48, 3, padding="same"), (16, 16, 32), True, True),
    "Conv2D, groups": Measured(
        layers.Conv2D(64, 3, padding="same", groups=8), (16, 16, 64), True, False
    ),
    "DepthwiseConv2D": Measured(
        layers.DepthwiseConv2D(3, padding="same"), (16, 16, 256), False, True
    ),
    "SeparableConv2D": Measured(
        layers.SeparableConv2D(64, 3, padding="same", depth_multiplier=2),
        (16, 16, 128),
        False,
        True,
    ),
    "Conv2DTranspose, narrower": Measured(
        layers.Conv2DTranspose(16, 3, padding="same"), (16, 16, 64), False, False
    ),
    "Conv2DTranspose, wider": Measured(
        layers.Conv2DTranspose(64, 3, padding="same"), (16, 16, 16), False, False
    ),
    "Conv2DTranspose, 4x4 by 2": Measured(
        layers.Conv2DTranspose(32, 4, strides=2, padding="same"),
        (16, 16, 32),
        False,
        True,
    ),
    "Conv2DTranspose, 3x3 by 2": Measured(
        layers.Conv2DTranspose(32, 3, strides=2, padding="same"),
        (16, 16, 32),
        False,
        True,
    ),
    "EinsumDense, a batch label": Measured(
        layers.EinsumDense("bhd,hde->bhe", (8, 96)), (8, 64), False, False
    ),
}


def keras_fans(shape):
    """Keras's `compute_fans` for a shape alone: two last axes, the rest a window."""
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def true_fans(layer):
    return {path: tuple(fan) for path, fan in fans(layer).items()}


def shape_fans(layer):
    return {path: keras_fans(weight(layer, path).shape) for path in fans(layer)}


def weight(layer, path):
    return next(variable for variable in layer.weights if variable.path == path)


def away_from_borders(signal):
    """The middle half of every image; other signals whole."""
    if signal.ndim < 4:
        return signal
    rows, columns = signal.shape[1] // 4, signal.shape[2] // 4
    return signal[:, rows:-rows, columns:-columns]


def rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype="float64")))


def forward_gain(layer, input_shape, fan_of_path, rng, draws=12):
    """The rms gain with kernels N(0, 1/fan) over several draws, and its error."""
    powers = []
    for _ in range(draws):
        for path, fan in fan_of_path.items():
            variable = weight(layer, path)
            variable.assign(rng.normal(0, fan**-0.5, variable.shape))
        x = rng.normal(size=(4, *input_shape)).astype("float32")
        y = keras.ops.convert_to_numpy(layer(x))
        powers.append((rms(away_from_borders(y)) / rms(x)) ** 2)
    gain = math.sqrt(np.mean(powers))
    return gain, np.std(powers) / math.sqrt(draws) / (2 * gain)


def backward_gain(layer, input_shape, fan_of_path, rng):
    # A linear map A has rms gains |A|/sqrt(outputs) forward and |A|/sqrt(inputs)
    # backward in the Frobenius norm, so the one measurement gives the other.
    gain, error = forward_gain(layer, input_shape, fan_of_path, rng)
    outputs = math.prod(layer.compute_output_shape((1, *input_shape)))
    ratio = math.sqrt(outputs / math.prod(input_shape))
    return gain * ratio, error * ratio


def is_unit(gain):
    return 0.97 <= gain <= 1.03


@pytest.mark.parametrize("case", MEASURED.values(), ids=MEASURED)
def test_true_fan_in_keeps_the_signal(case, rng):
    layer = built(case.layer, (None, *case.input_shape))
    fan_ins = {path: fan_in for path, (fan_in, _) in true_fans(layer).items()}
    gain, error = forward_gain(layer, case.input_shape, fan_ins, rng)
    assert error < 0.01
    assert is_unit(gain)


@pytest.mark.parametrize("case", MEASURED.values(), ids=MEASURED)
def test_true_fan_out_keeps_the_gradient(case, rng):
    layer = built(case.layer, (None, *case.input_shape))
    fan_outs = {path: fan_out for path, (_, fan_out) in true_fans(layer).items()}
    gain, error = backward_gain(layer, case.input_shape, fan_outs, rng)
    assert error < 0.01
    assert is_unit(gain)


@pytest.mark.parametrize("case", MEASURED.values(), ids=MEASURED)
def test_the_measurement_tells_wrong_fans_from_right_ones(case, rng):
    layer = built(case.layer, (None, *case.input_shape))
    fan_ins = {path: fan_in for path, (fan_in, _) in shape_fans(layer).items()}
    fan_outs = {path: fan_out for path, (_, fan_out) in shape_fans(layer).items()}
    forward, _ = forward_gain(layer, case.input_shape, fan_ins, rng)
    backward, _ = backward_gain(layer, case.input_shape, fan_outs, rng)
    assert is_unit(forward) == case.keras_fan_in_holds
    assert is_unit(backward) == case.keras_fan_out_holds


def test_one_gate_of_an_lstm_has_unit_gain(rng):
    units, inputs = 64, 96
    layer = built(layers.LSTM(units), (None, 9, inputs))
    path = layer.cell.kernel.path
    fan_in, fan_out = fans(layer)[path]
    kernel = rng.normal(size=(inputs, 4 * units))
    forget = kernel[:, units : 2 * units]
    assert rms(rng.normal(size=(500, inputs)) @ forget) == pytest.approx(
        math.sqrt(fan_in), rel=0.03
    )
    assert rms(rng.normal(size=(500, units)) @ forget.T) == pytest.approx(
        math.sqrt(fan_out), rel=0.03
    )


def test_an_embedding_looks_up_one_row(rng):
    layer = built(layers.Embedding(1000, 64), (None, 9))
    (found,) = fans(layer).values()
    rows = rng.normal(0, found.fan_in**-0.5, (1000, 64))
    layer.embeddings.assign(rows)
    tokens = rng.integers(0, 1000, (50, 9))
    assert is_unit(rms(keras.ops.convert_to_numpy(layer(tokens))))
    assert not is_unit(rms(rows / 1000**0.5))


AXES = {
    "scalar": ((0,), ((), (), ())),
    "bias": ((1,), ((), (), (0,))),
    "dense": ((2,), ((0,), (1,), ())),
    "conv": ((4,), ((2,), (3,), (0, 1))),
    "depthwise": ((4, (0, 1), (0, 1, 3)), ((), (3,), (0, 1))),
    "negative": ((3, (-3,), (-2, -1)), ((0,), (1, 2), ())),
    "transposed": ((4, (0, 1, -1), (0, 1, -2)), ((3,), (2,), (0, 1))),
    "embedding": ((2, (), (1,)), ((), (1,), ())),
}


@pytest.mark.parametrize(("arguments", "expected"), AXES.values(), ids=AXES)
def test_read_axes(arguments, expected):
    axes = read_axes(*arguments)
    assert (axes.inputs, axes.outputs, axes.window) == expected


def test_axes_are_handed_on_with_the_window_on_both_sides():
    axes = read_axes(4, (0, 1, 3), (0, 1, 2))
    assert (axes.input_axes, axes.output_axes) == ((0, 1, 3), (0, 1, 2))
    assert axes.fans((3, 2, 5, 7)) == (42, 30)


BAD_AXES = {
    "inputs alone": ((2, (0,), None), r"input_axes=\(0,\), output_axes=None"),
    "outputs alone": ((2, None, (1,)), r"input_axes=None, output_axes=\(1,\)"),
    "too large": ((2, (0,), (2,)), r"\[-2, 1\]\. Received: axes=\(2,\)"),
    "too small": ((3, (-4,), (1,)), r"\[-3, 2\]\. Received: axes=\(-4,\)"),
    "twice": ((2, (0, 0), (1,)), r"Received: axes=\(0, 0\)"),
    "twice, once negative": ((2, (0,), (1, -1)), r"Received: axes=\(1, -1\)"),
}


@pytest.mark.parametrize(("arguments", "received"), BAD_AXES.values(), ids=BAD_AXES)
def test_read_axes_refuses(arguments, received):
    with pytest.raises(ValueError, match=received):
        read_axes(*arguments)
