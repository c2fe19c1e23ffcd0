"""Files that hold whole lines whatever ends the process."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import message

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TO_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0)
_TO_OVERWRITE = os.O_WRONLY | getattr(os, "O_BINARY", 0)

writing = threading.Lock()
"""What a thread holds while it writes a file that others may write."""


def _release() -> None:
    if writing.locked():
        writing.release()


if hasattr(os, "register_at_fork"):  # a thread that holds it is not in the child
    os.register_at_fork(after_in_child=_release)


def append_whole(path: Path, data: bytes, anew: bool = False) -> None:
    """Adds bytes to the end of a file: all of them, or none and an error.

    Args:
        path: the file; it is made if it is not there.
        data: what to add.
        anew: empty the file first.

    Raises:
        OSError: if the system does not take them all, for want of room, say.
    """
    file = os.open(path, _TO_APPEND | (os.O_TRUNC if anew else 0), 0o666)
    try:
        write_whole(file, data)
    finally:
        os.close(file)


def write_whole(file: int, data: bytes) -> None:
    """Adds bytes to the end of an open file: all of them, or none and an error.

    Args:
        file: what `os.open` returned with `O_APPEND`.
        data: what to add.

    Raises:
        OSError: if the system does not take them all, for want of room, say.
    """
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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Opens a file for `write_whole`, for one writer at a time.

    Threads wait for one another everywhere, processes where the operating system and
    the file system have `flock`. The file is made if it is not there.
    """
    with writing:
        file = _opened(path)
        try:
            yield file
        finally:
            # Closing is not enough: a process forked meanwhile holds the file open.
            _flock(file, "LOCK_UN")
            os.close(file)


def _opened(path: Path) -> int:
    file = os.open(path, _TO_APPEND, 0o666)
    try:
        _flock(file, "LOCK_EX")
        if _is_at(path, file):
            return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return _opened(path)  # it was replaced or deleted before it could be locked


def _is_at(path: Path, file: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def _flock(file: int, operation: str) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(file, getattr(fcntl, operation))


def rewrite(path: Path, data: bytes) -> None:
    """Gives a `locked` file another content: all of it, or an error and the old one.

    A file of the new content takes the place of the old one in one move, with its mode,
    owner and extended attributes. A file that none can take the place of is overwritten
    where it lies: one with several names (hard links), of an owner that cannot be
    given, or in a folder that takes no new file. Where the process is killed in the
    midst of that, `<name>.<random>.tmp` beside the file holds all of the new content,
    if the folder took one.

    Raises:
        OSError: if the system does not take it all.
    """
    path = path.resolve()  # a link stays one
    copy = _copy_beside(path, data)
    if copy is not None and _moved(copy, path):
        return
    old = path.read_bytes()
    try:
        _overwrite(path, data)
    except BaseException:
        _overwrite(path, old)  # where this fails too, the copy stays
        _drop(copy)
        raise
    _drop(copy)


def _copy_beside(path: Path, data: bytes) -> Path | None:
    """A new file that is like another but for its content, if the folder takes one."""
    try:
        file, name = tempfile.mkstemp(".tmp", path.name[:40] + ".", path.parent)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return None
        raise
    os.close(file)
    copy = Path(name)
    try:
        append_whole(copy, data)
        with contextlib.suppress(OSError):
            _take_over(path, copy)
    except BaseException:
        copy.unlink()
        raise
    return copy


def _take_over(old: Path, new: Path) -> None:
    """Gives a file the owner, mode and extended attributes of another."""
    owner, now = old.stat(), new.stat()
    if hasattr(os, "chown"):
        os.chown(new, owner.st_uid, owner.st_gid)
    shutil.copystat(old, new)
    os.utime(new, ns=(now.st_atime_ns, now.st_mtime_ns))


def _moved(copy: Path, path: Path) -> bool:
    """Moves a file to the place of another if nobody can tell it from that one."""
    new, old = copy.stat(), path.stat()
    is_equal = (new.st_mode, new.st_uid, new.st_gid) == (
        old.st_mode,
        old.st_uid,
        old.st_gid,
    )
    if is_equal and old.st_nlink == 1:
        with contextlib.suppress(OSError):  # a mount point, say
            copy.replace(path)
            return True
    return False


def _overwrite(path: Path, data: bytes) -> None:
    file = os.open(path, _TO_OVERWRITE)
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
        os.ftruncate(file, len(data))
    finally:
        os.close(file)


def _drop(copy: Path | None) -> None:
    if copy is not None:
        copy.unlink()


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
