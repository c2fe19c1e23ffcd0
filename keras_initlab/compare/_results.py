"""Finished runs in a file, so that a comparison goes on where it was interrupted."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from .._core.errors import message
from .._core.files import append_whole, checked_file
from ._run import CURVES

_KIND = {"keras_initlab": "compare", "version": 1}
_LONGEST = 60
# A model has an accuracy or none.
_WHOLE = ({*CURVES}, {one for one in CURVES if "accuracy" not in one})


class ResultsFile:
    """JSON lines: what is compared, then a line a run.

    A line is handed to the operating system whole and at once. A last line that was
    not ended is dropped. NaN and infinity are written as Python's `json` reads them.
    Files of one comparison may be joined; of two lines of one run the later counts.

    Args:
        path: the file; it is made if it is not there.
        settings: what all runs have in common.
        described: what each initializer is, by label.

    Raises:
        ValueError: if the folder does not exist, or a line is none of this comparison.

    Attributes:
        finished: what each run handed back, by label and seed; not what failed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        described: Mapping[str, str],
    ):
        self.path = checked_file("results", path)
        self.finished: dict[tuple[str, int], dict[str, Any]] = {}
        self._described = described
        self._settings = settings
        self._has_failed = False
        is_new = True
        for number, line in self._read():
            self._check(number, line, is_new)
            is_new = False
        if is_new:
            self._write({**_KIND, **settings})

    def add(self, label: str, seed: int, outcome: Mapping[str, Any]) -> None:
        """Writes the line of a run; warns, once, where the file does not take it."""
        about = {"label": label, "initializer": self._described[label], "seed": seed}
        try:
            self._write({**about, **outcome})
        except OSError as error:
            if not self._has_failed:
                warnings.warn(self._not_kept(label, seed, error), stacklevel=2)
            self._has_failed = True

    def _write(self, line: Mapping[str, Any]) -> None:
        append_whole(self.path, (json.dumps(line) + "\n").encode())

    def _read(self) -> Iterator[tuple[int, Any]]:
        """The lines with their numbers; one that was not ended is taken off at last."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and data and not _begins(data):
            raise ValueError(self._other("a line that is no JSON"))
        for number, line in enumerate(whole.split(b"\n"), start=1):
            if line.strip():
                yield number, self._parsed(number, line)
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))

    def _parsed(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(self._strange(number, "which is no JSON")) from error

    def _check(self, number: int, line: Any, is_first: bool) -> None:
        """Notes what a line tells.

        Raises:
            ValueError: if it is neither a header of this comparison nor a run of it.
        """
        if isinstance(line, dict) and _KIND.items() <= line.items():
            self._check_settings(number, line)
        elif is_first:
            raise ValueError(self._other("something else in its first line"))
        elif fault := _fault(line, self._settings["epochs"]):
            raise ValueError(self._strange(number, fault))
        else:
            self._take(line)

    def _check_settings(self, number: int, header: Mapping[str, Any]) -> None:
        apart = [
            f"{name}={header.get(name)!r}, not {value!r}"
            for name, value in self._settings.items()
            if header.get(name) != value
        ]
        if apart:
            raise ValueError(self._other(f"{', '.join(apart)}, in line {number}"))

    def _take(self, line: Mapping[str, Any]) -> None:
        label = line["label"]
        asked = self._described.get(label, line["initializer"])
        if asked != line["initializer"]:
            raise ValueError(
                self._other(f"{label!r} as {line['initializer']}, not {asked}")
            )
        if "error" not in line:
            outcome = {key: line[key] for key in ("seconds", "curves")}
            self.finished[label, line["seed"]] = outcome

    def _strange(self, number: int, fault: str) -> str:
        return message(
            "Each line of `results` must be a run of this comparison.",
            f"results={str(self.path)!r} with line {number}, {fault}",
            "Delete that line, or name another file.",
        )

    def _not_kept(self, label: str, seed: int, error: OSError) -> str:
        return message(
            "`results` should take the line of every run; the comparison goes on.",
            f"{type(error).__name__}: {error}, at {label}, seed {seed}",
            "Later runs are tried all the same; the comparison that `compare` returns "
            "holds all of them.",
        )

    def _other(self, received: str) -> str:
        return message(
            "`results` must be a file of this comparison, or a new one.",
            f"results={str(self.path)!r} with {received}",
            "Name another file, or delete this one.",
        )


def _fault(line: Any, epochs: int) -> str:
    """What keeps a line from being that of a run, empty if nothing does."""
    if not isinstance(line, dict):
        return "which is no run"
    for name, kind in (("label", str), ("initializer", str), ("seed", int)):
        if type(line.get(name)) is not kind:
            return f"whose {name!r} is {_shown(line.get(name))}"
    if "error" in line:
        return ""
    seconds, curves = line.get("seconds"), line.get("curves")
    if seconds is None or not _is_number(seconds) or not math.isfinite(seconds):
        return f"whose 'seconds' are {_shown(seconds)}"
    if not isinstance(curves, dict) or set(curves) not in _WHOLE:
        return f"whose 'curves' are {_shown(curves)}"
    wrong = [name for name in curves if not _is_curve(curves, name, epochs)]
    return f"whose curve {wrong[0]!r} is no number an epoch" if wrong else ""


def _is_curve(curves: dict[str, Any], name: str, epochs: int) -> bool:
    values, losses = curves[name], curves["test_loss"]
    if not isinstance(values, list) or not isinstance(losses, list):
        return False
    is_long = 0 < len(values) == len(losses) <= epochs  # a model may stop early
    return is_long and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63  # which a float can hold
    return type(value) is float


def _shown(value: Any) -> str:
    return repr(value)[:_LONGEST]


def _begins(data: bytes) -> bool:
    """Whether data may be the beginning of a header: else it is not ours to cut."""
    start = json.dumps(_KIND)[:-1].encode()
    return data.startswith(start) or start.startswith(data)
