"""What a `.keras` file holds, looked at before Keras opens it.

Keras builds whatever a file names among its own classes and functions, and refuses what
it knows to be code (`safe_mode`). What was forgotten has been found one by one: from
CVE-2025-1550 to CVE-2026-12480, functions that are no part of a model, layers that load
other files, archives and HDF5 files that reach out of themselves or claim to be huge.
The lowest Keras admitted here has these mended; the next is sure to come. So a file may
name here only what models are made of; all else is refused without being looked up.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ._found import Found
from ._objects import look_at_objects
from ._stored import look_at_weights

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_EXPANSION = 200  # times its size in the file; Keras does not compress
_SMALL = 2**20
_LARGEST_CONFIG = 2**25  # Python takes twenty times as much for what it says
_MOST_MEMBERS = 1000


def screened(archive: zipfile.ZipFile, with_compile: bool) -> Found:
    """Returns what speaks against loading an archive; nothing in it is run for that.

    Args:
        archive: a `.keras` file.
        with_compile: also look at what `compile` was given.
    """
    found = Found()
    found += _members(archive)
    if found:
        return found  # too large to read, perhaps
    look_at_objects(json.loads(archive.read(_CONFIG)), with_compile, found)
    if not found and _WEIGHTS in archive.namelist():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, _WEIGHTS)
            with path.open("wb") as file, archive.open(_WEIGHTS) as packed:
                shutil.copyfileobj(packed, file)
            look_at_weights(path, found)
    return found


def _members(archive: zipfile.ZipFile) -> Iterator[str]:
    members = archive.infolist()
    whole = Path(str(archive.filename)).stat().st_size
    size = packed = 0
    seen = set()
    if len(members) > _MOST_MEMBERS:
        yield f"{len(members)} files"
    for info in members[:_MOST_MEMBERS]:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        size, packed = size + info.file_size, packed + info.compress_size
        if path.is_absolute() or ".." in path.parts or ":" in info.filename[:2]:
            yield f"{info.filename!r}, a path out of the archive"
        if info.filename in seen:
            yield f"{info.filename!r} twice"
        if packed > whole or size > _SMALL + _EXPANSION * packed:
            yield f"{info.filename!r} of {info.file_size} bytes, packed in almost none"
        if info.filename == _CONFIG and info.file_size > _LARGEST_CONFIG:
            yield f"a configuration of {info.file_size} bytes"
        if path.suffix in (".npz", ".npy", ".pkl", ".h5") and str(path) != _WEIGHTS:
            yield f"{info.filename!r}, which Keras does not write"
        seen.add(info.filename)
