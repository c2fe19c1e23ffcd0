"""What probing a model costs, beside one eager training step.

`probe` and a step of plain SGD (`train_on_batch`, `run_eagerly=True`, same batch, same
labels) run in turns whose order alternates, so that a drift of the machine hits both
alike; printed are medians of the times, and of the ratios within a turn. A step runs
the model forward and backward once, as `probe` does, and writes the weights.

    KERAS_BACKEND=jax python tests/benchmarks/probing.py [--turns 7] [--models …]
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from calibration import MODELS, seconds
from rich.console import Console
from rich.table import Table

from keras_initlab import probe


def measured(name, options):
    keras.utils.set_random_seed(0)
    model, draw = MODELS[name](options.size)
    rng = np.random.default_rng(0)
    x = draw(rng, options.batch)
    x = x.astype("float32" if x.dtype == float else "int32")
    y = rng.normal(size=(options.batch, *model.output_shape[1:])).astype("float32")
    model.compile(keras.optimizers.SGD(1e-6), "mse", run_eagerly=True)
    contestants = {"step": model.train_on_batch, "probe": lambda *of: probe(model, *of)}
    times = {label: [] for label in contestants}
    for function in contestants.values():
        function(x, y)  # what the first call alone does
    for turn in range(options.turns):
        for label in list(contestants)[:: -1 if turn % 2 else 1]:
            times[label].append(seconds(contestants[label], x, y)[0])
    return {
        "backend": keras.backend.backend(),
        "model": name,
        **{f"{label}_seconds": float(np.median(took)) for label, took in times.items()},
        "ratio": float(np.median(np.array(times["probe"]) / times["step"])),
    }


def as_table(rows):
    table = Table(title=f"one probe, {keras.backend.backend()}, in training steps")
    for column in ("model", "step", "probe"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        step, ratio = f"{row['step_seconds']:.3f} s", f"{row['ratio']:.2f}"
        table.add_row(row["model"], step, ratio)
    return table


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--size", type=int, default=96, help="of images and sequences")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(arguments)
    rows = [measured(name, options) for name in options.models]
    Console(width=100).print(as_table(rows))
    return rows


if __name__ == "__main__":
    main()
