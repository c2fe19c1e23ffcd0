"""What `data=(x, y)` tells of outputs: class shares, the mean and spread of values."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import recommend

SHARES = np.array([0.7, 0.2, 0.1])
X = np.random.default_rng(0).normal(size=(600, 8)).astype("float32")
CLASSES = np.repeat([0, 1, 2], (600 * SHARES).astype(int))
VALUES = (150 + 70 * np.random.default_rng(1).normal(size=600)).astype("float32")


def network(units, loss, activation=None):
    model = keras.Sequential(
        [Input((8,)), layers.Dense(32, "relu"), layers.Dense(units, activation)]
    )
    model.compile("adam", loss)
    return model


def last(advice):
    return list(advice)[-1]


def offset(row):
    assert row.bias_offset is not None
    return np.array(row.bias_offset)


def numbers(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


LABELS = {
    "numbers": ("sparse_categorical_crossentropy", lambda y: y),
    "a column": ("sparse_categorical_crossentropy", lambda y: y[:, None]),
    "floats": ("sparse_categorical_crossentropy", lambda y: y.astype("float32")),
    "one hot": ("categorical_crossentropy", lambda y: np.eye(3)[y]),
}


@pytest.mark.parametrize("form", LABELS)
@pytest.mark.parametrize("policy", ["signal", "calibrated", "rules"])
def test_a_softmax_starts_at_the_shares_of_its_classes(form, policy):
    loss, made = LABELS[form]
    model = network(3, loss, "softmax")
    recommend(model, policy, data=(X, made(CLASSES))).apply(seed=0)
    bias = numbers(model.layers[-1].bias)
    shares = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(shares, SHARES, atol=0.01)


def test_sigmoids_start_at_their_shares():
    model = network(2, "binary_crossentropy", "sigmoid")
    y = np.stack([np.arange(600) < 30, np.arange(600) < 300], axis=1).astype("int32")
    recommend(model, data=(X, y)).apply(seed=0)
    shares = 1 / (1 + np.exp(-numbers(model.layers[-1].bias)))
    np.testing.assert_allclose(shares, [0.05, 0.5], atol=0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_values_start_at_their_mean_and_a_share_of_their_spread(scale):
    model, y = network(1, "mse"), VALUES * scale
    advice = recommend(model, data=(X, y))
    advice.apply(seed=0)
    mean, spread = y.mean(), y.std()
    assert numbers(model.layers[-1].bias) == pytest.approx(mean, rel=1e-4)
    assert last(advice).std == pytest.approx(0.3 * spread, rel=1e-3)
    found = numbers(model(X))
    assert found.std() == pytest.approx(0.3 * spread, rel=0.5)
    assert "the targets' middle" in last(advice).reason
    # The loss is the spread of the targets and what the start itself adds.
    loss = float(model.evaluate(X, y, verbose=0))
    assert loss < 1.3 * spread**2
    assert loss < 0.3 * np.mean(y**2)


def test_images_as_targets_have_a_mean_for_each_channel():
    model = keras.Sequential(
        [
            Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", padding="same"),
            layers.Conv2D(2, 3, padding="same"),
        ]
    )
    model.compile("adam", "mse")
    y = np.random.default_rng(0).normal(size=(20, 6, 6, 2)) * [1, 2] + [5, -3]
    advice = recommend(model, data=(np.ones((20, 6, 6, 2), "float32"), y))
    np.testing.assert_allclose(offset(last(advice)), [5, -3], atol=0.3)


def test_several_outputs_by_name_and_in_order():
    inputs = Input((8,))
    x = layers.Dense(32, "relu")(inputs)
    label = layers.Dense(3, "softmax", name="label")(x)
    price = layers.Dense(1, name="price")(x)
    model = keras.Model(inputs, {"label": label, "price": price})
    model.compile("adam", {"label": "sparse_categorical_crossentropy", "price": "mse"})
    rows = recommend(model, data=(X, {"label": CLASSES, "price": VALUES}))
    offsets = {row.kernel.layer.name: row.bias_offset for row in rows}
    assert offsets["price"] == pytest.approx([VALUES.mean()], rel=1e-4)
    assert np.argmax(np.array(offsets["label"])) == 0
    listed = keras.Model(inputs, [label, price])
    listed.compile("adam", ["sparse_categorical_crossentropy", "mse"])
    rows = recommend(listed, data=(X, [CLASSES, VALUES]))
    assert {row.kernel.layer.name: row.bias_offset for row in rows} == offsets


def test_priors_that_are_given_count():
    model = network(3, "sparse_categorical_crossentropy", "softmax")
    advice = recommend(model, data=(X, CLASSES), class_priors=[0.2, 0.2, 0.6])
    assert np.argmax(offset(last(advice))) == 2


def batches(y):
    for start in range(0, 600, 100):
        yield X[start : start + 100], y[start : start + 100]


EVEN = np.random.default_rng(0).permutation(600) % 3
NOTHING = {
    "shares that chance makes": lambda: (X, EVEN),
    "the first batch of sorted examples": lambda: batches(CLASSES),
    "labels that are no classes": lambda: (X, CLASSES + 1),
    "text": lambda: (X, CLASSES.astype(str)),
    "nothing": lambda: X,
    "not a number": lambda: (X, np.where(CLASSES, np.nan, 0)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_tells_nothing_changes_nothing(name):
    model = network(3, "sparse_categorical_crossentropy", "softmax")
    found = last(recommend(model, data=NOTHING[name]()))
    plain = last(recommend(model, data=X))
    assert found.bias_offset is None
    assert found.std == plain.std


def test_examples_without_weight_do_not_count():
    weights = np.arange(600) % 2
    y = np.where(weights == 1, VALUES, -999.0)
    row = last(recommend(network(1, "mse"), data=(X, y, weights)))
    counted = VALUES[weights == 1]
    assert row.bias_offset == pytest.approx([counted.mean()], rel=1e-4)
    assert row.std == pytest.approx(0.3 * counted.std(), rel=1e-3)
    row = last(recommend(network(1, "mae"), data=(X, y, weights)))
    assert row.bias_offset == pytest.approx([np.median(counted)], rel=1e-4)
    model = network(3, "sparse_categorical_crossentropy", "softmax")
    row = last(recommend(model, data=(X, CLASSES, np.where(CLASSES == 2, 7.0, 1.0))))
    shares = np.exp(offset(row))
    np.testing.assert_allclose(shares, np.array([0.7, 0.2, 0.7]) / 1.6, atol=0.01)
    model = network(1, "binary_crossentropy", "sigmoid")
    row = last(recommend(model, data=(X, weights, np.where(weights, 3.0, 1.0))))
    assert row.bias_offset == pytest.approx([np.log(3)], abs=0.02)
    # Weights of another shape say nothing, nor do the targets then.
    row = last(recommend(network(1, "mse"), data=(X, y, np.ones((600, 4)))))
    assert row.bias_offset is None


@pytest.mark.parametrize("loss", ["mae", "huber", keras.losses.LogCosh()])
def test_what_is_judged_by_absolute_errors_starts_at_its_median(loss):
    y = VALUES.copy()
    y[:5] = 1e9
    row = last(recommend(network(1, loss), data=(X, y)))
    assert row.bias_offset == pytest.approx([np.median(y)], rel=1e-3)
    assert row.std == pytest.approx(0.3 * VALUES.std(), rel=0.1)


def test_targets_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"shape \(10,\) for 600 examples"):
        recommend(network(1, "mse"), data=(X, VALUES[:10]))


def test_values_that_do_not_differ_have_no_spread():
    found = last(recommend(network(1, "mse"), data=(X, np.full(600, 3.0))))
    assert found.bias_offset == (3.0,)
    assert found.std == last(recommend(network(1, "mse"), data=X)).std
    two = last(recommend(network(2, "mse"), data=(X, VALUES)))  # for one unit
    assert two.bias_offset is None
