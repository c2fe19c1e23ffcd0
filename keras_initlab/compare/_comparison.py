"""What `compare` returns: runs, scores, a table, a sentence, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .. import plots
from .._core.errors import check_choice
from .._core.pandas import load_pandas
from .._core.reports import Report, as_text
from ._ranking import Score, metrics_of, ranked
from ._run import Run
from ._table import table
from ._words import fastest, verdict

_WIDTH = 80


class Comparison(Report[Run]):
    """How one network trained from several initializers: a sequence of runs.

    Printing it shows a table, the best first, and says whether the best is really ahead
    of the next. All figures are means over seeds with standard errors:

    - final and best accuracy on the test set in percent, taken after each epoch;
    - stability, 1 / (variance of the last 50 test accuracies + 1e-8);
    - convergence, the first epoch, from 0, whose test accuracy has reached 90 % of the
      final one. A network that never learns is there at once: read it beside the
      accuracy;
    - seconds of training.

    A model without an accuracy is ranked by its test loss. Its stability is that of the
    loss, and its convergence the first epoch by which 90 % of the way from the first
    to the final loss is done.

    Attributes:
        labels: the initializers, in the order given.
        seeds: the seeds.
        runs: a `Run` for each of them and each seed, with its curves.
        epochs: how long each was trained.
        batch_size: in batches of how many examples.
    """

    def __init__(
        self,
        labels: Sequence[str],
        seeds: Sequence[int],
        runs: Sequence[Run],
        epochs: int,
        batch_size: int,
    ):
        self.labels = tuple(labels)
        self.seeds = tuple(seeds)
        self.runs = self._records = tuple(runs)
        self.epochs = epochs
        self.batch_size = batch_size

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `ranking` ranks by, the metric that decides first."""
        return metrics_of(self.runs)

    @property
    def failed(self) -> tuple[Run, ...]:
        """The runs that failed, each with its error."""
        return tuple(run for run in self.runs if run.error is not None)

    @property
    def best(self) -> str:
        """The label of the best by final accuracy, or by final loss without one."""
        return self.ranking()[0].label

    @property
    def fastest(self) -> str:
        """The label of the first to converge; of equal ones, the better."""
        return self.ranking("convergence_epoch")[0].label

    @property
    def verdict(self) -> str:
        """A sentence on whether the best is really ahead of the next.

        By Student's t at 95 % for the differences, paired over seeds: all initializers
        see the same batches in the same order under one seed. That the two were picked
        from several after the fact is not allowed for.
        """
        return verdict(self.labels, self.runs)

    def ranking(self, metric: str | None = None) -> list[Score]:
        """Returns the initializers' scores by one metric, the best first.

        Args:
            metric: one of `.metrics`; None for the first.

        Raises:
            ValueError: if it is none of them.
        """
        metric = check_choice("metric", metric or self.metrics[0], self.metrics)
        return ranked(self.labels, self.runs, metric)

    def table(self) -> Table:
        """Returns the table for a rich console of 80 columns or more."""
        return table(self._title(), self.labels, self.runs)

    def plot(self) -> Any:
        """Draws loss, test accuracy, gradient norm, final accuracy and convergence.

        Returns:
            A matplotlib Figure, as `keras_initlab.plots.comparison`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        return plots.comparison(self)

    def to_frame(self, curves: bool = False) -> Any:
        """Returns a pandas DataFrame: a row a run with its metrics.

        Args:
            curves: a row an epoch of every finished run instead, with its curves.

        Raises:
            ImportError: if pandas is not installed.
        """
        pd = load_pandas(instead=".runs")
        if not curves:
            return pd.DataFrame(
                {"initializer": r.label, "seed": r.seed, **r.metrics, "error": r.error}
                for r in self
            )
        finished = [run for run in self if run.error is None]
        parts = [pd.DataFrame(run.curves).rename_axis("epoch") for run in finished]
        keys = [(run.label, run.seed) for run in finished]
        return pd.concat(parts, keys=keys, names=["initializer", "seed"]).reset_index()

    def _values(self) -> dict[str, Any]:
        rankings = {
            metric: [vars(score) for score in self.ranking(metric)]
            for metric in self.metrics
        }
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "labels": list(self.labels),
            "seeds": list(self.seeds),
            "best": self.best,
            "fastest": self.fastest,
            "verdict": self.verdict,
            "rankings": rankings,
            "runs": [run.to_dict() for run in self.runs],
        }

    def _title(self) -> str:
        seeds, batch = len(self.seeds), self.batch_size
        return (
            f"{len(self.labels)} initializers, {seeds} seed{'s' if seeds > 1 else ''}, "
            f"{self.epochs} epochs in batches of {batch}"
        )

    def __rich__(self) -> Any:
        parts: list[Any] = [self.table()]
        if self.metrics[0] != "final_accuracy":
            parts.append(Text("Ranked by test loss: the model has no accuracy."))
        parts += [Text(self.verdict), Text(fastest(self.labels, self.runs))]
        parts += [
            Text(f"Failed: {run.label}, seed {run.seed}: {run.error}", style="yellow")
            for run in self.failed
        ]
        return Group(*parts)

    def __repr__(self) -> str:
        return as_text(self, _WIDTH)
