import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab import recommend, reinitialize
from keras_initlab._core import seeds as _seeds

LARGEST = 2**31 - 1


def test_same_position_same_seed():
    assert _seeds.derive(7, 3, 1) == _seeds.derive(7, 3, 1)


@pytest.mark.parametrize("other", [(8, 3, 1), (7, 4, 1), (7, 3, 2), (7, 3), (7, 1, 3)])
def test_base_and_every_part_of_the_position_count(other):
    assert _seeds.derive(*other) != _seeds.derive(7, 3, 1)


def test_seeds_of_a_large_model_are_distinct_and_in_range():
    seeds = [_seeds.derive(0, position) for position in range(10_000)]
    assert len(set(seeds)) == len(seeds)
    assert all(type(seed) is int and 0 <= seed < LARGEST for seed in seeds)


def test_seeds_fill_their_range_evenly():
    seeds = [_seeds.derive(0, position) / LARGEST for position in range(10_000)]
    # Five standard errors of a uniform mean; seeds that count up fail by far.
    assert abs(sum(seeds) / len(seeds) - 0.5) < 5 / (12 * 10_000) ** 0.5


def test_neighboring_bases_share_no_seeds():
    of_first = {_seeds.derive(0, position) for position in range(1000)}
    of_second = {_seeds.derive(1, position) for position in range(1000)}
    assert not of_first & of_second


def test_fresh_follows_the_global_seed():
    keras.utils.set_random_seed(3)
    first, second = _seeds.fresh(), _seeds.fresh()
    keras.utils.set_random_seed(3)
    assert (_seeds.fresh(), _seeds.fresh()) == (first, second)
    assert first != second
    assert all(0 <= seed < LARGEST for seed in (first, second))


def test_fresh_depends_on_the_global_seed():
    keras.utils.set_random_seed(3)
    first = _seeds.fresh()
    keras.utils.set_random_seed(4)
    assert _seeds.fresh() != first


START_OVER = {
    "recommend": lambda model, seed: recommend(model).apply(seed, overwrite=True),
    "reinitialize": reinitialize,
}


def network(*more):
    return keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(32, "relu"),
            layers.Dense(32, "relu"),
            layers.Dense(32),
            *more,
        ]
    )


def kernels(model):
    return [ops.convert_to_numpy(layer.kernel) for layer in model.layers[:3]]


def is_independent(one, other):
    # Five standard errors of the correlation of independent values.
    return abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / one.size**0.5


@pytest.mark.parametrize("name", START_OVER)
def test_the_same_weights_whatever_came_before_and_between(name):
    plain = network()
    plain.compile("sgd", "mse")  # by the loss a recommendation starts the outputs
    START_OVER[name](plain, 4)
    keras.Sequential([keras.Input((32,)), layers.Dense(32)])
    later = network()
    later.compile("sgd", "mse")
    later.fit(np.ones((4, 32)), np.ones((4, 32)), verbose=0)
    START_OVER[name](later, 4)
    assert [w.path for w in plain.weights] != [w.path for w in later.weights]
    np.testing.assert_array_equal(kernels(later), kernels(plain))


def test_the_same_weights_whatever_comes_after():
    plain, longer = network(), network(layers.ReLU(), layers.Dense(32))
    for model in (plain, longer):
        reinitialize(model, 4)
    np.testing.assert_array_equal(kernels(longer), kernels(plain))


@pytest.mark.parametrize("name", START_OVER)
def test_bases_and_positions_give_independent_values(name):
    model = network()
    drawn = []
    for base in (0, 1, 2**31):
        START_OVER[name](model, base)
        drawn += kernels(model)
    for number, one in enumerate(drawn):
        assert all(is_independent(one, other) for other in drawn[:number])
    assert not is_independent(drawn[0], drawn[0] + drawn[1])
