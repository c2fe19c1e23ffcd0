"""Hearing what kernels compute while a model runs, whoever wrote its layers.

Every layer of Keras's, and every layer that is written in `keras.ops`, multiplies by
its kernels in one of a few functions of the backend, or by the operator `@`. Stand-ins
for these know a kernel when they see one, before a bias is added or an activation
applied. A kernel that is changed on the way, as a standardized one, is not heard.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras

from ..kinds import Hook, Kernel, kind_of
from ..private import all_layers, backend_module, tensor_class
from ..replacing import InPlace, all_replaced, held
from ._channels import OPERATIONS, Operands
from ._listener import Listener

_TELL = {name: tell for names in OPERATIONS.values() for name, tell in names.items()}


@contextlib.contextmanager
def listening(model: keras.Layer, listener: Listener) -> Iterator[None]:
    """Has a listener hear the products with a model's kernels within the block.

    Calls in other threads are not heard. Kernels of recurrent layers are heard on the
    whole sequence before the loop over it runs.
    """
    operations = all_replaced(_operations(model, listener), only_here=True)
    with all_replaced(_loops(model, listener)), operations:
        yield


def _loops(model: keras.Layer, listener: Listener) -> list[Hook]:
    return [
        (owner, name, InPlace(getattr(owner, name), value))
        for layer in _distinct_layers(model)
        if (loop := kind_of(layer).loop) is not None
        for owner, name, value in loop(layer, listener)
    ]


def _operations(model: keras.Layer, listener: Listener) -> list[Hook]:
    ears = _Ears(listener, {id(variable) for variable in model.variables})
    found: list[Hook] = [(tensor_class(), "__matmul__", ears.operator())]
    for module_name, names in OPERATIONS.items():
        module = backend_module(module_name)
        found += [(module, name, ears.function(module, name)) for name in names]
    return found


class _Ears:
    """Stand-ins for the operations that multiply by kernels."""

    def __init__(self, listener: Listener, weights: set[int]):
        self._listener, self._weights = listener, weights
        self._is_inside = False  # an operation of the backend may call another

    def operator(self) -> Callable[[Any, Any], Any]:
        """The operator `@` of the backend's tensors."""
        matmul = held(tensor_class(), "__matmul__")
        return lambda one, other: self._call("matmul", matmul, (one, other), {})

    def function(self, module: Any, name: str) -> Callable[..., Any]:
        """A function of a module of the backend."""
        function = held(module, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            if name == "separable_conv" and not self._is_inside:
                self._hear_depthwise(module, function, args, kwargs)
            return self._call(name, function, args, kwargs)

        return InPlace(function, called)

    def _hear_depthwise(
        self, module: Any, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        """Two kernels in one operation: the first is run by itself once more."""
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        inputs, kernel, _, *settings = given.values()
        if self._kernel_in([kernel])[1] is not None:
            module.depthwise_conv(inputs, kernel, *settings)

    def _call(
        self, name: str, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if self._is_inside:
            return function(*args, **kwargs)
        self._is_inside = True
        try:
            output = function(*args, **kwargs)
        finally:
            self._is_inside = False
        return self._heard(name, (*args, *kwargs.values()), output)

    def _heard(self, name: str, given: Sequence[Any], output: Any) -> Any:
        number, kernel = self._kernel_in(given)
        if kernel is None or self._are_weights(name, given, number):
            return output
        rank = len(kernel.variable.shape)
        operands = Operands(given, number, rank, len(output.shape))
        channels = _TELL[name](operands)
        if channels is None:
            return output
        return self._listener.heard(
            kernel, output, channels, _read(name, given, number)
        )

    def _are_weights(self, name: str, given: Sequence[Any], number: int) -> bool:
        """Whether a kernel meets another weight, and no signal."""
        others = [one for i, one in enumerate(given) if i != number]
        if name == "separable_conv":
            return False
        is_weight = any(id(one) in self._weights for one in others)
        return is_weight or self._kernel_in(others)[1] is not None

    def _kernel_in(self, given: Sequence[Any]) -> tuple[int, Kernel | None]:
        """The last kernel among arguments, and its number."""
        finders = [self._listener.kernel_of]
        if not self._listener.is_in_loop:  # of many operations, which would take long
            finders.append(self._listener.kernel_with)
        for find in finders:
            for number in reversed(range(len(given))):
                if (kernel := find(given[number])) is not None:
                    return number, kernel
        return -1, None


def _read(name: str, given: Sequence[Any], number: int) -> Any:
    """The signal that an operation multiplies by the kernel among its arguments.

    None where more than one is multiplied by it, as a signal and its routing weights.
    """
    if name in ("take", "separable_conv"):
        return None  # numbers of rows; what the first of two kernels gives
    others = [one for i, one in enumerate(given) if i != number]
    signals = [one for one in others if keras.ops.is_tensor(one)]
    return signals[0] if len(signals) == 1 else None


def normalizing_by_batch(model: keras.Layer) -> list[Hook]:
    """What has batch normalization go by the batch while the model runs."""
    return [
        (layer, "call", _by_batch(layer.call))
        for layer in _distinct_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _distinct_layers(model: keras.Layer) -> Collection[Any]:
    """The layers of a model, a shared one once."""
    return {id(layer): layer for layer in all_layers(model)}.values()


def _by_batch(call: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(call)

    def called(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments["training"] = True
        return call(*given.args, **given.kwargs)

    # A `call` of the user's own may know of no modes.
    return InPlace(call, called) if "training" in signature.parameters else call
