"""Metrics for TensorBoard.

TensorBoard's event files are records of protocol buffers. The few fields that scalars
and histograms need are written by hand: `tf.summary` would start TensorFlow in every
JAX and PyTorch process (seconds, hundreds of megabytes and, by default, all memory of
every GPU), and all of it but `tf.summary.write` needs the package `tensorboard`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np

from keras_initlab._core.arrays import to_numpy
from keras_initlab._core.errors import message
from keras_initlab._core.files import checked_path, locked, write_whole, writing


class TensorBoardLog:
    """Writes metrics as TensorBoard scalars, and histograms, on every backend.

    A metric's name up to the first slash is its group in TensorBoard, so the figures of
    all layers stand side by side. Values are kept in float32, as TensorBoard's are.
    Every call is handed to the operating system whole and at once: it can be seen from
    then on, and a killed process leaves every step up to the last. A directory or file
    that is deleted meanwhile is made anew.

    Writing needs no package but this one; looking needs `pip install tensorboard`, then
    `tensorboard --logdir <directory>`.

    Args:
        directory: the log directory. It is made at the first call; the folder it lies
            in must exist. Give each run one of its own: TensorBoard draws what lies in
            one directory as one run.

    Raises:
        ValueError: if the folder does not exist, or a histogram is none.

    Example:
        >>> import tempfile, pathlib
        >>> directory = pathlib.Path(tempfile.mkdtemp()) / "run"
        >>> log = TensorBoardLog(directory)
        >>> log({"grad_norm": 0.5, "grad_norm/dense": 0.3}, 0)
        >>> log.log_histograms({"weights": np.histogram([1.0, 2.0, 2.0], bins=4)}, 0)
        >>> len(list(directory.glob("events*")))
        1

    References:
        The records: `tensorflow/core/util/event.proto`, `core/framework/summary.proto`
        and `core/lib/io/record_writer.h` in TensorFlow's source. The histograms:
        `tensorboard/plugins/histogram/metadata.py` in TensorBoard's.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = checked_path("directory", directory)
        self._file: Path | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def __call__(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex
    ) -> None:
        """Writes the metrics of one step."""
        self._write([_scalar(name, float(v)) for name, v in metrics.items()], step)

    def log_histograms(
        self, histograms: Mapping[str, tuple[Any, Any]], step: SupportsIndex
    ) -> None:
        """Writes the histograms of one step.

        Args:
            histograms: `{name: (counts, edges)}`, with counts of shape `(bins,)`, not
                negative, and edges of shape `(bins + 1,)`, finite and ascending, as
                `numpy.histogram` returns them. TensorBoard draws no open bin: where the
                first or the last one holds all that lies beyond, it is drawn as far as
                the edge given.
            step: the step.

        Raises:
            ValueError: if there are other counts or edges; then none are written.
        """
        pairs = {
            name: [to_numpy(array).astype("float64") for array in pair]
            for name, pair in histograms.items()
        }
        _check_histograms(pairs)
        self._write([_histogram(name, *pair) for name, pair in pairs.items()], step)

    def close(self) -> None:
        """Ends the file: a later call begins another one.

        Nothing needs this: every call leaves its file closed and complete.
        """
        self._file = None

    def _write(self, values: list[bytes], step: SupportsIndex) -> None:
        summary = b"".join(_field(1, value) for value in values)
        records = _record(_varint(2, int(step)) + _field(5, summary))
        with locked(self._file_of_now()) as file:
            if os.fstat(file).st_size == 0:
                records = _record(_field(3, b"brain.Event:2")) + records
            write_whole(file, records)

    def _file_of_now(self) -> Path:
        with writing:
            if self._file is None or not self._file.exists():
                self._file = self._new_file()
            return self._file

    def _new_file(self) -> Path:
        self.directory.mkdir(exist_ok=True)
        while True:  # TensorBoard reads a directory's files in the order of their names
            name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
            with contextlib.suppress(FileExistsError):
                (self.directory / name).touch(exist_ok=False)
                return self.directory / name


def _check_histograms(pairs: Mapping[str, list[np.ndarray]]) -> None:
    faults = {name: _fault(pair) for name, pair in pairs.items()}
    faults = {name: fault for name, fault in faults.items() if fault}
    if faults:
        raise ValueError(
            message(
                "Each histogram must be a pair of counts (bins,), not negative, and "
                "edges (bins + 1,), finite and ascending.",
                "; ".join(f"{name!r} with {fault}" for name, fault in faults.items()),
                "Pass what `numpy.histogram` returns; give open bins a finite edge.",
            )
        )


def _fault(pair: list[np.ndarray]) -> str:
    """Returns what is wrong with a histogram, or nothing."""
    shapes = [array.shape for array in pair]
    bins = pair[0].size if pair else 0
    if bins == 0 or shapes != [(bins,), (bins + 1,)]:
        return f"arrays of shapes {shapes}"
    counts, edges = pair
    bad = counts[~(np.isfinite(counts) & (counts >= 0))]
    if bad.size:
        return f"a count of {bad[0]}"
    bad = edges[~np.isfinite(edges)]
    if bad.size:
        return f"an edge at {bad[0]}"
    falls = np.flatnonzero(edges[1:] < edges[:-1])
    if falls.size:
        return f"an edge at {edges[falls[0] + 1]} after {edges[falls[0]]}"
    return ""


# --- Summary values ---------------------------------------------------------------

_DOUBLE = 2  # tensorflow.DataType
_TENSOR = 2  # tensorflow.DataClass


def _scalar(name: str, value: float) -> bytes:
    return _field(1, str(name).encode()) + _float(2, value)


def _histogram(name: str, counts: np.ndarray, edges: np.ndarray) -> bytes:
    rows = np.stack([edges[:-1], edges[1:], counts], axis=1).astype("<f8")
    shape = b"".join(_field(2, _varint(1, size)) for size in rows.shape)
    tensor = _varint(1, _DOUBLE) + _field(2, shape) + _field(4, rows.tobytes())
    metadata = _field(1, _field(1, b"histograms")) + _varint(4, _TENSOR)
    return _field(1, str(name).encode()) + _field(8, tensor) + _field(9, metadata)


# --- Protocol buffers and records -------------------------------------------------


def _varint(number: int, value: int) -> bytes:
    """A field that holds an integer."""
    return bytes([number << 3]) + _digits(value)


def _double(number: int, value: float) -> bytes:
    """A field that holds a float64."""
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    """A field that holds a float32, infinite for what float32 does not reach."""
    with np.errstate(over="ignore"):
        return bytes([number << 3 | 5]) + np.asarray(value, "<f4").tobytes()


def _field(number: int, data: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return bytes([number << 3 | 2]) + _digits(len(data)) + data


def _digits(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers as two's complement
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _record(event: bytes) -> bytes:
    """Frames one event, which gets the time of now."""
    event = _double(1, time.time()) + event
    length = struct.pack("<Q", len(event))
    return b"".join([length, _checksum(length), event, _checksum(event)])


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C of a record's part."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    rotated = crc >> 15 | crc << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _crc_table() -> list[int]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    return table.tolist()
