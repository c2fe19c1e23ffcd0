"""`audit`: what is wrong with the weights of a saved model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..diagnosis import audit
from ._command import Command
from ._loading import load


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a .keras file; it is not changed")
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else")


def _run(options: argparse.Namespace) -> Any:
    found = audit(load(options.model, with_optimizer=True))
    return found.to_json() if options.json else found


AUDIT = Command(
    "audit",
    "Show what is wrong with the weights of a saved model as they are.",
    _add_arguments,
    _run,
)
