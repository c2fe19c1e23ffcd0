"""Biases of any rank stay what they are; places beside tokens are embeddings.

A weight that is added to what a kernel gives is its bias, whether it has a row for each
expert or head or not, and no embedding that is looked up.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_by_hand import numbers

from keras_initlab import audit, calibrate, recommend

pytestmark = [pytest.mark.once_a_day, pytest.mark.slow_on_jax]

EXPERTS, UNITS, WIDTH = 8, 16, 64


class Stacked(layers.Layer):
    """Multiplies by a kernel and adds a bias of several axes."""

    def __init__(self, run, kernel, bias, start="zeros", **others):
        super().__init__(**others)
        self.run, self.shapes, self.start = run, (kernel, bias), start

    def build(self, input_shape):
        kernel, bias = self.shapes
        self.k = self.add_weight(
            shape=kernel, initializer="glorot_uniform", name="stack"
        )
        self.b = self.add_weight(shape=bias, initializer=self.start, name="shift")

    def call(self, x):
        return self.run(x, self.k, self.b)


def by_einsum(x, k, b):
    return ops.relu(ops.einsum("bi,eiu->beu", x, k) + b)


def by_tensordot(x, k, b):
    return ops.relu(ops.tensordot(x, k, axes=1) + b)


def bias_first(x, k, b):
    return ops.relu(b + ops.einsum("bi,ieu->beu", x, k))


def by_add(x, k, b):
    return ops.relu(ops.add(ops.einsum("bi,ieu->beu", x, k), b[None]))


def subtracted(x, k, b):
    return ops.relu(ops.einsum("bi,ieu->beu", x, k) - b)


def by_matmul(x, k, b):
    return ops.relu(ops.matmul(x[:, None, None], k)[:, :, 0] + b)


def of_heads(x, k, b):
    """Queries and keys by the einsums of an attention over three parts of 20."""
    x = ops.reshape(x, (-1, 3, 20))
    return ops.tanh(ops.einsum("bsi,ihd->bshd", x, k) + b)


def at_once(x, k, b):
    return ops.relu(x @ k + b)


# The form, the shapes of kernel and bias, and the fan_in.
FORMS = {
    "einsum": (by_einsum, (EXPERTS, 60, UNITS), (EXPERTS, UNITS), 60),
    "tensordot": (by_tensordot, (60, EXPERTS, UNITS), (EXPERTS, UNITS), 60),
    "bias first": (bias_first, (60, EXPERTS, UNITS), (EXPERTS, UNITS), 60),
    "with an axis in front": (by_add, (60, EXPERTS, UNITS), (EXPERTS, UNITS), 60),
    "subtracted": (subtracted, (60, EXPERTS, UNITS), (EXPERTS, UNITS), 60),
    "matmul": (by_matmul, (EXPERTS, 60, UNITS), (EXPERTS, UNITS), 60),
    "heads": (of_heads, (20, 4, UNITS), (4, UNITS), 20),
    "rank 3": (by_tensordot, (60, EXPERTS, UNITS), (1, EXPERTS, UNITS), 60),
    "rank 1": (at_once, (60, UNITS), (UNITS,), 60),
    "a row": (at_once, (60, UNITS), (1, UNITS), 60),
}


def stacked(name, start="zeros"):
    form, kernel, bias, _ = FORMS[name]
    inputs, own = Input((60,)), Stacked(form, kernel, bias, start, name="own")
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(own(inputs))))
    return model, own


@pytest.mark.parametrize("name", FORMS)
def test_a_bias_of_any_rank_is_never_drawn(name):
    model, own = stacked(name)
    advice = recommend(model)
    assert not [row for row in advice if row.path.endswith("shift")]
    row = advice[0]
    assert (row.path, row.role) == ("own/stack", "hidden")
    assert row.fans.fan_in == FORMS[name][-1]
    advice.apply(seed=0)
    assert not numbers(own.b).any()
    # Inputs of variance one: 1/fan_in. The next rule, Keras's fans, is far from it.
    assert numbers(own.k).std() == pytest.approx(FORMS[name][-1] ** -0.5, rel=0.1)


@pytest.mark.parametrize("name", FORMS)
def test_audit_finds_nothing_in_it(name):
    model, _ = stacked(name)
    assert not [one for one in audit(model) if "shift" in one.path]
    recommend(model).apply(seed=0)
    assert not list(audit(model))


def test_audit_does_look_at_such_weights():
    model, own = stacked("einsum")
    values = np.zeros(own.b.shape, "float32")
    values[0, 0] = np.nan
    own.b.assign(values)
    assert [one.path for one in audit(model)] == ["own/shift"]


# ---- places beside tokens ------------------------------------------------------------


class Start(layers.Layer):
    """Puts learned tokens before patches, and adds a place to each."""

    def __init__(self, tokens, rank, is_late=False, **others):
        super().__init__(**others)
        self.tokens, self.rank, self.is_late = tokens, rank, is_late

    def build(self, input_shape):
        _, count, width = input_shape
        if self.tokens:
            self.cls = self.add_weight(
                shape=(1, self.tokens, width), initializer="zeros", name="tokens"
            )
        count += 0 if self.is_late else self.tokens
        self.places = self.add_weight(
            shape=(1, count, width)[3 - self.rank :],
            initializer="random_normal",
            name="places",
        )

    def call(self, x):
        if self.is_late:
            return self.joined(x + self.places)
        return self.joined(x) + self.places

    def joined(self, x):
        if not self.tokens:
            return x
        tokens = ops.repeat(self.cls, ops.shape(x)[0], axis=0)
        return ops.concatenate([tokens, x], axis=1)


def transformer(start, is_inside=False):
    inputs = Input((32, 32, 3))
    patches = layers.Conv2D(WIDTH, 8, 8, name="patches")
    x = start(layers.Reshape((16, WIDTH))(patches(inputs)))
    normalized = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 16)(normalized, normalized)
    x = layers.LayerNormalization()(x)[:, 0]
    return keras.Model(inputs, layers.Dense(10)(x))


def rows_of(model):
    return {row.path.rsplit("/", 1)[-1]: row for row in recommend(model)}


ALONE = [(0, 2, False), (0, 3, False)]
BESIDE = [
    (tokens, rank, is_late)
    for tokens in (1, 4)
    for rank in (2, 3)
    for is_late in (False, True)
]


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("form", BESIDE)
def test_places_weigh_the_same_with_and_without_tokens(form):
    plain = rows_of(transformer(Start(0, 3)))["places"]
    places = rows_of(transformer(Start(*form)))["places"]
    assert places.role == plain.role == "embedding"
    assert places.std == pytest.approx(plain.std, rel=0.25)
    assert plain.std > 0.5  # as much as patches, unlike words that are looked up


@pytest.mark.parametrize("form", ALONE)
def test_places_alone_are_embeddings(form):
    start = Start(*form)
    model = transformer(start)
    assert rows_of(model)["places"].role == "embedding"
    recommend(model).apply(seed=0)
    found = numbers(start.places).std()
    assert found == pytest.approx(rows_of(model)["places"].std, rel=0.1)


@pytest.mark.parametrize("form", BESIDE)
def test_tokens_and_places_are_drawn_as_their_rows_say(form):
    start = Start(*form)
    model = transformer(start)
    rows = rows_of(model)
    recommend(model).apply(seed=0)
    for name, weight in {"places": start.places, "tokens": start.cls}.items():
        if name in rows and rows[name].initializer is not None:
            assert rows[name].role == "embedding"
            found = numbers(weight).std()
            assert found == pytest.approx(rows[name].std, rel=0.35)


# ---- what closes a branch, what reads a table back ----------------------------------


def body(depth, ending):
    inputs = Input((16,), dtype="int32")
    x = layers.Embedding(200, WIDTH)(inputs)
    for number in range(depth):
        y = layers.Dense(128, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH, name=f"down{number}")(y)
    return keras.Model(inputs, ending(x))


ENDINGS = {
    "normalization": lambda x: layers.LayerNormalization()(x),
    "sum": lambda x: x,
    "pool": lambda x: layers.GlobalAveragePooling1D()(x),
    "rms": lambda x: x * ops.rsqrt(ops.mean(x * x, -1, keepdims=True) + 1e-6),
    "head": lambda x: layers.Dense(3)(layers.LayerNormalization()(x)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_last_branch_of_a_body_is_a_branch(ending):
    advice = recommend(body(4, ENDINGS[ending]))
    rows = [row for row in advice if "down" in row.path]
    assert [row.role for row in rows] == ["residual branch"] * 4
    stds = [row.std for row in rows]
    assert max(stds) < 1.5 * min(stds)
    assert max(stds) < 0.75  # branches of one over the root of four, no outputs


def language_model(is_tied, width=128):
    words = layers.ReversibleEmbedding(200, width, tie_weights=is_tied, name="words")
    inputs = Input((16,), dtype="int32")
    x = layers.LayerNormalization()(layers.Dense(width, "gelu")(words(inputs)))
    return keras.Model(inputs, words(x, reverse=True))


def test_a_table_read_back_untied_is_an_output():
    advice = recommend(language_model(False))
    (row,) = [row for row in advice if "reverse" in row.path]
    assert (row.role, row.fans.fan_in) == ("output", 128)
    (words,) = [row for row in advice if row.role == "embedding"]
    assert words.std == pytest.approx(0.03)


def test_a_tied_table_gives_small_logits(rng):
    model = language_model(True)
    advice = recommend(model)
    (row,) = [row for row in advice if row.role == "embedding"]
    assert "transposed" in row.reason
    advice.apply(seed=0)
    x = ops.convert_to_tensor(rng.integers(0, 200, (32, 16)))
    assert 0.2 < np.std(numbers(model(x))) < 0.6


def test_calibrated_logits_of_a_tied_table_stay_small(rng):
    """What stands before them is scaled, not the table, which is looked up too."""
    model = language_model(True)
    words = rng.integers(0, 200, (32, 16))
    calibrate(model, words)
    assert np.std(numbers(model(ops.convert_to_tensor(words)))) < 2


@pytest.mark.parametrize("count", [2, 3])
def test_look_ups_of_one_table_are_no_tie(count):
    words = layers.ReversibleEmbedding(200, WIDTH, name="words")
    inputs = [Input((16,), dtype="int32") for _ in range(count)]
    x = layers.Concatenate()([words(one) for one in inputs])
    advice = recommend(keras.Model(inputs, layers.Dense(3)(x)))
    assert [row.role for row in advice] == ["embedding", "output"]
    assert "transposed" not in advice[0].reason
    assert advice[0].std == pytest.approx(0.03)
