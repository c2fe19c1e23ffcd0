"""What watching a training run costs: observed steps and epochs beside plain ones.

Every case has a model of its own, which is trained on and on. What is done at every
step is timed by step: of each four, the first and last are plain, the second and third
observed, and the ratio is of their sums, so that a drift of the machine hits both
alike. What is done every tenth step or once an epoch is timed by epoch, each a `fit` of
its own, plain and observed in pairs whose order alternates. The cases take turns.

One case of each kind is a control: plain against plain. A ratio means something as far
as the control is 1, so pairs are added until the controls are within 0.02 and no
standard error exceeds 0.01 of its ratio, or until the time is spent. Beside the
callbacks stand what people do today, in `rivals.py`.

    KERAS_BACKEND=jax taskset -c 0 python tests/benchmarks/monitoring_overhead.py

`taskset` keeps it on one processor: with two, other programs and threads that wait for
each other make the times uncertain. `--quick` only shows that it works: small models,
few steps, few pairs.
"""

from __future__ import annotations

import argparse
import functools
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
    "control": lambda x, y, every: [],
    "gradients": lambda x, y, every: [GradientNormLogger(every)],
    "dead": lambda x, y, every: [DeadReLULogger(every)],
    "both": lambda x, y, every: [GradientNormLogger(every), DeadReLULogger(every)],
    "extra-pass": lambda x, y, every: [ExtraGradientPass(x, y, BATCH, every)],
    "activation-pass": lambda x, y, every: [FullActivationPass(x, BATCH)],
}
BY_STEP = ["control", "gradients", "dead", "both", "extra-pass"]
BY_EPOCH = ["control", "both", "extra-pass", "activation-pass"]
NAMES = [f"{name}-1" for name in BY_STEP] + [f"{name}-10" for name in BY_EPOCH]


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
STEPS = {"mlp": 104, "cnn": 64, "transformer": 104}  # an epoch of about a second


def compiled(build, width):
    """A model as users train it: PyTorch eagerly, TensorFlow compiled without XLA."""
    model = build(width)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=keras.backend.backend() == "jax")
    return model


class ByEpoch:
    """A model of its own, trained in plain and in observed epochs."""

    def __init__(self, model, data, callbacks):
        self.model, self.data, self.callbacks = model, data, callbacks(10)
        self.steps = len(data[0]) // BATCH
        self.times = []
        for _ in range(2):  # compile what is to be timed
            self.seconds(self.callbacks)
            self.seconds([])

    def seconds(self, callbacks):
        """Of a step, without what `fit` does before the first one."""
        first, last = Clock(), Clock()
        fit(self.model, self.data, [first, *callbacks, last])
        return (last.end - first.starts[0]) / self.steps

    def add_pairs(self):
        kinds = [[], self.callbacks]
        order = (0, 1) if len(self.times) % 2 else (1, 0)
        times = {kind: self.seconds(kinds[kind]) for kind in order}
        self.times.append((times[0], times[1]))

    def result(self):
        """The median of the paired ratios, its error, and what it came from."""
        wall, cpu = np.moveaxis(np.array(self.times), -1, 0)
        ratios = wall[:, 1] / wall[:, 0]
        draws = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
        plain, observed = np.median(wall, axis=0)
        return {
            "ratio": float(np.median(ratios)),
            "error": float(np.std(np.median(draws, axis=1))),
            "ratio_of_medians": float(observed / plain),
            "cpu_ratio": float(np.median(cpu[:, 1] / cpu[:, 0])),
            "pairs": len(ratios),
            "plain_step_seconds": float(plain),
        }


class ByStep(ByEpoch):
    """A model of its own, of whose steps the second and third of four are observed."""

    def __init__(self, model, data, callbacks):
        self.model, self.data = model, data
        self.clock = Clock()
        self.callbacks = [self.clock, *callbacks(lambda step: step % 4 in (1, 2))]
        self.times = []
        fit(self.model, self.data, self.callbacks)

    def add_pairs(self):
        fit(self.model, self.data, self.callbacks)
        each = np.diff(self.clock.starts, axis=0)
        fours = each[4 : len(each) // 4 * 4].reshape(-1, 4, 2)  # the first is observed
        outer, inner = fours[:, 0] + fours[:, 3], fours[:, 1] + fours[:, 2]
        self.times += list(np.stack([outer, inner], axis=1) / 2)


class Clock(keras.callbacks.Callback):
    """When the steps of the last epoch began, `(steps, 2)`, and when it ended."""

    def on_epoch_begin(self, epoch, logs=None):
        self.starts = []

    def on_train_batch_begin(self, batch, logs=None):
        self.starts.append(now())

    def on_epoch_end(self, epoch, logs=None):
        self.end = now()


def now():
    """Seconds, on the clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def fit(model, data, callbacks):
    options = {"shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
    model.fit(*data, BATCH, epochs=1, **options)


def data_for(name, width, steps):
    """Examples for one epoch; noise costs what real data cost."""
    rng = np.random.default_rng(0)
    shape = MODELS[name](width).input_shape[1:]
    x = rng.normal(size=(BATCH * steps, *shape)).astype("float32")
    return x, rng.integers(0, 10, len(x))


def measured(name, cases, options):
    """Results by case, from as many rounds of pairs as it takes."""
    width, steps = (64, 16) if options.quick else (512, STEPS[name])
    data = data_for(name, width, steps)

    def running_case(case):
        kind, _, every = case.rpartition("-")
        how = ByStep if every == "1" else ByEpoch
        callbacks = functools.partial(CASES[kind], *data)
        return how(compiled(MODELS[name], width), data, callbacks)

    running = {case: running_case(case) for case in cases}
    # The graphs of many models are alive: no collection is to walk through them.
    gc.collect()
    gc.freeze()
    deadline = time.monotonic() + 60 * options.max_minutes
    shuffler = random.Random(0)
    is_done = False
    while not is_done:
        for case in shuffler.sample(cases, len(cases)):
            running[case].add_pairs()
        results = {case: one.result() for case, one in running.items()}
        is_done = is_settled(results, options) or time.monotonic() > deadline
    gc.unfreeze()
    return results


def is_settled(results, options):
    """Whether there are enough pairs, and the controls and all errors are small."""
    if any(one["pairs"] < options.pairs for one in results.values()):
        return False
    controls = [one for case, one in results.items() if case.startswith("control")]
    are_near = all(abs(one["ratio"] - 1) <= 0.02 for one in controls)
    are_sharp = all(one["error"] <= 0.01 * one["ratio"] for one in results.values())
    return options.quick or (are_near and are_sharp)


def as_table(name, results):
    """One model's results."""
    title = f"{name} on {keras.backend.backend()}, batches of {BATCH}: observed ÷ plain"
    table = Table(title=title)
    headings = ("case", "ratio", "error", "of medians", "CPU time", "pairs", "plain")
    for heading in headings:
        table.add_column(heading, justify="right")
    for case, one in results.items():
        names = ("ratio", "error", "ratio_of_medians", "cpu_ratio")
        figures = [f"{one[name]:.3f}" for name in names]
        step = f"{one['plain_step_seconds'] * 1e3:.1f} ms"
        table.add_row(case, *figures, str(one["pairs"]), step)
    return table


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cases", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--pairs", type=int, default=FEWEST_PAIRS, help="at least")
    parser.add_argument("--max-minutes", type=float, default=10, help="for each model")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="small and few")
    options = parser.parse_args(arguments)
    options.pairs = 2 if options.quick else options.pairs
    return options


def needs(options, control):
    """Whether there is a case that this control is for."""
    return any(case.endswith(control[7:]) for case in options.cases)


def main(arguments=None):
    options = parsed(arguments)
    controls = [case for case in ("control-1", "control-10") if needs(options, case)]
    cases = [*controls, *(case for case in options.cases if case not in controls)]
    if keras.backend.backend() == "jax":  # else a step ends before it is done
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
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
