"""What TensorFlow says of a process that compiles many models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def expecting_traces() -> Iterator[None]:
    """Holds back TensorFlow's warning that Keras traces its train functions anew.

    TensorFlow counts by code, which the train functions of all models share, and so
    takes a model a run for one function that is traced again and again. What it says of
    any other function, as of one of the user's, is still heard.
    """
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_news)
    try:
        yield
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not ("triggered tf.function retracing" in text and "Trainer." in text)
