"""What watching a training run costs: observed epochs beside plain ones.

Every case has a model of its own, which is trained on and on, an epoch (one `fit`) at a
time: plain and observed epochs in pairs whose order alternates, so that a drift of the
machine hits both alike, and the cases' pairs in turns. One case is a control: plain
against plain. A ratio means something as far as the control is 1, so pairs are added
until it is within 0.02 and no standard error exceeds 0.01 of its ratio, or until the
time is spent. Beside the callbacks stand what people do today, in `rivals.py`.

Where other programs take turns on the processors, the ratio of CPU times says more, if
the backend is held to one thread: else threads that wait for each other count as busy.

    KERAS_BACKEND=jax python tests/benchmarks/monitoring_overhead.py [--json FILE]

`--quick` only shows that it works: small models, few steps, few pairs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from rivals import ExtraGradientPass, FullActivationPass

from keras_initlab.callbacks import DeadReLULogger, GradientNormLogger

BATCH = 64
FEWEST_PAIRS = 10

CASES = {
    "control": lambda x, y: [],
    "both-10": lambda x, y: [GradientNormLogger(10), DeadReLULogger(10)],
    "gradients-1": lambda x, y: [GradientNormLogger(1)],
    "dead-1": lambda x, y: [DeadReLULogger(1)],
    "both-1": lambda x, y: [GradientNormLogger(1), DeadReLULogger(1)],
    "extra-pass-10": lambda x, y: [ExtraGradientPass(x, y, BATCH, 10)],
    "extra-pass-1": lambda x, y: [ExtraGradientPass(x, y, BATCH, 1)],
    "activation-pass": lambda x, y: [FullActivationPass(x, BATCH)],
}


def mlp(width):
    """Eight hidden layers."""
    hidden = [keras.layers.Dense(width, "relu") for _ in range(8)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


def cnn(width):
    """Four convolutions on 14 x 14."""
    convolutions = [
        keras.layers.Conv2D(width // 16, 3, padding="same", activation="relu")
        for _ in range(4)
    ]
    top = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((14, 14, 1)), *convolutions, *top])


def transformer(width):
    """Two blocks of self-attention and a ReLU network, on 16 positions."""
    size = width // 8
    inputs = keras.Input((16, 32))
    x = keras.layers.Dense(size)(inputs)
    for _ in range(2):
        y = keras.layers.LayerNormalization()(x)
        x += keras.layers.MultiHeadAttention(4, size // 4)(y, y)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(4 * size, "relu")(y)
        x += keras.layers.Dense(size)(y)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


MODELS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
STEPS = {"mlp": 50, "cnn": 30, "transformer": 50}  # an epoch of about half a second


def compiled(build, width):
    """A model as users train it: PyTorch eagerly, TensorFlow compiled without XLA."""
    model = build(width)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=keras.backend.backend() == "jax")
    return model


class Case:
    """A model of its own, trained in plain and in observed epochs."""

    def __init__(self, model, data, callbacks):
        self.model, self.data, self.callbacks = model, data, callbacks
        self.times = []
        for _ in range(2):  # compile what is to be timed
            self.seconds(self.callbacks)
            self.seconds([])

    def seconds(self, callbacks):
        options = {"shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        start = time.perf_counter(), time.process_time()
        self.model.fit(*self.data, BATCH, epochs=1, **options)
        return time.perf_counter() - start[0], time.process_time() - start[1]

    def add_pair(self):
        kinds = [[], self.callbacks]
        order = (0, 1) if len(self.times) % 2 else (1, 0)
        times = {kind: self.seconds(kinds[kind]) for kind in order}
        self.times.append((times[0], times[1]))

    def result(self):
        """The median of the paired ratios, its error, and what it came from."""
        (plain, observed), cpu = np.array(self.times).T
        ratios = observed / plain
        draws = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
        return {
            "ratio": float(np.median(ratios)),
            "error": float(np.std(np.median(draws, axis=1))),
            "ratio_of_medians": float(np.median(observed) / np.median(plain)),
            "cpu_ratio": float(np.median(cpu[1] / cpu[0])),
            "pairs": len(ratios),
            "plain_seconds": float(np.median(plain)),
        }


def data_for(name, width, steps):
    """Examples for one epoch; noise costs what real data cost."""
    rng = np.random.default_rng(0)
    shape = MODELS[name](width).input_shape[1:]
    x = rng.normal(size=(BATCH * steps, *shape)).astype("float32")
    return x, rng.integers(0, 10, len(x))


def measured(name, cases, options):
    """Results by case, from as many rounds of pairs as it takes."""
    width, steps = (64, 5) if options.quick else (512, STEPS[name])
    data = data_for(name, width, steps)
    running = {
        case: Case(compiled(MODELS[name], width), data, CASES[case](*data))
        for case in cases
    }
    # The graphs of many models are alive: no collection is to walk through them.
    gc.collect()
    gc.freeze()
    deadline = time.monotonic() + 60 * options.max_minutes
    shuffler = random.Random(0)
    is_done = False
    while not is_done:
        for case in shuffler.sample(cases, len(cases)):
            running[case].add_pair()
        results = {case: one.result() for case, one in running.items()}
        is_done = is_settled(results, options) or time.monotonic() > deadline
    gc.unfreeze()
    return {case: {**one, "steps": steps} for case, one in results.items()}


def is_settled(results, options):
    """Whether there are enough pairs, and the control and all errors are small."""
    control = results["control"]
    is_near = abs(control["ratio"] - 1) <= 0.02
    is_sharp = all(one["error"] <= 0.01 * one["ratio"] for one in results.values())
    return control["pairs"] >= options.pairs and (
        options.quick or (is_near and is_sharp)
    )


def as_table(name, results):
    """One model's results."""
    plain, steps = results["control"]["plain_seconds"], results["control"]["steps"]
    table = Table(
        title=f"{name} on {keras.backend.backend()}: observed ÷ plain epoch "
        f"({steps} steps of {BATCH}, {plain:.2f} s)"
    )
    headings = ("case", "paired ratio", "its error", "of medians", "CPU time", "pairs")
    for heading in headings:
        table.add_column(heading, justify="right")
    for case, one in results.items():
        names = ("ratio", "error", "ratio_of_medians", "cpu_ratio")
        figures = [one[name] for name in names]
        table.add_row(case, *(f"{x:.3f}" for x in figures), str(one["pairs"]))
    return table


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pairs", type=int, default=FEWEST_PAIRS, help="at least")
    parser.add_argument("--max-minutes", type=float, default=10, help="for each model")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="small and few")
    options = parser.parse_args(arguments)
    options.pairs = 2 if options.quick else options.pairs
    return options


def main(arguments=None):
    options = parsed(arguments)
    cases = ["control", *(case for case in options.cases if case != "control")]
    rows = []
    for name in options.models:
        results = measured(name, cases, options)
        Console(width=100).print(as_table(name, results))
        about = {"backend": keras.backend.backend(), "batch_size": BATCH, "model": name}
        rows += [{**about, "case": case, **one} for case, one in results.items()]
        if options.json:  # what there is so far
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
