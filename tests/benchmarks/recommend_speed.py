"""What `recommend` and `apply` cost, beside building the model.

Each model is built, and then recommended for and applied to, in turn; the ratio is of
medians over several rounds, after one that is not counted (JAX compiles a draw for
every new shape, TensorFlow loads what it needs). Beside the ratio of times on the clock
stands that of processor time, which other programs do not change. Then the time for
each layer of 1,000 dense layers is set beside that of 100.

    python tests/benchmarks/recommend_speed.py
    python tests/benchmarks/recommend_speed.py --memory

The bars are 1.0 for each model whose kernels' inputs theory knows, 2.0 where the model
runs once to tell, and 1.5 for the layers. LLaMA and BERT, of 12 layers and 768 units,
are KerasHub's and only measured where that is installed. With `--memory`, shown is by
how much the process grows beyond what it took with the built model, in sizes of the
model's weights (Linux only; each model in a process of its own; the bar is 2.0).
Beside it stands what one call of the model takes, as in training on two examples: that
much no run can do without.
`--quick` only shows that it works, on small models.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import multiprocessing
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

APPLICATIONS = ("ResNet50", "EfficientNetB0", "DenseNet121", "ConvNeXtTiny")
LANGUAGE = ("LLaMA", "BERT")
HAS_HUB = importlib.util.find_spec("keras_hub") is not None
MODELS = APPLICATIONS + LANGUAGE * HAS_HUB
LONG, SHORT = 1000, 100

sys.setrecursionlimit(20_000)  # Keras follows a chain of layers by recursion


def chain(layers, width=64):
    """Plain dense layers in a row."""
    hidden = [keras.layers.Dense(width, "relu") for _ in range(layers)]
    return keras.Sequential([keras.Input((width,)), *hidden])


def built(name):
    if name not in LANGUAGE:
        return getattr(keras.applications, name)(weights=None)
    import keras_hub  # pyright: ignore

    if name == "BERT":
        return keras_hub.models.BertBackbone(
            vocabulary_size=30522,
            num_layers=12,
            num_heads=12,
            hidden_dim=768,
            intermediate_dim=3072,
        )
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=32000,
        num_layers=12,
        num_query_heads=12,
        num_key_value_heads=12,
        hidden_dim=768,
        intermediate_dim=2048,
    )
    return keras_hub.models.LlamaCausalLM(backbone=backbone)


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


def resident(which):
    """Bytes of this process in memory: now, `VmRSS`, or at the most, `VmHWM`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (one for one in status.splitlines() if one.startswith(which))
    return int(line.split()[1]) * 1024


def growth_of(name, is_plain):
    """By how much the process grows at the most, and the size of the weights.

    If it is plain, nothing is recommended: the model is called as in training, on two
    examples.
    """
    model = chain(5, 8) if name == "chain" else built(name)
    weights = 4 * sum(math.prod(variable.shape) for variable in model.variables)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the most
    if is_plain:
        shapes = keras.tree.map_structure(lambda one: one.shape, model.input)
        sizes = {None: 128}
        x = keras.tree.map_shape_structure(
            lambda shape: keras.ops.ones((2, *(sizes.get(n, n) for n in shape[1:]))),
            shapes,
        )
        with keras.StatelessScope(state_mapping=[]):
            model(x, training=True)
    else:
        recommend(model).apply(seed=0)
    return resident("VmHWM") - before, weights


def memory(names):
    """`growth_of` of each model, and of a plain call, in processes of their own."""
    found = []
    for name in names:
        grown = []
        for is_plain in (False, True):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                grown.append(pool.apply(growth_of, (name, is_plain)))
        (most, weights), (plain, _) = grown
        ratios = {"ratio": most / weights, "plain_ratio": plain / weights}
        found.append({"model": name, "weights": weights, "most": most, **ratios})
    table = Table(title=f"memory of recommend and apply, {keras.backend.backend()}")
    for column in ("model", "weights MB", "most MB", "ratio", "a plain call's"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in found:
        sizes = [f"{row[part] / 1e6:,.0f}" for part in ("weights", "most")]
        ratios = [f"{row[part]:.2f}" for part in ("ratio", "plain_ratio")]
        table.add_row(row["model"], *sizes, *ratios)
    return found, table


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
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.memory:
        rows, table = memory(("chain",) if options.quick else options.models)
    elif options.quick:
        rows = [row_of("chain", rounds_of(lambda: chain(5, 8), 1)), per_layer(1, 5, 20)]
    else:
        rows = [
            row_of(name, rounds_of(lambda name=name: built(name), options.rounds))
            for name in options.models
        ]
        rows.append(per_layer(2, SHORT, LONG))
    Console().print(table if options.memory else shown(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
