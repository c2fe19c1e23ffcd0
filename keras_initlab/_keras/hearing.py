"""Hearing what a layer hands to its activation.

A layer may look at its activation: compare it, serialize it, ask for its attributes,
look it up in a table. If anything else stood in `layer.activation` while the model
runs, such a layer would compute something else. So the attribute is never touched:

- The `call` of Keras's own layers only calls the activation. It runs on a stand-in, an
  object with the layer's attributes and another activation, which nobody else sees.
- Any other `call` runs on the layer itself. A profile function, which Python has for
  each thread, is told of every function that starts meanwhile, and notes what the
  activation starts with. An activation that is no Python code (one compiled by
  `jax.jit`, or `torch.relu`) is not heard, nor is any under a profiler written in C.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from .private import is_of_keras
from .replacing import held


def runs_own_code_of_keras(layer: Any, name: str = "call") -> bool:
    """Whether a method of a layer is Keras's, with nothing of the user's in it."""
    return is_of_keras(type(layer)) and name not in vars(layer)


class Hearing:
    """A method of a layer that also tells what the activation received last.

    Args:
        layer: a layer with an activation.
        name: its method, `call` or `quantized_call`.
    """

    def __init__(self, layer: Any, name: str = "call"):
        self._layer = layer
        self._name = name
        self._method = held(layer, name)
        # A cell keeps its dropout masks on itself: a stand-in would lose them.
        is_cell = hasattr(layer, "state_size")
        self._has_stand_in = runs_own_code_of_keras(layer, name) and not is_cell

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Runs the method.

        Returns:
            What it returns, and what the activation received: None if that was not
            heard.
        """
        if not self._has_stand_in:
            return _overheard(self._layer, self._method, args, kwargs)
        layer, activation = self._layer, self._layer.activation
        received: list[Any] = [None]

        def noting(value: Any, *args: Any, **kwargs: Any) -> Any:
            received[0] = value
            return value if activation is None else activation(value, *args, **kwargs)

        stand_in = object.__new__(type(layer))
        vars(stand_in).update(vars(layer), activation=noting)
        method = getattr(type(layer), self._name).__get__(stand_in)
        return method(*args, **kwargs), received[0]


def _overheard(
    layer: Any, method: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Runs a method under a profile function that waits for the activation."""
    start = _start_of(layer.activation)
    outer = sys.getprofile()
    if start is None or not (outer is None or callable(outer)):
        return method(*args, **kwargs), None
    received: list[Any] = [None]

    def profile(frame: Any, event: Any, argument: Any) -> None:
        if event == "call" and frame.f_code is start.code:
            _note(frame, layer, start, received)
        if outer is not None:
            outer(frame, event, argument)

    sys.setprofile(profile)
    try:
        output = method(*args, **kwargs)
    finally:
        if sys.getprofile() is profile:  # not if the layer has set one itself
            sys.setprofile(outer)
    return output, received[0]


@dataclass(frozen=True, eq=False)
class _Start:
    """How a call of a function begins that some callable object leads to.

    Attributes:
        function: the function.
        given: the first arguments that it gets: the owner of a method, what
            `functools.partial` has filled in.
    """

    function: types.FunctionType
    given: tuple[Any, ...] = ()

    @property
    def code(self) -> types.CodeType:
        return self.function.__code__

    def is_of(self, frame: Any) -> bool:
        """Whether a frame runs this function for this object, not one of its kind."""
        if frame.f_code is not self.code:
            return False
        inside = frame.f_locals
        first = _arguments(frame)[: len(self.given)]
        is_given = len(first) == len(self.given) and all(
            one is other for one, other in zip(first, self.given, strict=True)
        )
        # Functions of one decorator share their code: what they close over differs.
        cells = zip(self.code.co_freevars, self.function.__closure__ or (), strict=True)
        return is_given and all(inside.get(n) is _content(cell) for n, cell in cells)


def _start_of(activation: Any, given: tuple[Any, ...] = ()) -> _Start | None:
    """Where a call of an activation begins, None if not in Python's own code."""
    if isinstance(activation, functools.partial):
        return _start_of(activation.func, (*activation.args, *given))
    if isinstance(activation, types.MethodType):
        return _start_of(activation.__func__, (activation.__self__, *given))
    if isinstance(activation, types.FunctionType):
        return _Start(activation, given)
    method = next(
        (vars(c)[_CALL] for c in type(activation).__mro__ if _CALL in vars(c)), None
    )
    if isinstance(method, types.FunctionType):
        return _Start(method, (activation, *given))
    return None


def _note(frame: Any, layer: Any, start: _Start, received: list[Any]) -> None:
    """Notes what the activation starts with, if the layer itself calls it."""
    try:
        if start.is_of(frame) and _is_called_by(layer, frame, start):
            rest = _arguments(frame)[len(start.given) :]
            received[0] = rest[0] if rest else None
    except Exception:  # in a profile function it would end the user's `call`
        received[0] = None


def _is_called_by(layer: Any, frame: Any, start: _Start) -> bool:
    """Whether neither another layer nor the activation itself is in between."""
    caller = frame.f_back
    while caller is not None and caller.f_code is not _overheard.__code__:
        if caller.f_code.co_name in _CALLS:
            owner = next(iter(_arguments(caller)), None)
            if isinstance(owner, keras.Operation) and owner is not layer:
                return False
        if caller.f_code is start.code and start.is_of(caller):
            return False
        caller = caller.f_back
    return caller is not None and caller.f_locals["layer"] is layer


_CALL = "__call__"
_CALLS = (_CALL, "call", "quantized_call")


def _arguments(frame: Any) -> list[Any]:
    """What the function of a frame was given, by position first."""
    code, inside = frame.f_code, frame.f_locals
    count = code.co_argcount
    found = [inside[name] for name in code.co_varnames[:count] if name in inside]
    rest = code.co_varnames[count + code.co_kwonlyargcount :]
    if code.co_flags & inspect.CO_VARARGS:
        found += inside.get(rest[0], ())
        rest = rest[1:]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        found += inside.get(rest[0], {}).values()
    return found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None
