"""Settings that hold for every test."""

import os

# TensorFlow's own start-up notes would bury pytest's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and run little.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import keras
import numpy as np
import pytest
from hostile_report import HostileReport

# On JAX nearly all time goes into compiling. What these ask of the callbacks' rules and
# files is asked on the two other backends every day, and here with `-m slow`.
LONG_ON_JAX = (
    *("test_alerts.py", "test_frames.py", "test_lives.py"),
    *("test_planted_faults.py", "test_tensorboard.py"),
)


def pytest_configure(config):
    config.addinivalue_line("markers", "hostile(*names): hostile input to public names")
    config.pluginmanager.register(HostileReport())


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "tensorflow":
        return
    if keras.backend.backend() == "jax":
        for item in items:
            if item.path.name in LONG_ON_JAX:
                item.add_marker("slow")
    skip = pytest.mark.skip(reason="needs the TensorFlow backend")
    for item in items:
        if "tensorflow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
