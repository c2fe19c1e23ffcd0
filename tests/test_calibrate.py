"""One pass gives every kernel the scale asked for.

What a kernel computes is measured anew here: by hooks of this file's own, or in NumPy,
while the calibrated model runs plainly on the same batch.
"""

import contextlib
import functools
import json
import math
from pathlib import Path

import applications
import keras
import numpy as np
import pytest
import zoo
from abilities import require
from keras import Input, layers, ops

from keras_initlab import (
    NoKernelsError,
    StructureChangedError,
    TrainedWeightsError,
    UnbuiltModelError,
    calibrate,
    probe,
)

BACKEND = keras.backend.backend()


def slow_on_jax(test):
    """Leaves a test to the slow ones there: each operation compiles for each shape."""
    return pytest.mark.slow(test) if BACKEND == "jax" else test


def to_numpy(value):
    return np.array(ops.convert_to_numpy(ops.cast(value, "float32")), "float64")


@contextlib.contextmanager
def replaced(owner, name, value):
    former = vars(owner).get(name)
    vars(owner)[name] = value
    try:
        yield
    finally:
        vars(owner).pop(name)
        if former is not None:
            vars(owner)[name] = former


def outputs_of(model, x, training=False):
    """What reaches each layer's activation first, and its first input, by layer.

    Of layers that run step by step, all steps.
    """
    before, inputs = {}, {}
    stepped = {
        inner
        for layer in model._flatten_layers()
        if isinstance(layer, layers.TimeDistributed)
        for inner in layer._flatten_layers(include_self=False)
    }

    def watched(layer, stack):
        def note(value, activation=layer.activation):
            if layer in stepped or layer not in before:
                before.setdefault(layer, []).append(to_numpy(value))
            return activation(value)

        stack.enter_context(replaced(layer, "activation", note))

    def heard(layer, stack):
        @functools.wraps(layer.call)
        def called(first, *args, call=layer.call, **kwargs):
            output = call(first, *args, **kwargs)
            inputs.setdefault(layer, (first, output))
            return output

        stack.enter_context(replaced(layer, "call", called))

    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            if (
                isinstance(layer, layers.Dense | layers.EinsumDense)
                or hasattr(layer, "convolution_op")
                or type(layer).__name__.startswith(("Depthwise", "Separable"))
                or ("Transpose" in type(layer).__name__)
            ):
                watched(layer, stack)
            elif isinstance(layer, layers.RNN | layers.Embedding):
                heard(layer, stack)
        mode = {"training": training} if model._call_has_training_arg else {}
        model(x, **mode)
    return {layer: np.concatenate(values) for layer, values in before.items()}, inputs


def stds(model, x, training=False):
    """The std of what each kernel computes, by its path; of what NumPy can redo."""
    before, inputs = outputs_of(model, x, training)
    found = {}
    for layer, value in before.items():
        name = next(n for n in ("pointwise_kernel", "kernel") if hasattr(layer, n))
        found[getattr(layer, name).path] = np.std(value)
    for layer, (first, output) in inputs.items():
        if isinstance(layer, layers.Embedding):
            found[layer.embeddings.path] = to_numpy(output).std()
        elif hasattr(layer.cell, "kernel") and layer.cell.kernel.ndim == 2:
            projection = to_numpy(first) @ to_numpy(layer.cell.kernel)
            found[layer.cell.kernel.path] = projection.std()
    return found


def weights(model):
    return [to_numpy(variable) for variable in model.variables]


def assert_same(model, before):
    for one, other in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def mlp(hidden=3, **dense):
    stack = [layers.Dense(16, "relu", **dense) for _ in range(hidden)]
    return keras.Sequential([Input((6,)), *stack, layers.Dense(4, **dense)])


def data(*shape, examples=32):
    return np.random.default_rng(0).normal(size=(examples, *shape)).astype("float32")


# ---- each layer -----------------------------------------------------------------


LAYERS = {
    "dense": (lambda: layers.Dense(5, "tanh"), (7,)),
    "dense on sequences": (lambda: layers.Dense(5, "relu"), (3, 7)),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4)), (5, 6)),
    "einsum turned": (
        lambda: layers.EinsumDense("abc,dce->aebd", (4, None, 3)),
        (5, 6),
    ),
    "einsum batch": (lambda: layers.EinsumDense("bhd,hde->bhe", (3, 4)), (3, 6)),
    "einsum dots": (lambda: layers.EinsumDense("...c,cd->...d", 4), (5, 6)),
    "conv1d": (lambda: layers.Conv1D(4, 3, padding="causal"), (9, 3)),
    "conv2d": (lambda: layers.Conv2D(4, 3, strides=2, activation="relu"), (8, 8, 3)),
    "conv3d": (lambda: layers.Conv3D(3, 2), (4, 4, 4, 2)),
    "grouped": (lambda: layers.Conv2D(6, 3, groups=3), (6, 6, 6)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3)),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3), (6, 3)),
    "separable": (lambda: layers.SeparableConv2D(5, 3, activation="relu"), (6, 6, 3)),
    "separable1d": (lambda: layers.SeparableConv1D(5, 3, depth_multiplier=2), (6, 3)),
    "transpose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), (4, 4, 3)),
}
BIASED = [name for name in LAYERS if "einsum" not in name]


def one_layer(name):
    make, shape = LAYERS[name]
    return keras.Sequential([Input(shape), make()]), data(*shape)


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_gets_the_std(name):
    model, x = one_layer(name)
    calibrated = calibrate(model, x, 0.7)
    assert calibrated.skipped == ()
    for std in stds(model, x).values():
        assert std == pytest.approx(0.7, rel=1e-4)


@slow_on_jax
@pytest.mark.parametrize("name", LAYERS)
def test_each_channel_gets_the_std(name):
    model, x = one_layer(name)
    calibrate(model, x, 0.7, per_channel=True)
    (value,) = outputs_of(model, x)[0].values()
    z = to_numpy(value)
    axes = {"einsum": (0, 1), "einsum turned": (0, 2), "einsum batch": (0,)}
    own = axes.get(name, tuple(range(z.ndim - 1)))
    np.testing.assert_allclose(z.std(axis=own), 0.7, rtol=1e-4)


@slow_on_jax
@pytest.mark.parametrize("name", BIASED)
@pytest.mark.parametrize("per_channel", [False, True])
def test_biases_center(name, per_channel):
    model, x = one_layer(name)
    x = x + 1
    calibrate(model, x, per_channel=per_channel, center_bias=True)
    (value,) = outputs_of(model, x)[0].values()
    z = to_numpy(value)
    means = z.mean(axis=tuple(range(z.ndim - 1)))
    np.testing.assert_allclose(means, 0, atol=1e-4)
    assert z.std() == pytest.approx(1, rel=1e-4)


def test_einsum_biases_center_along_their_own_axes():
    layer = layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="e")
    model = keras.Sequential([Input((5, 6)), layer])
    x = data(5, 6) + 1
    calibrate(model, x, center_bias=True)
    z = to_numpy(model(x))
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    assert z.std() == pytest.approx(1, rel=1e-4)


@slow_on_jax
@pytest.mark.onednn
@pytest.mark.parametrize("per_channel", [False, True])
def test_channels_may_come_first(per_channel):
    options = {"data_format": "channels_first", "bias_initializer": "random_normal"}
    # Keras on TensorFlow takes a last axis as long as the channels for theirs.
    model = keras.Sequential(
        [
            Input((3, 7, 9)),
            layers.Conv2D(4, 3, **options),
            layers.ReLU(),
            layers.DepthwiseConv2D(2, **options),
            layers.Conv2DTranspose(5, 2, **options),
        ]
    )
    require(model, (1, 3, 7, 9))
    x = data(3, 7, 9)
    calibrate(model, x, per_channel=per_channel, overwrite=True)
    for value in outputs_of(model, x)[0].values():
        axes = (0, 2, 3) if per_channel else None
        np.testing.assert_allclose(to_numpy(value).std(axis=axes), 1, rtol=1e-4)


def test_both_kernels_of_a_separable_convolution():
    model, x = one_layer("separable")
    calibrate(model, x)
    (layer,) = model.layers
    first = layers.DepthwiseConv2D(3, use_bias=False)
    first.build(x.shape)
    first.kernel.assign(layer.depthwise_kernel)
    assert to_numpy(first(x)).std() == pytest.approx(1, rel=1e-4)


# ---- biases ---------------------------------------------------------------------


def test_a_bias_keeps_its_values_and_is_taken_into_account(rng):
    """As in the published procedure, which divides the kernel until all fits."""
    model = keras.Sequential([Input((6,)), layers.Dense(16)])
    bias = rng.normal(size=16).astype("float32") * 0.4
    kernel = rng.normal(size=(6, 16)).astype("float32")
    model.layers[0].bias.assign(bias)
    model.layers[0].kernel.assign(kernel)
    x = data(6) + 0.5
    calibrated = calibrate(model, x, overwrite=True)
    np.testing.assert_array_equal(to_numpy(model.layers[0].bias), bias)
    assert calibrated[0].std_before == pytest.approx(
        (x @ kernel + bias).std(), rel=1e-4
    )
    for _ in range(60):  # Mishkin and Matas, algorithm 1
        kernel = kernel / (x @ kernel + bias).std()
    np.testing.assert_allclose(to_numpy(model.layers[0].kernel), kernel, rtol=1e-3)


def test_a_bias_that_is_too_large_alone_is_reported():
    model = keras.Sequential([Input((6,)), layers.Dense(2)])
    model.layers[0].bias.assign([3.0, -3.0])
    (row,) = calibrate(model, data(6), overwrite=True)
    assert row.note == "its bias alone has a std of 3"
    assert not row.is_changed


# ---- recurrent layers -----------------------------------------------------------

RECURRENT = {
    "simple": (lambda: layers.SimpleRNN(8), 1),
    "gru": (lambda: layers.GRU(8), 3),
    "gru reset before": (lambda: layers.GRU(8, reset_after=False), 3),
    "lstm": (lambda: layers.LSTM(8, go_backwards=True), 4),
    "cell": (lambda: layers.RNN(layers.LSTMCell(8)), 4),
    "unrolled": (lambda: layers.LSTM(8, unroll=True), 4),
    "stateful": (lambda: layers.LSTM(8, stateful=True), 4),
}


def gates_of(kernel, gates):
    matrix = to_numpy(kernel)
    return np.split(matrix.reshape(-1, matrix.shape[-1]), gates, axis=1)


def assert_orthogonal(kernel, gates):
    for gate in gates_of(kernel, gates):
        np.testing.assert_allclose(gate.T @ gate, np.eye(gate.shape[1]), atol=1e-5)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name):
    make, gates = RECURRENT[name]
    layer = make()
    model = keras.Sequential([Input(batch_shape=(32, 5, 6)), layer])
    x = data(5, 6) * 3
    bias = to_numpy(layer.cell.bias)
    calibrated = calibrate(model, x, seed=1)
    projection = x.astype("float64") @ to_numpy(layer.cell.kernel)
    assert projection.std() == pytest.approx(1, rel=1e-4)
    assert_orthogonal(layer.cell.recurrent_kernel, gates)
    assert [row.note for row in calibrated] == ["", "orthogonal for each gate"]
    np.testing.assert_array_equal(to_numpy(layer.cell.bias), bias)
    assert all(not np.any(to_numpy(state)) for state in layer.states or [])


@slow_on_jax
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_biases_center_the_input_projection(name):
    layer = RECURRENT[name][0]()
    model = keras.Sequential([Input(batch_shape=(32, 5, 6)), layer])
    x = data(5, 6) + 1
    bias = to_numpy(layer.cell.bias)
    calibrate(model, x, center_bias=True)
    projection = x.astype("float64") @ to_numpy(layer.cell.kernel)
    moved = to_numpy(layer.cell.bias) - bias
    shift = moved[0] if name == "gru" else moved
    np.testing.assert_allclose(shift, -projection.mean(axis=(0, 1)), atol=1e-4)
    assert (projection + shift).std() == pytest.approx(1, rel=1e-4)
    if name == "gru":
        assert not np.any(moved[1])


@slow_on_jax
def test_a_bias_of_two_rows_is_known_by_its_class_not_its_name():
    """A GRU has a second row, beside its recurrent kernel, whatever it is called."""
    cell = layers.GRUCell(8, bias_initializer="random_normal", name="cell")
    dense = layers.EinsumDense(
        "abc,cde->abde", (None, 2, 4), bias_axes="de", name="gru_like"
    )
    loop = layers.RNN(cell, return_sequences=True, name="loop")
    model = keras.Sequential([Input((5, 6)), loop, dense], name="net")
    x = data(5, 6) + 1
    assert "gru" not in cell.bias.path
    before = to_numpy(cell.bias)
    calibrate(model, x, center_bias=True, overwrite=True)
    moved = to_numpy(cell.bias) - before
    projection = x.astype("float64") @ to_numpy(cell.kernel)
    assert np.any(moved[0])
    np.testing.assert_array_equal(moved[1], 0)
    np.testing.assert_allclose(moved[0], -projection.mean(axis=(0, 1)), atol=1e-4)
    z = to_numpy(model(x))
    np.testing.assert_allclose(z.mean(axis=(0, 1)), 0, atol=1e-4)
    assert z.std() == pytest.approx(1, rel=1e-3)


@slow_on_jax
def test_both_directions():
    layer = layers.Bidirectional(layers.GRU(4, return_sequences=True))
    model = keras.Sequential([Input((5, 6)), layer, layers.LSTM(4)])
    x = data(5, 6)
    calibrate(model, x)
    found = stds(model, x)
    assert len(found) == 3
    np.testing.assert_allclose(list(found.values()), 1, rtol=1e-4)


@slow_on_jax
def test_stacked_cells_are_calibrated_on_what_reaches_them():
    cells = [layers.GRUCell(8), layers.SimpleRNNCell(7), layers.LSTMCell(4)]
    model = keras.Sequential([Input((5, 6)), layers.RNN(cells)])
    x = data(5, 6)
    calibrated = calibrate(model, x)
    assert calibrated.skipped == ()
    sequence = x
    for cell, gates in zip(cells, (3, 1, 4), strict=True):
        projection = to_numpy(sequence) @ to_numpy(cell.kernel)
        assert projection.std() == pytest.approx(1, rel=1e-4)
        assert_orthogonal(cell.recurrent_kernel, gates)
        states, steps = cell.get_initial_state(32), []
        for step in range(5):
            output, states = cell(ops.convert_to_tensor(sequence)[:, step], states)
            steps.append(output)
        sequence = ops.stack(steps, axis=1)


@slow_on_jax
def test_convolutional_recurrent_layers():
    layer = layers.ConvLSTM2D(3, 3, strides=2, padding="same")
    model = keras.Sequential([Input((4, 6, 6, 2)), layer])
    x = data(4, 6, 6, 2)
    calibrate(model, x)
    other = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)
    other.build((None, 6, 6, 2))
    other.kernel.assign(layer.cell.kernel)
    projection = to_numpy(other(x.reshape(-1, 6, 6, 2)))
    assert projection.std() == pytest.approx(1, rel=1e-4)
    assert_orthogonal(layer.cell.recurrent_kernel, 4)


class ByHand(keras.Model):
    """Calls its cell itself, step by step."""

    def __init__(self):
        super().__init__()
        self.cell = layers.SimpleRNNCell(8)

    def call(self, inputs):
        states = self.cell.get_initial_state(inputs.shape[0])
        for step in range(inputs.shape[1]):
            output, states = self.cell(inputs[:, step], states)
        return output


def test_a_cell_by_itself_is_calibrated_at_its_first_step():
    model, x = ByHand(), data(3, 6)
    model(x)
    calibrate(model, x)
    first = x[:, 0].astype("float64") @ to_numpy(model.cell.kernel)
    assert first.std() == pytest.approx(1, rel=1e-4)


class DenseCell(layers.Layer):
    """A custom cell with layers inside."""

    def __init__(self):
        super().__init__()
        self.state_size = 4
        self.dense = layers.Dense(4)

    def call(self, inputs, states):
        output = self.dense(ops.concatenate([inputs, states[0]], axis=-1))
        return output, [output]

    def build(self, input_shape):
        self.dense.build((input_shape[0], input_shape[-1] + 4))


def test_layers_inside_a_loop_are_left():
    model = keras.Sequential([Input((5, 6)), layers.RNN(DenseCell())])
    before = weights(model)
    (row,) = calibrate(model, data(5, 6)).skipped
    assert row.note == "it runs inside a loop or traced function"
    assert_same(model, before)


# ---- whole models ---------------------------------------------------------------


def assert_calibrated(model, x, training=False, **options):
    """Every kernel that this file can measure has the std; returns the result."""
    calibrated = calibrate(model, x, training=training, **options)
    found = stds(model, x, training)
    assert found
    target = options.get("target_std", 1)
    by_both = {row.path for row in calibrated if row.note.endswith("scaled by both")}
    for path, std in found.items():
        if path in by_both:  # single units; `test_a_single_unit_...` asks them
            assert std < target, path
        else:
            assert std == pytest.approx(target, abs=1e-3 * target), path
    return calibrated


@pytest.mark.parametrize("activation", ["sigmoid", "softplus", "relu"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
def test_a_single_unit_far_from_zero_is_not_saturated(activation, depth, rng):
    x = rng.normal(size=(320, 30)).astype("float32")
    hidden = [layers.Dense(64, activation) for _ in range(depth)]
    model = keras.Sequential([Input((30,)), *hidden, layers.Dense(1)])
    *_, row = calibrate(model, x, seed=0)
    output = to_numpy(model(x)).astype("float64")
    mean, std = output.mean(), output.std()
    assert row.std_after == pytest.approx(std, rel=1e-3)
    if abs(mean) > std:
        assert math.hypot(mean, std) == pytest.approx(1, abs=1e-3)
        assert row.note.endswith("times its std: scaled by both")
    else:
        assert std == pytest.approx(1, abs=1e-3)
        assert abs(mean) <= 1
    # Of many sigmoids the means are most of the signal, whatever their scale.
    found = {finding.kind for finding in probe(model, x).findings}
    assert found <= ({"vanishing signal"} if depth > 4 else set())


def transformer(attention=None):
    inputs = Input((6,), dtype="int32")
    x = layers.Embedding(20, 16)(inputs)
    attention = attention or layers.MultiHeadAttention(2, 8)
    x = layers.LayerNormalization()(x + attention(x, x))
    y = layers.Dense(16)(layers.Dense(32, "gelu")(x))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x + y))
    return keras.Model(inputs, layers.Dense(3, "softmax")(x))


def words(length, examples=32):
    numbers = np.random.default_rng(0).integers(1, 20, (examples, length))
    return numbers.astype("int32")


def test_many_values_are_summed_exactly(rng):
    x = (rng.normal(size=(5000, 8)) + 0.5).astype("float32")
    model = keras.Sequential([Input((8,)), layers.Dense(40)])
    z = x.astype("float64") @ to_numpy(model.layers[0].kernel)
    (row,) = calibrate(model, x)
    assert z.size > 2**17
    assert row.std_before == pytest.approx(z.std(), rel=2e-6)


@slow_on_jax
@pytest.mark.parametrize(
    "training", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_transformer(training):
    model = transformer()
    calibrated = assert_calibrated(model, words(6), training)
    assert len(calibrated) == 8
    assert calibrated.skipped == ()


@slow_on_jax
def test_group_query_attention():
    attention = layers.GroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)
    calibrated = assert_calibrated(transformer(attention), words(6), target_std=0.5)
    assert calibrated.skipped == ()


@slow_on_jax
@pytest.mark.parametrize(
    "training", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_an_lstm(training):
    model = keras.Sequential(
        [
            Input((6,), dtype="int32"),
            layers.Embedding(20, 8, mask_zero=True),
            layers.LSTM(8, return_sequences=True),
            layers.LSTM(8),
            layers.Dense(3),
        ]
    )
    x = words(6)
    x[:, 4:] = 0
    calibrated = assert_calibrated(model, x, training)
    assert len(stds(model, x)) == 4
    assert calibrated.skipped == ()


@slow_on_jax
def test_a_reversible_embedding():
    embedding = layers.ReversibleEmbedding(20, 8, tie_weights=False)
    inputs = Input((6,), dtype="int32")
    x = layers.Dense(8, "relu")(embedding(inputs))
    model = keras.Model(inputs, embedding(x, reverse=True))
    x = words(6)
    calibrated = assert_calibrated(model, x)
    assert calibrated.skipped == ()
    assert to_numpy(model(x)).std() == pytest.approx(1, abs=1e-3)


def normalized():
    stack = [
        layers.Conv2D(8, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.0 if BACKEND == "torch" else 0.4),  # not by Keras's seeds
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(4),
    ]
    return keras.Sequential([Input((8, 8, 3)), *stack])


@slow_on_jax
@pytest.mark.parametrize("training", [False, True])
def test_normalization_in_both_modes(training):
    """Moving statistics and random states are as before: dropout's mask too."""
    model, x = normalized(), data(8, 8, 3) * 5 + 1
    states = [to_numpy(variable) for variable in model.non_trainable_variables]
    calibrate(model, x, training=training)
    for variable, state in zip(model.non_trainable_variables, states, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), state)
    for std in stds(model, x, training).values():
        assert std == pytest.approx(1, abs=1e-3)
    other = stds(model, x, not training).values()
    assert max(abs(std - 1) for std in other) > 0.05


def test_a_shared_layer_counts_once_at_its_first_call():
    shared = layers.Dense(8, "relu")
    inputs = Input((8,))
    model = keras.Model(inputs, layers.Dense(4)(shared(shared(inputs))))
    x = data(8)
    assert len(assert_calibrated(model, x)) == 2


def test_two_layers_with_one_kernel():
    one, other = layers.Dense(6, use_bias=False), layers.Dense(6, use_bias=False)
    model = keras.Sequential([Input((6,)), one, layers.ReLU(), other])
    vars(other)["_kernel"] = one._kernel  # tied, past Keras's lock
    other._trainable_variables[:] = []
    x = data(6)
    (row,) = calibrate(model, x)
    assert (x @ to_numpy(one.kernel)).std() == pytest.approx(1, rel=1e-4)
    assert row.is_changed


def test_frozen_kernels_stay():
    model = mlp()
    model.layers[1].trainable = False
    before = to_numpy(model.layers[1].kernel)
    calibrated = calibrate(model, data(6))
    np.testing.assert_array_equal(to_numpy(model.layers[1].kernel), before)
    assert [row.note for row in calibrated] == ["", "frozen", "", ""]
    assert stds(model, data(6))[model.layers[3].kernel.path] == pytest.approx(
        1, rel=1e-3
    )


def test_only_some_kernels():
    model = mlp()
    layer = model.layers[1]
    (row,) = calibrate(model, data(6), only=[layer.name])
    assert row.path == layer.kernel.path
    assert calibrate(model, data(6), only=lambda k: k.layer is layer).changed == (
        row.path,
    )


class Tower(keras.Model):
    """A subclassed model with a custom layer, a nested model, and a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.inner = mlp(hidden=1)
        self.block = zoo.LayerScaledBlock(3)
        self.head = layers.Dense(2)

    def call(self, inputs):
        image = ops.mean(self.block(inputs["image"]), axis=(1, 2))
        return self.head(ops.concatenate([image, self.inner(inputs["row"])], axis=-1))


def test_without_a_draw_no_generator_moves():
    model = mlp(hidden=1)
    keras.utils.set_random_seed(5)
    expected = to_numpy(keras.random.normal((4,)))
    keras.utils.set_random_seed(5)
    calibrate(model, data(6))
    np.testing.assert_array_equal(to_numpy(keras.random.normal((4,))), expected)


@slow_on_jax
def test_subclassed_and_nested_models_with_several_inputs():
    model = Tower()
    x = {"image": data(6, 6, 3), "row": data(6)}
    model(x)
    calibrated = assert_calibrated(model, x)
    (row,) = calibrated.skipped  # the block's own weights
    assert row.note == "what a LayerScaledBlock computes with it is not known"
    assert len(calibrated) == 7


@slow_on_jax
def test_time_distributed_layers_are_calibrated_on_all_steps():
    inner = keras.Sequential([Input((6,)), layers.Dense(8, "relu"), layers.Dense(4)])
    model = keras.Sequential([Input((5, 6)), layers.TimeDistributed(inner)])
    x = data(5, 6) * np.arange(1, 6)[:, None].astype("float32")
    calibrate(model, x)
    z = x @ to_numpy(inner.layers[0].kernel)
    assert z.std() == pytest.approx(1, rel=1e-4)
    assert to_numpy(model(x)).std() == pytest.approx(1, rel=1e-4)


@slow_on_jax
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [
        ("mixed_bfloat16", 1e-2),
        ("mixed_float16", 2e-3),
        pytest.param(
            "float64",
            1e-6,
            marks=pytest.mark.skipif(BACKEND == "jax", reason="has none by default"),
        ),
    ],
)
def test_other_precisions(policy, tolerance):
    def conv(filters):
        return layers.Conv2D(filters, 3, activation="relu", dtype=policy)

    stack = [conv(8), conv(8), layers.Flatten(), layers.Dense(9, dtype=policy)]
    model = keras.Sequential([Input((8, 8, 3), dtype="float32"), *stack])
    x = data(8, 8, 3)
    calibrate(model, x)
    before = outputs_of(model, x)[0].values()
    for value in before:
        dtype = "float64" if policy == "float64" else "float32"
        wide = ops.convert_to_numpy(ops.cast(value, dtype)).astype("float64")
        assert wide.std() == pytest.approx(1, abs=tolerance)
    assert model.layers[0].kernel.dtype == dtype


# ---- orthogonal start -----------------------------------------------------------


@slow_on_jax
def test_an_orthogonal_start():
    model, x = mlp(), data(6)
    calibrate(model, x, orthogonal=True, seed=3)
    for layer in model.layers[1:]:
        values = np.linalg.svd(to_numpy(layer.kernel), compute_uv=False)
        np.testing.assert_allclose(values, values[0], rtol=1e-4)
    assert all(std == pytest.approx(1, abs=1e-3) for std in stds(model, x).values())
    first = weights(model)
    calibrate(model, x, orthogonal=True, seed=3)
    assert_same(model, first)
    calibrate(model, x, orthogonal=True, seed=4)
    assert not np.allclose(to_numpy(model.layers[1].kernel), first[2])


@slow_on_jax
def test_embeddings_keep_their_directions():
    model = transformer()
    before = to_numpy(model.layers[1].embeddings)
    calibrate(model, words(6), orthogonal=True)
    ratio = to_numpy(model.layers[1].embeddings) / before
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)


# ---- what is left ---------------------------------------------------------------


def constant(value):
    return layers.Dense(4, kernel_initializer=keras.initializers.Constant(value))


def test_constant_outputs_are_left():
    model = keras.Sequential(
        [Input((6,)), constant(0.0), constant(0.1), layers.Dense(3)]
    )
    calibrated = calibrate(model, data(6))
    assert [row.note for row in calibrated] == ["constant at 0"] * 3
    assert calibrated.changed == ()


def test_equal_examples_are_constant_but_for_rounding():
    model = keras.Sequential([Input((6,)), constant(0.1)])
    (row,) = calibrate(model, np.full((16, 6), 0.3, "float32"))
    assert row.note == "constant at 0.18"


def test_dead_channels_are_left(rng):
    model = keras.Sequential([Input((6,)), layers.Dense(5)])
    kernel = rng.normal(size=(6, 5)).astype("float32")
    kernel[:, 1] = 0
    model.layers[0].kernel.assign(kernel)
    (row,) = calibrate(model, data(6), per_channel=True)
    assert row.note == "1 of 5 channels are constant"
    np.testing.assert_allclose(
        (data(6) @ to_numpy(model.layers[0].kernel)).std(axis=0),
        [1, 0, 1, 1, 1],
        rtol=1e-4,
    )


def test_all_channels_dead():
    model = keras.Sequential([Input((6,)), constant(0.0)])
    (row,) = calibrate(model, data(6), per_channel=True)
    assert row.note == "constant in every channel"


def test_too_few_values():
    model = keras.Sequential([Input((6,)), layers.Dense(8), layers.Dense(1)])
    calibrated = calibrate(model, data(6, examples=7))
    assert calibrated[1].note == "7 values are too few for a std"
    calibrated = calibrate(model, data(6, examples=7), per_channel=True)
    assert calibrated[0].note == "7 values a channel are too few for a std"


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_squares_beyond_float32(scale):
    model, x = mlp(hidden=1), data(6)
    model.layers[0].kernel.assign(to_numpy(model.layers[0].kernel) * scale)
    calibrate(model, x)
    assert list(stds(model, x).values()) == pytest.approx([1, 1], rel=1e-4)


def test_what_may_be_rounding_is_said():
    model, x = mlp(hidden=1), data(6)
    model.layers[1].kernel.assign(to_numpy(model.layers[1].kernel) * 1e-8)
    first, second = calibrate(model, x)
    before = second.std_before
    assert first.note == ""
    assert before is not None
    assert before < 1e-7
    assert second.note == f"multiplied by {1 / before:.1g}"


def test_a_large_mean_does_not_matter():
    model, x = mlp(hidden=0), data(6) + 1000
    calibrate(model, x)
    z = x.astype("float64") @ to_numpy(model.layers[0].kernel)
    assert z.std() == pytest.approx(1, rel=1e-3)


class Custom(layers.Layer):
    """Multiplies by a kernel of its own."""

    def build(self, input_shape):
        shape = (input_shape[-1], 4)
        self.mixing = self.add_weight(shape=shape, name="mixing", initializer="ones")

    def call(self, inputs):
        return ops.matmul(inputs, self.mixing)


def test_kernels_of_custom_layers_are_calibrated_as_they_compute():
    model = keras.Sequential([Input((6,)), Custom(), layers.Dense(3)])
    x = data(6)
    calibrated = calibrate(model, x)
    assert [row.is_changed for row in calibrated] == [True, True]
    products = x.astype("float64") @ to_numpy(model.layers[0].mixing)
    assert products.std() == pytest.approx(1, rel=1e-3)


class Switch(keras.Model):
    """Uses one of its layers."""

    def __init__(self):
        super().__init__()
        self.one, self.other = layers.Dense(8), layers.Dense(8)

    def build(self, input_shape):
        self.one.build(input_shape)
        self.other.build(input_shape)

    def call(self, inputs):
        return self.one(inputs)


def test_layers_that_are_not_reached():
    model = Switch()
    model.build((None, 6))
    assert [row.note for row in calibrate(model, data(6))] == [
        "",
        "no product with it was heard",
    ]


@slow_on_jax
def test_quantized_and_normalized_kernels_are_left():
    wrapped = layers.SpectralNormalization(layers.Dense(8))
    model = keras.Sequential([Input((6,)), wrapped, layers.Dense(8), layers.Dense(4)])
    model.layers[1].quantize("int8")
    calibrated = calibrate(model, data(6))
    assert [row.note for row in calibrated] == [
        "spectral normalization gives it its scale",
        "quantized",
        "",
    ]


# ---- data -----------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Two batches of inputs and targets."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return data(6) * (index + 1), np.zeros((32, 4))


def generator():
    yield data(6), np.zeros((32, 4))
    raise AssertionError("one batch is enough")


def tensorflow_dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((data(6), np.zeros((32, 4)))).batch(32)


def torch_loader():
    import torch

    pairs = torch.utils.data.TensorDataset(torch.tensor(data(6)), torch.zeros(32, 4))
    return torch.utils.data.DataLoader(pairs, batch_size=32)


FORMS = {
    "array": lambda: data(6),
    "float64": lambda: data(6).astype("float64"),
    "tensor": lambda: ops.convert_to_tensor(data(6)),
    "generator": generator,
    "PyDataset": Batches,
    "tf.data": tensorflow_dataset,
}
if BACKEND == "torch":
    FORMS["DataLoader"] = torch_loader


@pytest.mark.parametrize("form", FORMS)
def test_data_of_many_forms(form):
    model = mlp(hidden=1)
    calibrated = calibrate(model, FORMS[form]())
    assert len(calibrated.changed) == 2
    for std in stds(model, data(6)).values():
        assert std == pytest.approx(1, rel=1e-4)


@slow_on_jax
def test_inputs_in_a_list_and_by_name():
    wide, deep = Input((3,), name="wide"), Input((1,), name="deep")
    joined = layers.Concatenate()([wide, layers.Dense(8)(deep)])
    model = keras.Model([wide, deep], layers.Dense(4)(joined))
    assert_calibrated(model, [data(3), data(1)])
    assert_calibrated(model, {"wide": data(3), "deep": data(1)})
    assert_calibrated(model, [data(3), data()])


# ---- undo and errors ------------------------------------------------------------


def test_undo():
    model = mlp()
    model.compile("sgd", "mse")
    before = weights(model)
    calibrated = calibrate(model, data(6))
    model.fit(data(6), np.zeros((32, 4)), verbose=0)
    calibrated.undo()
    kernels = [
        variable.path for variable in model.variables if "kernel" in variable.path
    ]
    assert list(calibrated.changed) == kernels
    for path, variable, value in zip(
        [v.path for v in model.variables], model.variables, before, strict=True
    ):
        if path in kernels:
            np.testing.assert_array_equal(to_numpy(variable), value)
    first = weights(model)
    model.fit(data(6), np.zeros((32, 4)), verbose=0)  # writes into what undo wrote
    assert not np.array_equal(weights(model)[0], first[0])
    calibrated.undo()
    np.testing.assert_array_equal(weights(model)[0], before[0])
    model.add(layers.Dense(3))
    with pytest.raises(StructureChangedError, match="with other variables"):
        calibrated.undo()


def test_the_result_tells_all():
    model = keras.Sequential([Input((6,)), layers.Dense(8, name="a"), constant(0.0)])
    calibrated = calibrate(model, data(6), seed=5)
    first, second = calibrated
    assert (first.std_after, second.std_before) == (1, 0)
    assert first.std_before != pytest.approx(1, rel=1e-2)
    assert calibrated.skipped == (second,)
    found = calibrated.to_dict()
    assert found["seed"] == 5
    assert found["changed"] == [model.layers[0].kernel.path]
    assert found["kernels"][0]["shape"] == [6, 8]
    text = repr(calibrated)
    assert "1 of 2 kernels calibrated" in text
    assert second.note == "constant at 0"
    assert "left as it was:" in text
    assert f"{first.std_before:.4g}" in text


def test_the_measure_before_is_behind_calibrated_kernels():
    model, x = mlp(hidden=1), data(6)
    second = to_numpy(model.layers[1].kernel)
    calibrated = calibrate(model, x)
    hidden = np.maximum(x @ to_numpy(model.layers[0].kernel), 0)
    assert calibrated[1].std_before == pytest.approx((hidden @ second).std(), rel=1e-4)


def test_trained_weights_are_refused():
    model = mlp()
    model.compile("sgd", "mse")
    model.fit(data(6), np.ones((32, 4)), verbose=0)
    before = weights(model)
    with pytest.raises(TrainedWeightsError, match="optimizer has taken 1 steps"):
        calibrate(model, data(6))
    assert_same(model, before)
    assert len(calibrate(model, data(6), overwrite=True).changed) == 4


def test_moved_biases_are_refused():
    model = mlp()
    model.layers[0].bias.assign(np.ones(16))
    with pytest.raises(TrainedWeightsError, match="started at 0 and has moved"):
        calibrate(model, data(6))


class Failing(layers.Layer):
    """Raises when it is called outside of Keras's symbolic pass."""

    error = None

    def call(self, inputs):
        if self.error is not None:
            raise self.error
        return inputs


@pytest.mark.parametrize("error", [RuntimeError("out of order"), KeyboardInterrupt()])
def test_an_error_half_way_changes_nothing(error):
    failing = Failing()
    model = keras.Sequential([Input((6,)), layers.Dense(8), failing, layers.Dense(4)])
    before = weights(model)
    failing.error = error
    with pytest.raises(type(error)) as caught:
        calibrate(model, data(6), orthogonal=True)
    assert_same(model, before)
    assert not any("call" in vars(layer) for layer in model.layers)
    assert model.layers[0].activation is keras.activations.linear
    if isinstance(error, RuntimeError):
        (note,) = caught.value.__notes__
        assert "(32, 6)" in note
        assert "The weights are unchanged" in note


BAD = {
    "nan": (np.full((4, 6), np.nan, "float32"), ValueError, r"24 NaN or Inf in x of"),
    "empty": (np.zeros((0, 6), "float32"), ValueError, r"x of shape \(0, 6\)"),
    "no batch": (iter(()), ValueError, "no batch in a tuple_iterator"),
    "nothing": ([], ValueError, r"x=\[\]"),
    "rank": (np.zeros((4, 3, 6), "float32"), ValueError, r"shape \(4, 3, 6\)"),
    "width": (np.zeros((4, 5), "float32"), ValueError, r"shape \(4, 5\)"),
    "two": ([np.ones((4, 6)), np.ones((4, 6))], ValueError, r"\(4, 6\)"),
    "scalar": (np.float32(1), ValueError, r"x of shape \(\)"),
    "number": (3, TypeError, r"3 \(int\)"),
    "numbers": ([1.0, 2.0], TypeError, r"1.0 \(float\)"),
    "text": ("data.csv", TypeError, r"'data.csv' \(str\)"),
    "texts": (np.array(["a", "b"]), TypeError, "must hold numbers.*<U1"),
    "complex": (np.ones((4, 6), "complex64"), TypeError, "must hold.*complex64"),
    "dates": (np.zeros((4, 6), "datetime64[s]"), TypeError, r"must hold.*datetime64"),
    "records": (np.zeros(4, [("a", "f4")]), TypeError, "must hold numbers.*'a'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data(case):
    x, error, text = BAD[case]
    model = mlp()
    before = weights(model)
    with pytest.raises(error, match=text):
        calibrate(model, x)
    assert_same(model, before)


CONSTANT = {
    "ones": np.ones((32, 6)),
    "zeros": np.zeros((32, 6)),
    "one row": np.tile(np.random.default_rng(0).normal(size=(1, 6)), (32, 1)),
    "whole numbers": np.full((32, 6), 2**62),
    "bytes": np.full((32, 6), 255, "uint8"),
}


@pytest.mark.parametrize("center_bias", [False, True])
@pytest.mark.parametrize("name", CONSTANT)
def test_channels_that_are_constant_are_left(name, center_bias):
    model = mlp()
    before = weights(model)
    x = CONSTANT[name]
    found = calibrate(model, x, per_channel=True, center_bias=center_bias)
    assert {kernel.note for kernel in found} == {"constant in every channel"}
    assert_same(model, before)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_inputs_of_any_scale(scale, per_channel):
    model = mlp()
    found = calibrate(model, data(6) * np.float32(scale), per_channel=per_channel)
    assert all(np.isfinite(to_numpy(one)).all() for one in model.variables)
    assert all(kernel.is_changed for kernel in found)
    assert ("multiplied by" in found[0].note) == (scale < 1)
    last = to_numpy(model(data(6) * np.float32(scale)))
    stds = last.std(axis=0 if per_channel else None)
    np.testing.assert_allclose(stds, 1, rtol=1e-2)


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_that_would_leave_their_dtype_are_refused(per_channel):
    model = keras.Sequential([Input((6,)), layers.Dense(8, dtype="mixed_float16")])
    before = weights(model)
    x = data(6) * np.float32(1e-6)
    with pytest.raises(ValueError, match=r"must fit float16\. Received: .* \de\+0[67]"):
        calibrate(model, x, per_channel=per_channel)
    assert_same(model, before)


def test_mixed_precision_keeps_the_precision_of_the_variable():
    layer = layers.Dense(8, dtype="mixed_float16")
    calibrate(keras.Sequential([Input((6,)), layer]), data(6))
    kernel = to_numpy(layer.kernel)
    assert np.any(kernel != kernel.astype("float16").astype("float32"))


def test_bad_data_by_name():
    wide, deep = Input((3,), name="wide"), Input((2,), name="deep")
    model = keras.Model(
        [wide, deep], layers.Dense(4)(layers.Concatenate()([wide, deep]))
    )
    with pytest.raises(ValueError, match=r"'wide': '\(32, 3\)'"):
        calibrate(model, {"wide": data(3)})
    with pytest.raises(ValueError, match=r"\(32, 3\), \(16, 2\)"):
        calibrate(model, [data(3), data(2, examples=16)])
    bad = data(2)
    bad[3] = np.inf
    with pytest.raises(ValueError, match=r"2 NaN or Inf in x\['deep'\]"):
        calibrate(model, {"wide": data(3), "deep": bad})


@pytest.mark.parametrize("per_channel", [False, True])
def test_outputs_that_overflow(per_channel):
    model = mlp()
    model.layers[1].kernel.assign(np.full((16, 16), 3e38))
    before = weights(model)
    with pytest.raises(ValueError, match=r"kernel \(16, 16\)\).* Received: NaN or Inf"):
        calibrate(model, data(6), per_channel=per_channel)
    assert_same(model, before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target_std": 0}, "target_std=0"),
        ({"target_std": np.inf}, "target_std=inf"),
        ({"per_channel": 1}, "per_channel=1"),
        ({"center_bias": None}, "center_bias=None"),
        ({"orthogonal": "yes"}, "orthogonal='yes'"),
        ({"training": 2}, "training=2"),
        ({"overwrite": 2}, "overwrite=2"),
        ({"seed": -1}, "seed=-1"),
        ({"only": ["nowhere"]}, r"only=\['nowhere'\]"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(ValueError, match=text):
        calibrate(mlp(), data(6), **options)


def test_models_that_cannot_be_calibrated():
    with pytest.raises(TypeError, match="model=3"):
        calibrate(3, data(6))
    with pytest.raises(UnbuiltModelError, match="not built"):
        calibrate(keras.Sequential([layers.Dense(3)], name="open"), data(6))
    empty = keras.Sequential([Input((6,)), layers.ReLU()], name="empty")
    with pytest.raises(NoKernelsError, match="model='empty'"):
        calibrate(empty, data(6))


# ---- the zoo and the large ones -------------------------------------------------

EVERYDAY = ["mobile_inverted_residual"]


def check_zoo(name):
    entry = zoo.ZOO[name]
    model, x = entry.build(), entry.example(32)
    calibrated = assert_calibrated(model, x)
    unheard = ("is not known", "no product with it was heard")  # a table of positions
    assert all(row.note.endswith(unheard) for row in calibrated.skipped)
    assert len(calibrated) > len(calibrated.skipped)


@slow_on_jax
@pytest.mark.parametrize("name", EVERYDAY)
def test_models_of_the_zoo(name):
    check_zoo(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in zoo.ZOO if n not in EVERYDAY and zoo.ZOO[n].is_called]
)
def test_the_whole_zoo(name):
    check_zoo(name)


COUNTS = {"ResNet50": 54, "EfficientNetB0": 82, "MobileNetV2": 53}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", applications.NAMES)
def test_every_application(name, training):
    keras.backend.clear_session()
    model = applications.build(name, 96)
    x = data(*model.input_shape[1:], examples=8)
    calibrated = assert_calibrated(model, x, training)
    assert calibrated.skipped == ()
    found, count = stds(model, x, training), len(calibrated)
    # What the first kernel of two in one operation gives is out of sight.
    separable = sum(path.endswith("pointwise_kernel") for path in found)
    assert len(found) + separable == count
    assert count == COUNTS.get(name, count)


# ---- the benchmark --------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    import calibration

    return calibration


def test_the_benchmark_measures(benchmark, tmp_path, capsys):
    path = tmp_path / "calibration.json"
    options = ["--models", "mlp", "--turns", "2", "--size", "16", "--json", str(path)]
    (row,) = benchmark.main(options)
    assert json.loads(path.read_text()) == [row]
    assert 10 <= row["published_passes"] <= 100
    assert row["ratio"] > 0
    assert "mlp" in capsys.readouterr().out


def test_its_rival_is_the_published_procedure(benchmark):
    model, draw = benchmark.mlp(16)
    x = draw(np.random.default_rng(0), 64).astype("float32")
    passes = benchmark.published(model, x)
    signal = x
    for layer in model.layers:
        signal = to_numpy(layer(signal))
        assert signal.std() == pytest.approx(1, abs=0.1)
    assert 10 < passes <= 21  # homogeneous: one pass measures, one finds it right
