"""What `import keras_initlab` adds to `import keras`.

Fresh processes import Keras, then the package; printed is the median of what the second
takes of the first, in processor time. The bar is 5 %. Byte code is cached, as where
packages are installed, in a folder of its own.

    python tests/benchmarks/import_time.py [--turns 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

BOTH = """
import time
start = time.process_time()
import keras
between = time.process_time()
import keras_initlab
print((time.process_time() - between) / (between - start))
"""


def ratio(cache):
    """What a process takes for the package, of what it takes for Keras."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run = [sys.executable, "-c", BOTH]
    return float(subprocess.check_output(run, env=environment, stderr=subprocess.PIPE))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args(arguments).turns
    with tempfile.TemporaryDirectory() as cache:
        ratio(cache)  # writes byte code, warms the disk's cache
        ratios = [ratio(cache) for _ in range(turns)]
    added = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"{added:+.1%} of `import keras` ({turns} turns, quartiles "
        f"{low:+.1%} and {high:+.1%})"
    )
    return added


if __name__ == "__main__":
    main()
