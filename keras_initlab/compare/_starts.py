"""Where a model's weights start: what may be compared, and how a model gets it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras

from .._core.errors import message
from .._keras.private import all_layers
from .._weights.reinitialize import reinitialize
from ..calibration import calibrate
from ..recommend import initializer_label, recommend

DEFAULT, RECOMMENDED, CALIBRATED = "default", "recommended", "calibrated"
_NAMED = (DEFAULT, RECOMMENDED, CALIBRATED)
# Recurrent kernels and embeddings are no kernels in Keras's sense: they have
# initializers of their own.
_KERNELS = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")


def labeled(initializers: Any) -> dict[str, Any]:
    """Returns what is to be compared by label, or raises if it cannot be.

    Args:
        initializers: a dict of labels, or a list.
    """
    if isinstance(initializers, Mapping):
        pairs = [(str(label), one) for label, one in initializers.items()]
    elif isinstance(initializers, (list, tuple)):
        pairs = [(_label(one), one) for one in initializers]
    else:
        raise TypeError(_no_list(initializers))
    labels = [label for label, _ in pairs]
    if not labels:
        raise ValueError(_no_list(initializers))
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(
            message(
                "Every initializer must have a label of its own.",
                f"several with {', '.join(map(repr, twice))}",
                "Pass a dict {label: initializer}.",
            )
        )
    return {label: _checked(label, one) for label, one in pairs}


def described(initializer: Any) -> str:
    """Returns what tells an initializer from others, its seed left out."""
    if initializer in _NAMED:
        return initializer
    one = keras.initializers.get(initializer)
    if not hasattr(one, "get_config"):
        return getattr(one, "__qualname__", type(one).__qualname__)
    config = {**one.get_config(), "seed": None}
    return f"{type(one).__name__} {json.dumps(config, sort_keys=True, default=repr)}"


def takes_initializer(build: Callable[..., Any]) -> bool:
    """Whether `build` is to be handed the initializer; raises if it cannot be called.

    It is if it needs one argument, or if its first one is named as an initializer.
    """
    if not callable(build) or isinstance(build, keras.Layer):
        raise TypeError(_no_build(f"build={build!r}"))
    try:
        parameters = list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):  # of a function in C
        return False
    positional = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    needed = [p for p in positional if p.default is p.empty]
    rest = [p for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    if len(needed) > 1 or rest:
        names = ", ".join(p.name for p in [*needed, *rest])
        raise TypeError(_no_build(f"build needs {names}"))
    is_named = bool(positional) and positional[0].name.endswith("initializer")
    return bool(needed) or is_named


def built(build: Callable[..., Any], initializer: Any) -> Any:
    """Returns what `build` builds for one initializer, or raises if it is no model."""
    if not takes_initializer(build):
        model = build()
    elif isinstance(initializer, str) and initializer in _NAMED:
        needs = next(iter(inspect.signature(build).parameters.values()))
        model = build(None) if needs.default is needs.empty else build()
    else:
        model = build(initializer)
    if not isinstance(model, keras.Model) or not model.compiled:
        state = "not compiled" if isinstance(model, keras.Model) else "no model"
        raise TypeError(
            message(
                "`build` must return a compiled Keras model.",
                f"{type(model).__name__}, {state}",
            )
        )
    return model


def start(
    model: keras.Model, initializer: Any, seed: int, batch: Any, is_handed: bool
) -> None:
    """Draws a model's weights.

    Args:
        model: a fresh, compiled model.
        initializer: what draws its kernels.
        seed: the base seed.
        batch: the first training inputs.
        is_handed: whether the layers have got the initializer already.
    """
    if not model.built:
        model(batch)
    if not isinstance(initializer, str) or initializer not in _NAMED:
        if not is_handed:
            _hand_out(model, keras.initializers.get(initializer))
        reinitialize(model, seed)
    elif initializer == RECOMMENDED:
        recommend(model, data=batch).apply(seed)
    elif initializer == CALIBRATED:
        calibrate(model, batch, seed=seed)


def _hand_out(model: keras.Model, initializer: Any) -> None:
    places = [
        (layer, name)
        for layer in all_layers(model)
        for name in _KERNELS
        if name in vars(layer)
    ]
    if not places:
        raise ValueError(
            message(
                "The model must have a layer with a `kernel_initializer`.",
                f"model={model.name!r} with none",
                "Let `build` take the initializer as its argument.",
            )
        )
    for layer, name in places:
        setattr(layer, name, initializer)


def _label(initializer: Any) -> str:
    if initializer is None:
        return DEFAULT
    if isinstance(initializer, str):
        return initializer.removeprefix("keras_initlab>")
    if inspect.isclass(initializer):
        return initializer.__name__
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    try:
        return initializer_label(initializer)
    except Exception:  # one of the user's, whose config is not its arguments
        return type(initializer).__name__


def _checked(label: str, initializer: Any) -> Any:
    if initializer is None or initializer in _NAMED:
        return initializer or DEFAULT
    try:
        one = keras.initializers.get(initializer)
    except Exception as error:
        raise ValueError(_no_initializer(label, initializer)) from error
    if not callable(one):
        raise ValueError(_no_initializer(label, initializer))
    return one if inspect.isclass(initializer) else initializer


def _no_initializer(label: str, initializer: Any) -> str:
    return message(
        "`initializers` must hold Keras's names, initializers, or one of "
        f"{', '.join(map(repr, sorted(_NAMED)))}.",
        f"{initializer!r} as {label!r}",
    )


def _no_list(initializers: Any) -> str:
    return message(
        "`initializers` must be a list, or a dict {label: initializer}, of at least "
        "one.",
        f"initializers={initializers!r}",
        'For example ["he_normal", "recommended"].',
    )


def _no_build(received: str) -> str:
    return message(
        "`build` must be a function that returns a compiled model, without arguments "
        "or of the initializer.",
        received,
    )
