"""Metrics as lines of a file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, SupportsFloat, SupportsIndex

from keras_initlab._core.errors import check_flag, message
from keras_initlab._core.files import checked_file, locked, rewrite, write_whole


class FileLog:
    """Base of the logs that are one text file and write whole lines.

    The lines of one call are handed to the operating system whole and at once, so a
    killed process leaves every line up to the last and none in part. Where only some of
    them find room (a full disk), these are taken back and the error is raised: the file
    stays well-formed. The file is what `path` means when the log is made, wherever the
    working folder moves to later; one that is deleted in the meantime is made anew.

    Threads may write one log, and several logs one file: each line goes in whole. So do
    those of several processes, where the system has `flock` (not on Windows).

    Args:
        path: the file. It is made anew at the first call; its folder must exist.
        append: keep a file that is there already, and add to it. A last line that was
            begun but never ended is taken out, with a warning that quotes it: its last
            number may be cut.

    Raises:
        ValueError: if the folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False):
        self.path = checked_file("path", path)
        self._is_new = not check_flag("append", append)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Opens the file, which nobody else may write meanwhile, at a line's start."""
        torn = b""
        try:
            with locked(self.path) as file:
                if self._is_new and _is_regular(file):
                    os.ftruncate(file, 0)
                self._is_new = False
                if _is_regular(file):
                    torn = self._end_line(file)
                yield file
        finally:
            if torn:  # no longer while it is locked: whoever hears it may log it
                self._warn_of(torn)

    def _end_line(self, file: int) -> bytes:
        """Takes out a last line that was not ended, or ends it if it is whole."""
        with self.path.open("rb") as content:
            content.seek(max(0, content.seek(0, os.SEEK_END) - 1))
            if content.read() in (b"", b"\n"):
                return b""
            content.seek(0)
            data = content.read()
        end = self._whole(data)
        if end < len(data):
            os.ftruncate(file, end)
        else:
            write_whole(file, b"\n")
        return data[end:]

    def _whole(self, data: bytes) -> int:
        """How many bytes of a file whose last line was not ended are whole lines."""
        raise NotImplementedError(f"{type(self).__name__} writes no lines.")

    def _warn_of(self, torn: bytes) -> None:
        warnings.warn(
            message(
                "Every line of a log must be ended; one that is not may be cut.",
                f"{torn!r} at the end of {str(self.path)!r}",
                "It was taken out. If it is whole, add it again.",
            ),
            stacklevel=4,
        )


class CSVLog(FileLog):
    """Writes metrics to a CSV file, a line a call, a column a metric.

    The first column is `step`. Every line is written whole, so a killed process leaves
    all lines up to the last. Metrics that were not there before get columns of their
    own: a file with the wider header takes the place of the old one in one move, with
    its mode and owner. Only a file with several names (hard links), or in a folder that
    takes no new file, is overwritten where it lies. A process killed in that very
    moment may leave such a file damaged, and, if the folder takes one, a whole copy
    beside it, `<name>.<random>.tmp`.

    Args:
        path: the file; see `FileLog`. What is no file (`/dev/stdout`) gets a new header
            where it needs a wider one.
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
        self._columns: list[str] = []  # of the last line

    def __call__(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex
    ) -> None:
        """Writes one line."""
        check_names(metrics)
        row: dict[str, Any] = {"step": step, **metrics}
        with self._opened() as file:
            is_file = _is_regular(file)
            header = next(self._rows(), []) if is_file else self._columns
            columns = _joined(header or self._columns, row)
            line = [row.get(name, "") for name in columns]
            if header and len(columns) == len(header):
                write_whole(file, _lines([line]))
            elif header and is_file:
                self._widen(columns, line)
            else:
                write_whole(file, _lines([columns, line]))
            self._columns = columns  # not before the file has them

    def _widen(self, columns: list[str], line: list[Any]) -> None:
        rows = [row + [""] * (len(columns) - len(row)) for row in self._rows()][1:]
        rewrite(self.path, _lines([columns, *rows, line]))

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open(newline="", encoding="utf-8", errors=_ERRORS) as file:
            yield from csv.reader(file)

    def _whole(self, data: bytes) -> int:
        if not b"step".startswith(data.lstrip(b'"')[:4]):
            return len(data)  # of another kind, not ours to cut
        end = at = quotes = 0
        for line in data.splitlines(keepends=True):
            at += len(line)
            quotes += line.count(b'"')
            if quotes % 2 == 0 and line.endswith(b"\n"):
                end = at
        return end


_ERRORS = "surrogateescape"  # bytes of another encoding stay what they are


def _is_regular(file: int) -> bool:
    return stat.S_ISREG(os.fstat(file).st_mode)


def _joined(columns: list[str], row: Mapping[str, Any]) -> list[str]:
    known = set(columns)
    return [*columns, *(name for name in row if name not in known)]


def _lines(rows: list[list[Any]]) -> bytes:
    # Python quotes only the line end it writes, but reads the others as ends too.
    has_return = any("\r" in str(cell) for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue().encode("utf-8", _ERRORS)


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
