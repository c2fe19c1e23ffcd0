"""Signals that are silent at first, activations that are steep, recurrences by hand."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import audit, recommend

WIDTH = 32


def std_of(variable):
    return float(np.std(ops.convert_to_numpy(variable)))


def usual(kernel):
    return 1 / np.sqrt(kernel.shape[0])


def ended(inputs, x):
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


# --- Silent at first -----------------------------------------------------------------


class Factor(layers.Layer):
    """A learned factor for each channel, or one for all, that starts small."""

    def __init__(self, value, is_scalar=False, **others):
        super().__init__(**others)
        self.value, self.is_scalar = value, is_scalar

    def build(self, input_shape):
        self.factor = self.add_weight(
            shape=() if self.is_scalar else (input_shape[-1],),
            initializer=keras.initializers.Constant(self.value),
            name="factor",
        )

    def call(self, x):
        return x * ops.tanh(self.factor)


@pytest.mark.parametrize("is_scalar", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-4])
def test_what_reads_a_silent_signal_is_not_blown_up(value, is_scalar):
    inputs = Input((8,))
    x = layers.Dense(WIDTH)(inputs)
    after = layers.Dense(WIDTH)
    y = after(Factor(value, is_scalar)(layers.Dense(WIDTH, "relu")(x)))
    model = ended(inputs, x + y)
    recommend(model).apply(seed=0)
    assert std_of(after.kernel) < 2 * usual(after.kernel)


class Scanned(layers.Layer):
    """A recurrence of one's own that begins with zeros."""

    def build(self, input_shape):
        shape = (input_shape[-1], WIDTH)
        self.inner = self.add_weight(shape=shape, name="inner")
        self.state = self.add_weight(shape=(WIDTH, WIDTH), name="state")

    def call(self, x):
        def step(carry, entry):
            carry = ops.tanh(entry + carry @ self.state)
            return carry, carry

        steps = ops.moveaxis(x @ self.inner, 1, 0)
        first = ops.zeros_like(steps[0])
        return ops.moveaxis(ops.scan(step, first, steps)[1], 0, 1)


def test_a_state_of_zeros_is_not_made_up_for():
    scanned = Scanned()
    model = keras.Sequential(
        [Input((9, 8)), layers.Dense(WIDTH), scanned, layers.Dense(2)]
    )
    recommend(model).apply(seed=0)
    assert std_of(scanned.state) < 2 * usual(scanned.state)


# --- Recurrences by hand -------------------------------------------------------------


class Unrolled(layers.Layer):
    """One in a loop of Python's, from zeros or from a state that is learned."""

    def __init__(self, is_learned, **others):
        super().__init__(**others)
        self.is_learned = is_learned
        self.reads = layers.Dense(WIDTH, name="reads")
        self.keeps = layers.Dense(WIDTH, use_bias=False, name="keeps")

    def build(self, input_shape):
        self.reads.build((None, input_shape[-1]))
        self.keeps.build((None, WIDTH))
        if self.is_learned:
            self.first = self.add_weight(
                shape=(1, WIDTH), initializer="zeros", name="first"
            )

    def call(self, x):
        state = self.first if self.is_learned else ops.zeros((ops.shape(x)[0], WIDTH))
        for step in range(x.shape[1]):
            state = ops.tanh(self.reads(x[:, step]) + self.keeps(state))
        return state


@pytest.mark.parametrize("is_learned", [False, True])
def test_a_recurrence_in_a_loop_is_no_table_and_no_branch(is_learned):
    layer = Unrolled(is_learned)
    model = keras.Sequential([Input((6, WIDTH)), layer, layers.Dense(2)])
    advice = recommend(model)
    roles = {row.path.split("/")[-2]: row.role for row in advice}
    assert roles["reads"] == roles["keeps"] == "hidden"
    advice.apply(seed=0)
    kernel = layer.keeps.kernel
    assert usual(kernel) / 2 < std_of(kernel) < 2 * usual(kernel)
    if is_learned:
        assert not np.any(ops.convert_to_numpy(layer.first))


class PlainCell(layers.Layer):
    """A cell as Keras's guide has it: without an attribute for its activation."""

    def __init__(self, **others):
        super().__init__(**others)
        self.state_size = WIDTH

    def build(self, input_shape):
        shape = (input_shape[-1], WIDTH)
        self.kernel = self.add_weight(shape=shape, name="kernel")
        shape = (WIDTH, WIDTH)
        self.recurrent_kernel = self.add_weight(shape=shape, name="recurrent_kernel")

    def call(self, x, states):
        state = ops.tanh(x @ self.kernel + states[0] @ self.recurrent_kernel)
        return state, [state]


def test_a_cell_need_not_name_its_activation():
    rnn = layers.RNN(PlainCell())
    advice = recommend(keras.Sequential([Input((5, 8)), rnn, layers.Dense(2)]))
    assert [row.role for row in advice][:2] == ["recurrent input", "recurrent"]


# --- Steep activations, and factors before them --------------------------------------


def inside(x):
    return layers.Dense(64, activation=lambda z: ops.sin(30 * z))(x)


def between(x):
    return ops.sin(30 * layers.Dense(64)(x))


@pytest.mark.parametrize("form", [inside, between])
def test_a_sine_of_many_turns_begins_with_about_one(form, rng):
    """As Sitzmann et al. 2020, 2006.09661, sec. 3.2, have it."""
    x = inputs = Input((16,))
    for _ in range(3):
        x = form(x)
    model = ended(inputs, x)
    recommend(model).apply(seed=0)
    dense = [one for one in model.layers if isinstance(one, layers.Dense)]
    values = rng.normal(size=(256, 16)).astype("float32")
    for one in dense[:3]:
        values = 30 * (values @ ops.convert_to_numpy(one.kernel))
        assert 0.5 < values.std() < 2
        values = np.sin(values)
    assert not list(audit(model))


def test_the_authors_start_of_sines_is_no_fault():
    def drawn(size):
        return keras.initializers.RandomUniform(-size, size)

    x = inputs = Input((16,))
    for _ in range(3):
        size = np.sqrt(6 / x.shape[-1]) / 30
        dense = layers.Dense(64, kernel_initializer=drawn(size))
        x = ops.sin(30 * dense(x))
    assert not list(audit(ended(inputs, x)))


@pytest.mark.parametrize("factor", [8.0, 0.25])
def test_a_factor_before_an_activation_is_made_up_for(factor):
    inputs = Input((WIDTH,))
    first = layers.Dense(WIDTH)
    model = ended(inputs, ops.tanh(factor * first(inputs)))
    recommend(model).apply(seed=0)
    assert std_of(first.kernel) == pytest.approx(usual(first.kernel) / factor, rel=0.1)


@pytest.mark.parametrize("name", ["hard_shrink", "soft_shrink", "tanh_shrink"])
def test_what_passes_nothing_of_a_small_signal_gets_a_usual_one(name):
    """A hard shrinkage is infinitely steep at its two jumps, and zero between them."""
    hidden = [layers.Dense(64, name) for _ in range(3)]
    model = keras.Sequential([Input((64,)), *hidden, layers.Dense(3)])
    recommend(model).apply(seed=0)
    x = np.random.default_rng(0).normal(size=(128, 64)).astype("float32")
    given = np.asarray(ops.convert_to_numpy(model.layers[0](x)))
    assert np.mean(given != 0) > 0.3
