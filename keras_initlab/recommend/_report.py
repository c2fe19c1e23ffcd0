"""A recommendation as a table that people read."""

from __future__ import annotations

import inspect
import io
import itertools
import re
import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ._recommendation import Recommendation, Row

_LEAST_WIDTH, _MOST_WIDTH = 100, 140


def render(recommendation: Recommendation) -> Group:
    """Returns the table with its issues and advice, ready for a rich console."""
    references = list(dict.fromkeys(r.reference for r in recommendation if r.reference))
    parts: list[Any] = [_table(recommendation, references)]
    parts += [
        Text(f"[{number}] {reference}", style="dim")
        for number, reference in enumerate(references, 1)
    ]
    parts += [Text(f"issue: {name}", style="yellow") for name in recommendation.issues]
    parts += [Text(f"advice: {sentence}") for sentence in recommendation.advice]
    return Group(*parts)


def as_text(recommendation: Recommendation) -> str:
    """Returns the table as plain text, as wide as the terminal allows."""
    columns = shutil.get_terminal_size((_LEAST_WIDTH, 24)).columns
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, columns))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render(recommendation))
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def initializer_label(initializer: Any) -> str:
    """Returns an initializer as one would write it, defaults and axes left out."""
    if initializer is None:
        return "kept"
    name = type(initializer).__name__
    if name in ("HeNormal", "LecunNormal"):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    parameters = inspect.signature(type(initializer)).parameters
    arguments = ", ".join(
        f"{key}={_short(value)}"
        for key, value in initializer.get_config().items()
        if key not in ("seed", "input_axes", "output_axes")
        and value != parameters[key].default
    )
    return f"{name}({arguments})"


def _table(recommendation: Recommendation, references: Sequence[str]) -> Table:
    prefix = _common_prefix([row.path for row in recommendation])
    table = Table(
        title=f"{recommendation.model_name}: {len(recommendation)} kernels, "
        f"policy {recommendation.policy!r}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("kernel", overflow="fold", ratio=22)
    table.add_column("role", ratio=9)
    table.add_column("meets", ratio=9, no_wrap=True)
    table.add_column("initializer", overflow="fold", ratio=26)
    table.add_column("gain →", justify="right", no_wrap=True)
    table.add_column("← gain", justify="right", no_wrap=True)
    table.add_column("why", ratio=34)
    for rows in _alike(recommendation):
        first = rows[0]
        why = first.reason
        if first.reference:
            why += f" [{references.index(first.reference) + 1}]"
        table.add_row(
            _paths(rows, prefix),
            first.role,
            first.activation,
            initializer_label(first.initializer)
            .replace("(", "(\n  ")
            .replace("\n  )", ")"),
            _number(first.forward_gain),
            _number(first.backward_gain),
            Text(why),
        )
    return table


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups neighbors that differ only in their path."""

    def look(row: Row) -> tuple[Any, ...]:
        shown = (row.role, row.activation, initializer_label(row.initializer))
        return (*shown, row.shape, row.reason, row.forward_gain, row.backward_gain)

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


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return str(value.get("class_name", value))
    return str(value)
