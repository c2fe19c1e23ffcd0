"""Metrics for TensorBoard.

TensorBoard's own package makes the records. It imports no backend, whereas `tf.summary`
would start TensorFlow in every JAX and PyTorch process (seconds, hundreds of megabytes
and, by default, all memory of every GPU). Its writer of whole files is not used: that
keeps events back for two minutes, which a killed process would lose.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np

from keras_initlab._core.arrays import to_numpy
from keras_initlab._core.errors import message, not_installed
from keras_initlab._core.files import checked_path, locked, write_whole, writing


class TensorBoardLog:
    """Writes metrics as TensorBoard scalars, and histograms, on every backend.

    A metric's name up to the first slash is its group in TensorBoard, so the figures of
    all layers stand side by side. Values are kept in float32, as TensorBoard's are.
    Every call is handed to the operating system whole and at once: it can be seen from
    then on, and a killed process leaves every step up to the last. A directory or file
    that is deleted meanwhile is made anew.

    This needs `pip install "keras_initlab[tensorboard]"`. `tensorboard --logdir
    <directory>` shows what it wrote.

    Args:
        directory: the log directory. It is made at the first call; the folder it lies
            in must exist. Give each run one of its own: TensorBoard draws what lies in
            one directory as one run.

    Raises:
        ImportError: if TensorBoard is not installed.
        ValueError: if the folder does not exist, or a histogram is none.

    Example:
        >>> import tempfile, pathlib
        >>> directory = pathlib.Path(tempfile.mkdtemp()) / "run"
        >>> log = TensorBoardLog(directory)
        >>> log({"grad_norm": 0.5, "grad_norm/dense": 0.3}, 0)
        >>> log.log_histograms({"weights": np.histogram([1.0, 2.0, 2.0], bins=4)}, 0)
        >>> len(list(directory.glob("events*")))
        1
    """

    def __init__(self, directory: str | os.PathLike[str]):
        try:
            _record()
        except ImportError as error:
            what = "`TensorBoardLog` needs TensorBoard."
            raise not_installed(what, "tensorboard") from error
        self.directory = checked_path("directory", directory)
        self._file: Path | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def __call__(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex
    ) -> None:
        """Writes the metrics of one step."""
        values = [{"tag": str(k), "simple_value": float(v)} for k, v in metrics.items()]
        self._write(values, step)

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

    def _write(self, values: list[dict[str, Any]], step: SupportsIndex) -> None:
        records = _record(step=int(step), summary={"value": values})
        with locked(self._file_of_now()) as file:
            if os.fstat(file).st_size == 0:
                records = _record(file_version="brain.Event:2") + records
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


def _histogram(name: str, counts: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """A histogram as a summary's value, as TensorBoard's plugin for them reads it."""
    from tensorboard.util.tensor_util import make_tensor_proto

    rows = make_tensor_proto(np.stack([edges[:-1], edges[1:], counts], axis=1))
    kind = {"plugin_data": {"plugin_name": "histograms"}}
    metadata = {**kind, "data_class": "DATA_CLASS_TENSOR"}
    return {"tag": str(name), "tensor": rows, "metadata": metadata}


def _record(**event: Any) -> bytes:
    """A record of one event, which gets the time of now."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    whole = Event(wall_time=time.time(), **event)
    RecordWriter(record).write(whole.SerializeToString())
    return record.getvalue()
