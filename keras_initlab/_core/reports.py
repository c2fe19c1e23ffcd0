"""What all reports share: records in a sequence, as a table and as JSON.

In JSON numbers have four digits, and what is not finite is text: `"nan"`, `"inf"`.
"""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Generic, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

Item = TypeVar("Item")

_DIGITS = 4
_LEAST_WIDTH, _USUAL_WIDTH, _MOST_WIDTH = 80, 100, 120


def as_text(rendered: Any, width: int | None = None) -> str:
    """Returns what rich can show as plain text, as wide as the terminal allows."""
    columns = width or shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, columns))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(rendered)
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


class LiteralTable(Table):
    """A table that shows text as it is: `[a]` and `:b:` are no markup."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row of text, or of what else rich can show."""
        literal = (Text(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*literal, **options)


def new_table(title: str) -> LiteralTable:
    """Returns an empty table in the style of all reports."""
    return LiteralTable(
        title=Text(printable(title), style="table.title"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def printable(name: str) -> str:
    r"""Returns a name as it can be shown: on one line, steering no terminal.

    >>> printable(chr(27))
    '\\x1b'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def plain(value: Any) -> Any:
    """Returns nested values as JSON has them: numbers rounded, NaN as text.

    >>> plain({"std": (1 / 3, math.nan, -math.inf)})
    {'std': [0.3333, 'nan', '-inf']}
    """
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)
    return value


class Record:
    """Base of the dataclasses that reports hold.

    Their fields go out, and the properties that `_derived` names.
    """

    _derived: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, numbers rounded to four digits.

        What is not finite is a string: `"nan"`, `"inf"`.
        """
        return plain(self._values())

    def _values(self) -> dict[str, Any]:
        own: Any = self
        names = (*(field.name for field in fields(own)), *self._derived)
        return {name: getattr(self, name) for name in names}


class Report(Sequence[Item], Generic[Item]):
    """A sequence of records that prints as a table and goes out as JSON."""

    _records: tuple[Item, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, numbers rounded to four digits.

        What is not finite is a string, so that `to_json` is JSON: `"nan"`, `"inf"`.
        """
        return plain(self._values())

    def _values(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} has no plain values.")

    def to_json(self, indent: int | None = 2) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __rich__(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no table.")

    def __repr__(self) -> str:
        return as_text(self)
