"""Where numbers go: any callable `(metrics, step)`, of which this is one."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_initlab._errors import message

Log = Callable[[dict[str, float], int], Any]


class CSVLog:
    """Writes metrics to a CSV file, a line a call, a column a metric.

    The first column is `step`. Every line is written and flushed whole, so a killed
    process leaves all lines up to the last. Metrics that were not there before get
    columns of their own: the file is written anew with the wider header and replaces
    the old one in one move.

    Args:
        path: the file. It is made anew at the first call; its folder must exist.
        append: keep a file that is there already, and add to it.

    Raises:
        ValueError: if the folder does not exist.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "norms.csv"
        >>> log = CSVLog(path)
        >>> log({"grad_norm": 0.5}, 0)
        >>> log({"grad_norm": 0.25, "loss": 2.0}, 10)
        >>> print(path.read_text().strip())
        step,grad_norm,loss
        0,0.5,
        10,0.25,2.0
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False):
        self.path = Path(path)
        check_folder("path", self.path)
        self._columns: list[str] | None = None
        if append and self.path.exists():
            self._columns = self._header()
            end_line(self.path)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes one line."""
        check_names(metrics)
        row: dict[str, Any] = {"step": step, **metrics}
        if self._columns is None:
            self._columns = list(row)
            self._write("w", [self._columns])
        new = [name for name in row if name not in self._columns]
        if new:
            self._widen(new)
        self._write("a", [[row.get(name, "") for name in self._columns]])

    def _write(self, mode: str, rows: Iterable[list[Any]]) -> None:
        rows = list(rows)
        # Python quotes only the line end it writes, but reads the others as ends too.
        has_return = any("\r" in str(cell) for row in rows for cell in row)
        quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
        # One write a call: a killed process leaves whole lines.
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            file.write(text.getvalue())

    def _widen(self, new: list[str]) -> None:
        assert self._columns is not None
        self._columns += new
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        padded = [row + [""] * (len(self._columns) - len(row)) for row in rows]
        wider = CSVLog(self.path.with_name(self.path.name + ".new"))
        wider._write("w", [self._columns, *padded])
        wider.path.replace(self.path)

    def _header(self) -> list[str] | None:
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), None)


def check_folder(name: str, path: Path) -> None:
    """Raises if the folder that a file or directory is to lie in does not exist."""
    if not path.parent.is_dir():
        raise ValueError(
            message(
                f"The folder of `{name}` must exist.",
                f"{name}={str(path)!r}",
                "Make it with `pathlib.Path(...).mkdir(parents=True)`.",
            )
        )


def check_names(metrics: Mapping[str, float]) -> None:
    """Raises if a metric has the name of the step."""
    if "step" in metrics:
        raise ValueError(
            message(
                "`metrics` must leave the name 'step' to the step.",
                f"metrics={dict(metrics)}",
                "Give that metric another name.",
            )
        )


def end_line(path: Path) -> None:
    """Ends the last line of a file, if whoever wrote it did not."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        path.write_bytes(text + b"\n")


def check_logs(log_to: Log | Iterable[Log]) -> tuple[Log, ...]:
    """Returns the logs as a tuple, or raises if one cannot be called."""
    many: Any = log_to if isinstance(log_to, Iterable) else (log_to,)
    logs = (log_to,) if callable(log_to) else tuple(many)
    for log in logs:
        if not callable(log):
            raise ValueError(
                message(
                    "`log_to` must hold functions of (metrics, step).",
                    f"log_to={log_to!r}",
                    "Pass e.g. `CSVLog('norms.csv')` or `wandb.log`.",
                )
            )
    return logs
