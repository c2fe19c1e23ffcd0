"""Where in a layer an initializer's kernel stands, told by whoever asks for it.

Keras hands an initializer a shape and nothing else. But while a layer builds itself,
Keras keeps a stack of the layers in whose scope a variable is created, to name it. The
innermost one knows what its kernel's axes mean, and the way down to it tells the
query's kernel from the key's.

A layer without `build` that holds others is built by tracing its `call`. There Keras
creates the variables at once and draws them when the trace is over. Then the stack is
gone, but the layer that waits for its variables is found among the callers.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from ._axes import KernelAxes
from ._layouts import own_kernels, variable_of

try:
    from keras.src.backend.common import global_state as _global_state
except ImportError:  # a Keras that keeps it elsewhere: shapes alone must do
    _global_state = None


@dataclass(frozen=True)
class Placement:
    """A kernel's or bias's place.

    Attributes:
        layer: the layer that creates it.
        axes: what the kernel's axes mean; None for a bias or where it is not known.
        position: which variable of which layer within the outermost layer.
    """

    layer: Any
    axes: KernelAxes | None = None
    position: tuple[int, ...] = (0,)

    @property
    def is_first(self) -> bool:
        """Whether it is the first kernel of a layer that stands alone."""
        return self.position == (0,)


_given: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
    "placement", default=None
)


@contextlib.contextmanager
def placed(placement: Placement) -> Iterator[None]:
    """Has initializers called within the block draw for this place."""
    token = _given.set(placement)
    try:
        yield
    finally:
        _given.reset(token)


def placement() -> Placement | None:
    """Returns the place that is being drawn for, or None for a shape alone."""
    given = _given.get()
    if given is not None:
        return given
    pending = _pending_variable()
    layers = _layers_in_scope() if pending is None else _layers_down_to(pending)
    return _place(layers, pending) if layers else None


def _place(layers: Sequence[Any], variable: Any) -> Placement:
    """The place of a variable, or of the next one, of the last of these layers."""
    layouts = own_kernels(layers[-1]).layouts
    names = list(layouts)
    number = next(
        (i for i, n in enumerate(names) if variable_of(layers[-1], n) is variable),
        len(names),
    )
    axes = layouts[names[number]] if number < len(names) else None
    return Placement(layers[-1], axes, (*_way_down(layers), number))


def _layers_in_scope() -> list[Any]:
    """The layers in whose scope a variable would be created, outermost first."""
    scopes = _state("name_scope_stack")
    layers = [getattr(scope, "caller", None) for scope in scopes]
    return _below_models([layer for layer in layers if isinstance(layer, keras.Layer)])


def _pending_variable() -> Any:
    """The variable that Keras draws now, having created it before, or None."""
    return next(
        (v for v in _state("uninitialized_variables") if v._value is None), None
    )


def _layers_down_to(variable: Any) -> list[Any]:
    """The layers from the one that waits for its variables to this one's owner."""
    waiting = []
    frame = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.Layer):
            waiting.append(caller)
        frame = frame.f_back
    ways = (_way_to(variable, layer) for layer in reversed(waiting))
    return _below_models(next((way for way in ways if way), []))


def _way_to(variable: Any, layer: Any) -> list[Any]:
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    if any(variable is other for other in own):
        return [layer]
    ways = (_way_to(variable, inner) for inner in layer._layers)
    return next(([layer, *way] for way in ways if way), [])


def _below_models(layers: list[Any]) -> list[Any]:
    # A model's layers stand alone, however the model comes to be built.
    models = [i for i, layer in enumerate(layers) if isinstance(layer, keras.Model)]
    return layers[models[-1] + 1 :] if models else layers


def _way_down(layers: Sequence[Any]) -> list[int]:
    """Which of its parent's layers each one is, from 1."""
    way = []
    for parent, child in itertools.pairwise(layers):
        inner = [id(layer) for layer in parent._layers]
        way.append(inner.index(id(child)) + 1 if id(child) in inner else 0)
    return way


def _state(name: str) -> Sequence[Any]:
    if _global_state is None:
        return ()
    return _global_state.get_global_attribute(name) or ()
