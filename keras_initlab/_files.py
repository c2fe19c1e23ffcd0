"""Files that hold whole lines whatever ends the process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
