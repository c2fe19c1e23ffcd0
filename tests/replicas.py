"""Trains on two virtual devices, in a process of its own, and keeps what came out.

`python tests/replicas.py FILE [more]`, because devices must be split before a backend
starts. test_modes.py trains the same by hand on one device and compares.
"""

import contextlib
import functools
import os
import pickle
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, optimizers

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    GradientNormLogger,
)

BACKEND = keras.backend.backend()
EXAMPLES, BATCH, EPOCHS, UNITS = 16, 8, 2, 8
USUAL = {"jit_compile": BACKEND == "jax"}
OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01), 1024.0),
    "clipped": lambda: optimizers.SGD(0.1, global_clipnorm=0.01),
    "accumulating": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
}


def split_devices():
    """To be called before the backend is used."""
    if BACKEND == "jax":
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    else:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)


def data(kind="vectors", examples=EXAMPLES):
    rng = np.random.default_rng(7)
    y = rng.normal(size=(examples, 2)).astype("float32")
    if kind == "tokens":
        return rng.integers(0, 4, (examples, 5)), y
    x = rng.normal(size=(examples, 6)).astype("float32")
    # Two units fire on one example each, which only one of the devices sees.
    x[1::BATCH, 0] = x[6::BATCH, 1] = 30.0
    return x, y


def network(kind="vectors"):
    """Eight rectified units, some dead, some that only one device sees fire."""
    hidden = layers.Dense(UNITS, "relu")
    first = [keras.Input((6,))]
    if kind == "tokens":
        first = [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 3),
            layers.Flatten(),
        ]
    model = keras.Sequential([*first, hidden, layers.Dense(2)])
    kernel, _ = hidden.get_weights()
    if kind == "vectors":
        kernel[:2, :2] = np.eye(2)
        kernel[2:, :2] = kernel[:2, 2:] = 0.0
    hidden.set_weights([kernel, np.r_[-20, -20, -20, np.linspace(-4, 0.5, UNITS - 3)]])
    return model


@functools.cache
def mirrored():
    """The one strategy: TensorFlow mixes up the reductions of a second."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def spread():
    """A context in which models are spread over both devices."""
    if BACKEND == "jax":
        both = keras.distribution.DataParallel()
        assert both.device_mesh.devices.size == 2
        keras.distribution.set_distribution(both)
        return contextlib.nullcontext()
    return mirrored().scope()


def watchers(every=1):
    return [
        GradientNormLogger(every, alerts=False, clipped=True, updates=True),
        DeadReLULogger(every, alerts=False),
        ActivationStatsLogger(every, alerts=False),
    ]


def model_for(optimizer, kind="vectors", **arguments):
    keras.utils.set_random_seed(1)
    with spread():
        model = network(kind)
        model.compile(OPTIMIZERS[optimizer](), "mse", **(arguments or USUAL))
    return model


def fit(model, callbacks, x, y):
    model.fit(x, y, BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)


def left_over(model):
    """What an observation would have left behind on the instances."""
    wrapped = {"call", "quantized_call", "apply", "stateless_apply", "train_step"}
    owners = [model, model.optimizer, *model.layers]
    inner = getattr(model.optimizer, "inner_optimizer", None)
    return [wrapped & set(vars(one)) for one in [*owners, inner] if one is not None]


def train(optimizer, kind="vectors", examples=EXAMPLES, **arguments):
    """What came out of a fit with the callbacks."""
    model = model_for(optimizer, kind, **arguments)
    start, callbacks = model.get_weights(), watchers()
    fit(model, callbacks, *data(kind, examples))
    return {
        "start": start,
        "histories": [callback.history for callback in callbacks],
        "weights": model.get_weights(),
        "left_over": left_over(model),
    }


def plain(optimizer):
    """The weights after a fit without the callbacks."""
    model = model_for(optimizer)
    fit(model, [], *data())
    return {"plain": model.get_weights()}


def noisy(every=None):
    """The weights of a model that draws and normalizes, watched or not."""
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(UNITS, "relu"), layers.BatchNormalization()]
    with spread():
        model = keras.Sequential(
            [keras.Input((6,)), *hidden, layers.Dropout(0.3), layers.Dense(2)]
        )
        model.compile(OPTIMIZERS["adam"](), "mse", **USUAL)
    fit(model, watchers(every) if every else [], *data())
    return model.get_weights()


def error_of(model, callbacks):
    try:
        fit(model, callbacks, *data())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def accumulate():
    """The errors of accumulation without and with the callbacks."""
    models = [model_for("accumulating") for _ in range(2)]
    return {
        "errors": [error_of(models[0], []), error_of(models[1], watchers())],
        "left_over": left_over(models[1]),
    }


def refuse():
    import tensorflow as tf

    with tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"]).scope():
        model = network()
        model.compile("sgd", "mse", **USUAL)
    return {"error": error_of(model, watchers()), "left_over": left_over(model)}


def main(path, which="usual"):
    split_devices()
    if which == "more":
        found = {
            "uneven": train("adam", examples=13),
            "eager": train("adam", run_eagerly=True),
            "tokens": train("adam", "tokens"),
            "noisy": [noisy(), noisy(1), noisy(3)],
        }
    else:
        found = {"adam": train("adam") | plain("adam")}
    if BACKEND == "tensorflow" and which == "usual":
        found["scaled"] = train("scaled") | plain("scaled")
        found["clipped"] = train("clipped")
        found["accumulating"] = accumulate()
        found["central"] = refuse()
    Path(path).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
