r"""Depth × activation: how deep a plain dense network still trains, and from where.

Plain Keras networks, 50 and 100 hidden layers for every pointwise activation and 1,000
for four of them, no normalization and no shortcut, on the 1,797 real digits of
scikit-learn (8 × 8, standardized as a whole, 1,400 to train on and 397 to test: the
standard error of an accuracy near 0.95 is 0.011). The budget of every run: layers of
128, Adam at 3e-4 for 10 epochs (at 1,000 layers 3e-5 for 8), gradients clipped to
global norm 1, batches of 100.

The arms: Keras's default (Glorot uniform), the textbook's (He for what looks like a
ReLU, LeCun for SELU, Glorot for what has two tails) and ours,
`keras_initlab.recommend(model).apply(seed)`.

    KERAS_BACKEND=jax python tests/benchmarks/depth.py --depths 50 100
    KERAS_BACKEND=jax python tests/benchmarks/depth.py --depths 1000
    python tests/benchmarks/depth.py --table
    python tests/benchmarks/depth.py --figure examples/depth_by_activation.png

With `--rates` it shows instead how large a learning rate still trains, by depth:

    KERAS_BACKEND=jax python tests/benchmarks/depth.py --arms ours \
        --activations relu tanh --depths 20 50 100 200 --rates 1e-4 2e-4 4e-4 8e-4

One line a run is added to `--results`; runs that are in it are not made again, so it
may be stopped at any time. On JAX a network of 100 layers compiles in 10 s and trains
in 6 s on one core; one of 1,000 in minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from depth_picture import depth_picture
from resumable import Results, Trained
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import keras_initlab as initlab

BATCH = 100
KEYS = ("activation", "depth", "arm", "seed")
TITLE = "How deep plain networks still train, by where they start from"
QUICK = 2  # hidden layers
ARMS = ("default", "textbook", "ours")
HEADINGS = ("Keras's default", "textbook", "recommended")
DEEPEST = ("relu", "gelu", "silu", "tanh")
NOT_POINTWISE = ("glu", "log_softmax", "softmax", "sparsemax")
OTHERS = {
    "exponential": "grows without bound, faster than any scale can hold",
    "linear": "has nothing to tell: any orthogonal kernels do",
    "threshold": "has no default for its threshold",
}
TWO_TAILS = (
    *("tanh", "hard_tanh", "softsign", "sigmoid", "hard_sigmoid", "sparse_sigmoid"),
    *("tanh_shrink", "soft_shrink", "hard_shrink"),
)


def activations():
    """Names of the pointwise activations of Keras that are to be trained with."""
    names = {function.__name__ for function in keras_activations()}
    return sorted(names - set(NOT_POINTWISE) - set(OTHERS))


def keras_activations():
    public = {k: v for k, v in vars(keras.activations).items() if k[0] != "_"}
    not_activations = ("deserialize", "get", "serialize")
    return [v for k, v in public.items() if callable(v) and k not in not_activations]


def textbook(activation):
    """The initializer that textbooks name for an activation."""
    if activation == "selu":
        return "lecun_normal"
    return "glorot_normal" if activation in TWO_TAILS else "he_normal"


def network(activation, depth, width, initializer="glorot_uniform"):
    hidden = [
        keras.layers.Dense(width, activation, kernel_initializer=initializer)
        for _ in range(depth)
    ]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


def weights_for(run):
    """What a user would have after building the model this way."""
    keras.utils.set_random_seed(run["seed"])
    shape = run["activation"], run["depth"], run["width"]
    if run["arm"] == "textbook":
        return network(*shape, textbook(run["activation"])).get_weights()
    model = network(*shape)
    if run["arm"] == "ours":
        initlab.recommend(model).apply(seed=run["seed"])
    return model.get_weights()


def digits():
    """Images and classes, to train on and to test."""
    data = load_digits()
    x, y = data.data.astype("float32"), data.target
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    x = (x - x[:1400].mean()) / x[:1400].std()
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def groups_of(options):
    """Settings of all runs, in lists that share a model."""
    names = options.activations or activations()
    for depth, activation in [(d, a) for d in options.depths for a in names]:
        if depth < 1000 or activation in DEEPEST:
            yield [
                run_of(activation, depth, arm, seed, rate, options.width)
                for seed in options.seeds
                for rate in options.rates or [None]
                for arm in options.arms
            ]


def run_of(activation, depth, arm, seed, rate=None, width=128):
    """Settings of a run; a rate of None is the budget's."""
    return {
        "activation": activation,
        "depth": depth,
        "arm": arm,
        "seed": seed,
        "width": width,
        "learning_rate": rate or (3e-4 if depth < 1000 else 3e-5),
        "epochs": 1 if depth == QUICK else 10 if depth < 1000 else 8,
        "batch": BATCH,
    }


def compiled(activation, depth, width):
    model = network(activation, depth, width)
    model.compile(
        keras.optimizers.Adam(global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(options, results):
    """Makes all runs that are not in the results."""
    for group in groups_of(options):
        runs = [run for run in group if not results.has(run)]
        if runs:
            train_runs(runs, results)


def train_runs(runs, results):
    """Makes runs that share a model."""
    data = digits()
    shape = [runs[0][key] for key in ("activation", "depth", "width")]
    trained = Trained(compiled(*shape))
    for run in runs:
        weights = weights_for(run)
        keras.utils.set_random_seed(run["seed"])  # the order of the examples
        options = {"epochs": run["epochs"], "batch_size": run["batch"]}
        outcome = trained.run(weights, run["learning_rate"], *data, **options)
        results.add(run, {**outcome, "backend": keras.backend.backend()})
        print(*list(run.values())[:6], outcome, flush=True)
    keras.utils.clear_session(free_memory=True)


def accuracies(results, activation, depth, arm, rate=None, width=128):
    """Test accuracies by seed, at the present budget."""
    return [
        line["accuracy"]
        for line in results.lines
        if run_of(activation, depth, arm, line["seed"], rate, width).items()
        <= line.items()
    ]


def as_table(results, depths):
    """Mean test accuracies, a row an activation."""
    table = Table(title="Test accuracy on the digits, by hidden layers and start")
    table.add_column("activation")
    for depth in depths:
        for arm in ARMS:
            table.add_column(f"{depth}\n{arm}", justify="right")
    for activation in activations():
        table.add_row(activation, *cells_of(results, activation, depths))
    return table


def as_markdown(results, depths):
    """The same as Markdown."""
    headings = [f"{depth} {arm}" for depth in depths for arm in ARMS]
    rows = [[name, *cells_of(results, name, depths)] for name in activations()]
    rows = [["activation", *headings], ["---", *["--:"] * len(headings)], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cells_of(results, activation, depths):
    """Mean test accuracies, by depth and start."""
    return [
        as_cell(accuracies(results, activation, depth, arm))
        for depth in depths
        for arm in ARMS
    ]


def as_cell(values):
    return f"{np.mean(values):.3f}" if values else ""


def as_figure(results, depths):
    """The same as a picture."""
    shown = [
        line
        for line in results.lines
        if line["depth"] in depths
        and run_of(*(line[key] for key in KEYS)).items() <= line.items()
    ]
    arms = dict(zip(ARMS, HEADINGS, strict=True))
    return depth_picture(shown, arms, TITLE)


def as_rates_table(results, options):
    """Mean test accuracies of ours, a column a learning rate."""
    table = Table(title=f"From our start, layers of {options.width}, by learning rate")
    for heading in ("activation", "layers", *map("{:.0e}".format, options.rates)):
        table.add_column(heading, justify="right")
    cases = itertools.product(options.activations or activations(), options.depths)
    for activation, depth in cases:
        about = (results, activation, depth, "ours")
        cells = [
            as_cell(accuracies(*about, rate, options.width)) for rate in options.rates
        ]
        table.add_row(activation, str(depth), *cells)
    return table


def counts(results, depths):
    """How many activations reach the bars, from our start."""
    for depth in depths:
        means = [
            np.mean(values)
            for activation in activations()
            if (values := accuracies(results, activation, depth, "ours"))
        ]
        bar = 0.95 if depth == 1000 else 0.9
        reached = sum(mean >= bar for mean in means)
        yield f"{depth} layers: {bar} or more for {reached} of {len(means)} activations"


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "depth.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--depths", nargs="+", type=int, default=[50, 100, 1000])
    parser.add_argument("--activations", nargs="+", choices=activations())
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--width", type=int, default=128, help="units of a layer")
    parser.add_argument("--rates", nargs="+", type=float, help="other learning rates")
    parser.add_argument("--table", action="store_true", help="only show the results")
    parser.add_argument("--markdown", action="store_true", help="show them as Markdown")
    parser.add_argument("--figure", type=Path, help="only draw them to this file")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.depths = [QUICK]
        options.activations = options.activations or ["relu", "tanh"]
    return options


def main(arguments=None):
    options = parsed(arguments)
    # Keras walks through a model from its end, a few calls a layer.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20 * max(options.depths)))
    results = Results(options.results)
    if not (options.table or options.markdown or options.figure):
        train(options, results)
    if options.figure:
        as_figure(results, options.depths).savefig(options.figure)
        return
    if options.markdown:
        print(as_markdown(results, options.depths))
        return
    console = Console(width=100)
    if options.rates:
        console.print(as_rates_table(results, options))
        return
    console.print(as_table(results, options.depths))
    for line in counts(results, options.depths):
        console.print(line)


if __name__ == "__main__":
    main()
