"""A model's graph as a flat, ordered tuple of calls, nested models opened up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._core.errors import UnbuiltModelError, UnsupportedModelError, message
from .._keras.kinds import kernels, kind_of
from .._keras.private import all_layers, build_shapes, has_value, sublayers
from ._arguments import symbolic_inputs
from ._calls import Call
from ._custom import has_call, is_custom, is_opened
from ._opening import Opener
from ._regions import joined
from ._trace import Tracer, tracing
from ._unbuilt import check_parts


def read_calls(model: keras.Model, data: Any = None) -> tuple[Call, ...]:
    """Returns every call in a built model, sources first.

    The order depends on the graph alone, not on names.

    Args:
        model: a built model.
        data: for a model with a `call` of its own, what to call it on: an array, or a
            list or dict of arrays. Only shapes and dtypes matter. None for what the
            model was built for.

    Raises:
        UnbuiltModelError: if the model has no weights yet.
        UnsupportedModelError: if it is no model, or its `call` cannot be traced.
    """
    _check(model)
    check_parts(model, data)
    if is_opened(model) and not any(map(is_custom, all_layers(model))):
        opener = Opener()
        opener.open_model(model)
        _list_unused(model, opener)
        return joined(_ordered(opener.flat))
    with tracing(model) as tracer:
        opener = Opener(tracer)
        if is_opened(model):
            opener.open_model(model)
        elif has_call(model):
            _open_custom(model, data, tracer, opener)
        _open_rest(model, tracer, opener)
        _list_unused(model, opener)
        _check_lasting(model, opener.flat)
    return joined(_ordered(opener.flat))


def _check(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(_unsupported(model))
    parts = sublayers(model) if not has_call(model) else [model]
    if not any(part.built for part in parts):
        raise UnbuiltModelError(_unbuilt(model))


def _check_lasting(model: Any, flat: Sequence[Call]) -> None:
    """Raises for layers that a `call` makes, which live no longer than that."""
    passing = {
        id(kernel.layer): f"{kernel.layer.name!r} ({type(kernel.layer).__name__})"
        for call in flat
        for kernel in call.kernels
        if not has_value(kernel.variable)  # made while the model was traced
    }
    if passing:
        raise UnsupportedModelError(_made_anew(model, [*passing.values()]))


def _open_custom(model: Any, data: Any, tracer: Tracer, opener: Opener) -> None:
    args, kwargs = symbolic_inputs(model, data)
    trace = tracer.run(model, args, kwargs)
    if trace is None:
        raise UnsupportedModelError(_untraceable(model, tracer.failures[id(model)]))
    opener.open_trace(trace)


def _open_rest(layer: Any, tracer: Tracer, opener: Opener) -> None:
    """Opens what the model holds and its `call` does not reach, each part alone."""
    for part in sublayers(layer):
        seen = {id(kernel.variable) for call in opener.flat for kernel in call.kernels}
        is_seen = [id(kernel.variable) in seen for kernel in kernels(part)]
        if id(part) in opener.opened:
            _open_rest(part, tracer, opener)
        elif not any(is_seen) and is_seen and not _open_part(part, tracer, opener):
            opener.add_alone(part)


def _list_unused(model: Any, opener: Opener) -> None:
    """Lists the kernels of layers that are called, but not so that they use these."""
    seen = {id(kernel.variable) for call in opener.flat for kernel in call.kernels}
    for kernel in kernels(model):
        if kind_of(kernel.layer).used is not None and id(kernel.variable) not in seen:
            opener.add_alone(kernel.layer, [kernel])


def _open_part(part: Any, tracer: Tracer, opener: Opener) -> bool:
    """Opens a part as a model of its own; False if it hides what is inside."""
    if is_opened(part):
        opener.open_model(part, (part.name,))
        return True
    if not is_custom(part) or not build_shapes(part):
        return False
    trace = tracer.run(part, *symbolic_inputs(part))
    if trace is not None:
        opener.opened.add(id(part))
        opener.open_trace(trace, (part.name,))
    return trace is not None


def _ordered(flat: Sequence[Call]) -> tuple[Call, ...]:
    levels: list[int] = []
    for call in flat:
        above = [levels[index] for index in call.inputs if index >= 0]
        levels.append(1 + max(above, default=0))
    renamed: dict[int, int] = {}

    def place(old: int) -> tuple[Any, ...]:
        call = flat[old]
        return levels[old], tuple(_renamed(call.inputs, renamed)), call.key, old

    members: dict[int, list[int]] = {}
    for old, level in enumerate(levels):
        members.setdefault(level, []).append(old)
    ordered: list[Call] = []
    for level in sorted(members):
        for old in sorted(members[level], key=place):
            renamed[old] = len(ordered)
            call = flat[old]
            inputs = tuple(_renamed(call.inputs, renamed))
            ordered.append(replace(call, inputs=inputs))
    return tuple(ordered)


def _renamed(inputs: tuple[int, ...], renamed: Mapping[int, int]) -> Iterator[int]:
    return (index if index < 0 else renamed[index] for index in inputs)


def _unbuilt(model: Any) -> str:
    return message(
        "`model` must be built.",
        f"model={model.name!r} ({type(model).__name__}), not built",
        "Start it with `keras.Input`, call it on data, or call "
        "`model.build(input_shape)`.",
    )


def _unsupported(model: Any) -> str:
    name = f"{model.name!r} " if hasattr(model, "name") else ""
    return message(
        "`model` must be a Keras model.",
        f"model={name}({type(model).__name__})",
        "Put a layer into a `keras.Sequential` that starts with `keras.Input`.",
    )


def _made_anew(model: Any, passing: Sequence[str]) -> str:
    return message(
        "Layers must be made where they last, in `__init__` or `build`.",
        f"model={model.name!r} ({type(model).__name__}), which makes anew in every "
        f"call: {', '.join(passing)}",
        "Keep each of these layers as an attribute.",
    )


def _untraceable(model: Any, error: Exception) -> str:
    return message(
        "The `call` of `model` must run when it is traced.",
        f"model={model.name!r} ({type(model).__name__}), whose `call` raised "
        f"{type(error).__name__}: {_cause(error)}",
        "Pass `data=` with an example of its inputs if they are others than it was "
        "built for; else keep NumPy, and conditions on values, out of `call`.",
    )


def _cause(error: Exception) -> str:
    """The first line of an error, or of what Keras says that it encountered."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    heads = [i for i, line in enumerate(lines[:-1]) if line.endswith("encountered:")]
    start = heads[0] + 1 if heads else 0
    return lines[start].rstrip(".") if lines else "no message"
