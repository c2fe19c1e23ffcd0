"""Models that others wrote, trained from their own start and from ours.

Every model of `foreign_models.py` is trained on real text or images from the start that
its library gives it and from `keras_initlab.recommend(model).apply(seed)` on the
compiled model, at each of three rates of Adam and from three seeds; gradients are
clipped to global norm 1, all with the same budget. The score is the test accuracy of a
classifier, minus the test cross entropy, in nats a token, of a language model, and
1 − MSE / variance of the denoising autoencoder.

Each arm is shown at its own best rate, by the mean score over seeds. The test set that
is shown also chose the rate, for both arms alike. The margin and the words are those
of `trainability.py`: two standard errors of the difference (from seeds, and for an
accuracy from the test set), or 0.01, the larger.

    python tests/benchmarks/foreign_training.py --text FOLDER
    python tests/benchmarks/foreign_training.py --table
    python tests/benchmarks/foreign_training.py --markdown

FOLDER has `positive.txt` and `negative.txt`, a sentence a line; only the models of
images do without. Every model has a process of its own, so that a crash ends no other,
with the backend that was fastest for it on a CPU: JAX, and PyTorch for MobileNet. If
KERAS_BACKEND is set, it holds for all. One line a run is added to `--out`; runs that
are in it are not made again, and those that failed are. A run takes about 10 to 35
seconds on one core, and building and compiling a model, once for all its runs, about as
long again.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from foreign_models import MODELS
from resumable import Results, Trained, finite
from rich.console import Console
from rich.table import Table
from trainability import CLIP
from verdicts import Verdict, at_rate, summary

import keras_initlab as initlab

ARMS = ("default", "ours")
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)


# ---- runs -----------------------------------------------------------------------


class FirstLoss(keras.callbacks.Callback):
    """The loss of the first batch, in training, before any step."""

    def __init__(self):
        super().__init__()
        self.loss = None

    def on_train_batch_end(self, batch, logs=None):
        if self.loss is None:
            self.loss = float(logs["loss"])


def compiled(name):
    kind = MODELS[name].kind
    model = MODELS[name].build()
    metrics = {
        "classes": ["accuracy"],
        # The loss of a mixture of experts also has what balances them.
        "language": [
            keras.metrics.SparseCategoricalCrossentropy("entropy", None, True)
        ],
        "image": [keras.metrics.MeanSquaredError("error")],
    }
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = "mse" if kind == "image" else cross_entropy
    model.compile(
        keras.optimizers.Adam(global_clipnorm=CLIP), loss, metrics=metrics[kind]
    )
    return model


def weights_for(name, arm, seed):
    """What a user would have after building the model this way."""
    keras.utils.set_random_seed(seed)
    model = compiled(name)
    if arm == "ours":
        initlab.recommend(model).apply(seed=seed)
    return model.get_weights()


def run_of(name, arm, rate, seed, budget=None):
    """A run's settings; the budget is a number of training examples, or None: all."""
    model = MODELS[name]
    return {
        "model": name,
        "arm": arm,
        "rate": rate,
        "seed": seed,
        "batch": model.batch,
        "epochs": model.epochs,
        "budget": budget,
    }


def train(name, options, results):
    """Makes all runs of a model that are not in the results."""
    runs = [
        run_of(name, arm, rate, seed, options.budget)
        for seed in options.seeds
        for rate in options.rates
        for arm in options.arms
    ]
    runs = [run for run in runs if not results.has(run)]
    if not runs:
        return 0
    trained = Trained(compiled(name))
    data = MODELS[name].data_from(options.text)
    failed = [run for run in runs if not succeeds(run, trained, data, results)]
    return len(failed)


def succeeds(run, trained, data, results):
    """Makes a run; one that fails is told, and left for the next sitting."""
    try:
        outcome = outcome_of(run, trained, data)
    except Exception:
        traceback.print_exc()
        print(*shown(run), "failed", flush=True)
        return False
    results.add(run, outcome)
    print(*shown(run), *(f"{k}={v:.4g}" for k, v in numbers(outcome)), flush=True)
    return True


def shown(run):
    return [run[part] for part in ("model", "arm", "rate", "seed")]


def numbers(outcome):
    return [(k, v) for k, v in outcome.items() if isinstance(v, float)]


def outcome_of(run, trained, data):
    train, test = data
    train = first(train, run["budget"])
    weights = weights_for(run["model"], run["arm"], run["seed"])
    keras.utils.set_random_seed(run["seed"])  # the order of the examples, dropout
    start = FirstLoss()
    options = {"epochs": run["epochs"], "batch_size": run["batch"]}
    tested = trained.run(
        weights, run["rate"], train, test, callbacks=[start], **options
    )
    seen = first(train, len(test[1]))
    return {
        "score": score_of(tested, run["model"], test),
        "first_loss": finite(start.loss),
        "train_loss": finite(trained.evaluate(seen)["loss"]),
        "test_loss": tested["loss"],
        "seconds": tested["seconds"],
        "backend": keras.backend.backend(),
    }


def first(data, count):
    return keras.tree.map_structure(lambda part: part[:count], data)


def score_of(tested, name, test):
    """More is better; a training that diverged has the score of knowing nothing."""
    kind = MODELS[name].kind
    if kind == "classes":
        return tested["accuracy"] if tested["loss"] is not None else 0.0
    if kind == "language":
        entropy = tested["entropy"]
        return -entropy if entropy is not None else -math.log(test[1].max() + 1)
    error = tested["error"]
    return float(max(0.0, 1 - error / test[1].var())) if error is not None else 0.0


# ---- verdicts -------------------------------------------------------------------


def lines_of(name, arm, rate, results, budget=None):
    wanted = run_of(name, arm, rate, None, budget)
    del wanted["seed"]
    return [line for line in results.lines if wanted.items() <= line.items()]


def by_rate(name, arm, results, budget=None):
    """The runs of an arm, by their rate."""
    rates = {
        line["rate"]
        for line in results.lines
        if (line["model"], line["arm"], line["budget"]) == (name, arm, budget)
    }
    return {rate: lines_of(name, arm, rate, results, budget) for rate in sorted(rates)}


def mean_of(lines, key):
    values = [line[key] for line in lines]
    return float("nan") if None in values or not values else float(np.mean(values))


def verdict_on(name, runs):
    """The verdict on a model, from its runs by arm and rate."""
    tests = None
    if MODELS[name].kind == "classes":
        tests = 2000 if MODELS[name].reads_text else 1000
    arms = {
        arm: [
            at_rate(rate, [line["score"] for line in lines], (), tests)
            for rate, lines in runs[arm].items()
        ]
        for arm in ARMS
        if runs[arm]
    }
    return Verdict(name, arms)


HEADINGS = (
    "model",
    *(f"{arm}: {what}" for what in ("rate", "score") for arm in ARMS),
    "margin",
    *(f"{arm}: {what}" for what in ("first loss", "train loss") for arm in ARMS),
    "ours is",
)


def cells_of(name, results, budget=None):
    runs = {arm: by_rate(name, arm, results, budget) for arm in ARMS}
    verdict = verdict_on(name, runs)
    best = {arm: runs[arm][verdict.best(arm).rate] if runs[arm] else [] for arm in ARMS}
    margin = (
        "" if verdict.is_open else f"{verdict.margin(*map(verdict.best, ARMS)):.3f}"
    )
    return [
        name,
        *(f"{verdict.best(arm).rate:.0e}" if best[arm] else "" for arm in ARMS),
        *(mean_text(best[arm], "score") for arm in ARMS),
        margin,
        *(mean_text(best[arm], "first_loss") for arm in ARMS),
        *(mean_text(best[arm], "train_loss") for arm in ARMS),
        verdict.word,
    ], verdict


def mean_text(lines, key):
    return f"{mean_of(lines, key):.3f}" if lines else ""


def as_table(rows):
    table = Table(title="Each arm at its best rate, mean over seeds")
    for heading in HEADINGS:
        is_text = heading in (HEADINGS[0], HEADINGS[-1])
        table.add_column(heading, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*row)
    return table


def as_markdown(rows):
    rule = ["---", *["--:"] * (len(HEADINGS) - 2), "---"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [HEADINGS, rule, *rows])


def show(options, results):
    found = [cells_of(name, results, options.budget) for name in options.models]
    rows = [cells for cells, _ in found]
    sentences = summary([verdict for _, verdict in found])
    if options.markdown:
        print(as_markdown(rows), "", *sentences, sep="\n")
    else:
        console = Console(width=130)
        console.print(as_table(rows))
        console.print(*sentences, sep="\n")
    return rows


# ---- the command line -----------------------------------------------------------


def train_apart(name, arguments):
    """A process for one model, on its backend; whether all its runs are made."""
    backend = MODELS[name].backend
    # Two threads of PyTorch on a busy machine were several times slower than one.
    environment = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-W", "ignore", __file__, *arguments, "--only", name]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        print(name, "is not complete: exit code", code, flush=True)
    return code == 0


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "foreign_training.jsonl"
    parser.add_argument("--text", type=Path, help="a folder of sentences")
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument(
        "--budget", type=int, help="training examples, for a quick look"
    )
    parser.add_argument("--table", action="store_true", help="only show the results")
    parser.add_argument("--markdown", action="store_true", help="show them as Markdown")
    parser.add_argument("--only", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.table or options.markdown:
        return options
    chosen = [options.only] if options.only else options.models
    readers = [name for name in chosen if MODELS[name].reads_text]
    if readers and options.text is None:
        parser.error(f"--text is needed for {', '.join(readers)}.")
    return options


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parsed(arguments)
    if options.only:
        return train(options.only, options, Results(options.out))
    if not (options.table or options.markdown):
        for name in options.models:
            train_apart(name, arguments)
    show(options, Results(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
