"""What watching a training run costs: observed epochs beside plain ones.

One model is trained on and on, an epoch at a time, plain and observed epochs in pairs
whose order alternates, so that a drift of the machine hits both alike. Printed are
medians of the paired ratios, with a plain-against-plain control from the same run: a
ratio means something as far as the control is 1.

    python tests/benchmarks/monitoring_overhead.py [--pairs 30]
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_initlab.callbacks import DeadReLULogger, GradientNormLogger

BATCH = 64
STEPS = 50


def mlp():
    hidden = [keras.layers.Dense(512, "relu") for _ in range(8)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    return model, np.random.default_rng(0).normal(size=(BATCH * STEPS, 64))


def cnn():
    convolutions = [
        keras.layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(4)
    ]
    top = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((14, 14, 1)), *convolutions, *top])
    return model, np.random.default_rng(0).normal(size=(BATCH * STEPS, 14, 14, 1))


def seconds(model, data, callbacks):
    start = time.perf_counter()
    model.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    return time.perf_counter() - start


def ratios(model, data, callbacks, pairs):
    """Paired ratios of observed to plain epochs, and of plain to plain ones."""
    for _ in range(2):  # compile both train functions
        seconds(model, data, callbacks)
        seconds(model, data, [])
    observed, control = [], []
    for pair in range(pairs):
        kinds = [callbacks, [], []]
        order = [0, 1, 2] if pair % 2 else [2, 1, 0]
        times = {kind: seconds(model, data, kinds[kind]) for kind in order}
        observed.append(times[0] / times[1])
        control.append(times[2] / times[1])
    return np.median(observed), np.median(control)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    loggers = {
        "gradient norms": lambda every: [GradientNormLogger(every)],
        "dead ReLUs": lambda every: [DeadReLULogger(every)],
        "both": lambda every: [GradientNormLogger(every), DeadReLULogger(every)],
    }
    table = Table(title=f"observed ÷ plain epoch, medians of {pairs} pairs")
    for name in ("model", "logger", "every", "ratio", "control"):
        table.add_column(name, justify="right")
    for build in (mlp, cnn):
        model, x = build()
        y = np.random.default_rng(1).integers(0, 10, len(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y))
        data = data.batch(BATCH).cache()
        for name, make in loggers.items():
            for every in (1, 10):
                ratio, control = ratios(model, data, make(every), pairs)
                row = (f"{ratio:.3f}", f"{control:.3f}")
                table.add_row(build.__name__, name, str(every), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
