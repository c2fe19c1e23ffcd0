"""Which of a model's variables an argument `only` means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from .._core.errors import message

Item = TypeVar("Item")


def chosen(
    items: Sequence[Item],
    only: Any,
    path_of: Callable[[Item], str],
    seen_as: Callable[[Item], Any] = lambda item: item,
) -> list[Item]:
    """Returns the items that `only` asks for.

    Args:
        items: what there is.
        only: paths of variables or of layers, or layers themselves, one or several; a
            function that says whether an item is meant; or None for all.
        path_of: gives an item's path.
        seen_as: gives what a function in `only` is asked about.

    Raises:
        ValueError: if `only` is none of these, or names what is not there.
    """
    if only is None:
        return list(items)
    if isinstance(only, (str, keras.Layer)):  # a layer can be called, too
        only = [only]
    if callable(only):
        return [item for item in items if only(seen_as(item))]
    if not isinstance(only, (list, tuple, set)):
        raise ValueError(_unknown(f"only={only!r}", items, path_of))
    names = [one.path if isinstance(one, keras.Layer) else one for one in only]
    unknown = [n for n in names if not any(_is_in(path_of(i), n) for i in items)]
    if unknown:
        raise ValueError(_unknown(f"only={unknown}", items, path_of))
    return [i for i in items if any(_is_in(path_of(i), name) for name in names)]


def _is_in(path: str, name: Any) -> bool:
    return f"/{name}/" in f"/{path}/"


def _unknown(
    received: str, items: Sequence[Item], path_of: Callable[[Item], str]
) -> str:
    return message(
        "`only` must name variables or layers of the model, or be a function.",
        received,
        f"The first variables are {[path_of(item) for item in items[:3]]}.",
    )
