"""Which tests run every day, and which with the slow ones.

Of a table of cases the first two are asked every day, all of them with `-m slow`;
`MOST_PER_TABLE` asks more. What a test is marked with says how it differs:

- `once_a_day`: of these the first alone.
- `seconds`: takes seconds on TensorFlow, where it waits for `-m long`, for which
  `.ci/run` has a stage.
- `whole`: all cases every day on TensorFlow.

On JAX, where nearly all time goes into compiling, it is the first of every table but
those marked `whole_on_jax`; what is marked `slow_on_jax`, since it does not depend on
the backend or is the callbacks' rules, is left to the slow tests there.
"""

import math
import os
from collections import Counter

import pytest

MOST = 2


def mark(items, backend):
    """Marks what does not run every day."""
    asked = Counter()
    for item in items:
        if item.get_closest_marker("slow"):
            continue
        name = f"{item.path.name}::{item.originalname}"
        asked[name] += 1
        if asked[name] > _most(item, backend):
            item.add_marker(pytest.mark.slow)
        elif backend == "tensorflow" and item.get_closest_marker("seconds"):
            item.add_marker(pytest.mark.long)


def _most(item, backend):
    """How many cases of the table that a test belongs to are asked every day."""

    def has(mark):
        return item.get_closest_marker(mark) is not None

    if has("whole") and backend == "tensorflow":
        return math.inf
    if backend == "jax" and not has("whole_on_jax"):
        return 0 if has("slow_on_jax") else 1
    most = float(os.environ.get("MOST_PER_TABLE", MOST))
    return min(1, most) if has("once_a_day") else most
