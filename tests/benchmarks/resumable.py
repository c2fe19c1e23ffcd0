"""Results that survive interruption: a line a run, finished runs skipped."""

from __future__ import annotations

import json
import math
import time

import keras


def finite(value):
    """A number, or None for what is no number: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def size_of(data):
    """How many examples there are."""
    return len(keras.tree.flatten(data)[0])


class Results:
    """Finished runs in a file.

    A run is a dict of what was asked for (its settings, the budget included); its line
    holds that and what came out. A run counts as finished only if all its settings are
    the same, so a changed budget never mixes with results of the old one.
    """

    def __init__(self, path):
        self.path = path
        self.lines = []
        if path.exists():
            self._read()

    def _read(self):
        whole, _, unfinished = self.path.read_text().rpartition("\n")
        if unfinished:  # the machine stopped while it was written
            self.path.write_text(whole + "\n" if whole else "")
        self.lines = [json.loads(line) for line in whole.splitlines()]

    def has(self, run):
        return any(run.items() <= line.items() for line in self.lines)

    def add(self, run, outcome):
        line = {**run, **outcome}
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Trained:
    """One compiled model that is trained again and again from other weights.

    Compiling takes longer than training: weights and optimizer start over instead.
    """

    def __init__(self, model):
        self.model = model
        model.optimizer.build(model.trainable_variables)
        self.start = [
            (variable, variable.numpy().copy())
            for variable in model.optimizer.variables
        ]

    def start_from(self, weights, rate):
        """Sets the model to these weights, and the optimizer to its start."""
        self.model.set_weights(weights)
        for variable, value in self.start:
            variable.assign(value)
        self.model.optimizer.learning_rate = rate

    def evaluate(self, test):
        """Metrics on the test set, in one batch."""
        options = {"verbose": 0, "return_dict": True}
        return self.model.evaluate(*test, batch_size=size_of(test), **options)

    def run(self, weights, rate, train, test, **options):
        """Metrics on the test set after a training from these weights, at this rate."""
        self.start_from(weights, rate)
        began = time.perf_counter()
        self.model.fit(*train, verbose=0, **options)
        seconds = time.perf_counter() - began
        values = {key: finite(value) for key, value in self.evaluate(test).items()}
        return {**values, "seconds": round(seconds, 2)}
