"""What TensorFlow says of many models in one process, during `compare` and after."""

import contextlib
import logging

import keras
import numpy as np
import pytest

import keras_initlab
from keras_initlab.compare import _training
from keras_initlab.compare._tracing import expecting_traces

LOG = logging.getLogger("tensorflow")
MANY = 6  # TensorFlow warns of the fifth trace
SAID = "{} out of the last 5 calls to <function {} at 0x7f> triggered tf.function {}"
KERAS = "TensorFlowTrainer._make_function.<locals>.multi_step_on_iterator"


@pytest.fixture
def heard(monkeypatch):
    """The warnings that are heard, from a TensorFlow that has seen no trace yet."""
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.eager.polymorphic_function import polymorphic_function

        fresh = polymorphic_function._FrequentTracingDetectorManager()
        name = "_frequent_tracing_detector_manager"
        monkeypatch.setattr(polymorphic_function, name, fresh)
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    LOG.addHandler(handler)
    yield texts
    LOG.removeHandler(handler)


def train():
    """Compares on a single step, compiled, as TensorFlow counts only those."""

    def build():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    x = np.ones((8, 2), "float32")
    data = (x, x[:, :1]), (x, x[:, :1])
    return keras_initlab.compare(
        build, ["ones"], data, 1, seeds=range(MANY), batch_size=8, verbose=0
    )


@pytest.mark.parametrize(
    ("text", "is_heard"),
    [
        (SAID.format(5, KERAS, "retracing. Tracing is expensive"), False),
        (SAID.format(5, "my_step", "retracing. Tracing is expensive"), True),
        (SAID.format(5, KERAS, "something else"), True),
        ("Gradients do not exist for variables of a Trainer.", True),
    ],
)
def test_only_traces_of_keras_are_held_back(heard, text, is_heard):
    with expecting_traces():
        LOG.warning(text)
        LOG.warning("%s", text)
    assert heard == 2 * is_heard * [text]
    LOG.warning(text)
    assert heard[-1] == text


def test_all_is_heard_again_after_an_error(heard):
    filters = list(LOG.filters)

    @expecting_traces()
    def failing():
        assert LOG.filters != filters
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        failing()
    assert LOG.filters == filters


def test_a_run_holds_them_back(heard, monkeypatch):
    def fitted(*arguments):
        LOG.warning(SAID.format(5, KERAS, "retracing"))
        return {"seconds": 0.0, "curves": {"test_loss": [1.0]}}

    monkeypatch.setattr(_training, "_fitted", fitted)
    assert not train().failed
    assert not heard


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("is_expected", [True, False])
def test_no_run_is_warned_of(heard, monkeypatch, is_expected):
    if not is_expected:
        nothing = contextlib.nullcontext
        monkeypatch.setattr(_training, "expecting_traces", nothing)
    train()
    warned = [text for text in heard if "triggered tf.function retracing" in text]
    assert bool(warned) != is_expected


@pytest.mark.tensorflow
def test_a_function_of_the_user_is_still_warned_of(heard):
    import tensorflow as tf

    with expecting_traces():
        for _ in range(MANY):
            tf.function(lambda x: x + 1)(1.0)
    assert any("<lambda>" in text for text in heard)
