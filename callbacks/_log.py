"""Where numbers go: any callable `(metrics, step)`, of which some are files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from keras_initlab._errors import check_flag, message
from keras_initlab._files import append_whole, checked_file

Log = Callable[[dict[str, float], int], Any]


class FileLog:
    """Base of the logs that are one text file and write whole lines.

    The lines of one call are handed to the operating system whole and at once, so a
    killed process leaves every line up to the last and none in part. Where only some of
    them find room (a full disk), these are taken back and the error is raised: the file
    stays well-formed. The file is what `path` means when the log is made, wherever the
    working folder moves to later.

    Args:
        path: the file. It is made anew at the first call; its folder must exist.
        append: keep a file that is there already, and add to it.

    Raises:
        ValueError: if the folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False):
        self.path = checked_file("path", path)
        self._is_new = not check_flag("append", append)
        if append and self.path.exists():
            _end_line(self.path)

    def _write(self, lines: str) -> None:
        append_whole(self.path, lines.encode(), anew=self._is_new)
        self._is_new = False


class CSVLog(FileLog):
    """Writes metrics to a CSV file, a line a call, a column a metric.

    The first column is `step`. Every line is written whole, so a killed process leaves
    all lines up to the last. Metrics that were not there before get columns of their
    own: the file is written anew with the wider header, as `<path>.new`, and replaces
    the old one in one move.

    Args:
        path: the file; see `FileLog`.
        append: whether to keep what it holds; see `FileLog`.

    Raises:
        ValueError: if the folder does not exist, or a metric is named `step`.

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
        super().__init__(path, append)
        keep = append and self.path.exists()
        self._columns: list[str] = next(self._rows(), []) if keep else []

    def __call__(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex
    ) -> None:
        """Writes one line."""
        check_names(metrics)
        row: dict[str, Any] = {"step": step, **metrics}
        columns = [*self._columns, *(name for name in row if name not in self._columns)]
        line = [row.get(name, "") for name in columns]
        if not self._columns:
            self._write(_lines([columns, line]))
        elif len(columns) > len(self._columns):
            self._widen(columns, line)
        else:
            self._write(_lines([line]))
        self._columns = columns  # not before the file has them

    def _widen(self, columns: list[str], line: list[Any]) -> None:
        rows = [row + [""] * (len(columns) - len(row)) for row in self._rows()][1:]
        old = self.path.resolve()  # a link stays one
        wider = old.with_name(old.name + ".new")
        try:
            append_whole(wider, _lines([columns, *rows, line]).encode(), anew=True)
            wider.replace(old)
        except BaseException:
            wider.unlink(missing_ok=True)
            raise

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            yield from csv.reader(file)


def _lines(rows: list[list[Any]]) -> str:
    # Python quotes only the line end it writes, but reads the others as ends too.
    has_return = any("\r" in str(cell) for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def check_names(metrics: Mapping[str, object]) -> None:
    """Raises if a metric has the name of the step."""
    if "step" in metrics:
        raise ValueError(
            message(
                "`metrics` must leave the name 'step' to the step.",
                f"metrics={dict(metrics)}",
                "Give that metric another name.",
            )
        )


def _end_line(path: Path) -> None:
    """Ends the last line of a file, if whoever wrote it did not."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        last = file.read()
    if last not in (b"", b"\n"):
        append_whole(path, b"\n")


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
