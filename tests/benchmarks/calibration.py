"""What calibrating a model costs, beside one plain pass and the published procedure.

`calibrate` and a plain forward pass (eager, same batch, same mode) run in turns whose
order alternates, so that a drift of the machine hits both alike; printed are medians
of the times, and of the ratios within a turn. The published procedure (Mishkin and
Matas 2016, algorithm 1: for each layer, run the model up to it, divide its kernel by
the standard deviation of its output, until that is within 0.1 of 1 or ten times) runs
between the turns, as its authors' and others' programs do: on dense and convolutional
layers alone, from the same weights each time, without its orthogonal start, which
`calibrate` leaves out too unless asked.

    KERAS_BACKEND=jax python tests/benchmarks/calibration.py [--turns 7] [--models …]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

from keras_initlab import calibrate

TOLERANCE, MOST_PASSES = 0.1, 10


def application(name):
    def build(size):
        made = getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classifier_activation=None
        )
        return made, lambda rng, batch: rng.normal(size=(batch, size, size, 3))

    return build


def mlp(size):
    hidden = [layers.Dense(size, "relu") for _ in range(9)]
    model = keras.Sequential([keras.Input((size,)), *hidden, layers.Dense(10)])
    return model, lambda rng, batch: rng.normal(size=(batch, size))


def lstm(size):
    model = keras.Sequential(
        [
            keras.Input((size,), dtype="int32"),
            layers.Embedding(1000, 256),
            layers.LSTM(256, return_sequences=True),
            layers.LSTM(256),
            layers.Dense(10),
        ]
    )
    return model, lambda rng, batch: rng.integers(0, 1000, (batch, size))


def transformer(size):
    inputs = keras.Input((size,), dtype="int32")
    x = layers.Embedding(1000, 256)(inputs)
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 64)(y, y)])
        y = layers.Dense(1024, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(256)(y)])
    model = keras.Model(inputs, layers.Dense(1000)(x))
    return model, lambda rng, batch: rng.integers(0, 1000, (batch, size))


APPLICATIONS = ["ResNet50", "EfficientNetB0", "MobileNetV2"]
MODELS = {
    **{name: application(name) for name in APPLICATIONS},
    "transformer": transformer,
    "lstm": lstm,
    "mlp": mlp,
}


def published(model, x):
    """Layer-sequential unit variance; returns how many passes it took."""
    passes = 0
    for layer in model.layers:
        if not isinstance(layer, layers.Dense) and not hasattr(layer, "kernel_size"):
            continue
        if not hasattr(layer, "kernel"):  # pooling has a window, too
            continue
        upto = keras.Model(model.inputs[0], layer.output)
        for _ in range(MOST_PASSES):
            passes += 1
            std = keras.ops.convert_to_numpy(upto(x, training=False)).std()
            if abs(std - 1) < TOLERANCE or std == 0:
                break
            layer.kernel.assign(layer.kernel / std)
    return passes


def plain(model, x):
    """One forward pass, waited for."""
    return keras.ops.convert_to_numpy(model(x, training=False))


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def measured(name, options):
    keras.utils.set_random_seed(0)
    model, draw = MODELS[name](options.size)
    x = draw(np.random.default_rng(0), options.batch)
    x = keras.ops.convert_to_tensor(
        x.astype("float32" if x.dtype == float else "int32")
    )
    start = model.get_weights()
    plain(model, x)  # what the first call alone does
    calibrate(model, x, seed=0)
    times = {"plain": [], "calibrate": [], "published": []}
    passes = 0
    for turn in range(options.turns):
        contestants = [("plain", plain), ("calibrate", calibrate)]
        for label, function in contestants[:: -1 if turn % 2 else 1]:
            model.set_weights(start)
            times[label].append(seconds(function, model, x)[0])
        if turn < options.rival_turns:
            model.set_weights(start)
            took, passes = seconds(published, model, x)
            times["published"].append(took)
    return as_row(name, times, passes)


def as_row(name, times, passes):
    ratios = np.array(times["calibrate"]) / times["plain"]
    base = float(np.median(times["plain"]))
    rival = float(np.median(times["published"])) if times["published"] else None
    return {
        "backend": keras.backend.backend(),
        "model": name,
        "plain_seconds": base,
        "calibrate_seconds": float(np.median(times["calibrate"])),
        "ratio": float(np.median(ratios)),
        "ratio_of_shortest": min(times["calibrate"]) / min(times["plain"]),
        "published_ratio": None if rival is None else rival / base,
        "published_passes": passes,
    }


def as_table(rows):
    table = Table(title=f"one calibration, {keras.backend.backend()}, in plain passes")
    for column in ("model", "plain", "calibrate", "shortest", "published", "passes"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        rival = row["published_ratio"]
        table.add_row(
            row["model"],
            f"{row['plain_seconds']:.3f} s",
            f"{row['ratio']:.2f}",
            f"{row['ratio_of_shortest']:.2f}",
            "–" if rival is None else f"{rival:.1f}",
            str(row["published_passes"]),
        )
    return table


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    usual = [name for name in MODELS if name != "mlp"]
    parser.add_argument("--models", nargs="+", choices=MODELS, default=usual)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rival-turns", type=int, default=1)
    parser.add_argument("--size", type=int, default=96, help="of images and sequences")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parsed(arguments)
    rows = []
    for name in options.models:
        rows.append(measured(name, options))
        Console(width=100).print(as_table(rows[-1:]))
        if options.json:  # what there is so far
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
