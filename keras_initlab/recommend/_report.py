"""A recommendation as a table that people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .._core.reports import new_table, printable
from ._grouping import blocks, skeleton, spanned
from ._labels import initializer_label
from ._row import Row

_LONGEST_LABEL, _LONGEST_PATH = 20, 22
# A longer table is written again with rows that differ only in numbers as one.
_MOST_ROWS = 24


def render(
    title: str, rows: Sequence[Row], issues: Sequence[str], advice: Sequence[str]
) -> Group:
    """Returns the table with its reasons, issues and advice, for a rich console.

    Kernels in a row that look alike share a row, and blocks of kernels that repeat are
    shown once.
    """
    looks = [_look(row) for row in rows]
    is_coarse = sum(block.length for block in blocks(looks)) > _MOST_ROWS
    if is_coarse:
        looks = [tuple(map(skeleton, look)) for look in looks]
    reasons = _reasons(rows, is_coarse)
    parts: list[Any] = [_table(title, rows, looks, list(reasons))]
    parts += [notes([spanned(texts) for texts in reasons.values()]), _LEGEND]
    parts += [Text(f"issue: {name}", style="yellow") for name in issues]
    parts += [Text(f"advice: {sentence}") for sentence in advice]
    return Group(*parts)


def common_prefix(paths: Sequence[str]) -> str:
    """Returns the model's own name, where Keras puts it before every path."""
    first = paths[0].partition("/")[0] + "/"
    return first if all(p.startswith(first) and p.count("/") > 1 for p in paths) else ""


def folded_path(path: str, prefix: str) -> str:
    """Returns a kernel's path as shown, in lines that end at a slash."""
    lines = [""]
    shown = printable(path.removeprefix(prefix).removesuffix("/kernel"))
    for part in shown.split("/"):
        if lines[-1] and len(f"{lines[-1]}{part}/") > _LONGEST_PATH:
            lines.append(" ")
        lines[-1] += f"{part}/"
    return "\n".join(lines).removesuffix("/")


def folded_label(label: str) -> str:
    """Breaks a long call after its parenthesis and between its arguments."""
    if len(label) <= _LONGEST_LABEL:
        return label
    return label.replace("(", "(\n  ", 1).replace(", ", ",\n  ")


def add_blocks(
    table: Table,
    rows: Sequence[Any],
    looks: Sequence[Any],
    cells: Callable[[list[Any]], list[str]],
) -> None:
    """Adds rows to a table, those of equal looks and repeated blocks as one."""
    for block in blocks(looks):
        if block.length > 1:
            table.add_section()
            table.add_row(f"{block.times} times these {block.length}:")
        for place in range(block.length):
            table.add_row(*cells(block.members(rows, place)))
        if block.length > 1:
            table.add_section()


def shown_paths(paths: Sequence[str], shape: str, prefix: str) -> str:
    """Returns the cell that names kernels by their paths and common shape."""
    first, last = (folded_path(path, prefix) for path in (paths[0], paths[-1]))
    if len(paths) == 1:
        return f"{first}\n  {shape}"
    return f"{first} …\n{last}\n  {len(paths)} of {shape}"


def notes(reasons: Sequence[str]) -> Table:
    """Returns what the numbers in the last column stand for."""
    table = Table.grid(padding=(0, 1))
    for number, reason in enumerate(reasons, 1):
        table.add_row(f"({number})", Text(reason))
    return table


_LEGEND = Text(
    "gain →: std of the pre-activation over that of the one before; ← gain: the same "
    "for gradients on the way back; conf.: confidence, see `Row`.",
    style="dim",
)


def _table(
    title: str, rows: Sequence[Row], looks: Sequence[Any], reasons: list[str]
) -> Table:
    prefix = common_prefix([row.path for row in rows])
    table = new_table(title)
    table.add_column("kernel\n  shape", overflow="fold")
    table.add_column("role\nmeets", overflow="fold")
    table.add_column("initializer\nconf.", overflow="fold")
    table.add_column("gain →\n← gain", justify="right", no_wrap=True)
    table.add_column("why", justify="right", no_wrap=True)
    add_blocks(table, rows, looks, lambda group: _cells(group, prefix, reasons))
    return table


def _cells(rows: Sequence[Row], prefix: str, reasons: list[str]) -> list[str]:
    first = rows[0]
    label = spanned([initializer_label(row.initializer) for row in rows])
    return [
        shown_paths(
            [row.path for row in rows], spanned(list(map(_shape, rows))), prefix
        ),
        f"{first.role}\n{first.activation}",
        f"{folded_label(label)}\n{spanned([f'{row.confidence:.2f}' for row in rows])}",
        spanned([_number(row.forward_gain) for row in rows])
        + "\n"
        + spanned([_number(row.backward_gain) for row in rows]),
        f"({_reason_number(first, reasons)})",
    ]


def _reasons(rows: Sequence[Row], is_coarse: bool) -> dict[str, list[str]]:
    """The reasons, each once, under what tells them apart."""
    found: dict[str, list[str]] = {}
    for row in rows:
        why = _why(row)
        found.setdefault(skeleton(why) if is_coarse else why, []).append(why)
    return found


def _reason_number(row: Row, reasons: list[str]) -> int:
    why = _why(row)
    return 1 + reasons.index(why if why in reasons else skeleton(why))


def _why(row: Row) -> str:
    return f"{row.reason} [{row.reference}]" if row.reference else row.reason


def _look(row: Row) -> tuple[str, ...]:
    """All that a row shows but its path."""
    shown = (row.role, row.activation, initializer_label(row.initializer))
    gains = (_number(row.forward_gain), _number(row.backward_gain))
    return (*shown, _shape(row), _why(row), *gains, f"{row.confidence:.2f}")


def _shape(row: Row) -> str:
    return " × ".join(map(str, row.shape))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
