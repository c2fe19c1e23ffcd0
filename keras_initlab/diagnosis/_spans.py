"""Over which stretch of layers a size is beyond a limit, and how far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._thresholds import SPAN_OF_A_BATCH as SPAN


def directions(what: str) -> list[tuple[str, Any, float]]:
    return [
        (f"vanishing {what}", lambda ratio: ratio < 1 / SPAN, 1 / SPAN),
        (f"exploding {what}", lambda ratio: ratio > SPAN, SPAN),
    ]


def within(limit: float) -> tuple[float, float]:
    """Between which ratios a size should lie that is beyond this limit."""
    return (limit, math.inf) if limit < 1 else (0.0, limit)


def tail(sizes: Sequence[float | None], base: float, is_beyond: Any) -> int | None:
    """Where the stretch at the end begins in which all sizes are beyond the limit."""
    start = None
    for index in range(len(sizes) - 1, -1, -1):
        size = sizes[index]
        if size is None:
            continue
        if not is_beyond(size / base):
            return start
        start = index
    return start


def change(ratio: float) -> str:
    if ratio == 0:
        return "0 times as large"
    return (
        f"{ratio:.3g} times larger" if ratio > 1 else f"{1 / ratio:.3g} times smaller"
    )
