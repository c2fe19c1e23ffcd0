"""Transfers what was learned from the digits 0 to 4 to the digits 5 to 9.

What it shows: a small convolutional network learns 0 to 4; its body is then frozen, and
new layers on it learn 5 to 9 from ten examples of each. The new layers start from
Keras's default, from He's initializer, from `MatchPretrained` (the frozen kernels' own
scale), from `keras_initlab.recommend`, which leaves what is frozen as it is, and from
its policy "calibrated", which measures what the frozen body really gives. The script
checks that no frozen weight has changed.

How long it takes: two minutes.

What you should see: test accuracies from 0.78 (`MatchPretrained`) to 0.80
(recommended), hardly further apart than the seeds are. A frozen body hands on what it
was trained to, here pre-activations of std 2.4, which its weights alone do not tell:
`recommend(model, data=…)` measures it and starts the new layers near 1, "calibrated"
exactly there. The bars of the frozen kernels are exactly 0.

Run it with `python examples/transfer_learning.py`, or `--help` for the options.
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

import keras_initlab as initlab
from keras_initlab.initializers import MatchPretrained

COLORS = {
    "default": "#0072B2",
    "he_normal": "#009E73",
    "match_pretrained": "#E69F00",
    "recommended": "#D55E00",
    "calibrated": "#CC79A7",
}
NEW, WIDTH, EXAMPLES, BATCH, RATE = 3, 64, 10, 10, 1e-3


@dataclass
class Run:
    """One transfer: the signal at the start, what came out, how far kernels moved."""

    signal: initlab.SignalReport
    accuracies: list[float]
    moved: dict[str, float]


def main(arguments: list[str] | None = None) -> dict[str, list[Run]]:
    """Transfers from every start with every seed and shows what came out."""
    options = parse(arguments)
    seeds = range(options.seed, options.seed + options.seeds)
    runs: dict[str, list[Run]] = {start: [] for start in COLORS}
    for seed in seeds:
        body, few, rest = pretrained(seed)
        for start in COLORS:
            runs[start].append(transfer(start, seed, body, few, rest, options))
    lab.save(picture(runs), options.figure)
    finals = {start: [one.accuracies[-1] for one in of] for start, of in runs.items()}
    task = f"digits: 0 to 4, then 5 to 9 from {EXAMPLES} of each"
    lab.report(options, task, "test accuracy", finals)
    return runs


def pretrained(seed: int) -> tuple[keras.Model, Any, Any]:
    """Returns a body that has learned 0 to 4; a few of 5 to 9, and the rest."""
    lab.console.rule(f"0 to 4, seed {seed}")
    (x, y), (tested, labels) = lab.digits(seed)
    keras.utils.set_random_seed(seed)
    body = frozen_later()
    model = compiled([body, layers.Dense(5, name="old")])
    model.fit(
        *old(x, y),
        batch_size=32,
        epochs=10,
        verbose=2,
        validation_data=old(tested, labels),
    )
    body.trainable = False
    few, rest = new(np.concatenate([x, tested]), np.concatenate([y, labels]))
    return body, few, rest


def frozen_later() -> keras.Model:
    """Returns a body of two convolutions and a dense layer."""
    same: dict[str, Any] = {"padding": "same", "activation": "relu"}
    trunk = [
        layers.Conv2D(32, 3, name="conv_1", **same),
        layers.Conv2D(64, 3, strides=2, name="conv_2", **same),
        layers.Flatten(),
        layers.Dense(WIDTH, "relu", name="features"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *trunk], name="body")


def old(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of 0 to 4, with labels."""
    return x[y < 5], y[y < 5]


def new(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """Returns a few images of each of 5 to 9, and all others, with labels 0 to 4."""
    x, y = x[y >= 5], y[y >= 5] - 5
    few = np.concatenate([np.flatnonzero(y == one)[:EXAMPLES] for one in range(5)])
    rest = np.setdiff1d(np.arange(len(x)), few)
    return (x[few], y[few]), (x[rest], y[rest])


def compiled(after: list[Any]) -> keras.Model:
    """Returns a compiled classifier of these layers."""
    model = keras.Sequential([keras.Input((8, 8, 1)), *after])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])
    return model


def transfer(
    start: str, seed: int, body: keras.Model, few: Any, rest: Any, options: Any
) -> Run:
    """Puts new layers on the frozen body and trains them from one start."""
    lab.console.rule(f"5 to 9 from {start}, seed {seed}")
    keras.utils.set_random_seed(seed)
    model = compiled([body, *new_layers(start, body)])
    frozen = body.get_weights()
    if start in ("recommended", "calibrated"):
        policy = {"recommended": "signal"}.get(start, start)
        advice = initlab.recommend(model, policy, data=few[0])
        advice.apply(seed=seed)
        if seed == options.seed:
            lab.console.print(advice)
    signal, before = initlab.probe(model, few[0]), kernels(model)
    keras.utils.set_random_seed(seed)  # the same batches for all
    history = model.fit(
        *few,
        batch_size=BATCH,
        epochs=options.epochs,
        verbose=2,
        validation_data=rest,
        validation_batch_size=256,
    )
    for was, now in zip(frozen, body.get_weights(), strict=True):
        np.testing.assert_array_equal(now, was, "a frozen weight has changed")
    moved = {
        path: float(np.linalg.norm(now - before[path]) / np.linalg.norm(before[path]))
        for path, now in kernels(model).items()
    }
    return Run(signal, history.history["val_accuracy"], moved)


def new_layers(start: str, body: keras.Model) -> list[Any]:
    """Returns the layers that are put on the body."""
    kernel: Any = "he_normal" if start == "he_normal" else "glorot_uniform"
    if start == "match_pretrained":
        kernel = MatchPretrained.from_kernel(body)  # the scale of its kernels
    hidden = [
        layers.Dense(WIDTH, "relu", kernel_initializer=kernel, name=f"new_{number + 1}")
        for number in range(NEW)
    ]
    return [*hidden, layers.Dense(5, kernel_initializer=kernel, name="logits")]


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the values of all kernels by the names of their layers."""
    found = [variable for variable in model.weights if variable.name == "kernel"]
    return {
        one.path.split("/")[-2]: keras.ops.convert_to_numpy(one).copy() for one in found
    }


def picture(runs: dict[str, list[Run]]) -> Any:
    """Draws the accuracies, the signal at the start, and what has moved."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(10, 3.9), dpi=150, layout="constrained")
    curves, signal, moved = figure.subplots(1, 3)
    draw_accuracies(curves, runs)
    draw_signal(signal, runs)
    draw_moved(moved, runs)
    handles, labels = curves.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False
    )
    return figure


def draw_accuracies(axes: Any, runs: dict[str, list[Run]]) -> None:
    """Draws the mean test accuracy over epochs, in a band of one standard error."""
    for start, of in runs.items():
        values = np.array([one.accuracies for one in of])
        mean, error = values.mean(axis=0), values.std(axis=0) / len(of) ** 0.5
        epochs = np.arange(1, len(mean) + 1)
        axes.plot(epochs, mean, color=COLORS[start], label=start)
        band = mean - error, mean + error
        axes.fill_between(epochs, *band, color=COLORS[start], alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", title="Test accuracy on 5 to 9")
    axes.grid(alpha=0.25)


def draw_signal(axes: Any, runs: dict[str, list[Run]]) -> None:
    """Draws the std of each layer's pre-activations before training, first seed."""
    for start, of in runs.items():
        before = [layer.preactivation for layer in of[0].signal]
        stds = [seen.std for seen in before if seen is not None]
        axes.plot(stds, "o-", color=COLORS[start], markersize=4)
    axes.set(yscale="log", title="Signal at the start: std")
    name_layers(axes, list(runs["default"][0].moved))


def draw_moved(axes: Any, runs: dict[str, list[Run]]) -> None:
    """Draws how far training has moved each kernel, first seed."""
    width = 0.8 / len(runs)
    for index, (start, of) in enumerate(runs.items()):
        place = np.arange(len(of[0].moved)) + (index - (len(runs) - 1) / 2) * width
        axes.bar(place, list(of[0].moved.values()), width, color=COLORS[start])
    axes.set(title="Change of the kernels, relative")
    name_layers(axes, list(runs["default"][0].moved))


def name_layers(axes: Any, names: list[str]) -> None:
    """Writes layers' names at an axis, and shades those that are frozen."""
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.axvspan(-0.5, len(names) - NEW - 1.5, color="grey", alpha=0.15, linewidth=0)
    axes.text(0.02, 0.93, "frozen", transform=axes.transAxes, color="grey")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(alpha=0.25)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = lab.parser(__doc__, "transfer_learning.png", epochs=60, quick_epochs=8)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
