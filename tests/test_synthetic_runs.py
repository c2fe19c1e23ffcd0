"""Where theory is not sure, one run on synthetic inputs decides.

The oracle is the model itself: run on other numbers, its last kernel gives the std that
its row means.
"""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_by_hand import numbers
from test_tracing import state

from keras_initlab import recommend
from keras_initlab.inspection import inspect
from keras_initlab.recommend._synthetic import synthetic_inputs

pytestmark = [pytest.mark.once_a_day, pytest.mark.slow_on_jax]


def pooled():
    inputs = Input((16, 16, 3))
    x = layers.MaxPooling2D(4)(layers.Conv2D(16, 3, padding="same")(inputs))
    return inputs, layers.Flatten()(x)


def pooled_over_all():
    inputs = Input((32, 8))
    return inputs, layers.GlobalMaxPooling1D()(layers.Conv1D(16, 3)(inputs))


def summed_through_activations():
    inputs = Input((32,))
    x = layers.Dense(64, "relu")(inputs)
    for _ in range(8):  # the means of all add up
        x = x + layers.Dense(64, "relu")(x)
    return inputs, x


class Mixing(layers.Layer):
    """Of no form that theory knows."""

    def call(self, x):
        return x * ops.mean(ops.abs(x), -1, keepdims=True) * 3


class Sorting(layers.Layer):
    def call(self, x):
        return ops.sort(x, -1)[..., -16:]


def custom():
    inputs = Input((32,))
    return inputs, Mixing()(layers.Dense(64)(inputs))


def sorted_units():
    inputs = Input((32,))
    return inputs, Sorting()(layers.Dense(64)(inputs))


def products():
    inputs = Input((32,))
    one, other = (layers.Dense(64)(inputs) for _ in range(2))
    return inputs, layers.Multiply()([one, other, one])


def largest_of_two():
    inputs = Input((32,))
    return inputs, layers.Maximum()([layers.Dense(64)(inputs) for _ in range(2)])


MODELS = {
    "pooled": pooled,
    "custom": custom,
    "pooled over all": pooled_over_all,
    "summed through activations": summed_through_activations,
    "sorted": sorted_units,
    "products": products,
    "largest of two": largest_of_two,
}


def made(name):
    inputs, x = MODELS[name]()
    return keras.Model(inputs, layers.Dense(64, name="out")(x))


def normal(model, scale=1.0, examples=256):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(examples, *model.input_shape[1:])).astype("float32")
    return ops.convert_to_tensor(scale * x)


@pytest.mark.parametrize("name", MODELS)
def test_what_a_kernel_reads_is_measured(name):
    model = made(name)
    advice = recommend(model)
    row = advice[-1]
    assert "measured" in row.reason
    assert all("measured" not in one.reason for one in advice[:1])
    advice.apply(seed=3)
    assert row.std / 1.25 < np.std(numbers(model(normal(model)))) < row.std * 1.25


@pytest.mark.parametrize("name", MODELS)
def test_the_advice_is_the_same_twice(name):
    model = made(name)
    first = recommend(model).to_json()
    keras.utils.set_random_seed(77)
    assert recommend(model).to_json() == first
    for variable in model.weights:
        variable.assign(variable * 5)  # it runs on what it draws, not on these
    assert recommend(model).to_json() == first


def busy():
    """Holds much that a run may change."""
    inputs, x = pooled()
    x = layers.BatchNormalization()(Mixing()(layers.Dense(32, "relu")(x)))
    x = layers.GaussianNoise(0.1, seed=4)(layers.Dropout(0.5, seed=3)(x))
    x = layers.Dense(32)(layers.SpectralNormalization(layers.Dense(32))(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in (*model.optimizer.variables, *model.non_trainable_variables):
        if variable.dtype.startswith("float"):  # as after some training
            variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return model


@pytest.mark.parametrize("data", [None, "images"])
def test_a_run_changes_nothing(data):
    model = busy()
    optimizer = [np.array(numbers(v)) for v in model.optimizer.variables]
    attributes, values, _ = state(model)
    values = [np.array(value) for value in values]
    given = None if data is None else numbers(normal(model))
    advice = recommend(model, data=given)
    assert any("measured" in row.reason for row in advice)
    after = state(model)
    assert after[0] == attributes
    for former, now in zip(values, after[1], strict=True):
        np.testing.assert_array_equal(former, now)
    for former, now in zip(optimizer, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(former, numbers(now))


# ---- models that do not run on what is made up --------------------------------------


class Symbolic(layers.Layer):
    """Can be traced, and does not run."""

    def call(self, x):
        if not isinstance(x, keras.KerasTensor):
            raise RuntimeError("only on Tuesdays")
        return ops.relu(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Square(layers.Layer):
    """Takes one size of what the input leaves open."""

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and x.shape[1] != 49:
            raise RuntimeError("a size of 49")
        return ops.mean(x, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])


def never():
    inputs = Input((32,))
    return keras.Model(inputs, layers.Dense(4)(Symbolic()(layers.Dense(8)(inputs))))


def at_one_size():
    inputs = Input((None, 32))
    return keras.Model(inputs, layers.Dense(4)(Square()(layers.Dense(8)(inputs))))


@pytest.mark.parametrize("build", [never, at_one_size])
def test_a_model_that_does_not_run_gets_advice(build):
    model = build()
    advice = recommend(model)
    assert [row.role for row in advice] == ["hidden", "output"]
    assert not any("measured" in row.reason for row in advice)
    assert len(advice.apply(seed=0).changed) >= 2
    with pytest.raises(ValueError, match=r"`x` must be given where .*synthetic"):
        advice.verify()


# ---- inputs that are made up ---------------------------------------------------------


def two_tables():
    words, kinds = Input((9,), dtype="int32"), Input((), dtype="int32")
    x = layers.GlobalMaxPooling1D()(layers.Embedding(7, 8)(words))
    return keras.Model(
        [words, kinds],
        layers.Dense(2)(ops.concatenate([x, layers.Embedding(3, 8)(kinds)], -1)),
    )


def two_tables_of_one_input():
    words = Input((9,), dtype="int32")
    x = layers.Embedding(50, 8)(words) + layers.Embedding(4, 8)(words)
    return keras.Model(words, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


def subclassed_table():
    class Reader(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.out = layers.Embedding(5, 8), layers.Dense(2)

        def call(self, words):
            return self.out(ops.max(self.table(words), axis=1))

    model = Reader()
    model(np.zeros((2, 9), "int32"))
    return model


def table_of_floats():
    """Numbers of rows that come as floats, as many a data set has them."""
    words = Input((9,))
    x = layers.Embedding(6, 8)(words)
    return keras.Model(words, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


TABLES = {
    "two": (two_tables, [7, 3]),
    "two of one input": (two_tables_of_one_input, [4]),
    "subclassed": (subclassed_table, [5]),
    "floats": (table_of_floats, [6]),
}


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", TABLES)
def test_numbers_of_rows_stay_below_the_tables_size(name):
    build, sizes = TABLES[name]
    model = build()
    for inputs in synthetic_inputs(model, inspect(model), 1.0):
        flat = [np.asarray(numbers(one)) for one in keras.tree.flatten(inputs)]
        assert len(flat) == len(sizes)
        for ids, rows in zip(flat, sizes, strict=True):
            assert ids.min() == 0
            assert ids.max() == rows - 1  # all are asked, and none that is not there
            np.testing.assert_array_equal(ids, np.round(ids))
    assert any("measured" in row.reason for row in recommend(model))


def rescaled(scale):
    inputs = Input((16, 16, 3))
    x = inputs if scale is None else layers.Rescaling(scale)(inputs)
    x = layers.MaxPooling2D(4)(layers.Conv2D(64, 3, padding="same", name="first")(x))
    x = layers.Dense(256, name="second")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(64, name="out")(Mixing()(x)))


def drawn_stds(model, **arguments):
    recommend(model, **arguments).apply(seed=0)
    return {
        name: numbers(model.get_layer(name).kernel).std()
        for name in ("first", "second", "out")
    }


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("scale", [1 / 255, None, 30.0])
@pytest.mark.parametrize("input_std", [1.0, 0.01, 40.0])
def test_input_std_is_what_the_first_kernels_read(scale, input_std):
    found = drawn_stds(rescaled(scale), input_std=input_std)
    assert found["first"] == pytest.approx(27**-0.5 / input_std, rel=0.1)
    plain = drawn_stds(rescaled(None))  # what is behind reads signals of unit scale
    assert found["second"] == pytest.approx(plain["second"], rel=0.2)
    assert found["out"] == pytest.approx(plain["out"], rel=0.3)


ALONE = {
    "layers": (lambda x: layers.Dense(4)(layers.Flatten()(x)), 1),
    "sum": (lambda x: layers.Flatten()(x + x), 1),
    "batch norm": (lambda x: layers.BatchNormalization()(x), 2),
    "mean over examples": (lambda x: x - ops.mean(x, axis=0, keepdims=True), 2),
    "of one's own": (lambda x: Mixing()(x), 2),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_large_example_does_where_none_is_looked_at_beside_another(name):
    build, count = ALONE[name]
    inputs = Input((256, 256, 3))  # more numbers than a run takes by itself
    x = layers.Conv2D(3, 1)(inputs)
    model = keras.Model(inputs, build(x))
    made = next(synthetic_inputs(model, inspect(model), 1.0))
    assert len(keras.tree.flatten(made)[0]) == count
