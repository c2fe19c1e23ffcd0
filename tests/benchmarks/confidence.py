"""What a recommendation's confidence is worth, on the models of the zoo.

Every kernel's row says at which std its output is meant to come. Each model gets the
recommended weights, several times from different seeds, and runs once on random
examples; what came is set beside what was meant. The table says, for each confidence,
how many kernels came within a tenth, a quarter and a factor of two.

    python tests/benchmarks/confidence.py

Kernels that run in sight count: those inside a recurrent layer's loop do not, nor do
frozen ones. `--quick` takes three models and one seed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table
from zoo import ZOO

from keras_initlab import probe, recommend

BATCH = 64
QUICK = ("mlp", "vgg", "unet")
WITHIN = (1.1, 1.25, 2.0)


def ratios_of(name, seed):
    """`(confidence, measured over meant)` of every kernel that runs in sight."""
    entry = ZOO[name]
    if not entry.is_called:
        return
    model = entry.build()
    advice = recommend(model)
    advice.apply(seed=seed)
    found = {layer.path: layer for layer in probe(model, entry.example(BATCH))}
    for row in advice:
        layer = found.get(row.path.rpartition("/")[0])
        if row.initializer is not None and layer is not None and layer.preactivation:
            yield row.confidence, layer.preactivation.std / row.std


def shares_of(ratios):
    """The share of ratios within each factor of 1."""
    sizes = np.exp(np.abs(np.log(np.maximum(ratios, 1e-12))))
    return [float(np.mean(sizes <= factor)) for factor in WITHIN]


def as_table(found):
    table = Table(title="Kernels whose output came near the std that was meant")
    for heading in ("confidence", "kernels", "in 10 %", "in 25 %", "in a factor 2"):
        table.add_column(heading, justify="right")
    for confidence, ratios in sorted(found.items(), reverse=True):
        cells = [f"{share:.0%}" for share in shares_of(ratios)]
        table.add_row(f"{confidence:.2f}", str(len(ratios)), *cells)
    return table


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.seeds = list(QUICK), options.seeds[:1]
    found = defaultdict(list)
    for name in options.models:
        for seed in options.seeds:
            for confidence, ratio in ratios_of(name, seed):
                found[confidence].append(ratio)
    Console(width=100).print(as_table(found))
    return dict(found)


if __name__ == "__main__":
    main()
