"""A model's graph as a flat, ordered tuple of calls, nested models opened up."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._errors import UnbuiltModelError, UnsupportedModelError, message
from .._fans import kernels
from ._calls import Call
from ._custom import has_call, is_custom, is_opened
from ._opening import Opener
from ._trace import Tracer, filled, tracing


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
    if is_opened(model) and not any(map(is_custom, model._flatten_layers())):
        opener = Opener()
        opener.open_model(model)
        return _ordered(opener.flat)
    with tracing(model) as tracer:
        opener = Opener(tracer)
        if is_opened(model):
            opener.open_model(model)
        elif has_call(model):
            _open_custom(model, data, tracer, opener)
        _open_rest(model, tracer, opener)
    return _ordered(opener.flat)


def _check(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(_unsupported(model))
    parts = model._layers if not has_call(model) else [model]
    if not any(part.built for part in parts):
        raise UnbuiltModelError(_unbuilt(model))


def _open_custom(model: Any, data: Any, tracer: Tracer, opener: Opener) -> None:
    args, kwargs = _inputs(model, data)
    trace = tracer.run(model, args, kwargs)
    if trace is None:
        raise UnsupportedModelError(_untraceable(model, tracer.failures[id(model)]))
    opener.open_trace(trace)


def _inputs(layer: Any, data: Any) -> tuple[list[Any], dict[str, Any]]:
    """Symbolic arguments for a layer's `call`, like `data` or what it was built for."""
    parameters = inspect.signature(layer.call).parameters
    others = {
        name: False
        for name, parameter in parameters.items()
        if name == "training" and parameter.default is parameter.empty
    }
    if data is not None:
        tensors = keras.tree.map_structure(_like, data)
        is_named = isinstance(data, dict) and next(iter(parameters)) in data
        return ([], {**tensors, **others}) if is_named else ([tensors], others)
    shapes = dict(layer._build_shapes_dict or {})
    if not shapes:
        raise UnsupportedModelError(_shapeless(layer))
    tensors = {
        name.removesuffix("_shape"): keras.tree.map_shape_structure(_symbolic, shape)
        for name, shape in shapes.items()
    }
    is_one = len(tensors) == 1  # which then may be named otherwise than in `call`
    return ([*tensors.values()], others) if is_one else ([], {**tensors, **others})


def _open_rest(layer: Any, tracer: Tracer, opener: Opener) -> None:
    """Opens what the model holds and its `call` does not reach, each part alone."""
    for part in layer._layers:
        seen = {id(kernel.variable) for call in opener.flat for kernel in call.kernels}
        is_seen = [id(kernel.variable) in seen for kernel in kernels(part)]
        if id(part) in opener.opened:
            _open_rest(part, tracer, opener)
        elif not any(is_seen) and is_seen and not _open_part(part, tracer, opener):
            opener.add_alone(part)


def _open_part(part: Any, tracer: Tracer, opener: Opener) -> bool:
    """Opens a part as a model of its own; False if it hides what is inside."""
    if is_opened(part):
        opener.open_model(part, (part.name,))
        return True
    if not is_custom(part) or not part._build_shapes_dict:
        return False
    trace = tracer.run(part, *_inputs(part, None))
    if trace is not None:
        opener.opened.add(id(part))
        opener.open_trace(trace, (part.name,))
    return trace is not None


def _symbolic(shape: Any) -> Any:
    return keras.KerasTensor(filled(shape))


def _like(array: Any) -> Any:
    dtype = keras.backend.standardize_dtype(array.dtype)
    return keras.KerasTensor(filled((None, *array.shape[1:])), dtype)


def _ordered(flat: Sequence[Call]) -> tuple[Call, ...]:
    levels: list[int] = []
    for call in flat:
        above = [levels[index] for index in call.inputs if index >= 0]
        levels.append(1 + max(above, default=0))
    renamed: dict[int, int] = {}

    def place(old: int) -> tuple[Any, ...]:
        call = flat[old]
        return levels[old], tuple(_renamed(call.inputs, renamed)), call.key, old

    ordered: list[Call] = []
    for level in range(1, max(levels, default=0) + 1):
        members = [old for old, own in enumerate(levels) if own == level]
        for old in sorted(members, key=place):
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


def _shapeless(model: Any) -> str:
    return message(
        "The shape of the inputs of `model` must be known.",
        f"model={model.name!r} ({type(model).__name__}), which does not tell what it "
        "was built for",
        "Pass `data=` with an example of its inputs.",
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
