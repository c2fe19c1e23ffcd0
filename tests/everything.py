"""All that can be reached from a model, and Keras's and Python's own state, compared.

`Everything(model)` remembers it; `changes()` lists what is no longer so. Nothing here
knows how the package puts a model back: it walks whatever the model holds.
"""

import collections
import contextlib
import random
import sys
import types

import keras
import numpy as np
from keras.src.backend.common import global_state

_LEAVES = (types.ModuleType, type, types.FunctionType, types.MethodType)
_BACKENDS = {"jax", "jaxlib", "numpy", "tensorflow", "torch", "optree", "ml_dtypes"}
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


class Everything:
    """What is reachable from some objects, as it is now."""

    def __init__(self, *roots):
        self._roots = roots
        self._kept = []  # an id is only unique while its object lives
        self._before = self._read()

    def changes(self):
        """Where something is other than it was, in words."""
        after = self._read()
        found = []
        for key, (path, before) in self._before.items():
            now = after.get(key, (path, {}))[1]
            found += [
                f"{path}.{name}: {before.get(name, 'nothing')} is now "
                f"{now.get(name, 'nothing')}"
                for name in {**before, **now}
                if before.get(name) != now.get(name)
            ]
        return found

    def _read(self):
        states = {"keras": vars(global_state.GLOBAL_STATE_TRACKER)}
        waiting = collections.deque(
            [(f"<{number}>", root) for number, root in enumerate(self._roots)]
            + [*states.items()]
        )
        found = {"": ("", _generators())}
        while waiting:
            path, one = waiting.popleft()
            if id(one) in found or _is_leaf(one):
                continue
            self._kept.append(one)
            parts = dict(_parts(one))
            if isinstance(one, tuple):  # made anew by whoever asks: its items count
                waiting += [(f"{path}{name}", value) for name, value in parts.items()]
                continue
            if isinstance(one, keras.Variable):
                parts["<values>"] = _bits(parts.pop("_value", None))
            content = {name: _token(value) for name, value in parts.items()}
            if isinstance(one, dict):
                content["<order>"] = [_token(key) for key in one]
            found[id(one)] = path, {"<type>": type(one).__name__, **content}
            waiting += [(f"{path}.{name}", value) for name, value in parts.items()]
        return found


@contextlib.contextmanager
def nothing_changes(*roots):
    """Checks that what happens inside, an error too, changes nothing."""
    before = Everything(*roots)
    try:
        yield
    finally:
        assert before.changes() == []


def _generators():
    numpy = repr(np.random.get_state())  # noqa: NPY002
    found = {"random": repr(random.getstate()), "numpy": numpy}
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return found


def _parts(one):
    if isinstance(one, (list, tuple, collections.deque)):
        yield from ((f"[{number}]", value) for number, value in enumerate(one))
    elif isinstance(one, (set, frozenset)):
        yield from ((f"{{{_token(value)}}}", value) for value in one)
    elif isinstance(one, dict):
        yield from (
            (f"[{key!r}]" if isinstance(key, _PLAIN) else f"[{id(key)}]", value)
            for key, value in one.items()
        )
    own = getattr(one, "__dict__", None)
    if isinstance(own, dict):
        yield from own.items()
    for base in type(one).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(one, name) and name not in ("__dict__", "__weakref__"):
                yield name, getattr(one, name)


def _bits(tensor):
    if tensor is None:
        return None
    values = np.array(keras.ops.convert_to_numpy(tensor))
    return f"{values.dtype}{values.shape}".encode() + values.tobytes()


def _is_leaf(one):
    if isinstance(one, (*_PLAIN, *_LEAVES)):
        return True
    is_ours = any(base.__module__.startswith("keras") for base in type(one).__mro__)
    root = type(one).__module__.partition(".")[0]
    return not is_ours and (root in _BACKENDS or root == "weakref" or root == "inspect")


def _token(value):
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple):  # made anew by whoever asks
        return f"({', '.join(map(_token, value))})"
    if isinstance(value, types.MethodType):
        return f"{value.__func__!r} of {id(value.__self__)}"
    return f"{type(value).__name__} at {id(value)}"
