"""Metrics as JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ._log import check_folder, check_names, end_line


class JSONLinesLog:
    """Writes metrics to a file of JSON lines, one object a call.

    Each object holds `"step"` and the metrics. A line is handed to the operating system
    whole and at once, so a killed process leaves every line up to the last. NaN and
    infinity are written as `NaN` and `Infinity`, as Python's `json` reads them.

    Args:
        path: the file. It is made anew at the first call; its folder must exist.
        append: keep a file that is there already, and add to it.

    Raises:
        ValueError: if the folder does not exist.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "norms.jsonl"
        >>> log = JSONLinesLog(path)
        >>> log({"grad_norm": 0.5}, 0)
        >>> log({"grad_norm": 0.25, "loss": 2.0}, 10)
        >>> print(path.read_text().strip())
        {"step": 0, "grad_norm": 0.5}
        {"step": 10, "grad_norm": 0.25, "loss": 2.0}
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False):
        self.path = Path(path)
        check_folder("path", self.path)
        self._flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
        self._is_fresh = not append
        if append and self.path.exists():
            end_line(self.path)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes one line."""
        check_names(metrics)
        row = {"step": int(step), **{k: float(v) for k, v in metrics.items()}}
        truncate = os.O_TRUNC if self._is_fresh else 0
        self._is_fresh = False
        file = os.open(self.path, self._flags | truncate, 0o644)
        try:
            os.write(file, (json.dumps(row) + "\n").encode())
        finally:
            os.close(file)
