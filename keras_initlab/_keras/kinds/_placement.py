"""Where in a layer an initializer's kernel stands, told by whoever asks for it.

Keras hands an initializer a shape and nothing else. But the variable that is being
drawn stands among the callers, and while a layer builds itself, Keras keeps a stack of
the layers in whose scope a variable is created, to name it. The innermost one knows
what its kernel's axes mean, and the layers above it tell the query's kernel from the
key's. Without a variable among the callers nothing is asked: the shape stands alone,
also inside a layer's `call`.

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

from ..paths import own_variables
from ..private import (
    global_state,
    is_of_keras,
    own_non_trainable,
    own_trainable,
    sublayers,
)
from ._axes import KernelAxes
from ._kernels import Kernel
from ._records import own_kernels, variable_of


@dataclass(frozen=True)
class Placement:
    """A kernel's or bias's place.

    Attributes:
        layer: the layer that creates it.
        axes: what the kernel's axes mean; None for a bias or where it is not known.
        position: which variable of which layer within the outermost layer.
        variable: the variable that is drawn.
    """

    layer: Any
    axes: KernelAxes | None = None
    position: tuple[int, ...] = (0,)
    variable: Any = None

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
    callers = _callers()
    numbers = [i for i, c in enumerate(callers) if isinstance(c, keras.Variable)]
    if not numbers:
        return None
    variable, *outer = callers[numbers[0] :]
    waiting = [caller for caller in outer if isinstance(caller, keras.Layer)]
    is_delayed = _has(_state("uninitialized_variables"), variable)
    layers = _layers_among(waiting, variable) if is_delayed else _in_scope(waiting)
    return _place(_below_models(layers), variable) if layers else None


def standing(root: Any, kernel: Kernel) -> Placement:
    """Returns the place at which a kernel of a built model or layer was drawn.

    Args:
        root: the model, or the outermost layer that the kernel is in.
        kernel: the kernel.
    """
    layers = _below_models(_layers_to(kernel.variable, root) or [kernel.layer])
    position = (*_numbers_down(layers), *_number_of(layers[-1], kernel.variable))
    return Placement(kernel.layer, kernel.axes, position, kernel.variable)


def _callers() -> list[Any]:
    """The objects whose methods are running, innermost first."""
    callers = []
    frame = sys._getframe()
    while frame is not None:
        if "self" in frame.f_code.co_varnames:
            callers.append(frame.f_locals.get("self"))
        frame = frame.f_back
    return callers


def _place(layers: Sequence[Any], variable: Any) -> Placement:
    """The place of a variable of the last of these layers."""
    axes = _axes_of(layers[-1], variable)
    position = (*_numbers_down(layers), *_number_of(layers[-1], variable))
    return Placement(layers[-1], axes, position, variable)


def _axes_of(layer: Any, variable: Any) -> KernelAxes | None:
    layouts = own_kernels(layer)
    if variable.name in layouts:
        return layouts[variable.name]
    held = {name: variable_of(layer, name) for name in layouts}
    for name, axes in layouts.items():
        if held[name] is variable:
            return axes
    # It may be that the layer calls it otherwise. Then the order tells.
    is_there = _has(own_variables(layer), variable)
    if is_of_keras(type(layer)) or is_there:
        return None
    rank = len(variable.shape)
    missing = (layouts[name] for name in layouts if held[name] is None)
    return next((axes for axes in missing if axes.fits(rank)), None)


def _number_of(layer: Any, variable: Any) -> tuple[int, ...]:
    """Which of its layer's variables it is, be it there already or the next one."""
    for suffix, own in (
        ((), own_trainable(layer)),
        ((1,), own_non_trainable(layer)),
    ):
        numbers = [i for i, other in enumerate(own) if other is variable]
        if numbers:
            return (*numbers, *suffix)
    if variable.trainable:
        return (len(own_trainable(layer)),)
    return (len(own_non_trainable(layer)), 1)


def _in_scope(waiting: Sequence[Any]) -> list[Any]:
    """The layers in whose scope a variable is created, outermost first."""
    scopes = _state("name_scope_stack")
    layers = [getattr(scope, "caller", None) for scope in scopes]
    layers = [layer for layer in layers if isinstance(layer, keras.Layer)]
    # One that creates it outside of `build` may have opened no scope.
    return [*layers, *(layer for layer in waiting[:1] if not _has(layers, layer))]


def _layers_among(waiting: Sequence[Any], variable: Any) -> list[Any]:
    """The layers from the outermost one that waits for its variables to the owner."""
    paths = (_layers_to(variable, layer) for layer in reversed(waiting))
    return next((path for path in paths if path), [])


def _layers_to(variable: Any, layer: Any) -> list[Any]:
    # Those inside come first: a wrapper may list the variables of its layer too.
    paths = (_layers_to(variable, inner) for inner in sublayers(layer))
    path = next((path for path in paths if path), [])
    return [layer, *path] if path or _has(own_variables(layer), variable) else []


def _below_models(layers: Sequence[Any]) -> Sequence[Any]:
    # A model's layers stand alone, as does the model, however it comes to be built.
    models = [i for i, layer in enumerate(layers) if isinstance(layer, keras.Model)]
    return (layers[models[-1] + 1 :] or layers[-1:]) if models else layers


def _numbers_down(layers: Sequence[Any]) -> list[int]:
    """Which of its parent's layers each one is, from 1."""
    numbers = []
    for parent, child in itertools.pairwise(layers):
        inner = [id(layer) for layer in sublayers(parent)]
        numbers.append(inner.index(id(child)) + 1 if id(child) in inner else 0)
    return numbers


def _has(objects: Sequence[Any], sought: Any) -> bool:
    return any(sought is other for other in objects)


def _state(name: str) -> Sequence[Any]:
    return global_state().get(name) or ()  # without it, shapes alone must do
