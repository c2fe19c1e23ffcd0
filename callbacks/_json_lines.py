"""Metrics as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import SupportsFloat, SupportsIndex

from keras_initlab._core.files import write_whole

from ._log import FileLog, check_names


class JSONLinesLog(FileLog):
    """Writes metrics to a file of JSON lines, one object a call.

    Each object holds `"step"` and the metrics. A line is handed to the operating system
    whole and at once, so a killed process leaves every line up to the last. NaN and
    infinity are written as `NaN` and `Infinity`, as Python's `json` reads them.

    Args:
        path: the file; see `FileLog`.
        append: whether to keep what it holds; see `FileLog`.

    Raises:
        ValueError: if the folder does not exist, or a metric is named `step`.

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

    def __call__(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex
    ) -> None:
        """Writes one line."""
        check_names(metrics)
        row = {"step": int(step), **{k: float(v) for k, v in metrics.items()}}
        with self._opened() as file:
            write_whole(file, (json.dumps(row) + "\n").encode())

    def _whole(self, data: bytes) -> int:
        start = data.rfind(b"\n") + 1
        is_cut = data[start:].startswith(b"{") and not _is_json(data[start:])
        return start if is_cut else len(data)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
