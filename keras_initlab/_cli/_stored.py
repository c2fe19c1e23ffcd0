"""The weights that a `.keras` file stores, before Keras reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from ._found import Found

_EXPANSION = 200  # times its size in the file; Keras does not compress
_SMALL = 2**20
# Nested deeper, and Keras would not get to it within Python's limit of calls.
_DEEPEST = 1000
# Groups, weights and an optimizer's slots, for each object that a configuration names.
_EACH = 100


def look_at_weights(path: Path, found: Found) -> None:
    """Notes what speaks against a file of weights, and how many bytes of them it holds.

    Args:
        path: an HDF5 file.
        found: where it is noted, and what the model's configuration holds.
    """
    with h5py.File(path, "r") as store:
        found += _faults(store, path.stat().st_size, found)


def _faults(store: h5py.File, size: int, found: Found) -> Iterator[str]:
    waiting: list[tuple[str, h5py.Group, int]] = [("", store, 1)]
    left, packed = _EACH * (10 + found.objects), 0
    while waiting:
        path, group, depth = waiting.pop()
        left -= len(group)
        if left < 0 or depth > _DEEPEST:
            yield f"more groups of weights than the model has use for, in {path!r}"
            return  # before their names are read
        for name, one in _held(group):
            inner = f"{path}/{name}".lstrip("/")
            if fault := _fault(inner, one):
                yield fault
            elif isinstance(one, h5py.Group):
                waiting.append((inner, one, depth + 1))
            else:
                found.stored += _bytes(one)
                packed += one.id.get_storage_size()
                if found.stored > _SMALL + _EXPANSION * min(packed, size):
                    told = f"weights {inner!r} of {_bytes(one)} bytes"
                    yield f"{told}, stored in almost none"


def _held(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """What a group holds by name; None for what lies elsewhere."""
    for name in group:
        is_here = isinstance(group.get(name, getlink=True), h5py.HardLink)
        yield name, group[name] if is_here else None


def _fault(path: str, one: Any) -> str:
    # Keras writes everything once: a second link leads in a circle, or pretends that
    # there is more.
    if one is None or h5py.h5o.get_info(one.id).rc > 1:
        return f"a link {path!r}"
    if isinstance(one, h5py.Group):
        return ""
    if not isinstance(one, h5py.Dataset) or one.dtype.kind == "O":
        return f"{path!r}, which is no weight"
    if one.external or one.is_virtual:
        return f"weights {path!r} in another file"
    return ""


def _bytes(values: h5py.Dataset) -> int:
    return (values.size or 0) * values.dtype.itemsize
