"""What watching a training run costs: observed epochs beside plain ones.

One model is trained on and on, an epoch at a time, plain and observed epochs in pairs
whose order alternates, so that a drift of the machine hits both alike. Printed are
medians of the paired ratios, with a plain-against-plain control from the same run: a
ratio means something as far as the control is 1.

    KERAS_BACKEND=jax python tests/benchmarks/monitoring_overhead.py [--pairs 30]

`--quick` only shows that it works: small models, few pairs.
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


def mlp(width):
    hidden = [keras.layers.Dense(width, "relu") for _ in range(8)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


def cnn(width):
    convolutions = [
        keras.layers.Conv2D(width // 16, 3, padding="same", activation="relu")
        for _ in range(4)
    ]
    top = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((14, 14, 1)), *convolutions, *top])


def transformer(width):
    """One block of self-attention and a ReLU network, on 16 positions."""
    size = width // 8
    inputs = keras.Input((16, 32))
    x = keras.layers.Dense(size)(inputs)
    y = keras.layers.LayerNormalization()(x)
    x += keras.layers.MultiHeadAttention(4, size // 4)(y, y)
    y = keras.layers.LayerNormalization()(x)
    y = keras.layers.Dense(4 * size, "relu")(y)
    x += keras.layers.Dense(size)(y)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def seconds(model, data, callbacks):
    start = time.perf_counter()
    model.fit(*data, BATCH, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
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
    parser.add_argument("--quick", action="store_true", help="small and few")
    arguments = parser.parse_args()
    quick = arguments.quick
    pairs, width, steps = (3, 64, 10) if quick else (arguments.pairs, 512, STEPS)
    loggers = {
        "gradient norms": lambda every: [GradientNormLogger(every)],
        "dead ReLUs": lambda every: [DeadReLULogger(every)],
        "both": lambda every: [GradientNormLogger(every), DeadReLULogger(every)],
    }
    backend = keras.backend.backend()
    table = Table(
        title=f"observed ÷ plain epoch on {backend}, medians of {pairs} pairs"
    )
    for name in ("model", "logger", "every", "ratio", "control"):
        table.add_column(name, justify="right")
    # As a user trains: PyTorch eagerly, the others compiled, TensorFlow without XLA.
    compiling = {"jit_compile": backend == "jax"}
    rng = np.random.default_rng(0)
    for build in (mlp, cnn, transformer):
        model = build(width)
        x = rng.normal(size=(BATCH * steps, *model.input_shape[1:])).astype("float32")
        data = x, rng.integers(0, 10, len(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, **compiling)
        for name, make in loggers.items():
            for every in (1, 10):
                ratio, control = ratios(model, data, make(every), pairs)
                row = (f"{ratio:.3f}", f"{control:.3f}")
                table.add_row(build.__name__, name, str(every), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
