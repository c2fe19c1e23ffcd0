"""`recommend`: which initializer each kernel of a saved model should have."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import keras
from rich.console import Group
from rich.text import Text

from .._core.errors import message
from ..recommend import recommend
from ._command import Command, UsageError
from ._loading import check_free, load, save

_POLICIES = ("both", "rules", "signal")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a .keras file; it is not changed")
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else")
    parser.add_argument(
        "--policy",
        choices=_POLICIES,
        default="signal",
        help="signal (the default): what keeps the signal alive; rules: the textbook's "
        "table; both: side by side, and why they differ",
    )
    parser.add_argument(
        "--input-std",
        type=_positive,
        default=1.0,
        metavar="X",
        help="root mean square of the model's inputs, 1 if they are standardized",
    )
    parser.add_argument(
        "--apply",
        type=Path,
        metavar="OUT.keras",
        help="also draw the recommended weights and save the model there",
    )
    parser.add_argument(
        "--seed", type=_seed, metavar="N", help="for --apply: repeatable weights"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="for --apply: also draw anew weights that look trained",
    )


def _run(options: argparse.Namespace) -> Any:
    _check_together(options)
    model = load(options.model, with_optimizer=options.apply is not None)
    shown = _advice(model, options)
    if options.apply is None:
        return shown.to_json() if options.json else shown
    applied = shown.apply(seed=options.seed, overwrite=options.overwrite)
    save(model, options.apply)
    if options.json:
        return shown.to_json()
    count = len(applied.changed)
    line = f"{options.apply}: {count} variables drawn with seed {applied.seed}"
    return Group(shown, Text(line))


def _advice(model: keras.Model, options: argparse.Namespace) -> Any:
    if options.policy != "both":
        return recommend(model, options.policy, options.input_std)
    signal = recommend(model, "signal", options.input_std)
    return signal.compare(recommend(model, "rules", options.input_std))


def _check_together(options: argparse.Namespace) -> None:
    if options.apply is not None:
        check_free(options.apply)
        if options.policy == "both":
            raise UsageError(
                message(
                    "`--apply` must follow one policy.",
                    "--policy both",
                    "Name `signal` or `rules`.",
                )
            )
        return
    for name in ("seed", "overwrite"):
        if getattr(options, name) not in (None, False):
            raise UsageError(message(f"`--{name}` needs `--apply`.", f"--{name} alone"))


def _positive(text: str) -> float:
    value = _number(text, float)
    if value is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a positive, finite number. Received: {text!r}."
        )
    return value


def _seed(text: str) -> int:
    value = _number(text, int)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 0. Received: {text!r}."
        )
    return value


def _number(text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        return None


RECOMMEND = Command(
    "recommend",
    "Show which initializer each kernel of a saved model should have, and why.",
    _add_arguments,
    _run,
)
