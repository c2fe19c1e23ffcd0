"""Over which stretch of layers a size is beyond a limit, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# He et al. 2015 (1502.01852, figures 2 and 3): with Glorot's scale, 22 layers of ReLU
# (a signal 2^11 times smaller) converge later, 30 layers (2^15) not at all. A thousand
# lies below both, and is where float16 ends to resolve what is added to 1.
SPAN = 1e3


def directions(what: str) -> list[tuple[str, Any, float]]:
    return [
        (f"vanishing {what}", lambda ratio: ratio < 1 / SPAN, 1 / SPAN),
        (f"exploding {what}", lambda ratio: ratio > SPAN, SPAN),
    ]


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
