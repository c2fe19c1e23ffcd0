"""One callback of each kind, and small fits that they watch."""

import keras
import numpy as np
from keras import layers

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)

KINDS = (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
STEPS = 2  # an epoch, of four examples each


def new(kind, **arguments):
    quiet = {"every": 1, "alerts": False, **arguments}
    return kind(tau=0.0, **quiet) if kind is DormantUnitRecycler else kind(**quiet)


def relu_model(*more, **options):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(4, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((3,)), *hidden, *more, layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True, **options)  # nothing to compile
    return model


def fit(model, *callbacks, x=X, epochs=1, **options):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
    model.fit(x, X[:, :2], epochs=epochs, callbacks=[*callbacks], **options)


def figures(history):
    """The numbers of a history in order, whatever the layers are called."""
    if hasattr(history, "values"):
        history = list(history.values())
    if isinstance(history, list | tuple):
        return [leaf for one in history for leaf in figures(one)]
    return [np.asarray(history)]
