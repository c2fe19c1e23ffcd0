"""Standing in for attributes of instances, where several threads may do so at once."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import keras


def replaced(owner: Any, name: str, value: Any) -> AbstractContextManager[None]:
    """Sets an attribute of one instance for the length of the context."""
    return all_replaced([(owner, name, value)])


@contextlib.contextmanager
def all_replaced(
    values: Sequence[tuple[Any, str, Any]], only_here: bool = False
) -> Iterator[None]:
    """Sets attributes `(instance, name, value)` for the length of the context.

    They go straight into each instance's `__dict__`: Keras's own `__setattr__` would
    track them, or refuse them on a locked layer. Contexts of several threads may
    overlap in any order: the last of them to end restores the attribute.

    Args:
        values: the attributes.
        only_here: whether the values, functions, are for this thread only: other
            threads call what they would call without them.
    """
    thread = threading.get_ident() if only_here else None
    stand_ins = [_StandIn(*value, thread) for value in values]
    try:  # twice, for what may be raised while attributes are set back
        try:
            for one in stand_ins:
                one.enter()
            yield
        finally:
            _leave(stand_ins)
    finally:
        _leave(stand_ins)


def _leave(stand_ins: list[_StandIn]) -> None:
    for one in reversed(stand_ins):
        one.leave()


def held(owner: Any, name: str) -> Any:
    """What this thread finds in an attribute, so that a stand-in may hand on to it."""
    with _lock:
        attribute = _attributes.get((id(owner), name))
        return getattr(owner, name) if attribute is None else attribute.seen_here()


class InPlace:
    """Stands in an instance's `__dict__` for one of its methods.

    To whoever looks at it, it is that method: equal to it, with its signature,
    `__self__` and `__func__`. It only runs something else. Its type is its own: Dynamo
    would take an object that says it is a method for one, and fail.
    """

    def __init__(self, former: Callable[..., Any], run: Callable[..., Any]):
        self._former = former
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs what stands for the method."""
        # What the user compiles stays what it is, in one graph, and is not heard.
        run = self._former if _is_compiling() else self._run
        return run(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._former, name)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._former)

    def __eq__(self, other: object) -> bool:
        if type(other) is InPlace:
            other = other._former
        return self._former == other

    def __hash__(self) -> int:
        return hash(self._former)

    def __repr__(self) -> str:
        return repr(self._former)

    def __reduce_ex__(self, protocol: Any) -> Any:  # a copy of the layer has its own
        return self._former.__reduce_ex__(protocol)


@dataclass(eq=False)
class _StandIn:
    """One value that stands in for an attribute."""

    owner: Any
    name: str
    value: Any
    thread: int | None  # whose it is, None for everybody's

    def enter(self) -> None:
        with _lock:
            key = id(self.owner), self.name
            if key not in _attributes:
                _attributes[key] = _Attribute.of(self.owner, self.name)
            attribute = _attributes[key]
            attribute.stand_ins = (*attribute.stand_ins, self)
            _put(self.owner, self.name, attribute.shown())

    def leave(self) -> None:
        with _lock:
            key = id(self.owner), self.name
            attribute = _attributes.get(key)
            if attribute is None:
                return  # an interruption came before all of this
            rest = tuple(one for one in attribute.stand_ins if one is not self)
            attribute.stand_ins = rest
            if rest:
                _put(self.owner, self.name, attribute.shown())
                return
            _put(self.owner, self.name, attribute.former)
            del _attributes[key]


@dataclass
class _Attribute:
    """An attribute that others stand in for now.

    Attributes:
        former: what the instance's own `__dict__` held.
        found: what a look at the attribute found.
        is_of_class: whether it is an attribute of a class, which must be a function to
            become a method.
        stand_ins: the last one holds.
    """

    former: Any
    found: Any
    is_of_class: bool
    stand_ins: tuple[_StandIn, ...] = field(default=())

    @classmethod
    def of(cls, owner: Any, name: str) -> _Attribute:
        former, is_class = vars(owner).get(name, _NONE), isinstance(owner, type)
        return cls(former, getattr(owner, name, None), is_class)

    def seen_here(self) -> Any:
        """What this thread finds."""
        here = threading.get_ident()
        for one in reversed(self.stand_ins):
            if one.thread in (None, here):
                return one.value
        return self.found

    def shown(self) -> Any:
        """What to put into the instance, for all threads to find."""
        if self.stand_ins[-1].thread is None:
            return self.stand_ins[-1].value

        def by_thread(*args: Any, **kwargs: Any) -> Any:
            return self.seen_here()(*args, **kwargs)

        return by_thread if self.is_of_class else InPlace(self.found, by_thread)


def _put(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute of an instance, a module or a class, or takes it away."""
    if isinstance(owner, type):
        setattr(owner, name, value) if value is not _NONE else delattr(owner, name)
    elif value is _NONE:
        vars(owner).pop(name, None)
    else:
        vars(owner)[name] = value


_NONE = object()
_lock = threading.RLock()
_attributes: dict[tuple[int, str], _Attribute] = {}  # that have a stand-in now


def _never() -> bool:
    return False


# Keras has loaded PyTorch where it is the backend; Dynamo knows this very function.
_is_compiling: Callable[[], bool] = (
    sys.modules["torch"].compiler.is_compiling
    if keras.backend.backend() == "torch"
    else _never
)
