"""Files that hold whole lines whatever ends the process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ._errors import message


def append_whole(path: Path, data: bytes, anew: bool = False) -> None:
    """Adds bytes to the end of a file: all of them, or none and an error.

    Args:
        path: the file; it is made if it is not there.
        data: what to add.
        anew: empty the file first.

    Raises:
        OSError: if the system does not take them all, for want of room, say.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags | (os.O_TRUNC if anew else 0), 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            # One write, so that a kill finds all or nothing. A disk that fills up takes
            # a part of it, and says why only to the next.
            written = os.write(file, data)
            while written < len(data):
                written += os.write(file, data[written:])
        except BaseException:
            with contextlib.suppress(OSError):  # a pipe has no size
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def checked_path(name: str, value: Any) -> Path:
    """Returns a path as a whole one, or raises if nothing can be written there.

    Raises:
        ValueError: if it is no path, or the folder it is to lie in does not exist.
    """
    is_path = isinstance(value, (str, os.PathLike))
    text = os.fspath(value) if is_path else b""
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(
            message(
                f"`{name}` must be a path.",
                f"{name}={value!r}",
                "Pass a str or a Path.",
            )
        )
    path = Path(text)
    if not path.parent.is_dir():
        raise ValueError(
            message(
                f"The folder of `{name}` must exist.",
                f"{name}={str(path)!r}",
                "Make it with `pathlib.Path(...).mkdir(parents=True)`.",
            )
        )
    return path.absolute()


def checked_file(name: str, value: Any) -> Path:
    """Returns the path of a file, or raises if none can be there.

    Raises:
        ValueError: as `checked_path` does, and if a directory is there.
    """
    path = checked_path(name, value)
    if path.is_dir():
        raise ValueError(
            message(
                f"`{name}` must name a file.",
                f"{name}={str(value)!r}, a directory",
                "Name a file in it.",
            )
        )
    return path
