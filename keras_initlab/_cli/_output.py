"""What is shown, where no text from a file can steer the terminal."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from .._core.reports import as_text, printable

_LAYOUT = "\n\t"


@contextlib.contextmanager
def harmless_output() -> Iterator[TextIO]:
    """Makes harmless what is written to the standard and the error output inside.

    Names in a file come out by many ways: in reports, in errors of ours and of Keras's,
    in warnings, in tracebacks.

    Yields:
        The standard output itself, for what is to be colored.
    """
    terminal = sys.stdout
    output: Any = _Harmless(sys.stdout)
    errors: Any = _Harmless(sys.stderr)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        yield terminal


def show(shown: object, terminal: TextIO) -> None:
    """Writes text, or anything that rich prints, to the standard output."""
    if not isinstance(shown, str) and terminal.isatty():
        Console(file=terminal).print(_Unsteered(shown))
    else:
        text = shown if isinstance(shown, str) else as_text(shown)
        sys.stdout.write(f"{text}\n")


class _Harmless:
    """A stream of text that shows control characters instead of sending them."""

    def __init__(self, stream: TextIO):
        if isinstance(stream, io.TextIOWrapper):  # "→" is not in every code page
            stream.reconfigure(errors="replace")
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_harmless(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Unsteered:
    """What rich prints, whose text holds no control characters."""

    def __init__(self, shown: Any):
        self._shown = shown

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Segment]:
        for text, style, control in console.render(self._shown, options):
            yield Segment(_harmless(text), style, control)


def _harmless(text: str) -> str:
    return "".join(c if c in _LAYOUT else printable(c) for c in text)
