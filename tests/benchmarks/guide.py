"""The lines of the guide, measured: what is said of initializers, beside what happens.

Every claim is a handful of arms: dense networks on the 1,797 digits of scikit-learn
(1,400 to train on, 397 to test), each with its initializer, normalization, shortcuts
and optimizer, and otherwise with the same budget: Adam at 1e-3 unless the arm says
otherwise, 5 epochs of batches of 50, three seeds.

    KERAS_BACKEND=jax python tests/benchmarks/guide.py
    python tests/benchmarks/guide.py --write

One line a run is added to `--results`; runs that are in it are not made again, so it
may be stopped at any time. `--write` trains nothing and puts the table of the results
into `examples/GUIDE.md`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from depth import digits
from resumable import Results

import keras_initlab as initlab
from keras_initlab import initializers

GUIDE = Path(__file__).parent.parent.parent / "examples" / "GUIDE.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"
EPOCHS, BATCH = 5, 50
STEPS = EPOCHS * 1400 // BATCH
TESTS = 397


@dataclass(frozen=True)
class Arm:
    """A network and how it is trained.

    Attributes:
        widths: of its hidden layers.
        activation: of all of them.
        start: Keras's name of an initializer, one of `OURS`, or "recommended".
        norm: "batch" or "layer" before every activation. The former forgets with a
            momentum of 0.9: at Keras's 0.99 its averages would lag behind so few steps.
        residual: whether every hidden layer of the width before it is added to that.
        bias: what biases start at; of the recommended start, whatever it sets.
        rate: of the optimizer.
        optimizer: "adam" or "sgd".
        clip: the norm to which all gradients together are clipped.
        schedule: "warm-up" over a fifth of the steps, or "cosine" decay.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    start: str = "he_normal"
    norm: str = ""
    residual: bool = False
    bias: float = 0.0
    rate: float = 1e-3
    optimizer: str = "adam"
    clip: float | None = None
    schedule: str = ""


def _of(depth, width=128):
    return (width,) * depth


def _starts(base, *names):
    return {name: replace(base, start=name) for name in names}


RELU8, RELU20 = Arm(_of(8)), Arm(_of(20))
SIGMOID8, SGD8 = Arm(_of(8), "sigmoid"), Arm(_of(8), rate=0.3, optimizer="sgd")
LARGE = Arm(_of(5), start="normal_1")
WIDE, UNEVEN = Arm(_of(3, 1200)), Arm((800, 40, 800, 40))
STARTS = ("he_normal", "glorot_normal", "lecun_normal")

CLAIMS = {
    "ReLU, 2 hidden layers: He normal, else He uniform": _starts(
        Arm(_of(2)), "he_normal", "he_uniform", "glorot_normal", "recommended"
    ),
    "ReLU, 8: He with batch normalization, else adaptive He": {
        **_starts(RELU8, "he_normal", "glorot_normal", "adaptive_he", "recommended"),
        "he_normal, batch norm": replace(RELU8, norm="batch"),
        "recommended, batch norm": replace(RELU8, norm="batch", start="recommended"),
    },
    "ReLU, 20: residual with He, else spectral, else adaptive He": {
        **_starts(
            RELU20, "he_normal", "adaptive_he", "spectral_norm", "layer_sequential"
        ),
        "recommended": replace(RELU20, start="recommended"),
        "he_normal, residual": replace(RELU20, residual=True),
        "adaptive_he, residual": replace(RELU20, residual=True, start="adaptive_he"),
        "recommended, residual": replace(RELU20, residual=True, start="recommended"),
        "he_normal, batch norm": replace(RELU20, norm="batch"),
    },
    "ELU, 8: as ReLU": _starts(Arm(_of(8), "elu"), *STARTS, "recommended"),
    "GELU, 20: by experiment": _starts(Arm(_of(20), "gelu"), *STARTS, "recommended"),
    "Sigmoid, 2: Xavier normal, else uniform": _starts(
        Arm(_of(2), "sigmoid"),
        *("glorot_normal", "glorot_uniform", "he_normal", "recommended"),
    ),
    "Sigmoid, 8: better ReLU, or Xavier with batch normalization": {
        **_starts(SIGMOID8, "glorot_normal", "layer_sequential", "recommended"),
        "glorot_normal, batch norm": replace(
            SIGMOID8, start="glorot_normal", norm="batch"
        ),
        "ReLU, he_normal": RELU8,
    },
    "Tanh, 8: Xavier normal, else LeCun": _starts(
        Arm(_of(8), "tanh"), *STARTS, "recommended"
    ),
    "SELU, 20: LeCun normal, else uniform": _starts(
        Arm(_of(20), "selu"),
        *("lecun_normal", "lecun_uniform", "he_normal", "recommended"),
    ),
    "Layers of over 1,000 units: batch normalization": {
        **_starts(WIDE, "he_normal", "adaptive_he", "recommended"),
        "he_normal, batch norm": replace(WIDE, norm="batch"),
    },
    "Irregular widths (800, 40, 800, 40): by the layer": _starts(
        UNEVEN, "he_normal", "glorot_normal", "width_aware", "recommended"
    ),
    "Equal weights never differ": {
        **_starts(Arm(_of(3)), "zeros", "ones", "he_normal"),
    },
    "Too large, too small": {
        **_starts(Arm(_of(5)), "normal_1", "normal_0.01", "he_normal"),
    },
    "Normalization forgives a bad start": {
        "normal_1": LARGE,
        "normal_1, batch norm": replace(LARGE, norm="batch"),
        "normal_1, layer norm": replace(LARGE, norm="layer"),
        "normal_0.01, batch norm": replace(LARGE, start="normal_0.01", norm="batch"),
        "he_normal, batch norm": replace(LARGE, start="he_normal", norm="batch"),
    },
    "Biases start at zero": {
        "0": RELU8,
        "0.1": replace(RELU8, bias=0.1),
        "1": replace(RELU8, bias=1.0),
        "−1": replace(RELU8, bias=-1.0),
    },
    "Unstable: clip the gradients (SGD at 0.3)": {
        "he_normal": SGD8,
        "he_normal, clipped to 1": replace(SGD8, clip=1.0),
        "recommended": replace(SGD8, start="recommended"),
        "recommended, clipped to 1": replace(SGD8, clip=1.0, start="recommended"),
    },
    "Too high a rate (Adam at 1e-2): lower it, or warm up": {
        "1e-2": replace(RELU8, rate=1e-2),
        "1e-2, warm-up": replace(RELU8, rate=1e-2, schedule="warm-up"),
        "1e-2, cosine": replace(RELU8, rate=1e-2, schedule="cosine"),
        "1e-3": RELU8,
        "1e-3, cosine": replace(RELU8, schedule="cosine"),
        "1e-2, recommended": replace(RELU8, rate=1e-2, start="recommended"),
    },
}
OURS = {
    "adaptive_he": initializers.AdaptiveHe,
    "layer_sequential": initializers.LayerSequential,
    "spectral_norm": initializers.SpectralNorm,
    "width_aware": initializers.WidthAware,
}
NORMS = {
    "batch": lambda: keras.layers.BatchNormalization(momentum=0.9),
    "layer": keras.layers.LayerNormalization,
}
BY_DEPTH = {"adaptive_he": "depth", "layer_sequential": "index"}


def initializer_of(arm, layer):
    """The initializer of the hidden layer of this number, from 1."""
    name, _, std = arm.start.partition("_")
    if arm.start == "recommended":
        return "glorot_uniform"  # until `apply` writes others
    if name == "normal":
        return keras.initializers.RandomNormal(stddev=float(std))
    if arm.start not in OURS:
        return arm.start
    options = {}
    if arm.start in BY_DEPTH:
        options = {"activation": arm.activation, BY_DEPTH[arm.start]: layer}
    return OURS[arm.start](**options)


def network(arm):
    """The network, from its start, compiled."""
    x = inputs = keras.Input((64,))
    for number, width in enumerate(arm.widths, start=1):
        y = hidden(arm, width, number)(x)
        if arm.norm:
            y = NORMS[arm.norm]()(y)
        y = keras.layers.Activation(arm.activation)(y)
        x = keras.layers.Add()([x, y]) if arm.residual and number > 1 else y
    last = initializer_of(arm, len(arm.widths) + 1)
    model = keras.Model(inputs, keras.layers.Dense(10, kernel_initializer=last)(x))
    model.compile(
        optimizer_of(arm),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def hidden(arm, width, number):
    return keras.layers.Dense(
        width,
        kernel_initializer=initializer_of(arm, number),
        bias_initializer=keras.initializers.Constant(arm.bias),
    )


def optimizer_of(arm):
    schedules = keras.optimizers.schedules
    rate = arm.rate
    if arm.schedule == "warm-up":
        rate = schedules.CosineDecay(
            0.0, STEPS, warmup_target=arm.rate, warmup_steps=STEPS // 5, alpha=1.0
        )
    elif arm.schedule == "cosine":
        rate = schedules.CosineDecay(arm.rate, STEPS)
    config = {"learning_rate": rate, "global_clipnorm": arm.clip}
    return keras.optimizers.get({"class_name": arm.optimizer, "config": config})


def run_of(claim, label, seed):
    arm = CLAIMS[claim][label]
    return {"arm": repr(arm), "seed": seed, "epochs": EPOCHS, "batch": BATCH}


def train(seeds, results):
    """Makes all runs that are not in the results."""
    for claim, arms in CLAIMS.items():
        for label in arms:
            runs = [run_of(claim, label, seed) for seed in seeds]
            train_arm(
                arms[label], [run for run in runs if not results.has(run)], results
            )
            print(claim, "|", label, "|", shown(claim, label, results), flush=True)


def train_arm(arm, runs, results):
    """Makes runs of one arm."""
    data = digits()
    for run in runs:
        keras.utils.set_random_seed(run["seed"])
        model = network(arm)
        if arm.start == "recommended":
            initlab.recommend(model).apply(seed=run["seed"])
        options = {"epochs": EPOCHS, "batch_size": BATCH}
        model.fit(*data[0], verbose=0, **options)
        found = model.evaluate(*data[1], batch_size=TESTS, verbose=0, return_dict=True)
        # A loss may be NaN, which is no JSON.
        outcome = {"accuracy": found["accuracy"], "backend": keras.backend.backend()}
        results.add(run, outcome)
        keras.utils.clear_session(free_memory=True)


def accuracies(claim, label, results):
    """Test accuracies of an arm at the present budget, a seed each."""
    wanted = run_of(claim, label, 0)
    del wanted["seed"]
    return [
        line["accuracy"] for line in results.lines if wanted.items() <= line.items()
    ]


def error_of(values):
    """The standard error of a mean accuracy, from the seeds and from the test set."""
    seeds = np.var(values, ddof=1) / len(values) if len(values) > 1 else 0.0
    return np.sqrt(seeds + np.mean(values) * (1 - np.mean(values)) / TESTS)


def shown(claim, label, results):
    values = accuracies(claim, label, results)
    return f"{np.mean(values):.3f}" if values else "–"


def is_level(values, best):
    """Whether an arm is as good as the best, as far as can be told."""
    if not values:
        return False
    margin = 2 * np.hypot(error_of(best), error_of(values))
    return np.mean(best) - np.mean(values) <= max(0.01, margin)


def as_markdown(results):
    """A row a claim: its arms, the best first, bold what is level with the best."""
    rows = ["| What is said | Test accuracy, the best first |", "| --- | --- |"]
    for claim, arms in CLAIMS.items():
        found = {label: accuracies(claim, label, results) for label in arms}
        order = sorted(arms, key=lambda label: -np.mean(found[label] or [0.0]))
        best = found[order[0]]
        cells = []
        for label in order:
            text = f"{label} {shown(claim, label, results)}"
            cells.append(f"**{text}**" if is_level(found[label], best) else text)
        rows.append(f"| {claim} | {', '.join(cells)} |")
    return "\n".join(rows) + "\n"


def write(results):
    """Puts the table into the guide."""
    before, _, rest = GUIDE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    GUIDE.write_text(before + BEGIN + as_markdown(results) + END + after)


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "guide.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help="into the guide")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parsed(arguments)
    results = Results(options.results)
    if options.write:
        return write(results)
    if options.quick:
        claim, label = next(iter(CLAIMS)), "recommended"
        train_arm(CLAIMS[claim][label], [run_of(claim, label, 0)], results)
        return print(shown(claim, label, results))
    train(options.seeds, results)
    return print(as_markdown(results))


if __name__ == "__main__":
    main()
