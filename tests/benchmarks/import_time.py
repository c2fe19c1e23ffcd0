"""What `import keras_initlab` adds to `import keras`.

Processes take turns, one that imports Keras alone and one that imports both; printed is
the median of the ratios within a turn, less 1. The bar is 5 %.

    python tests/benchmarks/import_time.py [--turns 15]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ALONE, BOTH = "import keras", "import keras, keras_initlab"


def processor_seconds(statement):
    """The processor time of a process that runs a statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args(arguments).turns
    processor_seconds(BOTH)  # writes byte code, warms the disk's cache
    ratios = []
    for turn in range(turns):
        order = (ALONE, BOTH)[:: -1 if turn % 2 else 1]
        took = {statement: processor_seconds(statement) for statement in order}
        ratios.append(took[BOTH] / took[ALONE])
    added = statistics.median(ratios) - 1
    spread = statistics.quantiles(ratios, n=4)
    print(
        f"{added:+.1%} of `import keras` ({turns} turns, quartiles "
        f"{spread[0] - 1:+.1%} and {spread[2] - 1:+.1%})"
    )
    return added


if __name__ == "__main__":
    main()
