"""Fits that are killed at random moments, and resumed with and without callbacks.

`python killed_fits.py kill FOLDER COUNT SECONDS` lets `COUNT` fits run side by side
with logs and checkpoints and kills each at a moment of its own.
`python killed_fits.py resume FOLDER` goes on with each, observed, and with a copy of
its files, unobserved; prints a line of JSON for each.
"""

import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
from awkward import Do, alive
from keras import callbacks as others
from keras import layers
from oracles import MODES, USUAL

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    CSVLog,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
    JSONLinesLog,
)

STEPS, BATCH, WIDTH = 12, 4, 5


def watchers(folder):
    def csv(name):
        return CSVLog(folder / name, append=True)

    lines = JSONLinesLog(folder / "norms.jsonl", append=True)
    return [
        GradientNormLogger(1, log_to=[csv("norms.csv"), lines], alerts=False),
        DeadReLULogger(1, log_to=csv("dead.csv"), alerts=False),
        ActivationStatsLogger(2, log_to=csv("stats.csv"), alerts=False),
        DormantUnitRecycler(0.0, 3, log_to=csv("recycled.csv"), alerts=False),
    ]


def train(folder, epochs, is_observed=True):
    """The weights and the last loss of a fit that begins where its files tell."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    hidden = [alive(), layers.Dropout(0.2), alive(6)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse", **MODES[USUAL])
    kept = [
        others.ModelCheckpoint(folder / "model.keras", save_freq=STEPS // 2),
        others.BackupAndRestore(folder / "backup", delete_checkpoint=False),
    ]
    x = np.random.default_rng(1).normal(size=(STEPS * BATCH, WIDTH)).astype("float32")
    own = [*watchers(folder), Do("on_epoch_end", orphan)] if is_observed else []
    options = {"shuffle": False, "verbose": 0, "callbacks": [*own, *kept]}
    history = model.fit(x, x[:, :1], BATCH, epochs, **options).history
    return [history["loss"], [w.ravel().tolist() for w in model.get_weights()]]


def orphan(_):
    """Ends a fit whose parent is gone, which would go on for days."""
    if os.getppid() == 1:
        os._exit(1)


def kill_one(folder, delay):
    folder.mkdir()
    child = multiprocessing.get_context("fork").Process(
        target=train, args=(folder, 10**6)
    )
    child.start()
    while not (folder / "backup" / "training_metadata.json").exists():
        assert child.is_alive()
        time.sleep(0.005)
    time.sleep(delay)
    assert child.is_alive()
    child.kill()
    child.join()
    assert child.exitcode == -9


def kill(folder, count, seconds):
    uniform = random.Random(count).uniform
    for n in range(count):
        kill_one(folder / str(n), seconds * (n + uniform(0, 1)) / count)


def told(*arguments):
    """What a fit gives, or the error that ends it."""
    try:
        return train(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def resume(folder):
    for one in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        plain = one.with_name(f"{one.name}.plain")
        shutil.copytree(one, plain)
        try:
            text = (one / "backup" / "training_metadata.json").read_text()
            epoch = json.loads(text)["epoch"]
        except ValueError:  # Keras was writing it
            epoch = 0
        runs = [told(plain, epoch + 2, False), told(one, epoch + 2, True)]
        same = runs[0] == runs[1]
        error = next((str(run)[:200] for run in runs if isinstance(run, str)), "")
        row = {"name": one.name, "epoch": epoch, "same": same, "error": error}
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    if what == "kill":
        kill(Path(where), int(numbers[0]), float(numbers[1]))
    else:
        resume(Path(where))
