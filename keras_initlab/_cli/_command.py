"""What a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


class UsageError(ValueError):
    """Arguments or a file that a command cannot work with."""


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: how it is called.
        summary: what it does, in one line.
        add_arguments: adds its arguments to its parser.
        run: does it. Returns what is to be shown: text, or anything that rich prints.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], object]
