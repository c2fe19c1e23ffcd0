import keras
import pytest
from keras import layers

from keras_initlab import KernelAxes, UnbuiltModelError, fans
from keras_initlab._keras.kinds import read_axes


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
    "Conv2D, strides": (layers.Conv2D(6, 3, strides=2), IMAGE, (36, 13.5)),
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
    # Keras counts up the names that it gives, so these have their own.
    "stacked cells": (
        layers.RNN(
            layers.StackedRNNCells(
                [layers.LSTMCell(3, name="lower"), layers.GRUCell(4, name="upper")],
                name="cells",
            )
        ),
        [(None, 9, 5)],
        {
            "cells/lower/kernel": (5, 3),
            "cells/lower/recurrent_kernel": (3, 3),
            "cells/upper/kernel": (3, 4),
            "cells/upper/recurrent_kernel": (4, 4),
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


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"inputs": (0,), "outputs": (0,)}, r"inputs=\(0,\), outputs=\(0,\)"),
        ({"inputs": (0,), "outputs": (1,), "window": (0,)}, r"window=\(0,\)"),
        ({"inputs": (0,), "outputs": (1,), "groups": 0}, "groups=0"),
        ({"inputs": (0,), "outputs": (1,), "stride": 0}, "stride=0"),
    ],
)
def test_axes_that_contradict_each_other_are_refused(arguments, received):
    with pytest.raises(ValueError, match=f"name an axis once.*{received}"):
        KernelAxes(**arguments)
