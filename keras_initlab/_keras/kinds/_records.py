"""The records of all kinds, and which of them hold for a layer or operation.

Keras's own kinds are known by the names of their classes, of which some are not public.
A name counts only for a class of Keras's: what a user calls `RMSNorm` may do anything.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ..._core.errors import message
from ..paths import own_variables
from ..private import is_of_keras, own_trainable
from . import _convolutions, _recurrent, _signals
from ._axes import KernelAxes, keras_axes
from ._kind import Computed, Kind, Part

_RECORDS = {**_signals.RECORDS, **_convolutions.RECORDS, **_recurrent.RECORDS}
_registered: dict[type, Kind] = {}
_known: weakref.WeakKeyDictionary[type, Kind] = weakref.WeakKeyDictionary()
_UNKNOWN = Kind()


def register(layer_class: type, kind: Kind) -> None:
    """Adds the record of a layer class, which its subclasses inherit."""
    _registered[layer_class] = kind.over(_registered.get(layer_class, _UNKNOWN))
    _known.clear()


def kind_of(operation: Any) -> Kind:
    """Returns all that is known of the kind of a layer or operation."""
    if isinstance(operation, Computed):
        return operation.kind
    kind = type(operation)
    if kind not in _known:
        _known[kind] = _completed(kind)
    return _known[kind]


def _completed(kind: type) -> Kind:
    found = _UNKNOWN
    for base in reversed(kind.__mro__):
        if is_of_keras(base) and base.__name__ in _RECORDS:
            found = _RECORDS[base.__name__].over(found)
        if base in _registered:
            found = _registered[base].over(found)
    return found


def is_as_recorded(operation: Any) -> bool:
    """Whether an operation runs code that its record was written for."""
    kind = type(operation)
    return kind in _registered or is_of_keras(kind)


def part_of(layer: Any, name: str) -> Part:
    """Returns what is known of a layer's kernel by its name, beside its axes."""
    return kind_of(layer).parts.get(name) or _guessed(layer, name)


def looks_up(operation: Any) -> bool:
    """Whether an operation looks rows up by numbers, which are no signal."""
    return isinstance(operation, keras.layers.Embedding)


def is_of_known_kind(layer: Any) -> bool:
    """Whether the record of a layer tells its kernels."""
    return kind_of(layer).kernels is not None


def steps_of(layer: Any) -> Sequence[Any]:
    """Returns the layers that a layer runs step by step, the first one first."""
    steps = kind_of(layer).steps
    return steps(layer) if steps else ()


def own_kernels(layer: Any) -> Mapping[str, KernelAxes]:
    """Returns the axes of the kernels that a layer itself creates, in that order.

    The layer need not be built, except where it is of no known kind: then the axes are
    only Keras's rule for the shape.
    """
    tell = kind_of(layer).kernels
    return _by_shape(layer) if tell is None else _checked(type(layer), tell(layer))


def variable_of(layer: Any, name: str) -> keras.Variable | None:
    """Returns a layer's own variable of this name, or None if there is none yet."""
    # `layer.kernel` may be a sum with a LoRA update; the variable is `_kernel`.
    for attribute in (f"_{name}", name):
        value = getattr(layer, attribute, None)
        if isinstance(value, keras.Variable):
            return value
    own = own_variables(layer)
    return next((variable for variable in own if variable.name == name), None)


def _checked(kind: type, layouts: Any) -> Mapping[str, KernelAxes]:
    is_right = isinstance(layouts, Mapping) and all(
        isinstance(name, str) and isinstance(axes, KernelAxes)
        for name, axes in layouts.items()
    )
    if not is_right:
        raise TypeError(
            message(
                "A function given to `register_fans` must return a dict "
                "{name of the variable: KernelAxes}.",
                f"{layouts!r} for {kind.__name__}",
            )
        )
    return layouts


def _by_shape(layer: Any) -> Mapping[str, KernelAxes]:
    is_custom = not is_of_keras(type(layer))
    return {
        variable.name: keras_axes(len(variable.shape))
        for variable in own_trainable(layer)
        if ("kernel" in variable.name or is_custom) and len(variable.shape) >= 2
    }


def _guessed(layer: Any, name: str) -> Part:
    """What the name of a kernel says of which no record tells."""
    bias = None if name in ("depthwise_kernel", "recurrent_kernel") else "bias"
    if "recurrent" in name:
        return Part(bias, role="recurrent")
    is_cell = hasattr(layer, "state_size")
    return Part(bias, role="recurrent input" if is_cell else None)
