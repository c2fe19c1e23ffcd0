"""Recording what layers return while a model runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras

from ..hearing import Hearing
from ..kinds import kind_of, looks_up
from ..private import mask_of
from ..replacing import InPlace, all_replaced, held

Place = Literal["input", "output", "preactivation"]
"""Which tensor of a call is looked at."""


@dataclass(frozen=True)
class OperationEvent:
    """One call of an operation.

    Attributes:
        operation: the layer or raw operation.
        args: its arguments by position.
        kwargs: those by name.
        output: what it returned; None before it has.
        preactivation: what its `activation` received last, None if that was not heard,
            as in a recurrent layer; the inputs of an operation without one.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any = None
    preactivation: Any = None

    @property
    def inputs(self) -> Any:
        """Its first argument, None if it has none."""
        return next(iter((*self.args, *self.kwargs.values())), None)

    def at(self, place: Place) -> Any:
        """The tensor at a place of the call."""
        if place == "input":
            return self.inputs
        return self.output if place == "output" else self.preactivation

    def mask_at(self, place: Place) -> Any:
        """The mask of the tensor at a place: over the leading axes.

        None if all positions count.
        """
        mask = self._input_mask() if place == "input" else self._output_mask()
        return mask if _is_prefix(mask, self.at(place)) else None

    def _input_mask(self) -> Any:
        return None if self.inputs is None else mask_of(self.inputs)

    def _output_mask(self) -> Any:
        """As Keras works it out after the call."""
        mask = mask_of(self.output)
        layer = self.operation
        if mask is None and getattr(layer, "supports_masking", False):
            previous = self.kwargs.get("mask")
            if previous is None:
                previous = keras.tree.map_structure(mask_of, self.inputs)
            is_masked = any(one is not None for one in keras.tree.flatten(previous))
            if is_masked or looks_up(layer):
                mask = layer.compute_mask(self.inputs, previous)
        return mask


@contextlib.contextmanager
def recording(
    operations: Iterable[Any],
    on_return: Callable[[OperationEvent], Any],
    activated: Iterable[Any] = (),
    on_call: Callable[[OperationEvent], Any] | None = None,
) -> Iterator[None]:
    """Calls `on_return` whenever one of the operations returns.

    Wraps `call` on the instances for the length of the context and takes the wrappers
    off again whatever happens; activations stay what they are. Calls in other threads
    are not heard. While a function is traced, the tensors are the symbolic ones of the
    trace.

    Args:
        operations: layers or operations.
        on_return: receives the event; what it returns, unless None, takes the place of
            the operation's output.
        activated: those of the operations whose pre-activations are asked for.
        on_call: receives the event before the operation runs.
    """
    heard = {
        id(operation)
        for operation in activated
        if callable(getattr(operation, "activation", None))
        and not kind_of(operation).is_loop
    }
    wrappers = []
    for operation in operations:
        name = method_of(operation)
        hears = id(operation) in heard
        noting = _noting_call(operation, name, hears, on_return, on_call)
        wrappers.append((operation, name, noting))
    with all_replaced(wrappers, only_here=True):
        yield


def method_of(operation: Any) -> str:
    """The name of the method that a call of the operation runs."""
    policy = getattr(operation, "dtype_policy", None)
    is_quantized = getattr(policy, "quantization_mode", None) is not None
    return "quantized_call" if is_quantized else "call"


def _noting_call(
    operation: Any,
    name: str,
    hears: bool,
    on_return: Callable[[OperationEvent], Any],
    on_call: Callable[[OperationEvent], Any] | None,
) -> Callable[..., Any]:
    method = held(operation, name)
    hearing = Hearing(operation, name) if hears else None
    has_activation = callable(getattr(operation, "activation", None))

    def call(*args: Any, **kwargs: Any) -> Any:
        begun = OperationEvent(operation, args, kwargs)
        if on_call is not None:
            on_call(begun)
        if hearing is not None:
            output, before = hearing(*args, **kwargs)
        else:
            output = method(*args, **kwargs)
            before = None if has_activation else begun.inputs
        found = on_return(replace(begun, output=output, preactivation=before))
        return output if found is None else found

    return InPlace(method, call)


def _is_prefix(mask: Any, output: Any) -> bool:
    """Whether a mask is over the leading axes of an output."""
    if not (hasattr(mask, "shape") and hasattr(output, "shape")):
        return False
    pairs = zip(tuple(mask.shape), tuple(output.shape), strict=False)
    return len(mask.shape) < len(output.shape) and all(
        one == other or None in (one, other) for one, other in pairs
    )
