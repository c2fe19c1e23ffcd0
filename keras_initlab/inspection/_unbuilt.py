"""Parts of a model that are not built, although the model needs them.

A layer can be built and a layer inside it not: its `build` makes others and leaves
them to be built by the first call. Whether a part that is not built is ever called,
only a run tells; a layer that is kept and never used does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras

from .._core.errors import UnbuiltModelError, message
from .._keras.private import inbound_nodes, sublayers
from .._keras.unchanged import unchanged
from ._arguments import symbolic_inputs
from ._custom import is_opened

_MOST_NAMED = 3


def check_parts(model: Any, data: Any = None, name: str = "model") -> None:
    """Raises if a call of the model would build layers inside it.

    Args:
        model: a built model or layer.
        data: an example of its inputs, where its own `call` does not tell what it was
            built for.
        name: of the argument that holds the model.

    Raises:
        UnbuiltModelError: for layers that are called, have weights and are not built.
            All of them are as they were.
    """
    found = _late_parts(model)
    if not found:
        return
    with unchanged(model), keras.StatelessScope(initialize_variables=False):
        for late in found:
            _run_first(late.around, model, data)
        _check_none_built(model, name, found)


@contextlib.contextmanager
def all_built(model: Any) -> Iterator[None]:
    """Raises `UnbuiltModelError` if the block builds layers inside a model."""
    found = _late_parts(model)
    yield
    _check_none_built(model, "model", found)


def _check_none_built(model: Any, name: str, late: Iterable[_Late]) -> None:
    built = [
        f"{one.path!r} ({type(one.layer).__name__})"
        for one in late
        if one.layer.built and one.layer.weights
    ]
    if built:
        raise UnbuiltModelError(_unbuilt(model, name, built))


class _Late(NamedTuple):
    """A layer that a call may build, and the built ones around it, innermost first."""

    path: str
    layer: Any
    around: tuple[Any, ...]


def _late_parts(model: Any) -> list[_Late]:
    return list(_late(model, (), {id(model)}, ()))


def _late(
    layer: Any, scope: tuple[str, ...], seen: set[int], around: tuple[Any, ...]
) -> Iterator[_Late]:
    around = (layer, *around) if layer.built else around
    for inner in sublayers(layer):
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        names = (*scope, inner.name)
        if not inner.built and type(inner).build is not keras.Layer.build:
            yield _Late("/".join(names), inner, around)
        yield from _late(inner, names, seen, around)


def _run_first(layers: Iterable[Any], model: Any, data: Any) -> None:
    """Runs the first of these layers that can be run, on symbolic tensors."""
    for layer in layers:
        # A layer that says its output's shape itself would not run its `call`. What
        # the graph of a model calls was built with the graph.
        with contextlib.suppress(Exception):  # whatever a user's `call` may raise
            for args, kwargs in _calls(layer, data if layer is model else None):
                keras.Operation.compute_output_spec(layer, *args, **kwargs)
            return


def _calls(layer: Any, data: Any) -> list[tuple[Any, Any]]:
    """The arguments of a layer's calls."""
    if is_opened(layer):
        return []
    told = [node.arguments for node in inbound_nodes(layer)]
    calls = [(arguments.args, arguments.kwargs) for arguments in told]
    return calls or [symbolic_inputs(layer, data)]


def _unbuilt(model: Any, name: str, found: list[str]) -> str:
    more = len(found) - _MOST_NAMED
    named = ", ".join(found[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return message(
        f"`{name}` must be built, with all layers inside that it calls.",
        f"{name}={model.name!r} ({type(model).__name__}), not built in it: {named}",
        "Call the model once on data, or build these layers in the `build` of the "
        "layer around them.",
    )
