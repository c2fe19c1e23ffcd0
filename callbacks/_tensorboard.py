"""Metrics for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_initlab._errors import check_positive

from ._log import check_folder


class TensorBoardLog:
    """Writes metrics as TensorBoard scalars, on every backend.

    A metric's name up to the first slash is its group in TensorBoard, so that the
    figures of all layers stand side by side. What was written can be seen after
    `flush_seconds` at the latest, or after `close`.

    Args:
        directory: the log directory. It is made at the first call; the folder it lies
            in must exist. Give each run one of its own.
        flush_seconds: how long a figure may wait to be written, positive.

    Raises:
        ValueError: if the folder does not exist.

    Example:
        >>> import tempfile, pathlib
        >>> directory = pathlib.Path(tempfile.mkdtemp()) / "run"
        >>> log = TensorBoardLog(directory)
        >>> log({"grad_norm": 0.5}, 0)
        >>> log.close()
        >>> len(list(directory.glob("events*")))
        1
    """

    def __init__(self, directory: str | os.PathLike[str], flush_seconds: float = 2.0):
        self.directory = Path(directory)
        check_folder("directory", self.directory)
        self.flush_seconds = check_positive("flush_seconds", flush_seconds, usual=2.0)
        self._writer: Any = None

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes the metrics of one step."""
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(
                str(self.directory), flush_millis=int(1000 * self.flush_seconds)
            )
        with tf.init_scope(), self._writer.as_default():
            for name, value in metrics.items():
                tf.summary.scalar(name, float(value), step=int(step))

    def close(self) -> None:
        """Writes what still waits; a later call goes on in a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
