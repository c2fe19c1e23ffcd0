"""A recommendation as a table that people read."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ._row import Row, initializer_label

_LEAST_WIDTH, _USUAL_WIDTH, _MOST_WIDTH = 80, 100, 120
_LONGEST_LABEL = 26


def render(
    title: str, rows: Sequence[Row], issues: Sequence[str], advice: Sequence[str]
) -> Group:
    """Returns the table with its reasons, issues and advice, for a rich console."""
    reasons = list(dict.fromkeys(map(_why, rows)))
    parts: list[Any] = [_table(title, rows, reasons), _notes(reasons)]
    parts += [Text(f"issue: {name}", style="yellow") for name in issues]
    parts += [Text(f"advice: {sentence}") for sentence in advice]
    return Group(*parts)


def as_text(rendered: Group) -> str:
    """Returns what `render` made as plain text, as wide as the terminal allows."""
    columns = shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, columns))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(rendered)
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _table(title: str, rows: Sequence[Row], reasons: Sequence[str]) -> Table:
    prefix = _common_prefix([row.path for row in rows])
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("kernel", overflow="fold")
    table.add_column("role")
    table.add_column("meets", no_wrap=True)
    table.add_column("initializer", no_wrap=True)
    table.add_column("gain →", justify="right", no_wrap=True)
    table.add_column("← gain", justify="right", no_wrap=True)
    table.add_column("why", justify="right", no_wrap=True)
    for group in _alike(rows):
        first = group[0]
        table.add_row(
            _paths(group, prefix),
            first.role,
            first.activation,
            _wrapped(initializer_label(first.initializer)),
            _number(first.forward_gain),
            _number(first.backward_gain),
            f"({reasons.index(_why(first)) + 1})",
        )
    return table


def _notes(reasons: Sequence[str]) -> Table:
    notes = Table.grid(padding=(0, 1))
    for number, reason in enumerate(reasons, 1):
        notes.add_row(f"({number})", Text(reason))
    return notes


def _why(row: Row) -> str:
    return f"{row.reason} [{row.reference}]" if row.reference else row.reason


def _wrapped(label: str) -> str:
    """Breaks a long call after its parenthesis and between its arguments."""
    if len(label) <= _LONGEST_LABEL:
        return label
    return label.replace("(", "(\n  ", 1).replace(", ", ",\n  ")


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups neighbors that differ only in their path."""

    def look(row: Row) -> tuple[Any, ...]:
        shown = (row.role, row.activation, initializer_label(row.initializer))
        gains = (_number(row.forward_gain), _number(row.backward_gain))
        return (*shown, row.shape, _why(row), *gains)

    return [list(group) for _, group in itertools.groupby(rows, key=look)]


def _paths(rows: Sequence[Row], prefix: str) -> str:
    names = [row.path.removeprefix(prefix).removesuffix("/kernel") for row in rows]
    shape = "×".join(map(str, rows[0].shape))
    if len(rows) == 1:
        return f"{names[0]}\n  {shape}"
    return f"{names[0]} …\n{names[-1]}\n  {len(rows)} of {shape}"


def _common_prefix(paths: Sequence[str]) -> str:
    """The model's own name, where Keras puts it before every path."""
    first = paths[0].partition("/")[0] + "/"
    return first if all(p.startswith(first) and p.count("/") > 1 for p in paths) else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
