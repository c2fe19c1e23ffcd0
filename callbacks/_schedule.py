"""When to observe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keras_initlab._core.errors import check_count, message

Schedule = Callable[[int], bool]


@dataclass(frozen=True)
class _Every:
    """Every n-th step; an object, since a function made here could not be pickled."""

    count: int
    ahead: int = 0

    def __call__(self, step: int) -> bool:
        return (step + self.ahead) % self.count == 0


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
    return _Every(count)


def after_every(every: int | Schedule) -> Schedule:
    """The same for what is done after steps n − 1, 2n − 1, …, not before the first.

    Raises:
        ValueError: as `schedule` does.
    """
    if callable(every):
        return every
    count = check_count("every", every, usual=1000)
    return _Every(count, ahead=1)


def checked_span(start: int, stop: int | None) -> tuple[int, int | None]:
    """Returns the first step that counts and the one from which on none does.

    Raises:
        ValueError: if they are no whole numbers, or the second is not the greater one.
    """
    first = check_count("start", start, usual=0, least=0)
    if stop is None:
        return first, None
    end = check_count("stop", stop, usual=100_000, least=0)
    if end <= first:
        raise ValueError(
            message(
                "`stop` must be greater than `start`.",
                f"stop={stop!r}, start={first!r}",
                "None goes on to the end.",
            )
        )
    return first, end
