"""Leaving a model as it was, whatever looks at it or runs it.

A layer that runs may build itself, make other layers, note its losses, keep what it
has read, use up automatic names and move random generators on. What it may leave
behind cannot be listed, so all that can be reached from the model is remembered, and
put back where it differs. Objects of NumPy and of the backends are only held: what
changes the values of variables runs in a `keras.StatelessScope`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._core.random import rewinding
from .private import global_state

_BACKENDS = {"jax", "jaxlib", "ml_dtypes", "numpy", "tensorflow", "torch"}


@contextlib.contextmanager
def unchanged(*roots: Any) -> Iterator[None]:
    """Takes back what the block changes in these objects and all that they hold.

    Keras's own state and the global random generators are taken back too. What the
    block draws differs from what is drawn after it, and is the same every time.
    """
    # A Keras that keeps its state elsewhere counts automatic names on.
    restore = _remembered((*roots, global_state())), rewinding()
    random.seed(random.getrandbits(64))
    try:
        yield
    finally:
        for each in restore:
            each()


def _remembered(roots: Iterable[Any]) -> Callable[[], None]:
    """Returns what puts these objects and all that they hold back."""
    waiting, seen = list(roots), set()
    held: list[tuple[Any, Any]] = []  # each with a copy; none can lose its id
    while waiting:
        one = waiting.pop()
        if id(one) in seen or not _is_entered(type(one)):
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            held.append((one, dict(one)))
            waiting += one.values()
        elif isinstance(one, (list, tuple, set, deque)):
            if not isinstance(one, tuple):
                held.append((one, list(one)))
            waiting += one
        waiting.append(getattr(one, "__dict__", None))
    return lambda: _put_back(held)


@functools.cache
def _is_entered(kind: type) -> bool:
    """Whether objects of a class may hold what a layer changes."""
    containers = (dict, list, tuple, set, deque, types.SimpleNamespace)
    bases = [base.__module__.partition(".")[0] for base in kind.__mro__]
    if "keras" in bases or issubclass(kind, containers):
        return True
    return bases[0] not in _BACKENDS and bases[0] not in sys.stdlib_module_names


def _put_back(held: Iterable[tuple[Any, Any]]) -> None:
    # By the containers' own methods: those of Keras's tracked ones track, or refuse.
    for one, before in held:
        if isinstance(one, dict):
            kind: Any = OrderedDict if isinstance(one, OrderedDict) else dict
            are_same = (
                _are_same(kind.keys(one), before),
                _are_same(kind.values(one), before.values()),
            )
            if not all(are_same):
                kind.clear(one)
                for key, value in before.items():
                    kind.__setitem__(one, key, value)
        elif isinstance(one, set):
            if one != set(before):
                set.clear(one)
                set.update(one, before)
        elif not _are_same(one, before):
            kind = list if isinstance(one, list) else deque
            kind.clear(one)
            kind.extend(one, before)


def _are_same(now: Iterable[Any], before: Iterable[Any]) -> bool:
    """Whether two rows hold the very same objects."""
    now, before = list(now), list(before)
    return len(now) == len(before) and all(map(operator.is_, now, before))
