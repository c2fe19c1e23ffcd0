"""Reads digits pixel by pixel with a recurrent network, from several initializations.

What it shows: the 64 pixels of a digit come one after the other, so that the network
has to remember the first for 64 steps. It is trained from Keras's default (recurrent
kernel orthogonal, input kernel by Glorot), from a recurrent kernel by Glorot, from the
identity (Le et al. 2015, 1504.00941) or, in gated cells, from one that is orthogonal
gate by gate, and from `recommend(model).apply()`. Gradient norms are logged while it
trains. Before and after, pixels are changed one at a time: how far the last states then
lie apart is what the network still knows of that pixel.

How long it takes: about a minute and a half on one core.

What you should see: test accuracies of 0.95 from the recommended start, 0.94 from the
default (on JAX both 0.96), 0.92 from Glorot's kernel and 0.78 from the identity. The
left panel of the figure says why, dotted before training and solid after it: from
Keras's default the first pixels are known at the end 200 times less than the last ones.
The recommended input kernel is so small that the tanh stays near its linear middle, and
all pixels are known about equally from the start.

Run it with `python examples/rnn_long_memory.py`, with `--cell IRNN`, `LSTM` or `GRU`
for other cells, or `--help` for the options.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # quiet start

import keras
import lab
import numpy as np
from keras import layers
from keras.initializers import GlorotUniform, Identity
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import keras_initlab as initlab
from keras_initlab.callbacks import GradientNormLogger
from keras_initlab.initializers import Orthogonal

STEPS = 64
BATCH = 64
LEARNING_RATE = 1e-3
CHANGE = 0.1  # of a pixel, whose std is 1
COLORS = {
    "default": "#0072B2",
    "recommended": "#D55E00",
    "glorot": "#009E73",
    "identity": "#CC79A7",
    "orthogonal gates": "#CC79A7",
}
# An IRNN is a simple RNN of ReLUs; only from the identity is it the paper's.
CELLS = {
    "SimpleRNN": (layers.SimpleRNN, "tanh"),
    "IRNN": (layers.SimpleRNN, "relu"),
    "LSTM": (layers.LSTM, "tanh"),
    "GRU": (layers.GRU, "tanh"),
}


@dataclass
class Run:
    """One training and what was watched."""

    accuracies: list[float]
    norms: GradientNormLogger
    memory: tuple[np.ndarray, np.ndarray]  # of each pixel, before and after training


def main(arguments: list[str] | None = None) -> dict[str, list[Run]]:
    """Trains from every start and seed, and shows what came out."""
    options = parse(arguments)
    train, test = pixels(options)
    runs: dict[str, list[Run]] = {start: [] for start in starts(options.cell)}
    for seed in range(options.seed, options.seed + options.seeds):
        for start, each in runs.items():
            lab.console.rule(f"{options.cell} from {start}, seed {seed}")
            model = build(options, start, seed, train[0])
            each.append(fit(model, seed, train, test, options.epochs))
    finals = {start: [run.accuracies[-1] for run in runs[start]] for start in runs}
    task = f"digits pixel by pixel, {options.cell} of {options.units}"
    lab.report(options, task, "test accuracy", finals)
    lab.save(picture(runs, task), options.figure)
    return runs


def pixels(options: argparse.Namespace) -> lab.Split:
    """Returns the digits as sequences `(count, 64, 1)`, to train on and to test."""
    (x, y), (x_test, y_test) = lab.digits(options.seed)
    count = 640 if options.quick else len(x)
    train = x[:count].reshape(-1, STEPS, 1), y[:count]
    return train, (x_test.reshape(-1, STEPS, 1), y_test)


def starts(cell: str) -> dict[str, Any]:
    """Returns the recurrent initializers that are compared, None for Keras's own."""
    is_gated = cell in ("LSTM", "GRU")
    other = {"orthogonal gates": Orthogonal} if is_gated else {"identity": Identity}
    return {"default": None, "glorot": GlorotUniform, **other, "recommended": None}


def build(
    options: argparse.Namespace, start: str, seed: int, x: np.ndarray
) -> keras.Model:
    """Returns the network with the weights of one start, compiled."""
    keras.utils.set_random_seed(seed)
    cell, activation = CELLS[options.cell]
    recurrent = starts(options.cell)[start]
    chosen = {"recurrent_initializer": recurrent()} if recurrent else {}
    reader = cell(options.units, activation=activation, name="reader", **chosen)
    output = layers.Dense(10, name="logits")
    model = keras.Sequential([keras.Input((STEPS, 1)), reader, output], name="digits")
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    if start == "recommended":
        advice = initlab.recommend(model, data=x[:256])
        lab.console.print(advice)
        advice.apply(seed)
    return model


def fit(model: keras.Model, seed: int, train: Any, test: Any, epochs: int) -> Run:
    """Trains a model, every step watched, its memory taken before and after."""
    before = memory(model, test[0][:32])
    norms = GradientNormLogger(every=1)
    keras.utils.set_random_seed(seed)  # the same batches from every start
    history = model.fit(
        *train,
        validation_data=test,
        batch_size=BATCH,
        epochs=epochs,
        verbose=2,
        callbacks=[norms],
    )
    after = memory(model, test[0][:32])
    return Run(history.history["val_accuracy"], norms, (before, after))


def memory(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns how far the last state moves when one pixel does, `(64,)`.

    That is the root mean square over images of |change of the state|, for a pixel that
    changes by 1: the size of the derivative that training sees, without a backend's
    own way of taking one.
    """
    changed = np.repeat(x[None], STEPS, axis=0)
    changed[np.arange(STEPS), :, np.arange(STEPS)] += CHANGE
    reader = model.get_layer("reader")
    base = keras.ops.convert_to_numpy(reader(x))
    moved = keras.ops.convert_to_numpy(reader(changed.reshape(-1, STEPS, 1)))
    moves = moved.reshape(STEPS, *base.shape) - base
    return np.sqrt((moves**2).sum(axis=2).mean(axis=1)) / CHANGE


def picture(runs: dict[str, list[Run]], title: str) -> Figure:
    """Draws the memory, the gradient norms and the accuracies of all starts."""
    figure = Figure((10, 3.9), dpi=150, layout="constrained")
    figure.suptitle(title, weight="bold")
    known, norms, accuracy = figure.subplots(1, 3)
    for start, each in runs.items():
        look = {"color": COLORS[start], "label": start}
        draw_memory(known, each[0], look)
        draw_norms(norms, each[0], look)
        draw_accuracy(accuracy, each, look)
    known.plot([], [], "k:", label="before training")
    known.set(title="Known of each pixel at the end", xlabel="pixel", yscale="log")
    norms.set(title="Gradient norm", xlabel="step", yscale="log")
    accuracy.set(title="Test accuracy", xlabel="epoch", ylim=(0, 1))
    for axes in (known, norms, accuracy):
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *known.get_legend_handles_labels(), loc="outside lower center", ncols=5
    )
    return figure


def draw_memory(axes: Any, run: Run, look: dict[str, str]) -> None:
    """Draws what is known of each pixel, dotted before training."""
    before, after = run.memory
    axes.plot(range(1, STEPS + 1), before, ":", color=look["color"])
    axes.plot(range(1, STEPS + 1), after, **look)


def draw_norms(axes: Any, run: Run, look: dict[str, str]) -> None:
    """Draws the global gradient norm, averaged over nine steps to be readable."""
    norms = run.norms.history["global_norm"]
    smooth = np.exp(np.convolve(np.log(norms), np.full(9, 1 / 9), "valid"))
    axes.plot(np.arange(len(smooth)) + 4, smooth, **look)


def draw_accuracy(axes: Any, runs: list[Run], look: dict[str, str]) -> None:
    """Draws the mean over seeds, in a band from the lowest to the highest."""
    curves = np.array([run.accuracies for run in runs])
    epochs = range(1, curves.shape[1] + 1)
    axes.plot(epochs, curves.mean(axis=0), **look)
    lowest, highest = curves.min(axis=0), curves.max(axis=0)
    axes.fill_between(epochs, lowest, highest, color=look["color"], alpha=0.15)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = lab.parser(__doc__, "rnn_long_memory.png", epochs=12, quick_epochs=2)
    cell = "default: SimpleRNN"
    parser.add_argument("--cell", choices=tuple(CELLS), default="SimpleRNN", help=cell)
    parser.add_argument("--units", type=int, default=100, help="default: 100")
    options = parser.parse_args(arguments)
    if options.units < 1:
        parser.error("--units must be at least 1")
    return options


if __name__ == "__main__":
    main()
