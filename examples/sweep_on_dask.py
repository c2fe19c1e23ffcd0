"""Compares initializers on a Dask cluster, on this machine or on many.

What it shows: `keras_initlab.compare` with `executor=client.get_executor()`. Every
initializer and seed is a task of its own, sent to whichever worker is free; what comes
back is the same table that one process gives, run after run added to a file, so that a
sweep that was stopped goes on where it was. Without `--scheduler` the cluster is this
machine's, with one process a core.

It needs Dask: `pip install "keras_initlab[dask,examples]"`. Workers on other machines
need keras_initlab and scikit-learn, and the same KERAS_BACKEND as here.

How long it takes: two to three minutes on two cores.

What you should see: a line for each run as it ends, in any order, then the table: the
recommended start ends at 0.97, the three others at 0.93 to 0.94. It is nearly there
after the first epoch, they after three to seven. Three seeds are too few to call the
lead at the end real, as the last lines say.

Run it with `python examples/sweep_on_dask.py`, or on a cluster with `--scheduler
tcp://ADDRESS:8786`; `--help` for the options.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # quiet start

import keras
import lab
from lab import digits

import keras_initlab as initlab
from keras_initlab import plots

INITIALIZERS = {
    "default": "default",
    "he_normal": "he_normal",
    "calibrated": "calibrated",
    "recommended": "recommended",
}
WIDTH = 64


def main(arguments: list[str] | None = None) -> initlab.Comparison:
    """Runs the sweep and shows what came out."""
    options = parse(arguments)
    depth = 6 if options.quick else 20
    with connected(options) as client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        lab.console.print(f"{workers} workers at {client.scheduler.address}")
        compared = initlab.compare(
            partial(build, depth),
            quick_ones() if options.quick else INITIALIZERS,
            partial(data, options.seed),
            epochs=options.epochs,
            seeds=range(options.seed, options.seed + options.seeds),
            executor=client.get_executor(),
            results=options.runs,
        )
    lab.console.print(compared)
    title = f"{depth} plain ReLU layers of {WIDTH}"
    lab.report(options, title, "test accuracy", accuracies(compared))
    lab.save(plots.comparison(compared, title), options.figure)
    return compared


def build(depth: int) -> keras.Model:
    """Returns a deep plain network, compiled. Workers get it by value."""
    hidden = [keras.layers.Dense(WIDTH, "relu") for _ in range(depth)]
    output = keras.layers.Dense(10, "softmax")
    model = keras.Sequential([keras.Input((64,)), *hidden, output])
    optimizer = keras.optimizers.Adam(1e-3)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def data(seed: int) -> lab.Split:
    """Returns the digits. Each worker calls it, so no images travel."""
    (x, y), (x_test, y_test) = digits(seed)
    return (x.reshape(-1, 64), y), (x_test.reshape(-1, 64), y_test)


def quick_ones() -> dict[str, Any]:
    """Returns the initializers of the small version."""
    return {name: INITIALIZERS[name] for name in ("default", "recommended")}


def accuracies(compared: initlab.Comparison) -> dict[str, list[float]]:
    """Returns the final test accuracy from each initializer, one for each seed."""
    found: dict[str, list[float]] = {label: [] for label in compared.labels}
    for run in compared.runs:
        reached = run.metrics.get("final_accuracy", float("nan"))
        found[run.label].append(reached / 100)
    return found


@contextlib.contextmanager
def connected(options: argparse.Namespace) -> Iterator[Any]:
    """Yields a client of the scheduler asked for, or of a cluster of this machine."""
    try:
        import cloudpickle  # which Dask brings
        from distributed import Client, LocalCluster
    except ImportError:
        raise SystemExit(
            'This sweep needs Dask: pip install "keras_initlab[dask]"'
        ) from None
    # Workers elsewhere have no `lab` to import: its functions travel too.
    cloudpickle.register_pickle_by_value(sys.modules["lab"])
    with contextlib.ExitStack() as stack:
        address = options.scheduler or stack.enter_context(
            LocalCluster(
                n_workers=options.workers,
                threads_per_worker=1,
                dashboard_address=":0",
                silence_logs=logging.ERROR,  # of workers that take long to end
            )
        )
        yield stack.enter_context(Client(address))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = lab.parser(__doc__, "sweep_on_dask.png", epochs=10, quick_epochs=2)
    parser.add_argument("--scheduler", help="its address; default: a cluster here")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--workers",
        type=int,
        default=cores,
        help=f"of a cluster here; default: {cores}",
    )
    runs = "finished runs go here, and are not run again; default: nowhere"
    parser.add_argument("--runs", type=Path, help=runs)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
