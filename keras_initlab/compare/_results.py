"""Finished runs in a file, so that a comparison goes on where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .._errors import message
from .._files import append_whole, checked_file

_KIND = {"keras_initlab": "compare", "version": 1}


class ResultsFile:
    """JSON lines: what is compared, then a line a run.

    A line is handed to the operating system whole and at once. A last line that was
    not ended is dropped. NaN and infinity are written as Python's `json` reads them.

    Args:
        path: the file; it is made if it is not there.
        settings: what all runs have in common.
        described: what each initializer is, by label.

    Raises:
        ValueError: if the folder does not exist, or the file holds something else.

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
        header, *lines = self._read() or [None]
        if header is None:
            self._write({**_KIND, **settings})
        else:
            self._check(header, settings)
        for line in lines:
            self._take(line)

    def add(self, label: str, seed: int, outcome: Mapping[str, Any]) -> None:
        """Writes the line of a run."""
        about = {"label": label, "initializer": self._described[label], "seed": seed}
        self._write({**about, **outcome})

    def _write(self, line: Mapping[str, Any]) -> None:
        append_whole(self.path, (json.dumps(line) + "\n").encode())

    def _read(self) -> list[Any]:
        """The lines of the file, from which one that was not ended is taken off."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ValueError(self._other("a line that is no JSON")) from error
        if not whole and data and not _begins(data):
            raise ValueError(self._other("a line that is no JSON"))
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        return lines

    def _check(self, header: Any, settings: Mapping[str, Any]) -> None:
        if not isinstance(header, dict) or not _KIND.items() <= header.items():
            raise ValueError(self._other("something else in its first line"))
        apart = [
            f"{name}={header.get(name)!r}, not {value!r}"
            for name, value in settings.items()
            if header.get(name) != value
        ]
        if apart:
            raise ValueError(self._other(", ".join(apart)))

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

    def _other(self, received: str) -> str:
        return message(
            "`results` must be a file of this comparison, or a new one.",
            f"results={str(self.path)!r} with {received}",
            "Name another file, or delete this one.",
        )


def _begins(data: bytes) -> bool:
    """Whether data may be the beginning of a header: else it is not ours to cut."""
    start = json.dumps(_KIND)[:-1].encode()
    return data.startswith(start) or start.startswith(data)
