"""What `import keras_initlab` adds to `import keras`.

Processes take turns, one that imports Keras alone and one that imports both; printed is
the median of the ratios within a turn, less 1. The bar is 5 %. Byte code is cached, as
where packages are installed, in a folder of its own.

    python tests/benchmarks/import_time.py [--turns 15]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ALONE, BOTH = "import keras", "import keras, keras_initlab"


def processor_seconds(statement, cache):
    """The processor time of a process that runs a statement."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", statement],
        check=True,
        capture_output=True,
        env=environment,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio(turn, cache):
    """Both over Keras alone; which of them is first alternates."""
    order = (ALONE, BOTH)[:: -1 if turn % 2 else 1]
    took = {statement: processor_seconds(statement, cache) for statement in order}
    return took[BOTH] / took[ALONE]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args(arguments).turns
    with tempfile.TemporaryDirectory() as cache:
        processor_seconds(BOTH, cache)  # writes byte code, warms the disk's cache
        ratios = [ratio(turn, cache) for turn in range(turns)]
    added = statistics.median(ratios) - 1
    spread = statistics.quantiles(ratios, n=4)
    print(
        f"{added:+.1%} of `import keras` ({turns} turns, quartiles "
        f"{spread[0] - 1:+.1%} and {spread[2] - 1:+.1%})"
    )
    return added


if __name__ == "__main__":
    main()
