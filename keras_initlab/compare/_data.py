"""What a comparison trains and tests on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .._core import seeds as _seeds
from .._core.arrays import to_numpy
from .._core.errors import message
from .._keras.batch import Batch, checked_arrays

Data = tuple[tuple[Any, Any], tuple[Any, Any]]


def checked_data(data: Any) -> Data | Callable[[], Any]:
    """Returns data as NumPy arrays, or the function that will return them."""
    return data if callable(data) else _arrays(data)


def load(data: Data | Callable[[], Any]) -> Data:
    """Returns the arrays."""
    return _arrays(data()) if callable(data) else data


@functools.lru_cache(maxsize=1)
def load_once(data: Callable[[], Any]) -> Data:
    """Returns what a function loads, and keeps it for a worker's next run."""
    return load(data)


class Batches(keras.utils.PyDataset):
    """Training batches, in an order that seed and epoch alone decide.

    Keras's own order depends on the backend, and on TensorFlow it is the same in every
    epoch once `keras.utils.set_random_seed` was called.

    Args:
        data: inputs and targets.
        batch_size: examples a batch; the last may have fewer.
        seed: the seed.
    """

    def __init__(self, data: tuple[Any, Any], batch_size: int, seed: int):
        super().__init__()
        self._data = keras.tree.map_structure(np.asarray, _tupled(data))
        self._count = len(keras.tree.flatten(data)[0])
        self._batch_size, self._seed = batch_size, seed
        self._epoch = 0
        self._order = self._drawn()

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        begin = index * self._batch_size
        chosen = self._order[begin : begin + self._batch_size]
        return keras.tree.map_structure(lambda leaf: leaf[chosen], self._data)

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order = self._drawn()

    def _drawn(self) -> np.ndarray:
        if len(self) == 1:
            return np.arange(self._count)
        seed = _seeds.derive(self._seed, 2, self._epoch)
        return np.random.default_rng(seed).permutation(self._count)


def _tupled(data: Any) -> Any:
    """Nests whose lists are tuples: `tf.data` takes a list for an array."""
    if isinstance(data, dict):
        return {key: _tupled(inner) for key, inner in data.items()}
    if isinstance(data, (list, tuple)):
        return tuple(map(_tupled, data))
    return data


def first_inputs(data: Data, count: int) -> Any:
    """Returns the first training inputs."""
    return keras.tree.map_structure(lambda leaf: leaf[:count], data[0][0])


def data_fingerprint(data: Data) -> str:
    """Returns a digest of every number, shape and type."""
    digest = hashlib.sha256()
    for leaf in keras.tree.flatten(data):
        digest.update(f"{leaf.dtype} {leaf.shape};".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _arrays(data: Any) -> Data:
    """Returns data of the right form as arrays, or raises."""
    if not (_is_pair(data) and all(map(_is_pair, data))):
        raise ValueError(_wrong(f"data of type {type(data).__name__}"))
    return _pair(data[0], "data[0]"), _pair(data[1], "data[1]")


def _pair(data: Any, name: str) -> tuple[Any, Any]:
    x = checked_arrays(data[0], f"{name}[0]")
    y = checked_arrays(data[1], f"{name}[1]", Batch(x).examples)
    return keras.tree.map_structure(_array, x), keras.tree.map_structure(_array, y)


def _array(leaf: Any) -> np.ndarray:
    return leaf if isinstance(leaf, np.ndarray) else to_numpy(leaf)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _wrong(received: str) -> str:
    return message(
        "`data` must be ((x, y), (x_test, y_test)), arrays of as many examples each, "
        "or a function that returns that.",
        received,
    )
