"""What drawing a kernel costs: every initializer beside Keras's, in one run.

The first table is about `SpectralNorm` at 2048 x 2048 against a Gaussian draw and a
full singular value decomposition in NumPy. The second is about every public
initializer, against `HeNormal` and `Orthogonal` of Keras. Contestants are timed in
turns whose order alternates, so that a drift of the machine hits all alike; printed
are medians of the ratios within a turn. The first call, which on JAX compiles, is
printed but not counted.

    KERAS_BACKEND=jax python tests/benchmarks/initializers.py [--turns 7]
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_initlab import initializers

LARGE = (2048, 2048)
SHAPES = [(512, 512), (3, 3, 128, 128)]
# The arguments of what cannot be built without any, or not for these shapes.
ARGUMENTS = {
    "DeltaOrthogonal": ({}, [(3, 3, 128, 128)]),
    "FanInBias": ({"fan_in": 512}, [(512,)]),
    "ForgetGateBias": ({}, [(512,)]),
    "MatchPretrained": ({"std": 0.05}, SHAPES),
}


def public_initializers():
    """`(label, initializer, shapes)` of every class; one that cannot be built exits."""
    names = [n for n in initializers.__all__ if n[0].isupper()]
    for name in names:
        arguments, shapes = ARGUMENTS.get(name, ({}, SHAPES))
        try:
            made = getattr(initializers, name)(seed=0, **arguments)
        except TypeError:
            made = built_without_seed(name, arguments)
        yield name, made, shapes
    made = initializers.SpectralNorm(operator="convolution", input_size=14, seed=0)
    yield "SpectralNorm, convolution", made, [(3, 3, 128, 128)]


def built_without_seed(name, arguments):
    try:
        return getattr(initializers, name)(**arguments)
    except TypeError as error:
        raise SystemExit(f"Add the arguments of {name} to ARGUMENTS: {error}") from None


def source(shape, norm=0.9):
    """What a rescaling initializer does in NumPy: a draw and a full decomposition."""
    kernel = np.random.default_rng(0).normal(size=shape)
    return kernel * (norm / np.linalg.svd(kernel)[1][0])


def seconds(draw, shape):
    start = time.perf_counter()
    keras.ops.convert_to_numpy(draw(shape))  # waits for what runs asynchronously
    return time.perf_counter() - start


def measured(contestants, shape, turns):
    """First calls, and an array `(turns, contestants)` of those that follow."""
    first = [seconds(draw, shape) for draw in contestants]
    times = np.empty((turns, len(contestants)))
    for turn in range(turns):
        order = range(len(contestants))
        for i in order if turn % 2 else reversed(order):
            times[turn, i] = seconds(contestants[i], shape)
    return first, times


def against_full_svd(turns):
    ours = initializers.SpectralNorm(seed=0)
    draw = keras.initializers.RandomNormal(seed=0)
    contestants = [ours, draw, source]
    first, times = measured(contestants, LARGE, turns)
    table = Table(title=f"SpectralNorm at {LARGE}, {keras.backend.backend()}")
    for name in ("", "first call", "median", "÷ SpectralNorm's", "first, ÷ first"):
        table.add_column(name, justify="right")
    names = ["SpectralNorm", "its draw alone", "draw + full SVD"]
    for i, name in enumerate(names):
        ratio = np.median(times[:, i] / times[:, 0])
        median = np.median(times[:, i])
        numbers = (f"{ratio:.2f}", f"{first[i] / first[0]:.2f}")
        table.add_row(name, f"{first[i]:.3f} s", f"{median:.3f} s", *numbers)
    return table


def against_keras(turns):
    table = Table(title=f"every initializer, {keras.backend.backend()}")
    for name in ("", "shape", "first call", "median", "÷ HeNormal", "÷ Orthogonal"):
        table.add_column(name, justify="right")
    normal = keras.initializers.HeNormal(seed=0)
    orthogonal = keras.initializers.Orthogonal(seed=0)
    for name, made, shapes in public_initializers():
        for shape in shapes:
            # Keras's cannot orthogonalize a vector.
            rivals = [normal, orthogonal] if len(shape) > 1 else [normal]
            first, times = measured([made, *rivals], shape, turns)
            ratios = np.median(times[:, :1] / times[:, 1:], axis=0)
            table.add_row(
                name,
                str(shape),
                f"{1e3 * first[0]:.1f} ms",
                f"{1e3 * np.median(times[:, 0]):.1f} ms",
                *(f"{ratio:.2f}" for ratio in ratios),
            )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", choices=["svd", "keras"])
    options = parser.parse_args()
    console = Console(width=100)
    if options.only != "keras":
        console.print(against_full_svd(options.turns))
    if options.only != "svd":
        console.print(against_keras(3 * options.turns))


if __name__ == "__main__":
    main()
