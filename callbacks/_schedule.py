"""When to observe."""

from __future__ import annotations

from collections.abc import Callable

from keras_initlab._errors import check_count, message

Schedule = Callable[[int], bool]


def schedule(every: int | Schedule) -> Schedule:
    """Returns a function from a step's number to whether it is observed.

    Args:
        every: an int n for steps 0, n, 2n, …, or a function `step -> bool`.

    Raises:
        ValueError: if it is neither a positive int nor callable.
    """
    if callable(every):
        return every
    if isinstance(every, str):
        raise ValueError(
            message(
                "`every` must be a positive int or a function of the step.",
                f"every={every!r}",
                "The usual value is 10.",
            )
        )
    count = check_count("every", every, usual=10)
    return lambda step: step % count == 0
