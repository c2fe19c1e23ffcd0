"""Symbolic tensors that have values, in the place of inputs and of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from .._core.arrays import to_numpy
from .._keras.kinds import Kernel, KernelAxes, kernels, read_axes
from .._keras.private import VARIABLE_LISTS, all_layers, own_trainable
from ._arguments import SIZE, filled

_LARGE = 2**16


class Symbol(keras.KerasTensor):
    """A symbolic tensor that has a value.

    An operator between an array and one of these is its own, as it is between a number
    and one: else the array would ask for its numbers, of which nothing is recorded.

    Args:
        source: what it stands for: a tensor, or a variable.
    """

    __array_ufunc__ = None  # NumPy leaves its operators to the other operand then

    def __init__(self, source: Any):
        dtype = keras.backend.standardize_dtype(source.dtype)
        super().__init__(tuple(source.shape), dtype, name="traced")
        self._source = source

    @property
    def value(self) -> Any:
        """The value; numbers that nobody chose where it has been forgotten."""
        if self._source is None:
            self._source = numbers(self)
        is_variable = isinstance(self._source, keras.Variable)
        return self._source.value if is_variable else self._source

    def forget(self) -> None:
        """Frees the memory of the value."""
        self._source = None

    @property
    def __jax_array__(self) -> Any:
        """Not there, so that JAX leaves its operators to the other operand."""
        raise AttributeError("a symbolic tensor is no array")

    def __bool__(self) -> bool:
        """What a condition on it decides."""
        return bool(to_numpy(self.value))

    def __int__(self) -> int:
        """The value of an integer."""
        return int(to_numpy(self.value))

    __index__ = __int__


def fresh(tensor: Any) -> Symbol:
    """A symbolic input like a symbolic tensor, with the same value if that has one."""
    value = tensor.value if isinstance(tensor, Symbol) else numbers(tensor)
    return as_input(Symbol(value))


def as_input(symbol: Symbol) -> Symbol:
    """A symbol that starts a graph."""
    # An input of a layer's own knows in which order it is read; a bare tensor does not.
    return keras.layers.InputLayer(input_tensor=symbol, name="traced").output


def value_of(value: Any) -> Any:
    """The value of a symbolic tensor; anything else as it is."""
    if isinstance(value, Symbol):
        return value.value
    if isinstance(value, keras.KerasTensor):
        return numbers(value)
    return value


def numbers(tensor: Any, size: int = SIZE) -> Any:
    """Normal numbers; ones of other kinds, which every table has a row for.

    Args:
        tensor: symbolic, of the shape and dtype that they shall have.
        size: what sizes are that it leaves open.
    """
    shape, dtype = filled(tensor.shape, size), tensor.dtype
    if dtype.startswith(("float", "bfloat", "complex")):
        values = np.random.default_rng(0).standard_normal(shape, "float32")
    else:
        values = np.ones(shape, "int32")
    return keras.ops.convert_to_tensor(values, dtype)


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
        self._made: dict[int, Any] = {}  # computed from weights alone
        for layer in layers:
            self._name_variables(layer)
        self._swaps = {id(layer): list(self._swapped(layer)) for layer in layers}

    def variable(self, tensor: Any) -> Any:
        """The variable that a symbolic tensor stands for, or None."""
        return self._variable_of.get(id(tensor))

    def is_made_of(self, tensor: Any) -> bool:
        """Whether a symbolic tensor is a weight or computed from weights alone."""
        return id(tensor) in self._variable_of or id(tensor) in self._made

    def noted(self, outputs: Any) -> Any:
        """Notes what was computed from weights alone; small values are kept."""
        for tensor in keras.tree.flatten(outputs):
            self._made[id(tensor)] = tensor
            if isinstance(tensor, Symbol) and math.prod(tensor.shape) > _LARGE:
                tensor.forget()
        return outputs

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
                tensor = Symbol(variable)
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

    def true_weights(self, layer: Any) -> AbstractContextManager[None]:
        """Gives a layer and those inside it their true weights back for a while."""
        return self._true_weights(map(id, all_layers(layer)))

    def all_true(self) -> AbstractContextManager[None]:
        """Gives all layers their true weights back for a while."""
        return self._true_weights(self._swaps)

    @contextlib.contextmanager
    def _true_weights(self, keys: Iterable[int]) -> Iterator[None]:
        changed = [swap for key in keys for swap in self._swaps.get(key, ())]
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
