"""Recording what layers return while a model runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def recording(
    operations: Iterable[Any], on_return: Callable[[Any, Any], None]
) -> Iterator[None]:
    """Calls `on_return(operation, output)` whenever one of the operations returns.

    Wraps `call` on the instances for the length of the context and takes the wrappers
    off again whatever happens. While a function is traced, the outputs are the
    symbolic tensors of the trace.

    Args:
        operations: layers or operations.
        on_return: receives the operation and its output; what it returns is ignored.
    """
    # A quantized layer runs `quantized_call` instead of `call`.
    methods = ("call", "quantized_call")

    def wrapped(operation: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            output = method(*args, **kwargs)
            on_return(operation, output)
            return output

        return call

    with contextlib.ExitStack() as stack:
        for operation in operations:
            for name in methods:
                if hasattr(operation, name):
                    wrapper = wrapped(operation, getattr(operation, name))
                    stack.enter_context(replaced(operation, name, wrapper))
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of one instance for the length of the context.

    It goes straight into the instance's `__dict__`: Keras's own `__setattr__` would
    track it, or refuse it on a locked layer.
    """
    attributes = vars(owner)
    had, former = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if had:
            attributes[name] = former
        else:
            attributes.pop(name, None)
