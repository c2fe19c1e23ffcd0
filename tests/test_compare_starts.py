"""What may be compared, and how a model gets it."""

import keras
import numpy as np
import pytest
import studies

import keras_initlab
from keras_initlab.compare._data import Batches, data_fingerprint
from keras_initlab.compare._fingerprint import model_fingerprint
from keras_initlab.compare._starts import built, described, labeled, start
from keras_initlab.initializers import AdaptiveHe, Orthogonal

pytestmark = pytest.mark.slow_on_jax

initializers = keras.initializers


def zoo(**kernel):
    """A layer of every kind that has kernels, and others; compiled."""
    depthwise = {f"depthwise_{k[7:]}": v for k, v in kernel.items()}
    pointwise = {f"pointwise_{k[7:]}": v for k, v in kernel.items()}
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.Conv2D(4, 3, padding="same", **kernel)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3, **depthwise)(x)
    x = keras.layers.SeparableConv2D(4, 3, **depthwise, **pointwise)(x)
    x = keras.layers.Reshape((4, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 3, **kernel)(x, x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, **kernel))(x)
    x = keras.layers.Dense(5, **kernel)(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    return model


def started(build, initializer, seed=0, batch=None):
    model = built(build, initializer)
    is_handed = build is not zoo
    start(model, initializer, seed, batch, is_handed)
    return model


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


ONES = (
    "he_normal",
    Orthogonal,
    pytest.param(initializers.RandomNormal(stddev=0.3), marks=pytest.mark.slow),
    pytest.param(AdaptiveHe(depth=2), marks=pytest.mark.slow),
)


@pytest.mark.parametrize(
    "initializer",
    ONES,
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_it_is_as_if_each_layer_had_been_given_it(initializer):
    given = zoo(kernel_initializer=initializer)
    keras_initlab.reinitialize(given, seed=3)
    found = started(zoo, initializer, seed=3)
    for one, other in zip(weights(given), weights(found), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = started(zoo, "lecun_normal", seed=3)
    apart = [
        not np.array_equal(one, other)
        for one, other in zip(weights(found), weights(plain), strict=True)
    ]
    # 4 convolutions, 4 of the attention, 2 directions and 1 dense layer
    assert sum(apart) == 11


def test_a_build_of_the_initializer_draws_the_same():
    one = started(studies.build_from, "he_normal", seed=1)
    keras_initlab.reinitialize(one, seed=1)
    model = built(studies.build, "he_normal")
    start(model, "he_normal", 1, None, is_handed=False)
    for first, second in zip(weights(one), weights(model), strict=True):
        np.testing.assert_array_equal(first, second)


def test_an_instance_with_a_seed_fills_each_kernel_otherwise():
    def build(initializer):
        layers = [keras.layers.Dense(4, kernel_initializer=initializer) for _ in "ab"]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile("sgd", "mse")
        return model

    one = initializers.HeNormal(seed=1)
    first, _, second, _ = weights(started(build, one, seed=0))
    assert not np.array_equal(first, second)
    again = weights(started(build, one, seed=0))
    np.testing.assert_array_equal(first, again[0])
    assert not np.array_equal(first, weights(started(build, one, seed=1))[0])


def test_the_default_is_what_build_made():
    def build():
        model = studies.build()
        model.layers[0].kernel.assign(np.full((4, 6), 0.25))
        return model

    model = started(build, "default")
    np.testing.assert_array_equal(weights(model)[0], np.full((4, 6), 0.25))


@pytest.mark.parametrize("label", ["recommended", "calibrated"])
def test_our_own_look_at_the_first_batch(label):
    batch = 5 * np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    keras.utils.set_random_seed(0)
    model = started(studies.build, label, batch=batch)
    kernel = weights(model)[0]
    if label == "calibrated":
        assert np.std(batch @ kernel) == pytest.approx(1, abs=1e-3)
    else:
        same = studies.build()
        keras_initlab.recommend(same, data=batch).apply(0)
        np.testing.assert_array_equal(kernel, weights(same)[0])
        assert np.std(batch @ kernel) < 3  # 5 of a model that takes its inputs for 1


def test_frozen_layers_stay():
    model = studies.build()
    model.layers[0].trainable = False
    before = weights(model)
    start(model, "ones", 0, None, is_handed=False)
    np.testing.assert_array_equal(weights(model)[0], before[0])
    assert np.all(weights(model)[2] == 1)


def test_a_model_without_input_shape_is_built_on_the_batch():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    start(model, "ones", 0, np.ones((3, 4), "float32"), is_handed=False)
    assert weights(model)[0].shape == (4, 2)
    assert np.all(weights(model)[0] == 1)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()])
    with pytest.raises(
        ValueError, match=rf"kernel_initializer.*{model.name}.*argument"
    ):
        start(model, "he_normal", 0, None, is_handed=False)


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["he_normal", None], ["he_normal", "default"]),
        (["keras_initlab>AdaptiveHe", "calibrated"], ["AdaptiveHe", "calibrated"]),
        ([initializers.HeNormal(), Orthogonal], ["he_normal", "Orthogonal"]),
        (
            [AdaptiveHe(depth=d) for d in (2, 5)],
            ["AdaptiveHe(depth=2)", "AdaptiveHe(depth=5)"],
        ),
        ({"mine": "ones", 1: "zeros"}, ["mine", "1"]),
        ([weights], ["weights"]),
    ],
)
def test_labels(given, labels):
    assert list(labeled(given)) == labels


def test_an_initializer_of_unusual_settings_has_its_name():
    class Odd(initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return keras.ops.ones(shape, dtype)

        def get_config(self):
            return {"not_an_argument": 1}

    assert list(labeled([Odd()])) == ["Odd"]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([], ValueError, r"`initializers` must be a list.*initializers=\[\]"),
        ("he_normal", TypeError, "must be a list.*initializers='he_normal'"),
        (["he_norm"], ValueError, "'calibrated', 'default', 'rec.*'he_norm' as 'he_no"),
        ({"x": 3}, ValueError, "Keras's names.*3 as 'x'"),
        (["ones", "ones"], ValueError, "label of its own.*'ones'.*dict"),
        ([Orthogonal(), Orthogonal(seed=1)], ValueError, "with 'Orthogonal"),
    ],
)
def test_what_cannot_be_compared_is_named(given, error, match):
    with pytest.raises(error, match=match):
        labeled(given)


def test_a_description_is_of_all_but_the_seed():
    same = ["he_normal", initializers.HeNormal(), initializers.HeNormal(seed=3)]
    assert len({described(one) for one in same}) == 1
    assert described("he_normal") != described("he_uniform")
    assert described(AdaptiveHe(depth=2)) != described(AdaptiveHe(depth=3))
    assert described("recommended") == "recommended"
    assert described(weights) == "weights"


def need_two(a, b): ...


def need_key(initializer, *, width): ...


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (3, "build=3"),
        (studies.build(), "build=<Sequential"),
        (need_two, "build needs a, b"),
        (need_key, "build needs initializer, width"),
        (dict, "dict, no model"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "Sequential, not compiled"),
    ],
)
def test_what_cannot_build_is_named(build, match):
    with pytest.raises(TypeError, match=rf"`build` must.*{match}"):
        built(build, "ones")


def test_an_argument_by_its_name_or_need():
    seen = []

    def named(kernel_initializer="glorot_uniform"):
        seen.append(kernel_initializer)
        return studies.build()

    def optional(width=6):
        seen.append(width)
        return studies.build()

    def needed(how):
        seen.append(how)
        return studies.build()

    for build in (named, optional, needed):
        for initializer in ("ones", "recommended"):
            built(build, initializer)
    assert seen == ["ones", "glorot_uniform", 6, 6, "ones", None]


def test_a_fingerprint_is_of_what_a_model_is():
    def model(units=3, rate=0.1, loss="mse", activation="relu", kernel="ones"):
        dense = keras.layers.Dense(units, activation, kernel_initializer=kernel)
        made = keras.Sequential([keras.Input((2,)), dense])
        made.compile(keras.optimizers.SGD(rate), loss)
        return model_fingerprint(made)

    assert model() == model(kernel="he_normal")  # whatever its name and weights
    others = [
        model(units=4),
        model(rate=0.2),
        model(loss="mae"),
        model(activation="tanh"),
    ]
    assert len({model(), *others}) == 5


def test_a_fingerprint_is_of_all_data():
    (x, y), test = studies.data()
    nudged = x.copy()
    nudged[-1, -1] += 1e-6
    found = {
        data_fingerprint(one)
        for one in (
            ((x, y), test),
            ((nudged, y), test),
            ((x, y.astype("int64")), test),
            ((x.reshape(-1, 2), y), test),
            (test, (x, y)),
        )
    }
    assert len(found) == 5
    assert data_fingerprint(studies.data()) in found


@pytest.mark.parametrize("nest", [tuple, list, lambda parts: {"a": parts[0]}])
def test_batches_hold_every_example_once(nest):
    x = np.arange(10)
    batches = Batches((nest([x, 2 * x]), x), 4, seed=0)
    assert len(batches) == 3
    orders = []
    for _ in range(3):
        found = [batches[index] for index in range(3)]
        for inputs, y in found:
            leaves = keras.tree.flatten(inputs)
            np.testing.assert_array_equal(leaves[0], y)
            assert len(leaves) == 1 or np.array_equal(leaves[1], 2 * y)
        orders.append(np.concatenate([y for _, y in found]))
        batches.on_epoch_end()
    assert [sorted(order) for order in orders] == 3 * [list(x)]
    assert len({tuple(order) for order in orders}) == 3
    np.testing.assert_array_equal(Batches((x, x), 4, seed=0)[0][1], orders[0][:4])
    assert not np.array_equal(Batches((x, x), 4, seed=1)[0][1], orders[0][:4])
    np.testing.assert_array_equal(Batches((x, x), 10, seed=0)[0][1], x)
