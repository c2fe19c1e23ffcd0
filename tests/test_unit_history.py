import keras
import numpy as np
import pytest
from keras import layers, optimizers
from oracles import MODES, USUAL, weights_of

from keras_initlab.callbacks import DeadReLULogger, UnitEvent
from keras_initlab.callbacks._unit_history import UnitHistory

pytestmark = pytest.mark.slow_on_jax

STEPS = 6  # of an epoch


# --- The book-keeping ----------------------------------------------------------------


def lived(*epochs, start=0):
    """The lives of units that fire as epochs of steps of units say."""
    lives, step = UnitHistory(), start
    for epoch in epochs:
        lives.begin_epoch()
        for fired in epoch:
            lives.observe(step, np.atleast_2d(np.array(fired, dtype=bool)))
            step += 1
        lives.finish_epoch()
    return lives


def test_a_unit_that_always_fires_has_no_events():
    lives = lived([[1], [0], [1]], [[0], [0], [1]])
    assert lives.events == []
    assert [dead.tolist() for dead in lives.dead] == [[], []]


def test_dead_at_start_died_and_revived():
    lives = lived(
        [[1, 0, 1], [1, 0, 1], [0, 0, 1]],
        [[0, 0, 1], [0, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 1], [0, 1, 1]],
        [[0, 0, 1], [1, 0, 1], [0, 0, 1]],
    )
    assert lives.events == [
        (1, 0, "dead at start"),
        (0, 2, "died"),
        (1, 7, "revived"),
        (1, 9, "died"),
        (0, 10, "revived"),
    ]
    assert lives.shares("dead") == [1 / 3, 2 / 3, 1 / 3, 1 / 3]
    assert lives.shares("saturated") == [0.0] * 4


def test_dead_at_start_is_the_first_observed_step():
    assert lived([[0]], start=12).events == [(0, 12, "dead at start")]


def test_a_saturated_unit_is_not_dead():
    at_both = [[[1, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 1]]]
    lives = lived(at_both)
    assert [units.tolist() for units in lives.saturated] == [[0]]
    assert [units.tolist() for units in lives.dead] == [[1]]


def test_steps_that_count_anew():
    lives = lived([[1, 1, 0], [1, 1, 0]])
    for step in (0, 1):
        lives.begin_epoch()
        lives.observe(step, np.array([[0, 1, 0]], dtype=bool))
        lives.finish_epoch()
    assert lives.events == [(2, 0, "dead at start"), (0, 0, "died")]


def test_an_epoch_that_was_not_seen_changes_nothing():
    lives = lived([[1]], [], [[0]])
    assert lives.events == [(0, 1, "died")]
    np.testing.assert_array_equal(lives.shares("dead"), [0.0, np.nan, 1.0])
    assert lives.is_seen
    assert lives.units == 1


def test_a_layer_that_was_built_anew_begins_anew():
    lives = lived([[0]])
    lives.begin_epoch()
    lives.observe(9, np.zeros((1, 2), dtype=bool))
    lives.finish_epoch()
    assert lives.events[1:] == [(0, 9, "dead at start"), (1, 9, "dead at start")]


# --- In training ---------------------------------------------------------------------


class Plant(keras.callbacks.Callback):
    """Sets biases of the first layer before steps that are counted over all epochs."""

    def __init__(self, changes):
        super().__init__()
        self.changes, self.step = changes, 0

    def on_train_batch_begin(self, batch, logs=None):
        for unit, value in self.changes.get(self.step, {}).items():
            weights_of(self.model)  # brought back, so that the layer has its own
            layer = self.model.layers[0]
            bias = np.array(layer.get_weights()[1])
            bias[unit] = value
            layer.bias.assign(bias)
        self.step += 1


def identity(dead=()):
    """Its units are its inputs, all 1, so they fire as their biases say."""
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "relu"), layers.Dense(1)]
    )
    bias = np.zeros(4)
    bias[list(dead)] = -100
    model.layers[0].set_weights([np.eye(4), bias])
    model.compile(optimizers.SGD(0.0), "mse", run_eagerly=True)
    return model


def train(model, logger, epochs, changes=None):
    x, y = np.ones((2 * STEPS, 4), "float32"), np.zeros((2 * STEPS, 1), "float32")
    model.fit(
        x, y, batch_size=2, epochs=epochs, verbose=0,
        callbacks=[Plant(changes or {}), logger],
    )  # fmt: skip
    (events,) = logger.history["events"].values()
    return events


@pytest.mark.parametrize("step", [1, 5, 6, 7, 11])
def test_the_step_of_a_death_is_exact(step):
    logger = DeadReLULogger(1)
    events = train(identity([3]), logger, 3, {step: {1: -100.0}})
    assert events == [UnitEvent(3, 0, "dead at start"), UnitEvent(1, step, "died")]
    # A death within an epoch shows at the end of the next.
    (dead,) = logger.history["dead_units"].values()
    first = -(-step // STEPS)
    assert [1 in units for units in dead] == [epoch >= first for epoch in range(3)]


def test_revival_is_exact_and_can_be_followed_by_another_death():
    changes = {2: {1: -100.0}, 14: {1: 0.0}, 20: {3: 0.0, 1: -100.0}}
    events = train(identity([3]), DeadReLULogger(1), 5, changes)
    assert events == [
        (3, 0, "dead at start"),
        (1, 2, "died"),
        (1, 14, "revived"),
        (3, 20, "revived"),
        (1, 20, "died"),
    ]


def test_a_sample_of_steps_is_as_exact_as_its_steps():
    logger = DeadReLULogger(3)  # observed: 0, 3, 6, 9, 12, 15, …
    events = train(identity(), logger, 4, {4: {1: -100.0}, 13: {1: 0.0}})
    assert events == [(1, 4, "died"), (1, 15, "revived")]
    assert logger.history["sampled"].tolist() == [True] * 4


def test_lives_go_on_over_fits_whose_steps_count_anew():
    model, logger = identity([3]), DeadReLULogger(1)
    train(model, logger, 1)
    model.layers[0].bias.assign([0.0, -100.0, 0.0, 0.0])
    events = train(model, logger, 2, {8: {2: -100.0}})
    assert events == [(3, 0, "dead at start"), (1, 0, "died"), (3, 0, "revived")]
    events = train(model, logger, 1, {3: {1: 0.0}})
    assert events[3:] == [(2, 0, "died"), (1, 3, "revived")]
    assert logger.history["sampled"].tolist() == [False] * 4


def test_usual_training_shows_the_same_events():
    model = identity([3])
    model.compile(optimizers.SGD(0.0), "mse", **MODES[USUAL])
    assert train(model, DeadReLULogger(1), 2, {4: {1: -100.0}}) == [
        (3, 0, "dead at start"),
        (1, 4, "died"),
    ]
