import keras
import pytest

from keras_initlab import _seeds

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
