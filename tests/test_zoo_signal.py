"""The signal of every model of the zoo stays within a factor of 2 after `apply`."""

import keras
import pytest
from zoo import ZOO

if keras.backend.backend() != "tensorflow":
    pytest.skip("listens by TensorFlow's tape", allow_module_level=True)

from zoo_signal import DRAWS, Signal, Table, figures, signals, spread, table

# Random examples and a random function of the outputs: on other ones the figures of
# these narrow models differ by a few percent.
WITHIN = 2 * 1.05

# No kernel can change what these do.
EXCEPTIONS = {
    "dense_blocks": "a dense block's early maps are read by all later layers, whose "
    "gradients add up",
    "cnn_lstm": "the mean over 16 positions between the convolutions and the LSTM "
    "hands each position a sixteenth of the gradient",
    "sequence_to_sequence_transformer": "the encoder is heard through one averaging "
    "cross-attention only",
    "vision_transformer": "the head reads the class token; the patches are heard "
    "through attention alone",
    "stacked_cells": "a cell without gates reads little at each step, to remember more "
    "of them; the gated ones beside it read all",
    "transformer_encoder": "embeddings start small, and its first block reads them "
    "before its first normalization",
}
EVERY_DAY = ("mlp", "vgg", "lstm_stack")


def holds(signal):
    return signal.forward_spread <= WITHIN and signal.backward_spread <= WITHIN


def test_exceptions_are_few_and_known():
    assert set(EXCEPTIONS) <= set(ZOO)
    assert len(EXCEPTIONS) <= len(ZOO) / 8


@pytest.mark.parametrize(
    "name",
    [
        name if name in EVERY_DAY else pytest.param(name, marks=pytest.mark.slow)
        for name in ZOO
        if name not in EXCEPTIONS
    ],
)
def test_the_signal_stays_within_a_factor_of_two(name):
    draws = 4 if name in EVERY_DAY else DRAWS
    _, ours = signals(name, default=False, draws=draws)
    assert sum(map(len, ours.forward.values())) >= 2
    assert any(map(len, ours.backward.values()))
    assert ours.forward_spread <= WITHIN, dict(ours.forward)
    assert ours.backward_spread <= WITHIN, dict(ours.backward)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXCEPTIONS)
def test_the_exceptions_are_some(name):
    """Else the list would be too long."""
    assert not holds(signals(name, default=False)[1])


@pytest.mark.slow
def test_keras_default_does_worse():
    """Which also shows that the check can fail."""
    pairs = [signals(name) for name in ZOO]
    default = [holds(before) for before, _ in pairs]
    ours = [holds(after) for _, after in pairs]
    assert sum(ours) == len(ZOO) - len(EXCEPTIONS)
    assert sum(default) < len(ZOO) / 2


def test_keras_default_loses_the_signal_of_20_layers():
    default, ours = signals("deep_relu_mlp", draws=1)
    assert min(default.forward_spread, default.backward_spread) > 100
    assert max(ours.forward_spread, ours.backward_spread) < 1.1


def test_the_figures_are_largest_over_smallest():
    assert spread({"a": 3.0, "b": 1.5}) == 2
    assert spread({"a": 3.0, "b": 0.0}) == float("inf")
    signal = Signal()
    assert signal.forward_spread == 1
    signal.forward["trunk"] = {"a": 3.0, "b": 1.0}
    signal.forward["value"] = {"a": 1.0, "b": 9.0}
    assert signal.forward_spread == 9


def test_the_table_has_a_row_a_model():
    shown = table(["mlp"])
    assert isinstance(shown, Table)
    assert shown.row_count == 1
    assert figures(Signal(), Signal()) == ["1.00"] * 4
