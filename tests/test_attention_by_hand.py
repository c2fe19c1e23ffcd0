"""Attention in the forms that people write it: roles, and logits of variance one.

The oracle is NumPy: queries and keys by the weights that `apply` has drawn, and the
logits as the formula of each form has them.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_by_hand import numbers, rotary, rotated

from keras_initlab import audit, recommend

STEPS, WIDTH, HEADS = 6, 64, 4
SIZE = WIDTH // HEADS
MASK = np.triu(np.full((STEPS, STEPS), -1e9, "float32"), 1)


def heads(x, count=HEADS):
    return ops.transpose(ops.reshape(x, (-1, STEPS, count, SIZE)), (0, 2, 1, 3))


def merged(x):
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, STEPS, WIDTH))


def transposed(x):
    return ops.swapaxes(x, -1, -2)


def einsum(q, k, v):
    scores = ops.softmax(ops.einsum("bqd,bkd->bqk", q, k) / WIDTH**0.5)
    return ops.einsum("bqk,bkd->bqd", scores, v)


def einsum_key_first(q, k, v):
    scores = ops.softmax(ops.einsum("bkd,bqd->bqk", k, q) / WIDTH**0.5)
    return ops.einsum("bkd,bqk->bqd", v, scores)


def unscaled(q, k, v):
    return ops.softmax(q @ transposed(k)) @ v


def scaled_before(q, k, v):
    return ops.softmax((q * WIDTH**-0.5) @ transposed(k)) @ v


def scaled_on_both(q, k, v):
    scores = ops.matmul(q * WIDTH**-0.25, transposed(k * WIDTH**-0.25))
    return ops.matmul(ops.softmax(scores), v)


def half_scaled(q, k, v):
    return ops.softmax(q @ transposed(k) * 0.5) @ v


def of_heads(q, k, v):
    q, k, v = map(heads, (q, k, v))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * SIZE**-0.5
    return merged(ops.matmul(ops.softmax(scores, axis=-1), v))


def heads_by_einsum(q, k, v):
    q, k, v = (ops.reshape(x, (-1, STEPS, HEADS, SIZE)) for x in (q, k, v))
    scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k))
    mixed = ops.einsum("bhqk,bkhd->bqhd", scores, v)
    return ops.reshape(mixed, (-1, STEPS, WIDTH))


def masked(q, k, v):
    return ops.softmax(q @ transposed(k) / WIDTH**0.5 + ops.convert_to_tensor(MASK)) @ v


def masked_layer(q, k, v):
    mask = ops.cast(ops.ones_like(q[..., :1] @ transposed(k[..., :1])), "bool")
    return layers.Softmax()(q @ transposed(k) / WIDTH**0.5, mask=mask) @ v


def own_softmax(q, k, v):
    scores = q @ transposed(k) / WIDTH**0.5
    shares = ops.exp(scores - ops.max(scores, -1, keepdims=True))
    return shares / ops.sum(shares, -1, keepdims=True) @ v


def with_rotary(q, k, v):
    q, k, v = rotary(heads(q)), rotary(heads(k)), heads(v)
    return merged(ops.softmax(q @ transposed(k)) @ v)


def capped(q, k, v):
    scores = 50 * ops.tanh(q @ transposed(k) / WIDTH**0.5 / 50)
    return ops.softmax(scores) @ v


def capped_with_mask(q, k, v):
    scores = 50 * ops.tanh(q @ transposed(k) / WIDTH**0.5 / 50)
    places = ops.arange(STEPS)
    scores = ops.where(places[:, None] >= places[None], scores, -1e9)
    return ops.softmax(scores) @ v


def halves_put_together(x):
    """As Gemma 2 turns a head's halves into pairs."""
    first, second = ops.split(x, 2, axis=-1)
    return ops.reshape(ops.stack([first, second], axis=-1), ops.shape(x))


def of_halves(q, k, v):
    q, k, v = halves_put_together(heads(q)), halves_put_together(heads(k)), heads(v)
    return merged(ops.softmax(q @ transposed(k)) @ v)


def by_operation(q, k, v):
    q, k, v = (ops.reshape(x, (-1, STEPS, HEADS, SIZE)) for x in (q, k, v))
    return ops.reshape(ops.dot_product_attention(q, k, v), (-1, STEPS, WIDTH))


def by_operation_with_scale(q, k, v):
    q, k, v = (ops.reshape(x, (-1, STEPS, HEADS, SIZE)) for x in (q, k, v))
    x = ops.dot_product_attention(q, k, v, scale=1.0)
    return ops.reshape(x, (-1, STEPS, WIDTH))


def layer(**arguments):
    return lambda q, k, v: layers.Attention(**arguments)([q, v, k])


def whole(factor):
    return lambda q, k: factor * np.einsum("bqd,bkd->bqk", q, k)


def split(factor, turn=lambda x: x):
    def logits(q, k):
        q, k = (x.reshape(-1, STEPS, HEADS, SIZE).swapaxes(1, 2) for x in (q, k))
        return factor * np.einsum("bhqd,bhkd->bhqk", turn(q), turn(k))

    return logits


FORMS = {
    "einsum": (einsum, whole(1 / 8)),
    "no scale": (unscaled, whole(1)),
    "einsum, key first": (einsum_key_first, whole(1 / 8)),
    "scaled before": (scaled_before, whole(1 / 8)),
    "scaled on both": (scaled_on_both, whole(1 / 8)),
    "half": (half_scaled, whole(0.5)),
    "heads": (of_heads, split(1 / 4)),
    "heads by einsum, no scale": (heads_by_einsum, split(1)),
    "mask added": (masked, whole(1 / 8)),
    "Softmax with a mask": (masked_layer, whole(1 / 8)),
    "softmax by hand": (own_softmax, whole(1 / 8)),
    "rotary, no scale": (with_rotary, split(1, rotated)),
    "capped": (capped, whole(1 / 8)),
    "capped, with a mask": (capped_with_mask, whole(1 / 8)),
    "halves put together, no scale": (of_halves, split(1)),
    "operation": (by_operation, split(1 / 4)),
    "operation with scale": (by_operation_with_scale, split(1)),
    "Attention": (layer(), whole(1)),
    "Attention with scale": (layer(use_scale=True), whole(1)),
}


class Inside(layers.Layer):
    """The whole attention in one layer."""

    def __init__(self, form, parts, **others):
        super().__init__(**others)
        self.form, self.parts = form, parts

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)

    def call(self, x):
        q, k, v, o = self.parts
        return o(self.form(q(x), k(x), v(x)))


def attending(form, is_inside=False):
    inputs = Input((STEPS, WIDTH))
    parts = [layers.Dense(WIDTH, name=name) for name in "qkvo"]
    if is_inside:
        x = Inside(form, parts)(inputs)
    else:
        q, k, v, o = parts
        x = o(form(q(inputs), k(inputs), v(inputs)))
    return keras.Model(inputs, layers.Dense(2, name="out")(x + inputs)), parts


ROLES = {
    "q": "query",
    "k": "key",
    "v": "value",
    "o": "attention output",
    "out": "output",
}


def roles(advice):
    return {row.path.split("/")[-2]: row.role for row in advice}


def is_one(std, factor=1.5):
    return 1 / factor < std < factor


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_its_parts_are_told_and_its_logits_have_variance_one(name, is_inside, rng):
    form, logits = FORMS[name]
    model, (q, k, *_) = attending(form, is_inside)
    advice = recommend(model)
    assert roles(advice) == ROLES
    advice.apply(seed=0)
    x = rng.normal(size=(64, STEPS, WIDTH)).astype("float32")
    queries, keys = x @ numbers(q.kernel), x @ numbers(k.kernel)
    assert is_one(np.std(logits(queries, keys)))
    means = {row.path.split("/")[-2]: row.std for row in advice}
    assert means["q"] / 1.25 < queries.std() < means["q"] * 1.25


def test_queries_of_std_one_would_not_do():
    """The test above fails for the logits of another form."""
    x = np.random.default_rng(0).normal(size=(64, STEPS, WIDTH))
    sizes = {name: np.std(logits(x, x[::-1])) for name, (_, logits) in FORMS.items()}
    assert is_one(sizes["einsum"])
    assert not any(is_one(sizes[name]) for name in ("no scale", "half", "Attention"))


def test_additive_attention_has_its_roles():
    model, _ = attending(lambda q, k, v: layers.AdditiveAttention()([q, v, k]))
    assert roles(recommend(model)) == ROLES


@pytest.mark.parametrize("scale", [1.0, SIZE**-0.5])
def test_queries_in_groups(scale, rng):
    inputs = Input((STEPS, WIDTH))
    q = layers.Dense(WIDTH, name="q")
    k, v = (layers.Dense(WIDTH // 2, name=name) for name in "kv")
    keys, values = (ops.repeat(heads(one(inputs), 2), 2, axis=1) for one in (k, v))
    scores = ops.softmax(heads(q(inputs)) @ transposed(keys) * scale)
    x = layers.Dense(WIDTH, name="o")(merged(scores @ values))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x + inputs))
    advice = recommend(model)
    assert roles(advice) == ROLES
    advice.apply(seed=0)
    x = rng.normal(size=(64, STEPS, WIDTH)).astype("float32")
    keys = np.repeat(
        (x @ numbers(k.kernel)).reshape(-1, STEPS, 2, SIZE), 2, axis=2
    ).reshape(-1, STEPS, WIDTH)
    assert is_one(np.std(split(scale)(x @ numbers(q.kernel), keys)))


def fused_split(x):
    return ops.split(x, 3, axis=-1)


def fused_unstacked(x):
    return ops.unstack(ops.reshape(x, (-1, STEPS, 3, WIDTH)), axis=2)


def fused_sliced(x):
    return x[..., :WIDTH], x[..., WIDTH : 2 * WIDTH], x[..., 2 * WIDTH :]


@pytest.mark.parametrize("parted", [fused_split, fused_unstacked, fused_sliced])
@pytest.mark.parametrize("form", [einsum, of_heads])
def test_one_kernel_for_all_three(form, parted):
    inputs = Input((STEPS, WIDTH))
    x = form(*parted(layers.Dense(3 * WIDTH, name="fused")(inputs)))
    x = inputs + layers.Dense(WIDTH, name="o")(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    expected = {"fused": "qkv", "o": "attention output", "out": "output"}
    assert roles(recommend(model)) == expected


class Biased(layers.Layer):
    """Attention with a table of relative places, or a sink for each head."""

    def __init__(self, kind, **others):
        super().__init__(**others)
        self.kind = kind
        self.parts = [layers.Dense(WIDTH, name=name) for name in "qkvo"]

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)
        shape = (2 * STEPS - 1, HEADS) if self.kind == "places" else (HEADS,)
        self.table = self.add_weight(
            shape=shape, initializer="random_normal", name="table"
        )

    def call(self, x):
        q, k, v = (heads(part(x)) for part in self.parts[:3])
        scores = q @ transposed(k) / SIZE**0.5
        if self.kind == "places":
            steps = np.arange(STEPS)
            apart = steps[:, None] - steps[None] + STEPS - 1
            bias = ops.take(self.table, apart.astype("int32"), axis=0)
            shares = ops.softmax(scores + ops.transpose(bias, (2, 0, 1)))
        else:
            sink = ops.zeros_like(scores[..., :1])
            sink = sink + ops.reshape(self.table, (1, HEADS, 1, 1))
            shares = ops.softmax(ops.concatenate([scores, sink], -1))[..., :-1]
        return self.parts[3](merged(shares @ v))


@pytest.mark.parametrize("kind", ["places", "sink"])
def test_what_stands_beside_the_logits_is_kept(kind):
    inputs = Input((STEPS, WIDTH))
    attention = Biased(kind)
    x = inputs + attention(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    before = numbers(attention.table).copy()
    assert not [one for one in audit(model) if "table" in one.path]
    advice = recommend(model)
    found = {row.path.rsplit("/", 1)[-1]: row for row in advice}
    if "table" in found:
        assert found["table"].role == "bias"
        assert found["table"].initializer is None
    parts = {
        row.path.split("/")[-2]: row.role for row in advice if "/table" not in row.path
    }
    assert parts == ROLES
    advice.apply(seed=0)
    np.testing.assert_array_equal(numbers(attention.table), before)


def softmax_first(logits):
    return ops.top_k(ops.softmax(logits), 2)


def softmax_last(logits):
    values, indices = ops.top_k(logits, 2)
    return ops.softmax(values), indices


def softmax_first_and_shares(logits):
    values, indices = softmax_first(logits)
    return values / ops.sum(values, -1, keepdims=True), indices


@pytest.mark.parametrize(
    "choose", [softmax_first, softmax_last, softmax_first_and_shares]
)
def test_a_router_is_a_gate(choose):
    inputs = Input((WIDTH,))
    x = layers.Dense(WIDTH, "relu", name="before")(inputs)
    shares, indices = choose(layers.Dense(4, name="router")(x))
    gates = ops.sum(ops.one_hot(indices, 4) * shares[..., None], axis=-2)
    each = [layers.Dense(32, name=f"expert{i}")(x) for i in range(4)]
    y = ops.sum(ops.stack(each, axis=-1) * gates[:, None], axis=-1)
    model = keras.Model(inputs, layers.Dense(2, name="out")(y))
    found = roles(recommend(model))
    assert found["router"] == "gate"
    assert {found[f"expert{i}"] for i in range(4)} == {"hidden"}
    assert (found["before"], found["out"]) == ("hidden", "output")
