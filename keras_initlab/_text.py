"""Tables as plain text."""

from __future__ import annotations

import io
import shutil
from typing import Any

from rich.console import Console

_LEAST_WIDTH, _USUAL_WIDTH, _MOST_WIDTH = 80, 100, 120


def as_text(rendered: Any, width: int | None = None) -> str:
    """Returns what rich can show as plain text, as wide as the terminal allows."""
    columns = width or shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, columns))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(rendered)
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")
