"""Parsing, running a command, and telling what went wrong in one line."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence

from rich.console import Console

from .._errors import (
    NoKernelsError,
    StructureChangedError,
    TrainedWeightsError,
    UnbuiltModelError,
    UnsupportedModelError,
)
from .._reports import as_text
from ._command import UsageError
from ._commands import COMMANDS

# What the user can mend. Anything else is our fault, and wants its traceback.
_EXPECTED = (
    NoKernelsError,
    StructureChangedError,
    TrainedWeightsError,
    UnbuiltModelError,
    UnsupportedModelError,
    UsageError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    What a command shows goes to the standard output, everything else, as what Keras
    says while it loads a model, to the error output.

    Args:
        arguments: those of the command line; None for the process's own.

    Returns:
        The exit code: 0, or 2 for arguments or a model that cannot be used.
    """
    options = _parser().parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            shown = options.run(options)
    except _EXPECTED as error:
        print_error(f"keras_initlab {options.command}: {_one_line(error)}")
        return 2
    _show(shown)
    return 0


def print_error(line: str) -> None:
    """Writes a line to the error output."""
    sys.stderr.write(f"{line}\n")


def _show(shown: object) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # "→" is not in every code page
        sys.stdout.reconfigure(errors="replace")
    if isinstance(shown, str):
        sys.stdout.write(f"{shown}\n")
    elif sys.stdout.isatty():
        Console().print(shown)
    else:
        sys.stdout.write(f"{as_text(shown)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_initlab",
        description="Weight initialization for Keras 3. The backend is Keras's own "
        "(KERAS_BACKEND).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        own = commands.add_parser(
            command.name, help=command.summary, description=command.summary
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
