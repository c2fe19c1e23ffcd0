"""The signal policy by architecture: what each kind of kernel gets, and why."""

import math

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from zoo import built, without_draws

from keras_initlab import recommend
from keras_initlab.initializers import Orthogonal

pytestmark = [
    pytest.mark.slow_on_jax,  # golden reports say that all agree
    pytest.mark.usefixtures("nothing_is_kept"),
]

INPUT = "recurrent input"


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def by_role(advice, role):
    return [row for row in advice if row.role == role]


def std_of(row):
    """The standard deviation that a row's initializer draws with."""
    config = row.initializer.get_config()
    if "stddev" in config:
        return config["stddev"]
    scale = {"HeNormal": 2.0, "LecunNormal": 1.0}.get(type(row.initializer).__name__)
    return math.sqrt((scale or config["scale"]) / row.fans.fan_in)


# --- Residual branches ---------------------------------------------------------------


def blocks(count, normalize_first=None, normalize_last=None, normalize_sum=None):
    x = inputs = Input((16,))
    x = layers.Dense(16)(x)
    for _ in range(count):
        y = normalize_first()(x) if normalize_first else x
        y = layers.Dense(16)(layers.Dense(16)(y))
        x = x + (normalize_last()(y) if normalize_last else y)
        x = normalize_sum()(x) if normalize_sum else x
    return keras.Model(inputs, layers.Dense(16)(x))


@pytest.mark.parametrize(
    ("model", "std", "reference"),
    [
        (lambda: blocks(4), 1 / math.sqrt(4), "1803.01719"),
        (lambda: blocks(9), 1 / math.sqrt(9), "1901.09321"),
        (
            lambda: blocks(4, normalize_first=layers.LayerNormalization),
            1 / math.sqrt(2 * 4),
            "1803.01719",
        ),
        (
            lambda: blocks(4, normalize_sum=layers.LayerNormalization),
            0.5 * 4**-0.75,
            "2203.00555",
        ),
        (lambda: blocks(4, normalize_last=layers.BatchNormalization), 0.3, "1706"),
    ],
)
def test_branches_share_by_their_number(model, std, reference, monkeypatch):
    without_draws(monkeypatch)
    rows = by_role(recommend(model()), "residual branch")
    for row in rows:
        assert std_of(row) == pytest.approx(std / math.sqrt(16), rel=1e-4)
        assert reference in row.reference


def test_branches_follow_the_scale_of_their_stream():
    """Tied embeddings of variance 1/d, and branches that fit them."""
    model = built("SubclassedGPT")
    advice = recommend(model)
    tables = by_role(advice, "embedding")
    assert [std_of(row) for row in tables] == pytest.approx(
        [0.3 / math.sqrt(8)] * 2, 1e-4
    )
    advice.apply(seed=0)
    ratios = [one.ratio or 0 for one in advice.verify()]  # of eight units: they spread
    assert np.median(ratios) == pytest.approx(1, rel=0.2)
    for row in by_role(advice, "attention output"):
        assert row.kernel.branches == 4
        # The stream's variance, 0.3² · 2/8, is less than 100 epsilons of 0.001.
        assert row.std == pytest.approx(math.sqrt(100 * 1e-3 / 8), 1e-4)
        assert "GPT-2" in row.reference


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1e-2])
def test_branches_count_a_stream_as_no_smaller_than_an_epsilon_lets_through(epsilon):
    """A stream of looked-up rows, of std 0.03."""
    x = layers.Embedding(9, 16)(inputs := Input((8,), dtype="int32"))
    for _ in range(2):
        y = layers.Dense(32, "gelu")(layers.LayerNormalization(epsilon=epsilon)(x))
        x = x + layers.Dense(16)(y)
    model = keras.Model(inputs, layers.LayerNormalization(epsilon=epsilon)(x))
    closers = [row for row in recommend(model) if row.role == "residual branch"]
    assert len(closers) == 2
    for row in closers:
        stream = max(0.03**2, 100 * epsilon)
        assert row.std == pytest.approx(math.sqrt(stream / 4), rel=0.01)


@pytest.mark.parametrize("is_normalized", [False, True])
def test_what_is_made_of_rows_is_no_larger_than_glorots(is_normalized):
    """A mean of looked-up rows is small, and grows as they learn."""
    inputs = Input((16,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(99, 32)(inputs))
    if is_normalized:
        x = layers.LayerNormalization()(x)
    for width in (64, 64):
        x = layers.Dense(width, "relu")(x)
    rows = recommend(keras.Model(inputs, layers.Dense(3)(x)))
    for row in (rows[1], rows[2]):
        assert ("grows with rows" in row.reason) != is_normalized
        if not is_normalized:
            assert std_of(row) == pytest.approx(math.sqrt(2 / sum(row.shape)), rel=1e-3)


# --- Attention, gates, cells ---------------------------------------------------------


def test_attention_logits_have_unit_variance(rng):
    inputs = Input((12, 64))
    attention = layers.MultiHeadAttention(4, 16)
    model = keras.Model(inputs, attention(inputs, inputs))
    advice = recommend(model)
    advice.apply(seed=0)
    x = rng.normal(size=(200, 64))
    query, key = (
        np.einsum("bd,dhk->bhk", x, to_numpy(by_role(advice, role)[0].kernel.variable))
        for role in ("query", "key")
    )
    logits = np.einsum("bhk,chk->hbc", query, key) / math.sqrt(16)
    assert logits.std() == pytest.approx(1, abs=0.1)
    assert "1706.03762" in by_role(advice, "query")[0].reference


def test_a_router_chooses_evenly_at_first():
    row = next(r for r in recommend(built("RawExperts")) if r.role == "gate")
    assert std_of(row) == pytest.approx(math.sqrt(0.1 / 8), rel=1e-4)
    assert "2101.03961" in row.reference


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_states(rng, units, steps):
    """The rms of LSTM states if gates get of 5 inputs thrice what Glorot's gives."""
    std = 3 * math.sqrt(2 * 5 / (5 + 4 * units))
    h = c = np.zeros((400, units))
    kernels = [np.linalg.qr(rng.normal(size=(units, units)))[0] for _ in range(4)]
    for _ in range(steps):
        i, f, g, o = (std * rng.normal(size=h.shape) + h @ kernel for kernel in kernels)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return math.sqrt(np.mean(h**2))


def gru_states(rng, units, steps):
    std = 3 * math.sqrt(2 * 5 / (5 + 3 * units))
    h = np.zeros((400, units))
    kernels = [np.linalg.qr(rng.normal(size=(units, units)))[0] for _ in range(3)]
    for _ in range(steps):
        z, r, g = (std * rng.normal(size=h.shape) for _ in range(3))
        z, r = sigmoid(z + h @ kernels[0]), sigmoid(r + h @ kernels[1])
        h = z * h + (1 - z) * np.tanh(g + r * (h @ kernels[2]))
    return math.sqrt(np.mean(h**2))


def simple_states(rng, units, steps):
    h = np.zeros((400, units))
    kernel = np.linalg.qr(rng.normal(size=(units, units)))[0]
    for _ in range(steps):
        h = np.tanh(math.sqrt(2) / steps * rng.normal(size=h.shape) + h @ kernel)
    return math.sqrt(np.mean(h**2))


@pytest.mark.parametrize(
    ("layer", "states"),
    [
        (layers.LSTM, lstm_states),
        (layers.GRU, gru_states),
        (layers.SimpleRNN, simple_states),
    ],
)
def test_what_reads_a_state_makes_up_for_its_size(layer, states, rng, monkeypatch):
    without_draws(monkeypatch)
    inputs = Input((40, 5))
    model = keras.Model(inputs, layers.Dense(4)(layer(32)(inputs)))
    expected = 1 / states(rng, 32, 40)
    assert std_of(recommend(model)[-1]) * math.sqrt(32) == pytest.approx(expected, 0.12)


@pytest.mark.parametrize("steps", [20, 100])
def test_a_cell_without_gates_remembers_its_first_step(steps, rng):
    """A change of the first input is worth about 1/e of itself at the end."""
    model = keras.Sequential([Input((steps, 4)), layers.SimpleRNN(64)])
    recommend(model).apply(seed=0)
    kernel, recurrent, _ = map(to_numpy, model.layers[0].weights)
    x = rng.normal(size=(200, steps, 4))
    h, d = np.zeros((200, 64)), rng.normal(size=(200, 64))
    first = np.linalg.norm(d)
    for step in range(steps):
        h = np.tanh(x[:, step] @ kernel + h @ recurrent)
        d = (d @ recurrent) * (1 - h**2)
    assert 0.2 < np.linalg.norm(d) / first < 0.7


@pytest.mark.parametrize(
    ("layer", "std"),
    [
        (layers.SimpleRNN(8), math.sqrt(2) / 30),
        (layers.Bidirectional(layers.SimpleRNN(8)), math.sqrt(2) / 30),
        (layers.RNN([layers.SimpleRNNCell(8)] * 1), math.sqrt(2) / 30),
        (layers.SimpleRNN(8, "relu"), 1.0),
        (layers.LSTM(8), 1.0),
        (layers.GRU(8), 1.0),
        # Three times Glorot's: from 9 inputs to 4 and 3 gates.
        (layers.LSTM(99), 3 * math.sqrt(18 / 405)),
        (layers.GRU(99), 3 * math.sqrt(18 / 306)),
    ],
    ids=lambda case: getattr(case, "name", ""),
)
def test_inputs_are_small_where_nothing_guards_the_state(layer, std):
    for row in by_role(recommend(keras.Sequential([Input((30, 9)), layer])), INPUT):
        assert std_of(row) * 3 == pytest.approx(std, rel=1e-3)


def test_sequences_of_open_length_count_as_fifty_steps():
    model = keras.Sequential([Input((None, 9)), layers.SimpleRNN(8)])
    (row,) = by_role(recommend(model), INPUT)
    assert std_of(row) * 3 == pytest.approx(math.sqrt(2) / 50, rel=1e-3)


def test_cells_in_a_stack_read_the_cell_below():
    rows = by_role(recommend(built("stacked_cells")), "recurrent input")
    assert [row.kernel.edges[0].source for row in rows] == [None, 1, 3]
    assert std_of(rows[1]) > 1.5 / math.sqrt(rows[1].fans.fan_in)


HEADS = {
    "small features": (lambda x: 0.01 * x, True),
    "features of unit variance": (lambda x: x, False),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_at_most_three_times_glorots(name):
    function, is_bounded = HEADS[name]
    inputs = Input((32,))
    x = function(layers.LayerNormalization()(inputs))
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (row,) = recommend(model)
    largest = 3 * math.sqrt(2 / 42)
    assert std_of(row) == pytest.approx(
        largest if is_bounded else 0.8 / math.sqrt(32), rel=1e-2
    )
    assert f"logits of std {row.std:.3g}" in row.reason
    model.compile("adam", "mse")  # values of their own scale are reached
    (row,) = recommend(model)
    assert row.std == pytest.approx(0.3, rel=1e-2)


def test_the_forget_gate_stays_open():
    advice = recommend(built("lstm_stack"))
    assert all("forget" in row.reason for row in by_role(advice, "recurrent"))
    model = keras.Sequential([Input((4, 3)), layers.LSTM(6)])
    recommend(model).apply(seed=0)
    bias = to_numpy(model.layers[0].cell.bias)
    np.testing.assert_array_equal(bias, [0] * 6 + [1] * 6 + [0] * 12)


def test_convolutions_inside_cells_keep_the_state():
    for row in by_role(recommend(built("conv_lstm")), "recurrent"):
        assert std_of(row) == pytest.approx(1 / math.sqrt(row.fans.fan_in), rel=1e-4)


# --- What reaches a kernel -----------------------------------------------------------


def test_both_kernels_of_a_separable_convolution_count(rng):
    """The second reads what the first gives, of unit variance, not the layer's ReLU."""
    inputs = Input((8, 8, 16))
    x = layers.Conv2D(32, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.SeparableConv2D(64, 3, name="both")(x))
    first, second = list(recommend(model))[1:]
    assert std_of(first) == pytest.approx(math.sqrt(2 / 9), rel=1e-4)  # by 3 × 3
    assert std_of(second) == pytest.approx(math.sqrt(1 / 32), rel=0.1)  # measured
    recommend(model).apply(seed=0)
    outputs = to_numpy(model(rng.normal(size=(64, 8, 8, 16)).astype("float32")))
    assert outputs.std() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention_closes_with_what_its_values_are_not_what_it_reads(name):
    def model():
        inputs, memory = Input((6, 16)), Input((5, 16))
        if name == "MultiHeadAttention":
            attention = layers.MultiHeadAttention(2, 8)
        else:
            attention = layers.GroupQueryAttention(8, 4, 2)
        x = attention(inputs, memory)
        return keras.Model([inputs, memory], layers.Dense(4)(x))

    small, large = recommend(model()), recommend(model(), input_std=10)
    for role, ratio in (("query", 10), ("value", 10), ("attention output", 1)):
        (one,), (other,) = by_role(small, role), by_role(large, role)
        assert std_of(one) / std_of(other) == pytest.approx(ratio, rel=1e-4)


def test_cross_attention_adds_its_share_of_the_stream():
    """However small the words' embeddings are that it reads."""
    rows = by_role(recommend(built("sequence_to_sequence_transformer")), "value")
    closing = by_role(
        recommend(built("sequence_to_sequence_transformer")), "attention output"
    )
    assert any(std_of(row) > 1 for row in rows)  # makes up for embeddings
    assert all(row.std < 0.2 for row in closing)


UNIT = {
    "layer": (lambda: layers.UnitNormalization(), 16),
    "operation": (lambda: lambda x: ops.normalize(x), 16),
    "channels": (lambda: layers.UnitNormalization(axis=1), 5),
    "both": (lambda: layers.UnitNormalization(axis=[1, 2]), 5 * 16),
}


@pytest.mark.parametrize("name", UNIT)
def test_entries_of_unit_vectors_are_small(name, rng):
    make, size = UNIT[name]
    inputs = Input((5, 16))
    x = make()(layers.Dense(16)(inputs))
    model = keras.Model(inputs, layers.Dense(64)(x))
    last = recommend(model)[1]
    assert std_of(last) == pytest.approx(math.sqrt(size / 16), rel=1e-4)
    recommend(model).apply(seed=0)
    outputs = to_numpy(model(rng.normal(size=(64, 5, 16)).astype("float32")))
    assert outputs.std() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize(
    ("axis", "square"), [(-1, (24 * 0.5 + 8) / 32), (1, (5 * 0.5 + 5) / 10)]
)
def test_joined_signals_count_by_their_sizes(axis, square):
    inputs = Input((5, 4))
    widths = (24, 8) if axis == -1 else (32, 32)
    parts = [
        layers.Dense(width, activation)(inputs)
        for width, activation in zip(widths, ("relu", None), strict=True)
    ]
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate(axis)(parts)))
    assert std_of(recommend(model)[-1]) == pytest.approx(
        1 / math.sqrt(32 * square), rel=0.05
    )


# --- Embeddings, tied weights, frozen neighbors --------------------------------------


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("lstm_stack", 0.03),
        ("transformer_encoder", 0.03 * math.sqrt(1 / 2)),
        ("SubclassedGPT", 0.3 * math.sqrt(1 / 8)),
    ],
)
def test_embeddings_by_what_they_are_for(name, std):
    rows = by_role(recommend(built(name)), "embedding")
    assert [std_of(row) for row in rows] == pytest.approx([std] * len(rows), rel=1e-4)


def test_places_weigh_as_much_as_the_patches_they_are_added_to():
    patches, places = Input((6, 9)), Input((6,), dtype="int32")
    x = layers.Dense(16)(patches) + layers.Embedding(6, 16)(places)
    model = keras.Model([patches, places], layers.Dense(3)(x))
    (row,) = by_role(recommend(model), "embedding")
    assert std_of(row) == pytest.approx(math.sqrt(1 / 2), rel=1e-4)


def test_a_tied_decoder_undoes_its_encoder():
    rows = recommend(built("TiedAutoencoder"))
    assert all(isinstance(row.initializer, Orthogonal) for row in rows)
    assert all("transposed" in row.reason for row in rows)


def frozen_body(rng):
    """A frozen body with units that agree, and what it gives on data."""
    x = rng.normal(size=(64, 16)).astype("float32")
    body = keras.Sequential([Input((16,)), layers.Dense(32, "relu", name="body")])
    body.trainable = False
    kernel = np.abs(rng.normal(size=(16, 32))) * 0.1
    x += 2  # inputs that are not independent: their mean adds up
    body.layers[0].kernel.assign(ops.cast(kernel, "float32"))
    return body, x, np.maximum(x @ kernel, 0)


def test_data_tell_what_frozen_layers_give(rng):
    body, x, features = frozen_body(rng)
    model = keras.Sequential([Input((16,)), body, layers.Dense(4), layers.Dense(3)])
    before = [to_numpy(v) for v in model.variables]
    row = recommend(model, data=x)[1]
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)
    expected = 1 / math.sqrt(32 * np.mean(features**2))
    assert std_of(row) == pytest.approx(expected, rel=1e-3)
    assert np.mean(features**2) > 4


def test_without_data_frozen_layers_are_not_taken_for_silent(rng):
    body, _, _ = frozen_body(rng)
    body.layers[0].kernel.assign(0.01 * body.layers[0].kernel)
    model = keras.Sequential([Input((16,)), body, layers.Dense(4), layers.Dense(3)])
    assert std_of(recommend(model)[1]) == pytest.approx(1 / math.sqrt(32 / 2), 0.02)


def test_new_layers_read_what_frozen_ones_give():
    model = keras.Sequential([Input((64,)), layers.Dense(256), layers.Dense(4)])
    model.layers[0].trainable = False
    frozen = model.layers[0].kernel
    frozen.assign(ops.cast(3.0 * to_numpy(frozen) / to_numpy(frozen).std(), "float32"))
    row = recommend(model)[1]
    assert std_of(row) == pytest.approx(1 / math.sqrt(256 * 64 * 9), rel=1e-3)
    assert row.confidence < 0.7
    assert "MatchPretrained" in row.alternatives


# --- Outputs -------------------------------------------------------------------------


def classifier(activation=None, units=4, loss=None, **dense):
    model = keras.Sequential(
        [Input((8,)), layers.Dense(units, activation, name="head", **dense)]
    )
    if loss is not None:
        model.compile("sgd", loss)
    return model


LOGITS, VALUES, UNKNOWN = 0.8, 0.3, 1.0
STARTS = [
    ("softmax", None, LOGITS),
    ("sigmoid", None, LOGITS),
    (None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), LOGITS),
    (None, keras.losses.BinaryCrossentropy(from_logits=True), LOGITS),
    (None, "categorical_crossentropy", LOGITS),
    (None, keras.losses.binary_crossentropy, LOGITS),
    (None, {"head": "categorical_crossentropy"}, LOGITS),
    (None, ["sparse_categorical_crossentropy"], LOGITS),
    (None, "mse", VALUES),
    (None, {"head": "mae"}, VALUES),
    (None, keras.losses.Huber(), VALUES),
    (None, "poisson", UNKNOWN),  # takes rates, not values
    ("tanh", "mse", UNKNOWN),  # bounds what it may predict by itself
    ("tanh", None, UNKNOWN),
    (None, None, UNKNOWN),
]


@pytest.mark.parametrize(("activation", "loss", "std"), STARTS)
def test_outputs_start_small_where_the_loss_is_known(activation, loss, std):
    row = recommend(classifier(activation, loss=loss))[0]
    assert std_of(row) == pytest.approx(std / math.sqrt(8), rel=1e-4)
    assert row.forward_gain == pytest.approx(std)
    told = f"of std {std:g}, so that the loss starts near"
    assert (told in row.reason) == (std != UNKNOWN)


def test_a_loss_by_output_counts_for_that_output():
    inputs = Input((8,))
    heads = {
        "kind": layers.Dense(3, name="a")(inputs),
        "value": layers.Dense(1, name="b")(inputs),
    }
    model = keras.Model(inputs, heads)
    model.compile("sgd", {"kind": "categorical_crossentropy", "value": "mse"})
    rows = {row.path.split("/")[-2]: row for row in recommend(model)}
    assert "logits" in rows["a"].reason
    assert "predictions" in rows["b"].reason


def test_cross_entropy_starts_at_the_log_of_the_classes(rng):
    model = classifier("softmax", units=10)
    recommend(model).apply(seed=0)
    p = to_numpy(model(rng.normal(size=(512, 8)).astype("float32")))
    y = rng.integers(0, 10, 512)
    # Each logit costs half its variance.
    expected = math.log(10) + LOGITS**2 / 2
    assert -np.log(p[np.arange(512), y]).mean() == pytest.approx(expected, abs=0.1)


PRIORS = [0.7, 0.2, 0.06, 0.04]


@pytest.mark.parametrize("policy", ["signal", "rules"])
def test_class_priors_are_what_the_model_starts_with(policy, rng):
    model = classifier("softmax")
    advice = recommend(model, class_priors=PRIORS, policy=policy)
    advice.apply(seed=0)
    np.testing.assert_allclose(to_numpy(model.layers[0].bias), np.log(PRIORS), 1e-4)
    assert advice[0].bias_offset == pytest.approx(np.log(PRIORS), abs=1e-4)
    assert len(advice.to_dict()["kernels"][0]["bias_offset"]) == 4
    assert "1708.02002" in advice[0].reference
    if policy == "signal":
        p = to_numpy(model(rng.normal(size=(512, 8)).astype("float32"))).mean(axis=0)
        kernel = to_numpy(model.layers[0].kernel)
        drawn = np.log(PRIORS) + rng.normal(size=(4096, 8)) @ kernel
        shares = np.exp(drawn) / np.exp(drawn).sum(1, keepdims=True)
        np.testing.assert_allclose(p, shares.mean(0), rtol=0.2)
    advice.apply(seed=1)  # what `apply` wrote does not look trained
    assert recommend(model)[0].bias_offset is None


def test_class_priors_of_sigmoids():
    model = classifier("sigmoid", units=1)
    recommend(model, class_priors=0.01).apply(seed=0)
    bias = to_numpy(model.layers[0].bias)
    np.testing.assert_allclose(bias, [math.log(0.01 / 0.99)], rtol=1e-4)


def test_class_priors_beside_a_centered_bias():
    hidden = [layers.Dense(8, "sigmoid") for _ in range(5)]
    head = layers.Dense(4, "softmax")
    model = keras.Sequential([Input((8,)), *hidden, head])
    advice = recommend(model, class_priors=PRIORS)
    advice.apply(seed=0)
    centering = -0.5 * to_numpy(head.kernel).sum(axis=0)
    np.testing.assert_allclose(to_numpy(head.bias), centering + np.log(PRIORS), 1e-3)
    advice.apply(seed=1)


def test_class_priors_by_output_name():
    model = built("multi_task")
    row = next(
        r
        for r in recommend(model, class_priors={"class": [0.5, 0.3, 0.2]})
        if r.bias_offset
    )
    assert row.path.startswith("class/")


@pytest.mark.parametrize(
    ("model", "priors", "received"),
    [
        (classifier, [0.5, 0.5], r"Received: priors for one of 0"),
        (lambda: classifier("softmax"), [0.5, 0.5], r"Received: class_priors=\[0.5, "),
        (lambda: classifier("softmax"), [0.5] * 4, r"sum to 1 .*=\[0.5, 0.5, 0.5"),
        (lambda: classifier("softmax"), [1, 0, 0, 0], r"Received: class_priors=\[1, 0"),
        (lambda: classifier("sigmoid", 1), 1.5, "Received: class_priors=1.5"),
        (lambda: classifier("sigmoid", 1), {"tail": 0.5}, r"for \['tail'\].*'head'"),
        (
            lambda: classifier("sigmoid", 1, use_bias=False),
            0.5,
            "Received: output 'head' without one",
        ),
    ],
)
def test_class_priors_that_do_not_fit(model, priors, received):
    with pytest.raises(ValueError, match=received):
        recommend(model(), class_priors=priors)


# --- Data ----------------------------------------------------------------------------


def two_inputs():
    small, large = Input((8,), name="small"), Input((8,), name="large")
    x = layers.Dense(4, name="a")(small) + layers.Dense(4, name="b")(large)
    return keras.Model({"small": small, "large": large}, layers.Dense(2)(x))


def in_batches(data):
    """An iterable that is no sequence, as a data set is."""
    return ({key: value[i::2] for key, value in data.items()} for i in range(2))


class Batches(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.data, np.zeros(len(self.data["small"]))


@pytest.mark.parametrize(
    "given",
    [
        lambda data: data,
        lambda data: [data["large"], data["small"]],  # as Keras sorts them
        lambda data: (data["large"], data["small"]),
        lambda data: iter([(data, np.zeros(64))]),
        Batches,
    ],
)
def test_every_input_has_its_own_scale(given, rng):
    data = {
        "small": 0.1 * rng.normal(size=(64, 8)),
        "large": 50 * rng.normal(size=(64, 8)),
    }
    model = two_inputs()
    assert [tensor.name for tensor in model.inputs] == ["large", "small"]
    rows = {row.path.split("/")[-2]: row for row in recommend(model, data=given(data))}
    for name, key in (("a", "small"), ("b", "large")):
        scale = math.sqrt(np.mean(data[key] ** 2))
        assert std_of(rows[name]) == pytest.approx(1 / scale / math.sqrt(8), rel=1e-3)
        assert rows[name].forward_gain == pytest.approx(1 / scale, rel=1e-3)


def test_the_first_batch_of_a_data_set_counts(rng):
    data = {"small": rng.normal(size=(64, 8)), "large": 9 * rng.normal(size=(64, 8))}
    first = {key: value[0::2] for key, value in data.items()}
    model = two_inputs()
    expected = recommend(model, data=first).to_dict()
    assert recommend(model, data=in_batches(data)).to_dict() == expected
    assert recommend(model, data=data).to_dict() != expected


def test_word_numbers_are_no_signal(rng):
    words, rest = Input((5,), dtype="int32", name="words"), Input((4,), name="rest")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(words))
    x = layers.Concatenate()([x, layers.Dense(4, name="own")(rest)])
    model = keras.Model([words, rest], layers.Dense(2)(x))
    data = [np.zeros((16, 5), "int32"), 2 * rng.normal(size=(16, 4))]
    rows = recommend(model, data=data)
    assert rows.to_dict() != recommend(model).to_dict()
    own = next(row for row in rows if row.path.startswith("own/"))
    scale = math.sqrt(np.mean(data[1] ** 2))
    assert own.forward_gain == pytest.approx(1 / scale, rel=1e-3)


@pytest.mark.tensorflow
def test_a_tensorflow_data_set(rng):
    import tensorflow as tf

    x = 5 * rng.normal(size=(64, 8)).astype("float32")
    model = classifier()
    dataset = tf.data.Dataset.from_tensor_slices((x, x)).batch(32)
    expected = recommend(model, data=x[:32]).to_dict()
    assert recommend(model, data=dataset).to_dict() == expected


def test_bad_data_of_one_of_two_inputs(rng):
    data = {"small": rng.normal(size=(4, 8)), "large": np.zeros((4, 8))}
    with pytest.raises(ValueError, match=r"data of shape \(4, 8\), all zero"):
        recommend(two_inputs(), data=data)
