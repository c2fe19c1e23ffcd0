"""What `recommend` and `apply` cost, beside building the model.

Each model is built, and then recommended for and applied to, in turn; the ratio is of
medians over several rounds, after one that is not counted (JAX compiles a draw for
every new shape, TensorFlow loads what it needs). Beside the ratio of times on the clock
stands that of processor time, which other programs do not change. Then the time for
each layer of 1,000 dense layers is set beside that of 100.

    python tests/benchmarks/recommend_speed.py

The bars are 1.0 for each model and 1.5 for the layers. `--quick` only shows that it
works, on small models.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console
from rich.table import Table

from keras_initlab import recommend

MODELS = ("ResNet50", "EfficientNetB0", "DenseNet121", "ConvNeXtTiny")
LONG, SHORT = 1000, 100

sys.setrecursionlimit(20_000)  # Keras follows a chain of layers by recursion


def chain(layers, width=64):
    """Plain dense layers in a row."""
    hidden = [keras.layers.Dense(width, "relu") for _ in range(layers)]
    return keras.Sequential([keras.Input((width,)), *hidden])


def application(name):
    return getattr(keras.applications, name)(weights=None)


def timed(function):
    """What a function returns, and the seconds on the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, (time.perf_counter() - clock, time.process_time() - processor)


def rounds_of(build, count):
    """`(build, recommend, apply)` seconds of each round, of both kinds."""
    found = []
    for _ in range(count + 1):
        model, building = timed(build)
        advice, looking = timed(lambda model=model: recommend(model))
        _, writing = timed(lambda advice=advice: advice.apply(seed=0))
        found.append((building, looking, writing))
        del model, advice
        gc.collect()
    return found[1:]


def medians(rounds, kind):
    parts = zip(*rounds, strict=True)
    return [statistics.median(times[kind] for times in part) for part in parts]


def row_of(name, rounds):
    """The ratio of what we do to building, on the clock and of the processor."""
    row = {"model": name, "rounds": len(rounds)}
    for kind, label in enumerate(("clock", "processor")):
        build, looking, writing = medians(rounds, kind)
        row |= {
            f"{label}_build": build,
            f"{label}_recommend": looking,
            f"{label}_apply": writing,
            f"{label}_ratio": (looking + writing) / build,
        }
    return row


def per_layer(rounds, short, long):
    """How much longer each of many layers takes than each of few, by the processor.

    Short and long chains take turns, several short ones to one long one.
    """
    few, many = [], []
    for _ in range(rounds):
        few += rounds_of(lambda: chain(short), 3)
        many += rounds_of(lambda: chain(long), 1)
    ours = [sum(medians(found, kind=1)[1:]) for found in (few, many)]
    each = [ours[0] / short, ours[1] / long]
    return {
        "model": f"{long} layers beside {short}",
        "rounds": rounds,
        "milliseconds_per_layer": [1000 * one for one in each],
        "processor_ratio": each[1] / each[0],
    }


def shown(rows):
    table = Table(title=f"recommend and apply, {keras.backend.backend()}")
    kinds = ("build s", "recommend s", "apply s", "ratio", "ratio by processor")
    for column in ("model", *kinds):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        names = [f"clock_{part}" for part in ("build", "recommend", "apply", "ratio")]
        numbers = [*(row.get(name) for name in names), row["processor_ratio"]]
        cells = ["" if number is None else f"{number:.2f}" for number in numbers]
        table.add_row(row["model"], *cells)
    return table


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.quick:
        rows = [row_of("chain", rounds_of(lambda: chain(5, 8), 1)), per_layer(1, 5, 20)]
    else:
        rows = [
            row_of(name, rounds_of(lambda name=name: application(name), options.rounds))
            for name in options.models
        ]
        rows.append(per_layer(2, SHORT, LONG))
    Console().print(shown(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
