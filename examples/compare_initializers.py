"""Six studies of one network trained from several initializers.

What it shows: `keras_initlab.compare`. Under one seed every start sees the same batches
in the same order and has the same budget; figures are means over three seeds, and a
sentence says whether the best is really ahead of the next. The studies:

    classification  2,000 samples, layers 20-64-32-16-8-1, ReLU, plain gradient descent
    activations     layers 50-100-80-60-40-20-1 with ReLU, sigmoid, tanh and linear:
                    the signal at the start, averaged per network, then training
    digits          images of digits, layers n-128-64-10, ReLU
    cnn             the digits as 32 x 32 x 3, convolutions of 16 and 32 filters
    normalization   ten layers of 64, with and without batch normalization
    toy             2-4-1 sigmoid units on the points of two opposite quadrants

How long it takes: about five minutes on one core, toy too; digits and cnn one. On JAX
classification takes one, digits and toy two, normalization three, cnn five.

What you should see: a table of the signal before training, one for each network, and a
figure of test accuracies. With ReLU (0.90) and tanh (0.80 to 0.83) the recommended
start and Keras's default end level and He's 3 to 6 points lower; with sigmoid the
recommended one reaches 0.83, the others 0.77 at most; a linear network ends at 0.75
from wherever the signal does not blow up. Kernels of std 0.01 learn late or never,
those of std 1 badly. On the digits all reach 0.98 or more but those of std 0.01 (0.97)
and 1 (0.86; on JAX 0.12, for there Keras does not turn a saturated softmax back into
logits): a network of two hidden layers forgives nearly everything, and so does the CNN
(0.97, and 0.94 from std 0.01). The toy never learns from zeros (0.40) and does from all
others (0.85 to 0.90, their order chance).

The ten layers of the normalization study end at 0.98 from the recommended start, with
batch normalization and without; at 0.97 and 0.96 from He's and the default without it,
at 0.95 with it. Normalization saves the start at std 0.01 (0.08 without, 0.96 with).
The funnel of the classification study is still on its way after 200 steps of plain
gradient descent: 0.77 from He's kernels, 0.71 from the recommended start, whose
gradient is a third of theirs in the first steps, 0.62 from the default, 0.49 from std
0.01.

Run it with `python examples/compare_initializers.py --study NAME`, or `--help` for the
options.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # quiet start

import keras
import lab
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.datasets import make_classification

import keras_initlab as initlab
from keras_initlab import plots

SMALL = keras.initializers.RandomNormal(stddev=0.01)
LARGE = keras.initializers.RandomNormal(stddev=1.0)
OURS = "recommended"
STARTS = {
    "zeros": "zeros",
    "default": "default",  # glorot_uniform, in every layer here
    "std 0.01": SMALL,
    "std 1": LARGE,
    "glorot_normal": "glorot_normal",
    "he_normal": "he_normal",
    OURS: OURS,
}
COLORS = dict(
    zip(
        STARTS,
        ("black", "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00"),
        strict=True,
    )
)
SIX = tuple(STARTS)[1:]
# What is measured in a hidden layer before training: before and after its activation.
MEASURES: dict[str, Callable[[Any], float]] = {
    "std before": lambda layer: layer.preactivation.std,
    "std after": lambda layer: layer.output.std,
    "zeros": lambda layer: layer.output.zero_share,
    "preservation": lambda layer: layer.variance_preservation,
}


@dataclass(frozen=True)
class Study:
    """What is trained, on what, and for how long.

    Attributes:
        builds: `{network: function that returns it, compiled}`.
        data: `((x, y), (x_test, y_test))`.
        epochs: how long each is trained.
        batch_size: examples a step; as many as there are for plain gradient descent.
        starts: those of `STARTS` that are compared.
    """

    builds: Mapping[str, Callable[[], keras.Model]]
    data: lab.Split
    epochs: int
    batch_size: int
    starts: tuple[str, ...] = ("default", "std 0.01", "he_normal", OURS)


def main(arguments: list[str] | None = None) -> dict[str, initlab.Comparison]:
    """Trains all networks of a study and shows what came out."""
    options = parse(arguments)
    study = STUDIES[options.study](options)
    if options.quick:
        study = shortened(study)
    if options.study == "activations":
        lab.console.print(signal_table(study, options.seed))
    compared = {}
    for name, build in study.builds.items():
        lab.console.rule(name)
        compared[name] = trained(build, study, options)
        lab.console.print(compared[name])
    for name, result in compared.items():
        lab.report(options, name, "test accuracy", accuracies(result))
    lab.save(drawn(compared), options.figure)
    return compared


def trained(
    build: Callable[[], keras.Model], study: Study, options: argparse.Namespace
) -> initlab.Comparison:
    """Trains one network from every start."""
    return initlab.compare(
        build,
        {label: STARTS[label] for label in study.starts},
        study.data,
        epochs=study.epochs,
        batch_size=study.batch_size,
        seeds=range(options.seed, options.seed + options.seeds),
    )


def shortened(study: Study) -> Study:
    """Returns a study of two networks at most, from three starts, for three epochs."""
    builds = dict(list(study.builds.items())[:2])
    starts = ("default", "he_normal", OURS)
    return replace(study, builds=builds, starts=starts, epochs=3)


def accuracies(compared: initlab.Comparison) -> dict[str, list[float]]:
    """Returns the final test accuracy from each start, one for each seed."""
    found: dict[str, list[float]] = {label: [] for label in compared.labels}
    for run in compared.runs:
        reached = run.metrics.get("final_accuracy", np.nan)
        found[run.label].append(reached / 100)
    return found


# ---- networks -----------------------------------------------------------------------


def compiled(
    inputs: int | tuple[int, ...],
    hidden: list[Any],
    optimizer: keras.optimizers.Optimizer,
    classes: int = 2,
) -> keras.Model:
    """Returns a network with an output for its classes; one will do for two."""
    is_binary = classes == 2
    last = layers.Dense(1, "sigmoid") if is_binary else layers.Dense(classes, "softmax")
    shape = inputs if isinstance(inputs, tuple) else (inputs,)
    model = keras.Sequential([keras.Input(shape), *hidden, last])
    loss = "binary_crossentropy" if is_binary else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def dense(
    inputs: int,
    widths: tuple[int, ...],
    activation: str,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    classes: int = 2,
    is_normalized: bool = False,
) -> keras.Model:
    """Returns a network of dense layers, each normalized if asked for."""
    hidden: list[Any] = []
    for width in widths:
        if is_normalized:
            hidden.append(layers.Dense(width, use_bias=False))
            hidden.append(layers.BatchNormalization(momentum=0.9))
            hidden.append(layers.Activation(activation))
        else:
            hidden.append(layers.Dense(width, activation))
    return compiled(inputs, hidden, optimizer(), classes)


def convolutional() -> keras.Model:
    """Returns two convolutions, pooled, and a dense head, for images of 32 × 32 × 3."""
    hidden = [
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, "relu"),
    ]
    return compiled((32, 32, 3), hidden, keras.optimizers.Adam(1e-3), 10)


# ---- studies ------------------------------------------------------------------------

descent = partial(keras.optimizers.SGD, 0.01)
adam = partial(keras.optimizers.Adam, 1e-3)


def classification(options: argparse.Namespace) -> Study:
    """Returns the study of a funnel by plain gradient descent, all samples a step."""
    data = samples(2000, 20, informative=15, redundant=5)
    build = partial(dense, 20, (64, 32, 16, 8), "relu", descent)
    return Study({"funnel 20-64-32-16-8-1, relu": build}, data, 200, 1600)


def activations(options: argparse.Namespace) -> Study:
    """Returns the study of four activations in one network."""
    data = samples(1000, 50, informative=30, redundant=10)
    widths = (100, 80, 60, 40, 20)
    builds = {
        f"50-100-80-60-40-20-1, {name}": partial(dense, 50, widths, name, adam)
        for name in ("relu", "sigmoid", "tanh", "linear")
    }
    return Study(builds, data, 20, 50, SIX)


def digits(options: argparse.Namespace) -> Study:
    """Returns the study of a small network on images of digits."""
    data = flat(images(options))
    pixels = data[0][0].shape[1]
    build = partial(dense, pixels, (128, 64), "relu", adam, 10)
    return Study({f"{options.data} {pixels}-128-64-10": build}, data, 15, 32, SIX)


def cnn(options: argparse.Namespace) -> Study:
    """Returns the study of a small convolutional network."""
    (x, y), (x_test, y_test) = images(options)
    data = (colored(x), y), (colored(x_test), y_test)
    return Study({f"{options.data}, CNN 16-32": convolutional}, data, 4, 64)


def normalization(options: argparse.Namespace) -> Study:
    """Returns the study of batch normalization beside initialization."""
    data = flat(images(options))
    build = partial(dense, data[0][0].shape[1], 10 * (64,), "relu", adam, 10)
    builds = {
        "ten layers of 64": build,
        "ten layers of 64, batch norm": partial(build, is_normalized=True),
    }
    return Study(builds, data, 10, 32)


def toy(options: argparse.Namespace) -> Study:
    """Returns the study of five sigmoid units, from zeros too."""
    rng = np.random.default_rng(42)
    x = rng.normal(size=(1100, 2)).astype("float32")
    y = (x[:, :1] * x[:, 1:] > 0).astype("int32")
    # Twenty passes count as an epoch: Keras takes longer to begin one than to train.
    data = (np.tile(x[:100], (20, 1)), np.tile(y[:100], (20, 1))), (x[100:], y[100:])
    build = partial(dense, 2, (4,), "sigmoid", partial(keras.optimizers.SGD, 0.1))
    starts = ("zeros", "default", "std 1", OURS)
    return Study({"toy 2-4-1, sigmoid": build}, data, 50, 10, starts)


STUDIES = {
    function.__name__: function
    for function in (classification, activations, digits, cnn, normalization, toy)
}


# ---- data ---------------------------------------------------------------------------


def samples(count: int, features: int, informative: int, redundant: int) -> lab.Split:
    """Returns samples of two classes, a fifth to test on, each feature standardized."""
    x, y = make_classification(
        count,
        features,
        n_informative=informative,
        n_redundant=redundant,
        random_state=42,
    )
    cut = round(0.8 * count)
    x = ((x - x[:cut].mean(0)) / x[:cut].std(0)).astype("float32")
    return (x[:cut], y[:cut, None]), (x[cut:], y[cut:, None])


def images(options: argparse.Namespace) -> lab.Split:
    """Returns the images that were asked for, the same split for all seeds."""
    return lab.mnist() if options.data == "mnist" else lab.digits()


def flat(data: lab.Split) -> lab.Split:
    """Returns images as rows of pixels."""
    (x, y), (x_test, y_test) = data
    return (x.reshape(len(x), -1), y), (x_test.reshape(len(x_test), -1), y_test)


def colored(x: np.ndarray) -> np.ndarray:
    """Returns grey images as 32 × 32 × 3: pixels repeated, the background around."""
    factor = 32 // x.shape[1]
    x = x.repeat(factor, axis=1).repeat(factor, axis=2).repeat(3, axis=3)
    rest = (32 - x.shape[1]) // 2
    around = (0, 0), (rest, rest), (rest, rest), (0, 0)
    return np.pad(x, around, constant_values=x.min())


# ---- what is shown ------------------------------------------------------------------


def signal_table(study: Study, seed: int) -> Table:
    """Returns what the signal is like before training, averaged per network."""
    table = Table(title="At the start, averages over the layers", title_justify="left")
    for heading in ("network", "start", *MEASURES):
        table.add_column(heading, justify="left" if heading[-1] in "kt" else "right")
    x = study.data[0][0]
    for name, build in study.builds.items():
        for label in study.starts:
            figures = averages(started(build(), STARTS[label], x, seed), x)
            network = name.rpartition(" ")[2]
            table.add_row(network, label, *(f"{value:.2g}" for value in figures))
        table.add_section()
    return table


def started(model: keras.Model, start: Any, x: np.ndarray, seed: int) -> keras.Model:
    """Returns a model with fresh weights, as `compare` would draw them."""
    if start == OURS:
        initlab.recommend(model, data=x).apply(seed)
        return model
    if start != "default":
        for layer in model.layers:
            layer.kernel_initializer = keras.initializers.get(start)
    initlab.reinitialize(model, seed)
    return model


def averages(model: keras.Model, x: np.ndarray) -> list[float]:
    """Returns `MEASURES` of the hidden layers, averaged."""
    hidden = [layer for layer in initlab.probe(model, x) if layer.units > 1]
    return [float(np.mean([*map(find, hidden)])) for find in MEASURES.values()]


def drawn(compared: dict[str, initlab.Comparison]) -> Any:
    """Returns one comparison in full, or several side by side."""
    if len(compared) == 1:
        ((name, result),) = compared.items()
        return plots.comparison(result, name)
    return side_by_side(compared)


def side_by_side(compared: dict[str, initlab.Comparison]) -> Any:
    """Returns a figure of test accuracies, a panel for each network."""
    columns = 2
    rows = -(-len(compared) // columns)
    figure = Figure(figsize=(10, 3 * rows + 0.6), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
    for axes, (name, result) in zip(panels.flat, compared.items(), strict=True):
        for label in result.labels:
            draw_curves(axes, result, label)
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy [%]")
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        lines, labels, loc="outside lower center", ncols=len(labels), frameon=False
    )
    return figure


def draw_curves(axes: Any, compared: initlab.Comparison, label: str) -> None:
    """Draws the mean over seeds, and a band from the lowest seed to the highest."""
    runs = [run for run in compared.runs if run.label == label and not run.error]
    curves = np.array([run.curves["test_accuracy"] for run in runs])
    if not len(curves):
        return
    epochs = np.arange(1, curves.shape[1] + 1)
    color = COLORS[label]
    width = 2.4 if label == OURS else 1.4
    axes.plot(epochs, curves.mean(0), color=color, label=label, linewidth=width)
    band = curves.min(0), curves.max(0)
    axes.fill_between(epochs, *band, color=color, alpha=0.15, lw=0)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = lab.parser(__doc__, "compare_initializers.png")
    parser.add_argument(
        "--study", choices=STUDIES, default="activations", help="default: activations"
    )
    parser.add_argument(
        "--data",
        choices=("digits", "mnist"),
        default="digits",
        help="images for digits, cnn and normalization; default: digits",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
