"""Kernels whose layer has an initializer that does as well keep it.

The oracle is Keras's own formula: Glorot's entries have the variance
2/(fan_in + fan_out), and an output the fan_in times that, times what is read.
"""

import math

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import recommend


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def glorot_std(shape, read=1.0):
    fan_in, fan_out = shape
    return math.sqrt(2 * fan_in / (fan_in + fan_out) * read)


def block(inputs, number=0):
    x = layers.LayerNormalization()(inputs)
    x = layers.Dense(64, "relu", name=f"up{number}")(x)
    return inputs + layers.Dense(inputs.shape[-1], name=f"down{number}")(x)


def row_of(advice, name):
    return next(row for row in advice if f"{name}/" in row.path)


def with_blocks():
    inputs = Input((32,))
    x = block(layers.Dense(32, name="first")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def chain(hidden, **options):
    """Kernels in a row that nothing normalizes, the output's among them."""
    inner = [layers.Dense(32, "relu", **options) for _ in range(hidden)]
    return keras.Sequential([Input((32,)), *inner, layers.Dense(3)])


def kept(advice):
    return [": keeps " in row.reason for row in advice]


def test_between_normalizations_the_layers_own_is_kept():
    row = row_of(recommend(with_blocks()), "up0")
    assert isinstance(row.initializer, keras.initializers.GlorotUniform)
    assert row.std == pytest.approx(glorot_std((32, 64)), rel=1e-4)
    assert "keeps glorot_uniform, whose std of 0.817 is near to 1" in row.reason


def test_what_closes_a_branch_or_gives_an_output_is_not_kept():
    advice = recommend(with_blocks())
    assert not any(kept([row_of(advice, "down0"), row_of(advice, "last")]))


@pytest.mark.parametrize(("hidden", "is_kept"), [(1, True), (2, True), (3, False)])
def test_only_few_kernels_in_a_row_are_kept(hidden, is_kept):
    assert kept(recommend(chain(hidden))) == [is_kept] * hidden + [False]


@pytest.mark.parametrize("steps", [1, 40])
def test_a_normalization_begins_a_new_row(steps):
    x = inputs = Input((32,))
    for number in range(steps):
        x = block(x, number)
    model = keras.Model(inputs, layers.LayerNormalization()(x))
    advice = recommend(model)
    ups = [row for row in advice if row.shape == (32, 64)]
    assert len(ups) == steps
    assert all(kept(ups))


FAR, NEAR = 0.1, 0.12  # times √32: 0.57 and 0.68 of what the input has


@pytest.mark.parametrize(
    ("initializer", "is_kept"),
    [
        ("he_normal", True),
        ("lecun_uniform", True),
        (keras.initializers.RandomNormal(stddev=NEAR), True),
        (keras.initializers.RandomUniform(-NEAR * 3**0.5, NEAR * 3**0.5), True),
        (keras.initializers.RandomNormal(stddev=FAR / 2), False),
        (keras.initializers.VarianceScaling(5.0), False),
        ("orthogonal", True),
        ("zeros", False),
        ("identity", False),
        (lambda shape, dtype=None: ops.ones(shape, dtype), False),
    ],
)
def test_it_depends_on_the_std_that_its_formula_tells(initializer, is_kept):
    model = chain(1, kernel_initializer=initializer)
    row = recommend(model)[0]
    assert kept([row]) == [is_kept]
    if is_kept:
        assert type(row.initializer) is type(model.layers[0].kernel_initializer)
        recommend(model).apply(seed=0)
        kernel = to_numpy(model.layers[0].kernel)
        # 1,024 draws: the standard error is 2 %.
        assert math.sqrt(32) * kernel.std() == pytest.approx(row.std, rel=0.1)


def test_a_constraint_a_router_and_a_recurrent_kernel_are_not_kept():
    inputs = Input((32,))
    near = keras.initializers.RandomNormal(stddev=math.sqrt(0.1 / 32))
    gates = layers.Dense(4, "softmax", name="router", kernel_initializer=near)(inputs)
    experts = layers.Reshape((4, 8))(layers.Dense(32, name="experts")(inputs))
    x = ops.sum(experts * gates[..., None], axis=1)
    x = layers.LayerNormalization()(x)
    x = layers.Dense(8, name="bound", kernel_constraint="unit_norm")(x)
    x = layers.GRU(8, name="cell")(layers.Reshape((2, 4))(x))
    advice = recommend(keras.Model(inputs, layers.Dense(2, name="last")(x)))
    names = ("router", "bound", "cell")
    assert not any(kept(row for row in advice if row.path.split("/")[0] in names))


def test_what_is_kept_is_drawn_anew_and_each_by_itself():
    same = keras.initializers.GlorotUniform(seed=1)
    model = chain(2, kernel_initializer=same)
    first, second = (to_numpy(layer.kernel) for layer in model.layers[:2])
    np.testing.assert_array_equal(first, second)
    advice = recommend(model)
    assert kept(advice) == [True, True, False]
    drawn = []
    for _ in range(2):
        advice.apply(seed=3)
        drawn.append([to_numpy(layer.kernel) for layer in model.layers[:2]])
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][0], drawn[0][1])
    assert not np.array_equal(drawn[0][0], first)


@pytest.mark.parametrize("size", [2, 8])
def test_behind_what_must_be_measured_it_depends_on_that(size, rng):
    """An average over 4 positions leaves a quarter of the variance, over 64 a 64th."""
    inputs = Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same", name="conv")(inputs)
    x = layers.Flatten()(layers.AveragePooling2D(size)(x))
    model = keras.Model(inputs, layers.Dense(32, name="dense")(x))
    model = keras.Model(
        inputs, layers.Dense(2)(layers.LayerNormalization()(model.output))
    )
    row = row_of(recommend(model), "dense")
    recommend(model).apply(seed=0)
    inner = keras.Model(inputs, model.get_layer("dense").output)
    given = to_numpy(inner(rng.normal(size=(64, 16, 16, 3)).astype("float32"))).std()
    assert given == pytest.approx(row.std, rel=0.2)


def test_the_report_shows_what_is_kept():
    advice = recommend(with_blocks())
    assert "glorot_uniform" in str(advice)
    row = next(row for row in advice.to_dict()["kernels"] if "up0/" in row["path"])
    assert row["initializer"]["class_name"] == "GlorotUniform"
