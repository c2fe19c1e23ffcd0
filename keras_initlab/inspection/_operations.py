"""What an operation does to the signal that passes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._activations import name_of, resolve
from .._keras.kinds import Effect, kind_of


def effect_of(operation: Any) -> Effect:
    """Returns what an operation does to the signal that passes it."""
    return kind_of(operation).effect or Effect.OTHER


def normalized_mean_square(operation: Any, shape: Sequence[int | None]) -> float:
    """Returns the mean square of what a normalization gives for inputs of a shape."""
    tell = kind_of(operation).mean_square
    return 1.0 if tell is None else tell(operation, shape)


def shares(operation: Any, shapes: Sequence[Sequence[int | None]]) -> tuple[float, ...]:
    """Returns the share of the units that each signal has of those put side by side.

    The same for all where their sizes are not known.
    """
    sizes = [1.0] * len(shapes)
    axis = getattr(operation, "axis", None)
    if effect_of(operation) is Effect.CONCATENATE and isinstance(axis, int):
        found = [shape[axis] for shape in shapes if -len(shape) <= axis < len(shape)]
        known = [float(size) for size in found if size]
        sizes = known if len(known) == len(shapes) else sizes
    return tuple(size / sum(sizes) for size in sizes)


def is_activation(operation: Any) -> bool:
    """Whether an operation is an activation of its own, as a layer or a raw op."""
    return effect_of(operation) is Effect.ACTIVATION


def activation_of(operation: Any) -> Any:
    """Returns the activation an operation applies to its output, None for linear.

    For an activation layer or raw activation the operation itself (or its function);
    for any other layer its `activation` argument.
    """
    tell = kind_of(operation).activation
    activation = tell(operation) if tell else getattr(operation, "activation", None)
    if activation is None or not callable(activation):
        return None
    if activation is operation:
        return activation
    return None if name_of(activation) == "linear" else activation


def activation_name(activation: Any) -> str:
    """Returns the name to print for an activation, `linear` for None."""
    return resolve(activation)[0]
