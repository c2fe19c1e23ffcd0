"""Parsing, running a command, and telling what went wrong in one line."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from .._core.errors import (
    NoKernelsError,
    StructureChangedError,
    TrainedWeightsError,
    UnbuiltModelError,
    UnsupportedModelError,
)
from ._command import UsageError
from ._commands import COMMANDS
from ._output import harmless_output, show

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
        The exit code: 0, 2 for arguments or a model that cannot be used, or 1 for a
        mistake of ours, with its traceback.
    """
    with harmless_output() as terminal:
        return _run(_parser().parse_args(arguments), terminal)


def _run(options: argparse.Namespace, terminal: TextIO) -> int:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            shown = options.run(options)
    except _EXPECTED as error:
        sys.stderr.write(f"keras_initlab {options.command}: {_one_line(error)}\n")
        return 2
    except Exception:  # here, for it may quote the file
        traceback.print_exc()
        return 1
    show(shown, terminal)
    return 0


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
