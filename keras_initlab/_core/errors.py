"""Error types, and the one sentence shape that all messages share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


class UnbuiltModelError(ValueError):
    """The model has no weights yet, so there is nothing to look at."""


class UnsupportedModelError(ValueError):
    """The model's structure cannot be read."""


class NoKernelsError(ValueError):
    """The model holds no kernel that an initializer could fill."""


class TrainedWeightsError(RuntimeError):
    """The weights look trained, and overwriting them was not asked for."""


class StructureChangedError(RuntimeError):
    """The model is no longer the one that was looked at."""


class NotPointwiseError(ValueError):
    """The activation mixes units, so a single unit has no statistics."""


class UnknownLayerWarning(UserWarning):
    """A kernel's fans are only what Keras makes of its shape."""


def message(rule: str, received: str, cure: str = "") -> str:
    """Joins rule, received value and cure into one message."""
    return f"{rule} Received: {received}.{' ' + cure if cure else ''}"


def not_installed(what: str, extra: str, instead: str = "") -> ImportError:
    """Returns the error for a package that one of the project's extras brings."""
    cure = f'Install it with `pip install "keras_initlab[{extra}]"`'
    cure += f", or use `{instead}`." if instead else "."
    return ImportError(message(what, "an environment without it", cure))


def check_positive(name: str, value: Any, usual: float) -> float:
    """Returns `value` as a float, or raises if it is not positive and finite."""
    is_right = _is_number(value) and value > 0
    return _checked(name, value, usual, is_right, "a positive, finite number")


def check_non_negative(name: str, value: Any, usual: float) -> float:
    """Returns `value` as a float, or raises if it is negative or not finite."""
    is_right = _is_number(value) and value >= 0
    return _checked(
        name, value, usual, is_right, "a finite number that is not negative"
    )


def check_finite(name: str, value: Any, usual: float) -> float:
    """Returns `value` as a float, or raises if it is no finite number."""
    return _checked(name, value, usual, _is_number(value), "a finite number")


def _checked(name: str, value: Any, usual: float, is_right: bool, rule: str) -> float:
    if not is_right:
        raise ValueError(
            message(
                f"`{name}` must be {rule}.",
                f"{name}={value!r}",
                f"The usual value is {usual}.",
            )
        )
    return float(value)


def check_count(name: str, value: Any, usual: int, least: int = 1) -> int:
    """Returns `value` as an int, or raises if it is not a whole number >= `least`."""
    is_whole = _is_number(value) and value == value // 1
    if not is_whole or value < least:
        raise ValueError(
            message(
                f"`{name}` must be a whole number of at least {least}.",
                f"{name}={value!r}",
                f"The usual value is {usual}.",
            )
        )
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """Returns `value`, or raises if it is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            message(f"`{name}` must be True or False.", f"{name}={value!r}")
        )
    return bool(value)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Returns `value`, or raises if it is not among `allowed`."""
    names = sorted(allowed)
    if not isinstance(value, str) or value not in names:
        raise ValueError(
            message(
                f"`{name}` must be one of {', '.join(map(repr, names))}.",
                f"{name}={value!r}",
            )
        )
    return value


def check_verbose(verbose: Any) -> int:
    """Returns what Keras means by `verbose`: 0, 1 or 2, and 1 for `"auto"`."""
    known = {"auto": 1, 0: 0, 1: 1, 2: 2}
    if not isinstance(verbose, (str, int, np.integer)) or verbose not in known:
        rule = "`verbose` must be 0, 1, 2 or 'auto', as in `fit`."
        raise ValueError(message(rule, f"verbose={verbose!r}"))
    return known[verbose]


def _is_number(value: Any) -> bool:
    """Whether it is a finite, real number."""
    if isinstance(value, bool) or getattr(
        value, "ndim", 0
    ):  # NumPy before 2.4 takes an array of one for it
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
