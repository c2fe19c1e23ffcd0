"""Conditions and loops, run in Python while a model is traced, to see inside them.

On symbolic tensors with values a condition has an answer, so its branch is what is
called. Of a loop the first round is run: every round computes the same with the same
weights. A function that is mapped over a tensor is run on the first entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from .._keras.kinds import Hook
from .._keras.private import control_flow


def inlined(operation: Any) -> Callable[..., Any] | None:
    """Returns what runs in the place of an operation on symbolic tensors, or None."""
    run = _INLINED.get(type(operation).__name__)
    is_it = run is not None and type(operation) is control_flow(
        type(operation).__name__
    )
    return run if is_it else None


def inlining() -> list[Hook]:
    """What has conditions run in Python whose predicate alone has a value."""
    return [(control_flow("Cond"), "call", _cond)]


def _cond(operation: Any, pred: Any, true_fn: Any, false_fn: Any) -> Any:
    return true_fn() if pred else false_fn()


def _switch(operation: Any, index: Any, branches: Any, *operands: Any) -> Any:
    return branches[max(0, min(int(index), len(branches) - 1))](*operands)


def _while(operation: Any, loop_vars: Any) -> Any:
    is_several = isinstance(loop_vars, (list, tuple))
    values = tuple(loop_vars) if is_several else (loop_vars,)
    if not operation.cond(*values):
        return loop_vars
    return operation.body(*values)


def _fori(operation: Any, init_val: Any) -> Any:
    return operation.body_fun(operation.lower, init_val)


def _vectorized_map(operation: Any, elements: Any) -> Any:
    return _map(operation, operation.function, elements)


def _map(operation: Any, f: Any, xs: Any) -> Any:
    return _for_each(f(_first(xs)), _length(xs))


def _scan(operation: Any, f: Any, init: Any, xs: Any = None) -> Any:
    length = operation.length if operation.length is not None else _length(xs)
    carry, returned = f(init, None if xs is None else _first(xs))
    return carry, _for_each(returned, length)


def _first(nest: Any) -> Any:
    return keras.tree.map_structure(lambda tensor: tensor[0], nest)


def _length(nest: Any) -> int:
    return int(keras.tree.flatten(nest)[0].shape[0])


def _for_each(nest: Any, length: int) -> Any:
    """What a function returns, as if it were the same for all entries."""
    return keras.tree.map_structure(
        lambda one: ops.repeat(ops.expand_dims(one, 0), length, axis=0), nest
    )


_INLINED: dict[str, Callable[..., Any]] = {
    "Cond": _cond,
    "Switch": _switch,
    "WhileLoop": _while,
    "ForiLoop": _fori,
    "VectorizedMap": _vectorized_map,
    "Map": _map,
    "Scan": _scan,
}
