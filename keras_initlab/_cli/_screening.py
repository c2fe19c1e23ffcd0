"""What a `.keras` file holds, looked at before Keras opens it.

Keras builds whatever a file names among its own classes and functions, and refuses what
it knows to be code (`safe_mode`). What was forgotten has been found one by one: from
CVE-2025-1550 to CVE-2026-12480, functions that are no part of a model, layers that load
other files, archives and HDF5 files that reach out of themselves or claim to be huge.
The lowest Keras admitted here has these mended; the next is sure to come. So a file may
name here only what models are made of; all else is refused without being looked up.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import h5py
import keras

# Where Keras keeps what models are made of. Elsewhere are wrappers of foreign code, and
# functions that read, write and download.
_PARTS = (
    *("activations", "constraints", "dtype_policies", "initializers", "layers"),
    *("losses", "metrics", "models", "ops", "optimizers", "quantizers", "random"),
    *("regularizers", "trainers"),
)
# A backend's own optimizers have the names of those that they stand in for.
_OPTIMIZERS = re.compile(r"keras\.src\.backend\.\w+\.optimizers(\.\w+)?")
_VALUES = (
    *("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__"),
    *("__slice__", "__tuple__", "TensorShape"),
)
_CODE = ("__lambda__", "Lambda")
_FUNCTIONS = ("activations", "losses", "metrics")
_NO_FUNCTIONS = ("deserialize", "get", "serialize")
_CONFIG = "config.json"
_EXPANSION = 200  # times its size in the file; Keras does not compress
_SMALL = 2**20


class Found(list[str]):
    """What speaks against a file: Python code, foreign classes, and all else."""

    def __init__(self) -> None:
        super().__init__()
        self.code: list[str] = []
        self.foreign: list[str] = []


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
    _look_at_objects(json.loads(archive.read(_CONFIG)), with_compile, found)
    for info in archive.infolist():
        if info.filename.endswith(".h5"):
            with tempfile.TemporaryFile() as file, archive.open(info) as packed:
                while part := packed.read(_SMALL):
                    file.write(part)
                found += _weights(file)
    return found


# --- The archive ---------------------------------------------------------------------


def _members(archive: zipfile.ZipFile) -> Iterator[str]:
    seen = set()
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in info.filename[:2]:
            yield f"{info.filename!r}, a path out of the archive"
        if info.filename in seen:
            yield f"{info.filename!r} twice"
        if info.file_size > _SMALL + _EXPANSION * info.compress_size:
            yield f"{info.filename!r} of {info.file_size} bytes, packed in almost none"
        if info.filename.endswith((".npz", ".npy", ".pkl")):
            yield f"{info.filename!r}, which Keras does not write"
        seen.add(info.filename)


# --- The objects that the model is made of -------------------------------------------


def _look_at_objects(config: Any, with_compile: bool, found: Found) -> None:
    waiting = [config]
    if isinstance(config, dict) and not with_compile:  # as Keras then leaves it out
        waiting = [{k: v for k, v in config.items() if k != "compile_config"}]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if "class_name" in one:
                _look_at(one, found)
            if isinstance(one.get("vocabulary"), str):
                found.append(f"the path of a vocabulary, {one['vocabulary']!r}")
        elif isinstance(one, list):
            waiting += one


def _look_at(one: dict[str, Any], found: Found) -> None:
    name, module = one["class_name"], one.get("module")
    if name in _CODE:
        found.code.append(str(name))
    elif name == "function":
        if not _is_function(module, one.get("config")):
            found.foreign.append(f"the function {one.get('config')!r} of {module!r}")
    elif name not in _VALUES and not _is_part(name, module, one.get("registered_name")):
        found.foreign.append(f"the class {name!r} of {module!r}")


def _is_function(module: Any, name: Any) -> bool:
    """Whether Keras has a function of this name that models are made of."""
    modules = [module] if module != "builtins" else [f"keras.{m}" for m in _FUNCTIONS]
    return name not in _NO_FUNCTIONS and any(
        one in [f"keras.{m}" for m in _FUNCTIONS] and callable(_looked_up(one, name))
        for one in modules
    )


def _is_part(name: Any, module: Any, registered: Any) -> bool:
    """Whether a name means a class that models are made of."""
    ours = None
    if isinstance(registered, str):
        ours = keras.saving.get_registered_object(registered)
    if ours is not None:
        return isinstance(ours, type) and ours.__module__.startswith("keras_initlab.")
    if isinstance(module, str) and _OPTIMIZERS.fullmatch(module):
        module = "keras.optimizers"
    kind = _looked_up(module, name)
    if not isinstance(kind, type):
        return False
    root, *parts = kind.__module__.split(".")
    return root == "keras" and len(parts) > 1 and parts[1] in _PARTS


def _looked_up(module: Any, name: Any) -> Any:
    """What Keras has under a name, if it has been imported; imports nothing."""
    is_keras = isinstance(module, str) and module.partition(".")[0] == "keras"
    if not (is_keras and isinstance(name, str)):
        return None
    return vars(sys.modules.get(module, object)).get(name)


# --- The weights ---------------------------------------------------------------------


def _weights(file: Any) -> list[str]:
    """What speaks against an HDF5 file."""
    faults: list[str] = []

    def look(path: str, one: Any) -> None:
        if isinstance(one, h5py.Group):
            faults.extend(_links(path, one))
        elif one.external or one.is_virtual:
            faults.append(f"weights {path!r} in another file")
        elif one.nbytes > _SMALL + _EXPANSION * one.id.get_storage_size():
            faults.append(
                f"weights {path!r} of {one.nbytes} bytes, stored in almost none"
            )

    with contextlib.closing(h5py.File(file, "r")) as store:
        look("", store)
        store.visititems(look)
    return faults


def _links(path: str, group: h5py.Group) -> Iterator[str]:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield f"a link {f'{path}/{name}'.lstrip('/')!r}"
