"""Which rows of a report can stand for each other, and how they are written as one."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

# References are left alone: 1502.01852 is no quantity.
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]*\d)")
_LONGEST_BLOCK = 24


@dataclass(frozen=True)
class Block:
    """Rows in a row that repeat.

    Attributes:
        start: the number of the first row.
        length: rows in one repetition.
        times: repetitions, 1 for a row that stands alone.
    """

    start: int
    length: int = 1
    times: int = 1

    @property
    def end(self) -> int:
        """The number of the first row after it."""
        return self.start + self.length * self.times

    def members(self, items: Sequence[Item], place: int) -> list[Item]:
        """Returns what stands at one place of each repetition."""
        return list(items[self.start + place : self.end : self.length])


def blocks(looks: Sequence[Hashable]) -> list[Block]:
    """Cuts rows into stretches in which one sequence of looks repeats.

    From the top, each time the block that saves the most lines.

    Example:
        >>> [(b.start, b.length, b.times) for b in blocks("abcdbcd")]
        [(0, 1, 1), (1, 3, 2)]
    """
    numbers = {look: number for number, look in enumerate(dict.fromkeys(looks))}
    plain = [numbers[look] for look in looks]  # quick to compare
    found: list[Block] = []
    while (start := found[-1].end if found else 0) < len(plain):
        found.append(max(_options(plain, start), key=_saved))
    return found


def _options(looks: Sequence[int], start: int) -> list[Block]:
    """The blocks that may begin at a row, each repeated as often as it goes."""
    lengths = range(1, min(_LONGEST_BLOCK, (len(looks) - start) // 2) + 1)
    repeated = [
        Block(start, length, _repetitions(looks, start, length))
        for length in lengths
        if looks[start] == looks[start + length]
    ]
    return [*(block for block in repeated if block.times > 1), Block(start)]


def _saved(block: Block) -> int:
    """How many lines a block saves: it takes one more to say how often."""
    return block.length * (block.times - 1) - (block.length > 1)


def _repetitions(looks: Sequence[int], start: int, length: int) -> int:
    first, times = looks[start : start + length], 1
    while looks[start + times * length : start + (times + 1) * length] == first:
        times += 1
    return times


def skeleton(text: str) -> str:
    """Returns a text without its numbers."""
    return _NUMBER.sub("#", text)


def spanned(texts: Sequence[str]) -> str:
    """Writes texts that differ only in numbers as one, with ranges.

    Example:
        >>> spanned(["3 of scale 0.5", "3 of scale 0.25"])
        '3 of scale 0.25…0.5'
    """
    texts = list(dict.fromkeys(texts))
    if len(texts) == 1 or len({skeleton(text) for text in texts}) > 1:
        return texts[0]
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    ranges = [_range(column) for column in columns]
    return _NUMBER.sub(lambda match: ranges.pop(0), texts[0])


def _range(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if float(low) == float(high) else f"{low}…{high}"
