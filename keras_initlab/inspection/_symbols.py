"""Symbolic tensors in the place of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from .._keras.kinds import Kernel, KernelAxes, kernels, read_axes
from .._keras.private import VARIABLE_LISTS, all_layers, own_trainable


class SymbolicWeights:
    """Puts symbolic tensors into the attributes that hold trainable weights.

    Whoever makes it takes them out again, by bringing back the layers' attributes.
    """

    def __init__(self, layers: Sequence[Any]):
        self._kernels = {
            id(kernel.variable): kernel
            for layer in layers[:1]
            for kernel in kernels(layer)
        }
        self._owner_of: dict[int, Any] = {}
        self._variable_of: dict[int, Any] = {}
        self._tensor_of: dict[int, Any] = {}
        for layer in layers:
            self._name_variables(layer)
        self._swaps = {id(layer): list(self._swapped(layer)) for layer in layers}

    def variable(self, tensor: Any) -> Any:
        """The variable that a symbolic tensor stands for, or None."""
        return self._variable_of.get(id(tensor))

    def kernel(self, variable: Any, axes: KernelAxes | None) -> Kernel:
        """A variable as a kernel, with these axes if nothing is known of its layer."""
        known = self._kernels.get(id(variable))
        if known is not None and known.is_known:
            return known
        owner, shape = self._owner_of[id(variable)], tuple(variable.shape)
        is_known = axes is not None and axes.fits(len(shape))
        if axes is None or not is_known:
            axes = known.axes if known is not None else read_axes(len(shape))
        return Kernel(variable, owner, variable.name, axes, shape, is_known)

    def own(self, layer: Any) -> list[Kernel]:
        """The kernels that a layer keeps itself and hands to operations."""
        found = [self._kernels.get(id(v)) for v in own_trainable(layer)]
        return [kernel for kernel in found if kernel is not None]

    def _name_variables(self, layer: Any) -> None:
        for variable in own_trainable(layer):
            if id(variable) not in self._tensor_of:
                tensor = keras.KerasTensor(variable.shape, variable.dtype)
                self._tensor_of[id(variable)] = tensor
                self._variable_of[id(tensor)] = variable
                self._owner_of[id(variable)] = layer

    def _swapped(self, layer: Any) -> Iterator[tuple[dict[str, Any], str, Any, Any]]:
        """Puts symbolic weights into a layer's attributes; yields what it changed."""
        attributes = vars(layer)
        for name, value in list(attributes.items()):
            if name in VARIABLE_LISTS:
                continue
            symbolic = self._symbolic(value)
            if symbolic is not value:
                attributes[name] = symbolic
                yield attributes, name, value, symbolic

    def _symbolic(self, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return self._tensor_of.get(id(value), value)
        if isinstance(value, (list, tuple)):
            items = [self._symbolic(item) for item in value]
            same = all(a is b for a, b in zip(items, value, strict=True))
            return value if same else items
        if isinstance(value, dict):
            pairs = {key: self._symbolic(item) for key, item in value.items()}
            same = all(pairs[key] is item for key, item in value.items())
            return value if same else pairs
        return value

    @contextlib.contextmanager
    def true_weights(self, layer: Any) -> Iterator[None]:
        """Gives a layer and those inside it their true weights back for a while."""
        changed = [
            swap
            for inner in all_layers(layer)
            for swap in self._swaps.get(id(inner), ())
        ]
        before = [
            (attributes, name, attributes[name]) for attributes, name, *_ in changed
        ]
        for attributes, name, true, _ in changed:
            attributes[name] = true
        try:
            yield
        finally:
            for attributes, name, value in before:
                attributes[name] = value
