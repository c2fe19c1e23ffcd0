"""A kernel as an image: inputs from top to bottom, outputs from left to right."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._keras.kinds import KernelAxes

_SIDE = 12  # so many tiles beside each other can be told apart


class KernelImage(NamedTuple):
    """A kernel as an image.

    Attributes:
        values: a masked array `(rows, columns)`; what is masked is no weight.
        tile: height and width of a tile, `(1, 1)` where an entry stands alone.
        note: what is not shown; empty if all is.
    """

    values: np.ma.MaskedArray
    tile: tuple[int, int] = (1, 1)
    note: str = ""


def image_of(values: np.ndarray, axes: KernelAxes) -> KernelImage:
    """Returns the image of a kernel.

    Without a window it is the matrix `(inputs, outputs)`, kernels of a batch axis below
    each other. With one, every pair of an input and an output channel is a tile of the
    window's shape; a strip of tiles is broken into rows. Of very many tiles the first
    are shown.
    """
    if values.ndim < 2:
        return KernelImage(np.ma.masked_array(values.reshape(1, -1)))
    tiles = _tiles(values, axes)
    rows, columns, height, width = tiles.shape
    if (height, width) == (1, 1):
        return KernelImage(np.ma.masked_array(tiles[:, :, 0, 0]))
    if 1 in (rows, columns):
        return _folded(tiles.reshape(-1, height, width))
    shown = tiles[:_SIDE, :_SIDE]
    note = ""
    if shown.shape != tiles.shape:
        note = f"first {len(shown)} × {shown.shape[1]} of {rows} × {columns} tiles"
    return KernelImage(_joined(np.ma.masked_array(shown)), (height, width), note)


def _tiles(values: np.ndarray, axes: KernelAxes) -> np.ndarray:
    """The kernel as an array `(inputs, outputs, *tile)`, batch axes before inputs.

    The last axis of a window lies from left to right, the others from top to bottom.
    """
    named = {*axes.inputs, *axes.outputs, *axes.window}
    batch = tuple(axis for axis in range(values.ndim) if axis not in named)
    parts = ((*batch, *axes.inputs), axes.outputs, axes.window[:-1], axes.window[-1:])
    shape = [math.prod(values.shape[axis] for axis in part) for part in parts]
    return values.transpose([axis for part in parts for axis in part]).reshape(shape)


def _folded(strip: np.ndarray) -> KernelImage:
    """A strip of tiles `(tiles, height, width)` in rows; gaps at its end are masked."""
    shown = strip[: _SIDE**2]
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    grid = np.ma.masked_all((rows * columns, *shown.shape[1:]))
    grid[: len(shown)] = shown
    note = (
        f"first {len(shown)} of {len(strip)} tiles" if len(shown) < len(strip) else ""
    )
    whole = grid.reshape(rows, columns, *shown.shape[1:])
    return KernelImage(_joined(whole), shown.shape[1:], note)


def _joined(tiles: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """Tiles `(rows, columns, height, width)` beside each other."""
    rows, columns, height, width = tiles.shape
    return tiles.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
