"""Trainability: many networks, each trained from several starts at several rates.

Every network of `networks/` is trained from each start (*arm*) that says something of
its kind, at the Adam rates 3e-4,
1e-3 and 3e-3, from three seeds, all with the same budget; a third of them, chosen by
their name, at three rates of SGD with momentum 0.9 too. Gradients are clipped to global
norm 1. An arm is judged at its best rate (`verdicts.py`): by its final test score, by
the steps that it takes to the final score of Keras's default, and by how many of the
rates end within the margin of its best.

The scores: test accuracy; 1 − mse/variance where numbers are predicted; minus the test
cross-entropy, in nats a token, of language models.

The networks' families are split in two halves by a rule of their names alone. Rules
and constants may be chosen by the results on the *fitted* half. The other is
*reported*.

    KERAS_BACKEND=jax python tests/benchmarks/trainability.py --text FOLDER
    python tests/benchmarks/trainability.py --table --half reported
    python tests/benchmarks/trainability.py --write

One line a run is added to `--results`; runs that are in it are not made again, so it
may be stopped at any time. `--write` trains nothing and puts the tables of the results
into `examples/BENCHMARKS.md`. A run takes from a tenth of a second to half a minute,
and compiling a network, once for all its runs, 3 to 30 seconds.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from arms import ARMS, weights_for
from networks import DEFAULT, NETWORKS, is_fitted
from resumable import Results, Trained, finite, size_of
from rich.console import Console
from rich.table import Table
from verdicts import AtRate, Verdict, at_rate, summary

CLIP = 1.0
RATES = {"adam": (3e-4, 1e-3, 3e-3), "sgd": (1e-2, 3e-2, 1e-1)}
MOMENTUM = 0.9
SEEDS = (0, 1, 2)
HALVES = ("fitted", "reported")
BENCHMARKS = Path(__file__).parents[2] / "examples" / "BENCHMARKS.md"
BEGIN, END = "<!-- trainability -->\n", "<!-- /trainability -->"


def cases(names, optimizers=tuple(RATES)):
    """Pairs of a network's name and an optimizer that it is trained with."""
    for name in names:
        for optimizer in optimizers:
            is_chosen = zlib.crc32(name.encode()) % 3 == 0
            if optimizer == "adam" or is_chosen:
                yield name, optimizer


# ---- runs -----------------------------------------------------------------------


def run_of(name, optimizer, arm, rate, seed, epochs=None):
    network = NETWORKS[name]
    return {
        "network": name,
        "optimizer": optimizer,
        "arm": arm,
        "rate": rate,
        "seed": seed,
        "epochs": epochs or network.epochs,
        "batch": network.batch,
    }


def metric_of(network):
    """What is counted of a network, beside its loss."""
    if network.figure == "accuracy":
        return keras.metrics.SparseCategoricalAccuracy("figure")
    if network.figure == "explained":
        return keras.metrics.MeanSquaredError("figure")
    return keras.metrics.SparseCategoricalCrossentropy("figure", from_logits=True)


def compiled(network, optimizer):
    model = network.build(DEFAULT)
    made = (
        keras.optimizers.Adam(global_clipnorm=CLIP)
        if optimizer == "adam"
        else keras.optimizers.SGD(momentum=MOMENTUM, global_clipnorm=CLIP)
    )
    model.compile(made, network.loss(), metrics=[metric_of(network)])
    return model


def train(case, options, results):
    """Makes all runs of a case that are not in the results."""
    name, optimizer = case
    runs = [
        run_of(name, optimizer, arm, rate, seed, options.epochs)
        for seed in options.seeds
        for arm in options.arms
        for rate in options.rates or RATES[optimizer]
    ]
    runs = [run for run in runs if not results.has(run)]
    if not runs:
        return
    network = NETWORKS[name]
    data = network.data_from(options.text)
    trained = Trained(compiled(network, optimizer))
    starts = {}
    for run in runs:
        key = run["arm"], run["seed"]
        if key not in starts:
            starts = {key: weights_for(run["arm"], network, data, run["seed"])}
        if starts[key] is None:  # a start for networks of another kind
            continue
        outcome = outcome_of(run, trained, starts[key], data)
        results.add(run, outcome)
        told = run["arm"], run["rate"], run["seed"], outcome["score"]
        print(name, optimizer, *told, outcome["seconds"], flush=True)
    keras.utils.clear_session(free_memory=True)


def outcome_of(run, trained, weights, data):
    network = NETWORKS[run["network"]]
    train, test = data
    trained.start_from(weights, run["rate"])
    keras.utils.set_random_seed(run["seed"])  # the order of the examples, dropout
    first = trained.evaluate(test)
    began = time.perf_counter()
    history = trained.model.fit(
        *train,
        epochs=run["epochs"],
        batch_size=run["batch"],
        validation_data=test,
        validation_batch_size=size_of(test),
        verbose=0,
    ).history
    seconds = time.perf_counter() - began
    curve = [
        score_of(network, figure, loss, test)
        for figure, loss in [
            (first["figure"], first["loss"]),
            *zip(history["val_figure"], history["val_loss"], strict=True),
        ]
    ]
    return {
        "score": curve[-1],
        "curve": [round(value, 5) for value in curve],
        "tests": size_of(test),
        "train_loss": finite(history["loss"][-1]),
        "seconds": round(seconds, 2),
        "backend": keras.backend.backend(),
    }


def score_of(network, figure, loss, test):
    """More is better; a training that diverged has the score of knowing nothing."""
    is_lost = not (math.isfinite(figure) and math.isfinite(loss))
    targets = test[1]
    if network.figure == "accuracy":
        return 0.0 if is_lost else float(figure)
    if network.figure == "loss":
        return -math.log(targets.max() + 1) if is_lost else -float(figure)
    return 0.0 if is_lost else max(0.0, 1 - float(figure) / float(np.var(targets)))


# ---- verdicts -------------------------------------------------------------------


def verdict_on(case, results, options):
    """The verdict from those runs in the results that have the present budget."""
    name, optimizer = case
    wanted = run_of(name, optimizer, None, None, None, options.epochs)
    wanted = {key: value for key, value in wanted.items() if value is not None}
    lines = [line for line in results.lines if wanted.items() <= line.items()]
    lines = [line for line in lines if line["seed"] in options.seeds]
    arms = {}
    for arm in options.arms:
        found = [at(rate, arm, lines, name) for rate in rates_in(lines, arm)]
        if found:
            arms[arm] = found
    return Verdict(name if optimizer == "adam" else f"{name}, {optimizer}", arms)


def rates_in(lines, arm):
    return sorted({line["rate"] for line in lines if line["arm"] == arm})


def at(rate, arm, lines, name) -> AtRate:
    found = [one for one in lines if (one["arm"], one["rate"]) == (arm, rate)]
    network = NETWORKS[name]
    tests = found[0]["tests"] if network.figure == "accuracy" else None
    scores = [one["score"] for one in found]
    return at_rate(rate, scores, [one["curve"] for one in found], tests)


def headings(arms):
    return ("network", *arms, "margin", "ours is", "steps", "rates")


def cells_of(verdict, arms):
    figures = [
        f"{verdict.best(arm).score:.3f}" if arm in verdict.arms else "" for arm in arms
    ]
    if verdict.is_open:
        return [verdict.name, *figures, "", "open", "", ""]
    margin = verdict.margin(verdict.best("ours"), verdict.best(verdict.nearest))
    steps = verdict.steps("ours")
    is_swept = len(verdict.arms["ours"]) > 1
    return [
        verdict.name,
        *figures,
        f"{margin:.3f}",
        verdict.word,
        "" if steps is None else f"{steps:.2f}",
        f"{verdict.good_rates('ours')} : {verdict.good_rates('default')}"
        if is_swept
        else "",
    ]


def as_table(verdicts, arms, half):
    table = Table(title=f"The {half} half: each arm at its best rate, mean over seeds")
    for heading in headings(arms):
        is_text = heading in ("network", "ours is")
        table.add_column(heading, justify="left" if is_text else "right")
    for verdict in verdicts:
        table.add_row(*cells_of(verdict, arms))
    return table


def as_markdown(verdicts, arms):
    rule = ["---", *["--:"] * (len(arms) + 1), "---", "--:", "--:"]
    rows = [headings(arms), rule, *(cells_of(verdict, arms) for verdict in verdicts)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def verdicts_on(half, results, options):
    """The verdicts on a half's cases, as far as there are runs."""
    names = [name for name in options.networks if half_of(name) == half]
    found = [verdict_on(one, results, options) for one in cases(names)]
    return [verdict for verdict in found if verdict.arms]


def arms_in(verdicts):
    """The arms that were trained on some of these cases."""
    found = {arm for verdict in verdicts for arm in verdict.arms}
    return [arm for arm in ARMS if arm in found]


def shown_as_markdown(half, verdicts):
    """A half's table and what it says, as it stands in `BENCHMARKS.md`."""
    table = as_markdown(verdicts, arms_in(verdicts))
    return "\n\n".join([f"## The {half} half", table, "\n".join(summary(verdicts))])


def show(options, results):
    shown, texts = {}, []
    for half in options.halves:
        verdicts = shown[half] = verdicts_on(half, results, options)
        texts.append(shown_as_markdown(half, verdicts))
        if options.markdown:
            print(texts[-1], "")
        elif not options.write:
            console = Console(width=120)
            console.print(as_table(verdicts, arms_in(verdicts), half))
            console.print(*summary(verdicts), sep="\n")
    if options.write:
        before, _, rest = BENCHMARKS.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        BENCHMARKS.write_text(before + BEGIN + "\n\n".join(texts) + "\n" + END + after)
    return shown


def half_of(name):
    return "fitted" if is_fitted(NETWORKS[name].family) else "reported"


# ---- the command line -----------------------------------------------------------


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "trainability.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--text", type=Path, help="a folder of sentences")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--half", dest="halves", nargs=1, choices=HALVES)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--rates", nargs="+", type=float, help="other than the usual")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--epochs", type=int, help="other than each network's")
    parser.add_argument("--table", action="store_true", help="only show the results")
    parser.add_argument("--markdown", action="store_true", help="show them as Markdown")
    parser.add_argument("--write", action="store_true", help="them into BENCHMARKS.md")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    options.halves = options.halves or list(HALVES)
    if options.quick:
        options.seeds, options.epochs, options.optimizers = [0], 1, ["adam"]
        options.networks = options.networks or ["mlp 3 relu", "vgg relu"]
    options.networks = [
        name for name in options.networks or NETWORKS if half_of(name) in options.halves
    ]
    is_training = not (options.table or options.markdown or options.write)
    readers = [name for name in options.networks if NETWORKS[name].needs_text]
    if is_training and readers and options.text is None:
        parser.error(f"--text is needed for {', '.join(readers)}.")
    return options


def main(arguments=None):
    options = parsed(arguments)
    results = Results(options.results)
    if not (options.table or options.markdown or options.write):
        for case in cases(options.networks, options.optimizers):
            train(case, options, results)
    return show(options, results)


if __name__ == "__main__":
    main()
