"""Settings that hold for every test."""

import gc
import os

# TensorFlow's own start-up notes would bury pytest's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and run little.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import keras
import numpy as np
import pytest
import tiers
from hostile_report import HostileReport

from keras_initlab.recommend import _keeping


def pytest_configure(config):
    config.addinivalue_line("markers", "hostile(*names): hostile input to public names")
    config.pluginmanager.register(HostileReport())


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    tiers.mark(items, keras.backend.backend())
    if keras.backend.backend() == "tensorflow":
        return
    skip = pytest.mark.skip(reason="needs the TensorFlow backend")
    for item in items:
        if "tensorflow" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish():
    # What is imported stays: to look for garbage in it takes a tenth of the time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def nothing_is_kept(monkeypatch):
    """Has the policy choose for every kernel; `test_keeping.py` has what is kept."""
    monkeypatch.setattr(_keeping, "NEAR", 0.5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
