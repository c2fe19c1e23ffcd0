"""Which initializer is chosen, and whether the model then does what the row says."""

import json
import math
import sys
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

import keras_initlab
from keras_initlab import NoKernelsError, UnbuiltModelError, UnsupportedModelError
from keras_initlab.initializers import (
    DeltaOrthogonal,
    MirroredOrthogonal,
    Orthogonal,
)

recommend = keras_initlab.recommend


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def activation_layer(activation):
    if isinstance(activation, keras.Layer):
        return type(activation).from_config(activation.get_config() | {"name": None})
    return layers.Activation(activation)


pytestmark = pytest.mark.slow_on_jax  # golden reports say that all agree

# What a model starts with seldom matters here, and zeros need no compiling on JAX.
ZEROS = {"kernel_initializer": "zeros"}


def stack(activation, widths, inputs=64, outputs=64, **dense):
    """Dense layers, each with its activation as a layer of its own, and an output."""
    dense = ZEROS | dense
    model = [Input((inputs,))]
    for width in widths:
        model += [layers.Dense(width, **dense), activation_layer(activation)]
    return keras.Sequential([*model, layers.Dense(outputs, **dense)])


def conv_stack(activation, hidden, *ending, channels=16, size=8, **conv):
    model = [Input((size, size, 3))]
    for _ in range(hidden):
        layer = layers.Conv2D(channels, 3, padding="same", **ZEROS, **conv)
        model += [layer, activation_layer(activation)]
    return keras.Sequential([*model, *ending])


def pre_activations(model, advice, x):
    """Each kernel's output on `x`, in the order of the rows."""
    outputs = [row.kernel.layer.output for row in advice]
    model = keras.Model(model.inputs, outputs)
    return [to_numpy(output) for output in as_list(model([x]))]


def as_list(outputs):
    return outputs if isinstance(outputs, (list, tuple)) else [outputs]


def gaussian_for(model, rng, examples=256):
    return rng.normal(size=(examples, *model.input_shape[1:])).astype("float32")


def classes(advice):
    return [type(row.initializer).__name__ for row in advice]


# --- Numbers from the activations alone ----------------------------------------------

Z = np.linspace(-12, 12, 960_001)
WEIGHTS = np.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi) * (Z[1] - Z[0])
GATE = 1 / (1 + np.exp(-Z))
EXPONENTIAL = np.expm1(np.minimum(Z, 0))
VALUES = {
    "relu": np.maximum(Z, 0),
    "elu": np.where(Z > 0, Z, EXPONENTIAL),
    "selu": 1.05070098 * np.where(Z > 0, Z, 1.67326324 * EXPONENTIAL),
    "mish": Z * np.tanh(np.logaddexp(0, Z)),
    "gelu": Z / 2 * (1 + np.tanh(0.79788456 * (Z + 0.044715 * Z**3))),
    "tanh": np.tanh(Z),
    "sigmoid": GATE,
    "hard_sigmoid": np.clip(Z / 6 + 0.5, 0, 1),
}


def mean(values):
    return float(WEIGHTS @ values)


def mirrored_gain(name):
    odd = VALUES[name] - VALUES[name][::-1]
    return 1 / math.sqrt(mean(odd**2))


def scale(name):
    return 1 / mean(VALUES[name] ** 2)


# --- Constructions for plain stretches -----------------------------------------------

MIRRORED = [
    ("relu", 1.0),
    ("gelu", 1.0),
    ("silu", 1.0),
    ("hard_silu", 1.0),
    ("softplus", 1.0),
    ("leaky_relu", 1 / 1.2),
    ("elu", mirrored_gain("elu")),
    ("selu", mirrored_gain("selu")),
    ("mish", mirrored_gain("mish")),
    (layers.ReLU(), 1.0),
    (layers.PReLU(), 1.0),  # its slopes start at zero
    (layers.LeakyReLU(negative_slope=0.5), 1 / 1.5),
]


def name_of(case):
    return case if isinstance(case, str) else getattr(case, "name", None)


@pytest.mark.parametrize(("activation", "gain"), MIRRORED, ids=name_of)
def test_mirrored_pairs(activation, gain):
    advice = recommend(stack(activation, [64] * 5, outputs=10))
    assert classes(advice) == ["MirroredOrthogonal"] * 6
    flags = [
        (r.initializer.mirror_inputs, r.initializer.mirror_outputs) for r in advice
    ]
    assert flags == [(False, True), *[(True, True)] * 4, (True, False)]
    gains = [row.initializer.gain for row in advice]
    assert gains == pytest.approx([1.0] + [gain] * 5, rel=1e-4)
    # Reading 32 differences into 64 units spreads them thin.
    widening = recommend(stack(activation, [64] * 5, outputs=64))[-1].initializer.gain
    assert widening == pytest.approx(gain * math.sqrt(2), rel=1e-4)
    assert all("1702.08591" in row.reference for row in advice)


@pytest.mark.parametrize(
    ("activation", "curve", "gain"),
    [
        ("tanh", np.tanh, 1.0),
        ("softsign", lambda z: z / (1 + np.abs(z)), 1.0),
        ("hard_tanh", lambda z: np.clip(z, -1, 1), 1.0),
        (lambda x: ops.tanh(2 * x), lambda z: np.tanh(2 * z), 0.5),
    ],
    ids=name_of,
)
def test_orthogonal_at_the_linear_point(activation, curve, gain):
    advice = recommend(stack(activation, [64] * 5))
    assert classes(advice) == ["Orthogonal"] * 6
    gains = [row.initializer.gain for row in advice]
    left = 1.0
    for _ in range(5):
        left = gain * math.sqrt(mean(curve(left * Z) ** 2))
    assert left < 0.8  # what the curves have taken, the last does not bring back
    assert gains == pytest.approx([1.0] + [gain] * 5, rel=0.01)
    assert {row.centered_mean for row in advice} == {None}
    assert all("1711.04735" in row.reference for row in advice)


@pytest.mark.parametrize(
    ("activation", "curve", "std"),
    [
        ("sigmoid", lambda z: 1 / (1 + np.exp(-z)), 1.0),
        ("hard_sigmoid", lambda z: np.clip(z / 6 + 0.5, 0, 1), 1.0),
        ("sparse_sigmoid", lambda z: np.clip(z / 2 + 0.5, 0, 1), 0.5),
        (lambda x: ops.sigmoid(4 * x), lambda z: 1 / (1 + np.exp(-4 * z)), 0.25),
    ],
    ids=name_of,
)
def test_centered(activation, curve, std):
    advice = recommend(stack(activation, [64] * 5))
    assert classes(advice) == ["Orthogonal"] * 6
    gains = [row.initializer.gain for row in advice]
    gain = 1 / math.sqrt(mean((curve(std * Z) - 0.5) ** 2))
    assert gains == pytest.approx([std] + [std * gain] * 4 + [gain], rel=1e-3)
    means = [row.centered_mean for row in advice]
    assert means == [None] + [pytest.approx(0.5, abs=1e-6)] * 5


@pytest.mark.parametrize(
    ("activation", "std"),
    [("sigmoid", 1), ("hard_sigmoid", 1), ("sparse_sigmoid", 0.5)],
)
def test_centered_biases_take_the_mean_out(activation, std, rng):
    model = stack(activation, [64] * 20)
    advice = recommend(model)
    advice.apply(seed=0)
    for row in advice[1:]:
        layer = row.kernel.layer
        bias = -0.5 * to_numpy(layer.kernel).sum(axis=0)
        np.testing.assert_allclose(to_numpy(layer.bias), bias, atol=1e-4)
    assert not np.any(to_numpy(advice[0].kernel.layer.bias))
    hidden = pre_activations(model, advice, gaussian_for(model, rng))[:-1]
    for values in hidden:
        assert abs(values.mean()) < 0.05
        assert np.abs(values.mean(axis=0)).max() < 0.4  # 256 examples: 0.0625 each
        assert values.std() == pytest.approx(std, rel=0.1)


def test_without_centering_the_mean_piles_up(rng):
    """The check above can fail: He's kernels under sigmoid."""
    model = stack("sigmoid", [64] * 5, kernel_initializer="he_normal")
    values = pre_activations(model, recommend(model), gaussian_for(model, rng))[3]
    assert np.abs(values.mean(axis=0)).max() > 0.4


def test_convolutions_get_delta_kernels():
    ending = (layers.GlobalAveragePooling2D(), layers.Dense(10))
    mirrored = recommend(conv_stack("relu", 5, *ending))
    assert classes(mirrored) == ["MirroredOrthogonal"] * 6
    tanh = recommend(conv_stack("tanh", 5, *ending))
    # The first reads its whole window.
    delta = ["DeltaOrthogonal"] * 4
    assert classes(tanh) == ["Orthogonal", *delta, "Orthogonal"]
    assert [row.initializer.spread for row in mirrored] == [True] + [False] * 5


@pytest.mark.parametrize("hidden", [0, 1, 2, 3])
def test_shallow_networks_get_the_textbook_scale(hidden):
    for name in ("relu", "tanh", "gelu"):
        advice = recommend(stack(name, [64] * hidden))
        advice.apply(seed=0)
        assert {row.centered_mean for row in advice} == {None}
        scales = [1.0] + [scale(name)] * hidden
        for row, expected in zip(advice, scales, strict=True):
            kernel = to_numpy(row.kernel.variable)
            std = math.sqrt(expected / 64)
            # Keras's truncated normal varies less than the normal this allows for.
            assert kernel.std() == pytest.approx(
                std, rel=5 / math.sqrt(2 * kernel.size)
            )


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_a_sigmoid_is_centered_at_any_depth(hidden):
    """Its mean, 6/7 of its mean square, says nothing of the example."""
    advice = recommend(stack("sigmoid", [64] * hidden))
    assert [row.centered_mean for row in advice] == [None] + [0.5] * hidden
    variance = mean_of(lambda z: (1 / (1 + np.exp(-z)) - 0.5) ** 2)
    gains = [row.initializer.get_config()["gain"] for row in advice]
    assert gains[1:] == pytest.approx([1 / math.sqrt(variance)] * hidden, rel=1e-4)
    assert {row.forward_gain for row in advice} == {1.0}


@pytest.mark.parametrize("hidden", [4, 100])
def test_a_head_does_not_make_up_for_what_tanh_shrinks(hidden):
    """The signal's std, layer by layer; values are to have 0.3 if there is more."""
    std = 1.0
    for _ in range(hidden):
        std = math.sqrt(mean_of(lambda z, std=std: np.tanh(std * z) ** 2))
    model = stack("tanh", [64] * hidden)
    model.compile(loss="mse")
    head = list(recommend(model))[-1]
    assert (std > 0.3) == (hidden == 4)
    gain = head.initializer.get_config()["gain"]
    assert gain == pytest.approx(min(0.3 / std, 1.0), rel=1e-3)


def mean_of(function):
    """The mean of a smooth function of N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(np.sum(weights * function(nodes)) / np.sum(weights))


def test_the_textbook_scale_by_name():
    names = [type(row.initializer).__name__ for row in recommend(stack("relu", [64]))]
    assert names == ["LecunNormal", "HeNormal"]


# --- What breaks a stretch, and what does not ----------------------------------------


def with_batch_normalization():
    hidden = [
        layer
        for _ in range(5)
        for layer in (layers.Dense(64), layers.BatchNormalization(), layers.ReLU())
    ]
    return keras.Sequential([Input((64,)), *hidden, layers.Dense(10)])


def frozen_in_the_middle():
    model = stack("relu", [64] * 8)
    model.layers[2 * 3].trainable = False
    return model


def shared_layer():
    inputs, shared = Input((64,)), layers.Dense(64, "relu", name="shared")
    x = layers.Dense(64, "relu")(inputs)
    for _ in range(4):
        x = shared(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(64, "relu")(x)))


def max_pooling():
    hidden = [
        layer
        for _ in range(5)
        for layer in (
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2, padding="same"),
        )
    ]
    return keras.Sequential(
        [Input((8, 8, 3)), *hidden, layers.Flatten(), layers.Dense(10)]
    )


def dropout_and_noise():
    hidden = [
        layer
        for _ in range(5)
        for layer in (layers.Dense(64, "relu"), layers.Dropout(0.5))
    ]
    return keras.Sequential([Input((64,)), *hidden, layers.Dense(10)])


def two_heads():
    x = inputs = Input((64,))
    for _ in range(5):
        x = layers.Dense(64, "relu")(x)
    heads = [layers.Dense(10, name="one")(x), layers.Dense(20, name="two")(x)]
    return keras.Model(inputs, heads)


FIRST, MIDDLE, LAST = "mirror_outputs", "mirror_inputs mirror_outputs", "mirror_inputs"
STRETCH = [FIRST, MIDDLE, MIDDLE, MIDDLE, LAST]


def look(row):
    """The row in a word: the mirrored sides, or the initializer's class."""
    if isinstance(row.initializer, MirroredOrthogonal):
        sides = ("mirror_inputs", "mirror_outputs")
        return " ".join(side for side in sides if getattr(row.initializer, side))
    return type(row.initializer).__name__


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: stack("relu", [64] * 4), [FIRST, *[MIDDLE] * 3, LAST]),
        (dropout_and_noise, [FIRST, *[MIDDLE] * 4, LAST]),
        (two_heads, [FIRST, *[MIDDLE] * 4, LAST, LAST]),
        (with_batch_normalization, [*["VarianceScaling"] * 5, "HeNormal"]),
        (
            frozen_in_the_middle,
            ["LecunNormal", "HeNormal", "HeNormal", "NoneType", *STRETCH],
        ),
        (shared_layer, ["LecunNormal", *["HeNormal"] * 3]),
        (max_pooling, ["LecunNormal", *["VarianceScaling"] * 5]),
        (
            lambda: conv_stack("relu", 5, layers.Flatten(), layers.Dense(10)),
            [FIRST, *[MIDDLE] * 3, LAST, "HeNormal"],
        ),
        (
            lambda: stack("sigmoid", [64] * 5, use_bias=False),
            ["LecunNormal", *["VarianceScaling"] * 5],
        ),
        (
            lambda: stack("relu", [64, 64, 1, 64, 64, 64, 64]),
            ["LecunNormal", "HeNormal", "HeNormal", *STRETCH],
        ),
        (
            lambda: conv_stack("relu", 5, layers.Flatten()),
            [FIRST, *[MIDDLE] * 3, LAST],
        ),
    ],
)
def test_surroundings(model, expected):
    assert [look(row) for row in recommend(model())] == expected


def test_a_frozen_kernel_says_so():
    row = recommend(frozen_in_the_middle())[3]
    assert row.initializer is None
    assert "frozen" in row.reason


def test_behind_pooling_a_run_tells_what_is_read():
    rows = recommend(max_pooling())
    assert ["measured" in row.reason for row in rows] == [False, *[True] * 5]
    assert all(row.confidence > 0.6 for row in rows[1:])


def test_residual_branches_share_the_variance():
    rows = [row for row in recommend(residual()) if row.role == "residual branch"]
    assert len(rows) == 4
    for row in rows:
        assert row.initializer.scale == pytest.approx(scale("relu") / 4)
        assert "4 residual branches" in row.reason
        assert row.forward_gain == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("widths", "issues"),
    [
        ([64] * 3, ()),
        ([64] * 21, ("very_deep",)),
        ([64, 9, 64], ("narrow_bottleneck",)),
        ([2000, 2000], ()),  # every scale follows the fans
        ([20, 500, 20], ("irregular_width",)),
    ],
)
def test_issues_come_with_advice(widths, issues):
    advice = recommend(stack("relu", widths))
    assert advice.issues == issues
    assert len(advice.advice) == len(issues)


def test_normalization_takes_the_depth_issue_away():
    hidden = [
        layer
        for _ in range(21)
        for layer in (layers.Dense(8), layers.LayerNormalization(), layers.ReLU())
    ]
    model = keras.Sequential([Input((8,)), *hidden, layers.Dense(16)])
    assert "very_deep" not in recommend(model).issues


# --- Measured: the model does what the rows say --------------------------------------


def residual(width=64):
    """Pre-activation blocks without normalization."""
    inputs = Input((width,))
    x = layers.Dense(width)(inputs)
    for _ in range(4):
        y = layers.Dense(width)(layers.ReLU()(x))
        x = x + layers.Dense(width)(layers.ReLU()(y))
    return keras.Model(inputs, layers.Dense(width)(layers.ReLU()(x)))


def residual_after(width=64):
    """Blocks with an activation after the addition, without normalization."""
    inputs = Input((width,))
    x = layers.ReLU()(layers.Dense(width)(inputs))
    for _ in range(4):
        y = layers.Dense(width)(layers.ReLU()(layers.Dense(width)(x)))
        x = layers.ReLU()(x + y)
    return keras.Model(inputs, layers.Dense(width)(x))


def normalized(normalization, width=512):
    hidden = [
        layer
        for _ in range(4)
        for layer in (layers.Dense(width), normalization(), layers.ReLU())
    ]
    return keras.Sequential([Input((width,)), *hidden, layers.Dense(width)])


UNEQUAL = [100, 30, 77, 64]
CHAINS = {
    **{
        name: lambda name=name: stack(name, [64] * 6)
        for name in ("relu", "gelu", "softplus", "leaky_relu", "elu", "selu", "mish")
    },
    **{
        name: lambda name=name: stack(name, [64] * 6)
        for name in ("tanh", "softsign", "hard_tanh", "sigmoid", "hard_sigmoid")
    },
    "relu unequal": lambda: stack("relu", UNEQUAL),
    "tanh unequal": lambda: stack("tanh", UNEQUAL),
    "sigmoid unequal": lambda: stack("sigmoid", UNEQUAL),
    "gelu odd": lambda: stack("gelu", [65, 33, 65, 33]),
    "relu shallow": lambda: stack("relu", [512] * 3, inputs=512, outputs=512),
    "tanh shallow": lambda: stack("tanh", [512] * 3, inputs=512, outputs=512),
    "silu shallow": lambda: stack("silu", [512] * 3, inputs=512, outputs=512),
    "sigmoid without bias": lambda: stack(
        "sigmoid", [512] * 4, inputs=512, outputs=512, use_bias=False
    ),
    "batch normalization": lambda: normalized(layers.BatchNormalization),
    "layer normalization": lambda: normalized(layers.LayerNormalization),
    "convolutions": lambda: conv_stack("relu", 5, layers.Conv2D(16, 1), size=16),
    "convolutions, tanh": lambda: conv_stack("tanh", 5, layers.Conv2D(16, 1), size=16),
    "flattened": lambda: conv_stack("gelu", 5, layers.Flatten(), layers.Dense(512)),
    "flattened, tanh": lambda: conv_stack(
        "tanh", 5, layers.Flatten(), layers.Dense(512)
    ),
    "convolutions, sigmoid": lambda: conv_stack(
        "sigmoid", 5, layers.Conv2D(16, 1), size=16
    ),
}


@pytest.mark.parametrize("build", CHAINS.values(), ids=CHAINS)
def test_every_layer_passes_on_what_its_row_promises(build, rng):
    model = build()
    advice = recommend(model)
    advice.apply(seed=0)
    x = gaussian_for(model, rng)
    before = x.std()
    for row, values in zip(advice, pre_activations(model, advice, x), strict=True):
        assert values.std() / before == pytest.approx(row.forward_gain, rel=0.1), row
        before = values.std()


def test_the_check_fails_on_keras_default(rng):
    model = stack("relu", [64] * 6, kernel_initializer="glorot_uniform")
    values = pre_activations(model, recommend(model), gaussian_for(model, rng))
    ratios = [after.std() / before.std() for before, after in pairwise(values)]
    assert all(ratio < 0.9 for ratio in ratios)


def test_residual_streams_keep_their_scale(rng):
    model = residual(width=512)
    advice = recommend(model)
    advice.apply(seed=0)
    stds = [v.std() for v in pre_activations(model, advice, gaussian_for(model, rng))]
    expected = [0.5 if row.role == "residual branch" else 1.0 for row in advice]
    assert stds == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("agree", [True, False])
def test_an_average_over_positions_is_measured_on_data(agree, rng):
    """Positions that agree lose nothing in an average, those that do not lose most."""
    ending = (layers.GlobalAveragePooling2D(), layers.Dense(16))
    model = conv_stack("relu", 5, *ending, channels=64, size=12)
    x = rng.normal(size=(64, 1 if agree else 12, 1 if agree else 12, 3))
    x = np.broadcast_to(x, (64, 12, 12, 3)).astype("float32")
    advice = recommend(model, data=x)
    advice.apply(seed=0)
    values = pre_activations(model, advice, x)
    ratio = values[-1].std() / values[-2].std()
    assert ratio == pytest.approx(1, rel=0.25)


def attention():
    inputs = Input((16, 64))
    x = layers.MultiHeadAttention(4, 16)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(64)(x))


def after_lstm():
    inputs = Input((10, 64))
    return keras.Model(inputs, layers.Dense(64)(layers.LSTM(64)(inputs)))


def after_max_pooling():
    return conv_stack("relu", 1, layers.MaxPooling2D(2), layers.Conv2D(64, 1), size=16)


def gated():
    inputs = Input((64,))
    gate = layers.Dense(64, "sigmoid")(inputs)
    x = layers.Multiply()([gate, layers.Dense(64)(inputs)])
    return keras.Model(inputs, layers.Dense(64)(x))


def separable():
    inputs = Input((16, 16, 64))
    x = layers.ReLU()(layers.Conv2D(64, 1)(inputs))
    return keras.Model(inputs, layers.SeparableConv2D(64, 3, padding="same")(x))


@pytest.mark.parametrize(
    "build",
    [
        residual,
        residual_after,
        after_max_pooling,
        attention,
        after_lstm,
        gated,
        separable,
    ],
    ids=lambda build: build.__name__,
)
def test_the_last_layer_has_unit_variance_or_its_row_doubts_it(build, rng):
    """A confidence of 0.75 says that the variance is known."""
    model = build()
    advice = recommend(model)
    advice.apply(seed=0, overwrite=True)
    std = to_numpy(model(gaussian_for(model, rng, examples=64))).std()
    assert std == pytest.approx(1, abs=0.2) or advice[-1].confidence < 0.75, std


def bias_gradients(model, rng):
    """Norms of the gradients of the pre-activations, one a layer.

    Zero biases become minus their gradient in one step of SGD at rate 1, to the last
    digit and on any backend.
    """
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda y, prediction: ops.sum(y * prediction),
        run_eagerly=True,
    )
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    before = [to_numpy(layer.bias) for layer in dense]
    x = gaussian_for(model, rng)
    model.train_on_batch(x, rng.normal(size=(len(x), model.output_shape[-1])))
    return [
        np.linalg.norm(to_numpy(layer.bias) - bias)
        for layer, bias in zip(dense, before, strict=True)
    ]


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid", "tanh"])
def test_gradients_arrive_as_promised_through_20_layers(activation, rng):
    model = stack(activation, [64] * 20)
    advice = recommend(model)
    advice.apply(seed=0)
    norms = bias_gradients(model, rng)
    promised = math.prod(row.backward_gain for row in advice[1:-1])
    assert 1 / 1.5 < norms[0] / norms[-2] / promised < 1.5


@pytest.mark.parametrize("activation", ["relu", "gelu", "leaky_relu", "sigmoid"])
def test_every_backward_gain_is_the_gradients(activation, rng):
    """From each pre-activation to the one before, root mean square over the units."""
    model = stack(activation, [64, 64, 100, 64], outputs=10)
    advice = recommend(model)
    advice.apply(seed=0)
    norms = bias_gradients(model, rng)
    sizes = [
        norm / math.sqrt(row.shape[-1]) for norm, row in zip(norms, advice, strict=True)
    ]
    measured = [before / after for before, after in pairwise(sizes)]
    promised = [row.backward_gain for row in advice[1:]]
    assert measured == pytest.approx(promised, rel=0.2)


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid"])
def test_gradients_vanish_with_keras_default(activation, rng):
    model = stack(activation, [64] * 20, kernel_initializer="glorot_uniform")
    norms = bias_gradients(model, rng)
    assert norms[0] / norms[-2] < 0.01


def singular_values(model):
    """Of the derivative of the outputs by the inputs, at a random point."""
    units = model.input_shape[-1]
    point = np.random.default_rng(1).normal(size=(1, units)).astype("float32")
    step = 1e-2
    nearby = np.concatenate([point, point + step * np.eye(units, dtype="float32")])
    outputs = to_numpy(model(nearby))
    return np.linalg.svd((outputs[1:] - outputs[0]) / step, compute_uv=False)


@pytest.mark.parametrize(
    ("activation", "spread"),
    [("relu", 1.01), ("gelu", 1.01), ("sigmoid", 30), ("tanh", 30)],
)
def test_directions_survive_20_layers(activation, spread):
    model = stack(
        activation, [64] * 20, outputs=32, kernel_initializer="glorot_uniform"
    )
    default = singular_values(model)
    assert default[0] / default[-1] > 1000
    recommend(model).apply(seed=0)
    values = singular_values(model)
    assert values[0] / values[-1] < spread


@pytest.mark.parametrize(
    "activation", ["relu", "gelu", "silu", "hard_silu", "softplus", "leaky_relu"]
)
def test_50_layers_are_exactly_linear(activation, rng):
    model = stack(activation, [64] * 50)
    recommend(model).apply(seed=0)
    x, y = (rng.normal(size=(8, 64)).astype("float32") for _ in range(2))
    f_x, f_y, f_sum = (to_numpy(model(values)) for values in (x, y, x + y))
    np.testing.assert_allclose(f_sum, f_x + f_y, atol=1e-4)
    assert f_sum.std() == pytest.approx((x + y).std(), rel=0.1)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_1000_convolutions_keep_the_signal_both_ways(activation, rng):
    import tensorflow as tf

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(40_000)  # Keras follows a chain of layers by recursion
    try:
        model = conv_stack(activation, 1000, size=6)
        advice = recommend(model)
        kinds = {(type(r.initializer), r.initializer.spread) for r in advice[1:]}
        assert kinds == {(MirroredOrthogonal, False)}  # delta kernels
        advice.apply(seed=0)
    finally:
        sys.setrecursionlimit(limit)
    x = tf.constant(rng.normal(size=(16, 6, 6, 3)).astype("float32"))
    heard = []
    with tf.GradientTape() as tape:
        tape.watch(x)
        for layer in model.layers:
            x = layer(x)
            if layer.weights:
                heard.append(x)
        weights = rng.normal(size=x.shape).astype("float32")
        loss = tf.reduce_sum(x * weights)
    forward = [float(np.std(z)) for z in heard[1:]]
    backward = [float(np.std(np.asarray(g))) for g in tape.gradient(loss, heard[1:])]
    assert max(forward) < 1.25 * min(forward)
    assert max(backward) < 1.25 * min(backward)


def test_50_layers_of_he_are_not_linear(rng):
    model = stack("relu", [64] * 50, kernel_initializer="he_normal")
    x, y = (rng.normal(size=(8, 64)).astype("float32") for _ in range(2))
    f_x, f_y, f_sum = (to_numpy(model(values)) for values in (x, y, x + y))
    assert np.abs(f_sum - f_x - f_y).max() > 1e-2


# --- True fans -----------------------------------------------------------------------

FANS = [
    # layer, input shape, {variable: fan_in}
    (layers.Dense(64), (64,), {"kernel": 64}),
    (layers.Conv2D(16, 3), (8, 8, 64), {"kernel": 9 * 64}),
    (layers.Conv2D(64, 3, groups=8), (8, 8, 64), {"kernel": 9 * 8}),
    (layers.DepthwiseConv2D(3), (8, 8, 64), {"kernel": 9}),
    (layers.DepthwiseConv1D(5, depth_multiplier=4), (8, 64), {"kernel": 5}),
    (layers.Conv2DTranspose(16, 3), (8, 8, 64), {"kernel": 9 * 64}),
    (layers.Conv2DTranspose(16, 4, strides=2), (8, 8, 64), {"kernel": 16 * 64 / 4}),
    (
        layers.EinsumDense("bhd,hde->bhe", (8, 64)),
        (8, 64),
        {"kernel": 64},
    ),
    (
        layers.SeparableConv2D(64, 3),
        (8, 8, 64),
        {"depthwise_kernel": 9, "pointwise_kernel": 64},
    ),
    (layers.SimpleRNN(64, "relu"), (5, 64), {"kernel": 64}),
]


@pytest.mark.parametrize(
    ("layer", "shape", "fans"), FANS, ids=lambda case: getattr(case, "name", "")
)
def test_true_fans_decide_the_scale(layer, shape, fans):
    model = keras.Sequential([Input(shape), layer])
    advice = recommend(model)
    advice.apply(seed=0)
    rows = {row.path.rpartition("/")[2]: row for row in advice}
    for name, fan_in in fans.items():
        assert rows[name].fans.fan_in == fan_in
        kernel = to_numpy(rows[name].kernel.variable)
        error = 5 / math.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(1 / math.sqrt(fan_in), rel=error)


def test_attention_reads_its_true_fans():
    model = attention()
    advice = recommend(model)
    advice.apply(seed=0)
    assert advice[3].fans == (64, 64)
    for row in advice[:3]:
        assert row.fans == (64, 64)
        kernel = to_numpy(row.kernel.variable)
        error = 5 / math.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(1 / 8, rel=error), row.role


def test_recurrent_kernels_are_orthogonal_gate_by_gate():
    inputs = Input((5, 16))
    both = layers.Bidirectional(layers.LSTM(16, return_sequences=True), "sum")
    model = keras.Model(inputs, layers.Dense(16)(layers.GRU(16)(both(inputs))))
    advice = recommend(model)
    advice.apply(seed=0, overwrite=True)
    rows = [row for row in advice if row.role == "recurrent"]
    assert [row.initializer.gates for row in rows] == [4, 4, 3]
    for row in rows:
        assert isinstance(row.initializer, Orthogonal)
        count = row.initializer.gates or 1
        gates = np.split(to_numpy(row.kernel.variable), count, axis=1)
        for gate in gates:
            np.testing.assert_allclose(gate.T @ gate, np.eye(16), atol=1e-5)


def test_embeddings_start_small():
    model = keras.Sequential([Input((5,), dtype="int32"), layers.Embedding(200, 50)])
    advice = recommend(model)
    advice.apply(seed=0)
    assert advice[0].role == "embedding"
    assert to_numpy(model.layers[0].embeddings).std() == pytest.approx(0.03, rel=0.04)


# --- The inputs' scale ---------------------------------------------------------------


@pytest.mark.parametrize("hidden", [2, 6])
def test_input_std_sets_the_first_scale(hidden, rng):
    width = 512 if hidden == 2 else 64  # random kernels need many units for a mean
    model = stack("relu", [width] * hidden, inputs=width, outputs=width)
    advice = recommend(model, input_std=3.0)
    advice.apply(seed=0)
    x = 3 * gaussian_for(model, rng)
    stds = [values.std() for values in pre_activations(model, advice, x)]
    assert stds == pytest.approx([1.0] * len(stds), rel=0.15)
    unchanged = recommend(model)
    assert classes(advice)[1:] == classes(unchanged)[1:]


def test_the_first_gain_is_relative_to_the_inputs():
    model = stack("relu", [64] * 6)
    assert recommend(model, input_std=4.0)[0].forward_gain == pytest.approx(1 / 4)


def test_data_measures_input_std(rng):
    model = stack("relu", [64] * 6)
    data = 3 * gaussian_for(model, rng)
    root_mean_square = math.sqrt(np.mean(data.astype("float64") ** 2))
    expected = recommend(model, input_std=root_mean_square).to_dict()
    assert recommend(model, data=data).to_dict() == expected
    assert recommend(model, data=[data]).to_dict() == expected
    assert recommend(model).to_dict() != expected


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (
            {"policy": "best"},
            r"one of 'calibrated', 'rules', 'signal'\. Received: policy='best'",
        ),
        ({"input_std": 0}, r"positive, finite number\. Received: input_std=0"),
        ({"input_std": -1.0}, r"Received: input_std=-1\.0"),
        ({"input_std": math.nan}, "Received: input_std=nan"),
        ({"input_std": "1"}, "Received: input_std='1'"),
        (
            {"data": np.zeros((3, 64))},
            r"not all zero\. Received: data of shape \(3, 64\), all zero",
        ),
        (
            {"data": np.ones((3, 64)), "input_std": 2.0},
            r"left out.*Received: input_std=2 beside data of type ndarray\. Leave out",
        ),
        ({"data": []}, r"Received: data=\[\]"),
        ({"data": np.full((1, 64), math.inf)}, "Received: 64 NaN or Inf in data of"),
        ({"data": [np.full((1, 64), math.nan)]}, r"64 NaN or Inf in data\[0\] of"),
    ],
)
def test_bad_arguments_are_refused(arguments, received):
    with pytest.raises(ValueError, match=received):
        recommend(stack("relu", [64]), **arguments)


@pytest.mark.parametrize("policy", ["signal", "rules"])
@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: keras.Sequential([layers.Dense(3)]), UnbuiltModelError),
        (lambda: layers.Dense(3), UnsupportedModelError),
        (lambda: None, UnsupportedModelError),
        (lambda: keras.Sequential([Input((3,)), layers.ReLU()]), NoKernelsError),
    ],
)
def test_models_that_cannot_be_read_are_refused(policy, build, error):
    with pytest.raises(error, match="Received: model="):
        recommend(build(), policy=policy)


def test_looking_changes_nothing():
    model = with_batch_normalization()
    before = [to_numpy(weight) for weight in model.weights]
    for policy in ("signal", "rules"):
        repr(recommend(model, policy=policy))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


# --- The report ----------------------------------------------------------------------


def test_rows_are_a_sequence():
    model = stack("relu", [64] * 3)
    advice = recommend(model)
    assert len(advice) == len(list(advice)) == 4
    assert advice[0].path == model.layers[0].kernel.path
    assert advice[-1].role == "output"
    assert [row.path for row in advice[1:3]] == [row.path for row in advice][1:3]
    assert advice[1] in advice
    assert [row.depth for row in advice] == [1, 2, 3, 4]
    assert [row.shape for row in advice] == [(64, 64)] * 4
    assert [row.activation for row in advice] == ["relu"] * 3 + ["linear"]
    with pytest.raises(IndexError):
        advice[4]


@pytest.mark.parametrize(
    "build", [residual, frozen_in_the_middle, attention, max_pooling]
)
@pytest.mark.parametrize("policy", ["signal", "rules"])
def test_rows_hold_together(build, policy):
    for row in recommend(build(), policy=policy):
        assert 0 <= row.confidence <= 1
        assert row.reason
        assert (row.initializer is None) == (row.reference == "")
        for gain in (row.forward_gain, row.backward_gain):
            assert gain is None or (math.isfinite(gain) and gain > 0)
        if row.initializer is not None:
            keras.initializers.serialize(row.initializer)


@pytest.mark.parametrize("policy", ["signal", "rules"])
def test_the_table_shows_every_kernel_with_its_reason(policy):
    model = keras.Sequential(
        [
            Input((32,)),
            *[layers.Dense(32, "relu", name=f"first{i}") for i in range(5)],
            layers.Dense(8, name="last"),
        ],
        name="shown",
    )
    advice = recommend(model, policy=policy)
    assert str(advice) == repr(advice)
    words = " ".join(str(advice).split())
    assert "shown" in words
    assert "first0" in words
    assert "last" in words
    for row in advice:
        assert row.role in words
        assert " ".join(row.reason.split()) in words
        assert " ".join(row.reference.split()) in words
    for sentence in (*advice.issues, *advice.advice):
        assert sentence in words


def test_the_table_groups_equal_kernels():
    few = repr(recommend(stack("relu", [64] * 6))).splitlines()
    many = repr(recommend(stack("relu", [64] * 50))).splitlines()
    assert len(many) < len(few) + 6  # an issue and its advice
    assert len(many) < 30
    assert max(map(len, many)) <= 140


def test_the_table_of_a_large_model_stays_readable():
    lines = repr(recommend(residual())).splitlines()
    assert len(lines) < 60


def test_json_loads_and_is_always_the_same():
    model = residual()
    advice = recommend(model)
    assert json.loads(advice.to_json()) == advice.to_dict()
    assert advice.to_json() == advice.to_json() == recommend(model).to_json()
    assert "\n" not in advice.to_json(indent=None)
    found = advice.to_dict()
    assert found["model"] == model.name
    assert found["policy"] == "signal"
    assert [kernel["path"] for kernel in found["kernels"]] == [r.path for r in advice]
    first = found["kernels"][0]
    assert first["initializer"]["class_name"] == "LecunNormal"
    assert first["reason"] == advice[0].reason
    assert first["shape"] == [64, 64]


@pytest.mark.parametrize("build", [frozen_in_the_middle, attention, max_pooling])
def test_json_of_every_kind_of_row(build):
    for policy in ("signal", "rules"):
        advice = recommend(build(), policy=policy)
        assert json.loads(advice.to_json()) == advice.to_dict()


def test_the_initializers_can_be_given_to_layers():
    for row in recommend(conv_stack("tanh", 5, layers.Flatten(), layers.Dense(4))):
        kernel = row.initializer(row.shape)
        assert tuple(kernel.shape) == row.shape
    assert isinstance(recommend(conv_stack("tanh", 5))[1].initializer, DeltaOrthogonal)
