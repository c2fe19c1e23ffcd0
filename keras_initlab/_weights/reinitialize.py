"""Starting a model over, in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._core import seeds as _seeds
from .._core.errors import check_count, check_flag, message
from .._keras.kinds import KernelAxes, check_built, own_kernels, variable_of
from .._keras.paths import own_variables
from .._keras.private import own_trainable, sublayers
from .._keras.unchanged import unchanged
from ..inspection import check_parts
from .choosing import chosen
from .constraining import Constraints
from .drawing import draw, draw_bias
from .writing import Applied, fresh_slots, write


@dataclass(frozen=True)
class _Place:
    variable: Any
    layer: Any
    position: tuple[int, ...]


def reinitialize(
    model: keras.Model,
    seed: int | None = None,
    only: Sequence[Any] | Callable[[Any], bool] | None = None,
    reset_optimizer: bool = False,
) -> Applied:
    """Draws every variable anew by its own layer's initializer.

    The model stays the object it is: compile state, callbacks and references to its
    layers hold. Each variable has a seed of its own, derived from `seed` and the
    variable's position in the model, so that query, key and value, both directions of
    a recurrent layer and layers that share one initializer all differ, and two models
    of one architecture get the same weights whatever their names. Running statistics
    (of batch normalization) start over too. Frozen layers and weights are kept unless
    `only` names them; quantized weights and states that no initializer made (what a
    preprocessing layer has adapted to) are always kept. Where a variable has a
    constraint, it gets what that leaves of the values drawn.

    A variable's initializer is the layer's attribute `<name>_initializer`. Where a
    custom layer has none, it is the one that `build` uses in a new layer, made from the
    layer's config, or without arguments if its constructor takes none.

    Args:
        model: a built Keras model or layer of any kind.
        seed: a non-negative int for repeatable weights; None for fresh ones.
        only: paths of variables or layers, or layers themselves; or a function of a
            variable that says whether to draw it; None for all.
        reset_optimizer: also set the optimizer's slots and step count back.

    Returns:
        An `Applied`, which lists what changed and can undo it.

    Raises:
        TypeError: if `model` is no Keras model or layer.
        UnbuiltModelError: if it has no weights yet.
        ValueError: for a bad seed, an `only` that names nothing, or variables whose
            initializer cannot be found (all are named; nothing has changed).

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> applied = reinitialize(model, seed=0)
        >>> len(applied.changed)
        2
        >>> applied.undo()
    """
    check_built("model", model)
    check_flag("reset_optimizer", reset_optimizer)
    if seed is not None:
        seed = check_count("seed", seed, usual=0, least=0)
    base = _seeds.fresh() if seed is None else seed
    with unchanged(model):
        check_parts(model)
        fresh, drawn_by = _all_drawn(model, only, base)
    if reset_optimizer:
        fresh += fresh_slots(model)
    return write(model, fresh, base, drawn_by, is_recommended=False)


def _all_drawn(
    model: keras.Model, only: Sequence[str] | Callable[[Any], bool] | None, base: int
) -> tuple[list[tuple[Any, np.ndarray]], dict[int, Any]]:
    """The variables with their new values, and what drew these, by variable's id."""
    fresh: list[tuple[Any, np.ndarray]] = []
    lost, drawn_by, constraints = [], {}, Constraints(model)
    for place in _chosen(list(_places(model, ())), only):
        initializer = _initializer_of(place)
        if initializer is not None:
            drawn = _drawn(place, initializer, base)
            values = constraints.applied(place.variable, drawn)
            fresh.append((place.variable, values))
            if values is drawn:
                drawn_by[id(place.variable)] = initializer
        elif place.variable.trainable:
            lost.append(f"{place.variable.path} ({type(place.layer).__name__})")
    if lost:
        raise ValueError(_no_initializer(lost))
    return list(constraints.with_states(fresh)), drawn_by


def _places(
    layer: Any, position: tuple[int, ...], seen: set[int] | None = None
) -> Iterator[_Place]:
    """All variables of a layer and of those inside it, each once."""
    # Those inside come first: a wrapper may list the variables of its layer too.
    seen = set() if seen is None else seen
    for number, inner in enumerate(sublayers(layer)):
        yield from _places(inner, (*position, 1, number), seen)
    for number, variable in enumerate(own_variables(layer)):
        if id(variable) not in seen:
            seen.add(id(variable))
            yield _Place(variable, layer, (*position, 0, number))


def _drawn(place: _Place, initializer: Any, base: int) -> np.ndarray:
    seed = _seeds.derive(base, *place.position)
    if place.variable is getattr(place.layer, "bias", None):
        return draw_bias(place.layer, place.variable, seed)
    return draw(initializer, place.variable, seed, place.layer, _axes_of(place))


def _axes_of(place: _Place) -> KernelAxes | None:
    for name, axes in own_kernels(place.layer).items():
        if variable_of(place.layer, name) is place.variable:
            return axes
    return None


def _initializer_of(place: _Place) -> Any:
    """What made a variable, or None if that cannot be found out."""
    name = place.variable.name
    others = ("depthwise",) if name == "kernel" else ()
    for attribute in (name, name.removesuffix("_kernel"), *others):
        initializer = getattr(place.layer, f"{attribute}_initializer", None)
        if callable(initializer):
            return initializer
    if name == "vector_u" and isinstance(
        place.layer, keras.layers.SpectralNormalization
    ):
        return keras.initializers.TruncatedNormal(stddev=0.02)  # as its `build` does
    if not place.variable.trainable:
        return None  # a state, such as a quantized kernel's scale
    return _made_again(place.layer).get(_own_index(place))


def _own_index(place: _Place) -> int:
    own = [id(variable) for variable in place.layer.variables]
    return own.index(id(place.variable))


def _made_again(layer: Any) -> dict[int, Any]:
    """The initializers that a copy of the layer uses, by index of the variable.

    Keras forgets them once a variable has its values.
    """
    try:
        return _used_by(_copy_of(layer), layer)
    except Exception:  # whatever a custom constructor or `build` may raise
        return {}


def _copy_of(layer: Any) -> Any:
    kind = type(layer)
    if len(inspect.signature(kind.__init__).parameters) == 1:
        return kind()  # as of many subclassed models: no config could say more
    return kind.from_config(layer.get_config())


def _used_by(copy: Any, layer: Any) -> dict[int, Any]:
    used: dict[int, Any] = {}
    add = copy.add_weight

    def add_weight(shape: Any = None, initializer: Any = None, **others: Any) -> Any:
        variable = add(shape, initializer, **others)
        default = "glorot_uniform" if "float" in variable.dtype else "zeros"
        used[id(variable)] = keras.initializers.get(initializer or default)
        return variable

    copy.add_weight = add_weight
    copy.build_from_config(layer.get_build_config())
    return {
        index: used[id(variable)]
        for index, (variable, own) in enumerate(
            zip(copy.variables, layer.variables, strict=False)
        )
        if id(variable) in used and tuple(variable.shape) == tuple(own.shape)
    }


def _chosen(
    places: list[_Place], only: Sequence[Any] | Callable[[Any], bool] | None
) -> list[_Place]:
    drawable = [place for place in places if "float" in place.variable.dtype]
    meant = chosen(
        drawable, only, lambda place: place.variable.path, lambda place: place.variable
    )
    return [place for place in meant if only is not None or not _is_frozen(place)]


def _is_frozen(place: _Place) -> bool:
    own = [id(variable) for variable in own_trainable(place.layer)]
    is_weight = id(place.variable) in own
    return not place.layer.trainable or (is_weight and not place.variable.trainable)


def _no_initializer(lost: list[str]) -> str:
    return message(
        "Every trainable variable needs an initializer that can be found.",
        ", ".join(lost),
        "Give its layer an attribute `<name of the variable>_initializer`, or leave "
        "the variable out by `only`.",
    )
