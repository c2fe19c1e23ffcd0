"""Trains deep transformers, pre- and post-norm, from three initializations.

What it shows: what becomes of a transformer's gradient with depth, and what its start
changes. The eight rows of a digit are its tokens (`--data mnist`: 49 patches of 4 x 4
pixels). The starts are Keras's default (Glorot, as in the first transformer), the
textbook's (the same, and the layers that end a residual branch divided by the square
root of the number of branches, as in GPT-2) and
`keras_initlab.recommend(model).apply()`. All have the same budget and rate, without
warm-up.

How long it takes: about ten minutes on one core. `--blocks 48 --seeds 1` takes 15 to 20
on PyTorch, which begins at once. Before its first step TensorFlow traces 16 blocks for
one minute and JAX compiles them for two; with 48 JAX needs more than five.

What you should see: the recommended start leads with both norms, 0.90 or more at 4
blocks and 0.96 to 0.98 at 16; the textbook's reaches 0.93 to 0.94 at 16, the default
0.88 pre-norm and 0.80 post-norm, where it does worse than at 4. At 48 blocks the
recommended start still reaches 0.98 with both norms, the textbook's 0.94, the default
0.89 pre-norm, and post-norm it stays at chance (one seed). To the right of the figure,
the gradient of each of the 16 blocks: level from the recommended start, largest in the
first blocks of pre-norm from the default.

Run it with `python examples/transformer_depth.py`, or `--help` for the options.
"""

from __future__ import annotations

import argparse
import math
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # quiet start

import keras
import lab
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import keras_initlab as initlab

# Dashes let the default shine through where the textbook names just that.
STARTS: dict[str, dict[str, Any]] = {
    "default": {"color": "#0072B2", "marker": "o"},
    "textbook": {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    "recommended": {"color": "#D55E00", "marker": "o"},
}
WIDTH, HEADS = 32, 4
BATCH = 128
LEARNING_RATE = 1e-3

# By norm ("pre" or "post"), blocks and start: accuracies by seed, norms by block.
Case = tuple[str, int]
Accuracies = dict[Case, dict[str, list[float]]]
Norms = dict[Case, dict[str, list[float]]]


def main(arguments: list[str] | None = None) -> Accuracies:
    """Trains all transformers and shows how deep each start gets."""
    options = parse(arguments)
    data = tokens(options)
    accuracies: Accuracies = {}
    norms: Norms = {}
    for norm in ("pre", "post"):
        for blocks in options.blocks:
            lab.console.rule(f"{norm}-norm, {blocks} blocks")
            model = build(norm, blocks, data, options.epochs)
            norms[norm, blocks] = gradients(model, blocks, data, options.seed)
            accuracies[norm, blocks] = trained(model, blocks, data, options)
            keras.utils.clear_session()
    for (norm, blocks), found in accuracies.items():
        task = f"transformer of {blocks} blocks, {norm}-norm"
        lab.report(options, task, "test accuracy", found)
    lab.save(drawn(accuracies, norms), options.figure)
    return accuracies


# ---- the model ----------------------------------------------------------------------


class Positions(layers.Layer):
    """Adds what is learned of every position."""

    def build(self, input_shape: Any) -> None:
        """Makes the table."""
        self.table = self.add_weight(
            shape=input_shape[1:], initializer=keras.initializers.RandomNormal(0.0, 0.1)
        )

    def call(self, inputs: Any) -> Any:
        """Adds it."""
        return inputs + self.table


def build(norm: str, blocks: int, data: lab.Split, epochs: int) -> keras.Model:
    """Returns a transformer that classifies rows of tokens, compiled."""
    inputs = keras.Input(data[0][0].shape[1:])
    x = Positions()(layers.Dense(WIDTH, name="embedding")(inputs))
    for number in range(1, blocks + 1):
        x = branch(x, norm, attention(f"block{number}"))
        x = branch(x, norm, network(f"block{number}"))
    if norm == "pre":
        x = layers.LayerNormalization()(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    steps = epochs * -(-len(data[0][0]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def branch(x: Any, norm: str, function: Any) -> Any:
    """Adds a residual branch, normalized before it or after the sum."""
    if norm == "pre":
        return layers.Add()([x, function(layers.LayerNormalization()(x))])
    return layers.LayerNormalization()(layers.Add()([x, function(x)]))


def attention(name: str) -> Any:
    """Returns self-attention."""
    layer = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"{name}_attention")
    return lambda x: layer(x, x)


def network(name: str) -> Any:
    """Returns the two dense layers that follow it."""
    wide = layers.Dense(2 * WIDTH, "gelu", name=f"{name}_wide")
    narrow = layers.Dense(WIDTH, name=f"{name}_narrow")
    return lambda x: narrow(wide(x))


def begin(model: keras.Model, start: str, blocks: int, seed: int) -> None:
    """Gives a model fresh weights and a fresh optimizer, whatever it has learned."""
    if start == "recommended":
        # It leaves what is no kernel alone, as the positions.
        initlab.reinitialize(model, seed, reset_optimizer=True)
        initlab.recommend(model).apply(seed, overwrite=True)
        return
    initlab.reinitialize(model, seed, reset_optimizer=True)
    if start == "textbook":
        for variable in model.trainable_variables:
            if variable.path.endswith(("attention_output/kernel", "_narrow/kernel")):
                variable.assign(variable / math.sqrt(2 * blocks))


# ---- what is measured ---------------------------------------------------------------


def tokens(options: argparse.Namespace) -> lab.Split:
    """Returns the images as rows, or as patches, `(images, tokens, pixels)`."""
    is_mnist = options.data == "mnist"
    data = lab.mnist(options.seed) if is_mnist else lab.digits(options.seed)
    (x, y), (x_test, y_test) = data
    cut = patches if is_mnist else np.squeeze
    return (cut(x), y), (cut(x_test), y_test)


def patches(x: np.ndarray) -> np.ndarray:
    """Returns the patches of 4 × 4 pixels of images of 28 × 28."""
    x = x.reshape(-1, 7, 4, 7, 4).transpose(0, 1, 3, 2, 4)
    return x.reshape(-1, 49, 16)


def gradients(
    model: keras.Model, blocks: int, data: lab.Split, seed: int
) -> dict[str, list[float]]:
    """Returns the norm of each block's gradient before training, by start."""
    found = {}
    x, y = data[0]
    for start in STARTS:
        begin(model, start, blocks, seed)
        report = initlab.probe(model, x[:BATCH], y[:BATCH])
        found[start] = [
            math.hypot(
                *(
                    layer.weight_gradient_norm or 0.0
                    for layer in report
                    if layer.path.startswith(f"block{number}_")
                )
            )
            for number in range(1, blocks + 1)
        ]
    return found


def trained(
    model: keras.Model, blocks: int, data: lab.Split, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Returns the test accuracy from every start, one for each seed."""
    found: dict[str, list[float]] = {start: [] for start in STARTS}
    for seed in range(options.seed, options.seed + options.seeds):
        for start, values in found.items():
            begin(model, start, blocks, seed)
            keras.utils.set_random_seed(seed)  # the order of the examples
            model.fit(*data[0], batch_size=BATCH, epochs=options.epochs, verbose=0)
            _, accuracy = model.evaluate(*data[1], batch_size=BATCH, verbose=0)
            values.append(accuracy)
            lab.console.print(f"{start}, seed {seed}: test accuracy {accuracy:.3f}")
    return found


# ---- what is shown ------------------------------------------------------------------


def drawn(accuracies: Accuracies, norms: Norms) -> Any:
    """Returns a figure: for each norm, accuracy by depth and gradients by block."""
    figure = Figure(figsize=(9, 6.4), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="col")
    depths = sorted({blocks for _, blocks in accuracies})
    for (left, right), norm in zip(panels, ("pre", "post"), strict=True):
        for start, look in STARTS.items():
            values = [accuracies[norm, blocks][start] for blocks in depths]
            draw_means(left, depths, values, start)
            found = norms[norm, depths[-1]][start]
            right.plot(range(1, depths[-1] + 1), found, markersize=3, **look)
        left.set_title(f"{norm}-norm", loc="left", fontweight="bold")
        left.set(ylabel="test accuracy")
        title = f"{norm}-norm, {depths[-1]} blocks, at the start"
        right.set_title(title, loc="left", fontweight="bold")
        right.set(ylabel="norm of the block's gradient", yscale="log")
    panels[1, 0].set(xlabel="blocks", xscale="log")
    panels[1, 0].set_xticks(depths, map(str, depths))
    panels[1, 0].minorticks_off()
    panels[1, 1].set_xlabel("block")
    panels[1, 1].xaxis.get_major_locator().set_params(integer=True)
    panels[1, 1].yaxis.set_minor_formatter("")
    for axes in panels.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_means(axes: Any, at: Any, values: Any, start: str) -> None:
    """Draws means over seeds, and whiskers from the lowest seed to the highest."""
    mean = np.mean(values, axis=1)
    low, high = mean - np.min(values, axis=1), np.max(values, axis=1) - mean
    axes.errorbar(at, mean, [low, high], capsize=3, label=start, **STARTS[start])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = lab.parser(__doc__, "transformer_depth.png", epochs=10)
    parser.add_argument(
        "--blocks", nargs="+", type=int, default=[4, 16], help="default: 4 16"
    )
    parser.add_argument(
        "--data", choices=("digits", "mnist"), default="digits", help="default: digits"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.blocks = [1]
    return options


if __name__ == "__main__":
    main()
