"""What `probe` returns: records, a table, JSON, a picture, a diagnosis."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from .._core.errors import message
from .._core.reports import Report, as_text
from ..diagnosis import Finding, sentences
from ._layers import LayerSignal
from ._table import render


class SignalReport(Report[LayerSignal]):
    """The signal through a model and its gradient: a sequence of layers.

    Printing it shows the table. Layers are in the order in which they ran, those that
    did not run last.

    Attributes:
        model_name: the model's name.
        findings: what is wrong, as a `Finding` each.
        loss: the value of the loss.
        loss_name: `"compiled"`, `"synthetic"` or what was given.
        is_synthetic: whether the loss is synthetic.
        training: the mode in which the model ran.
        examples: how many examples it ran on.
        trained: what shows that the optimizer has trained the model, else None; the
            std of weights is then no longer that of their initializer.

    Example:
        >>> hidden = keras.layers.Dense(3, "relu")
        >>> model = keras.Sequential([keras.Input((4,)), hidden])
        >>> report = keras_initlab.probe(model, np.ones((8, 4), "float32"))
        >>> [(layer.kind, layer.units) for layer in report], report.loss_name
        ([('Dense', 3)], 'synthetic')
    """

    def __init__(
        self,
        model_name: str,
        layers: Sequence[LayerSignal],
        findings: Sequence[Finding],
        loss: float,
        loss_name: str,
        is_synthetic: bool,
        training: bool,
        examples: int,
        trained: str | None,
    ):
        self._records = tuple(layers)
        self.model_name = model_name
        self.findings = tuple(findings)
        self.loss = loss
        self.loss_name = loss_name
        self.is_synthetic = is_synthetic
        self.training = training
        self.examples = examples
        self.trained = trained

    @property
    def diagnosis(self) -> tuple[str, ...]:
        """What is wrong, a sentence or two for each kind; empty if nothing is."""
        return tuple(sentences(self.findings))

    @property
    def symptoms(self) -> tuple[Finding, ...]:
        """The findings, as they were called."""
        warnings.warn(
            message(
                "`SignalReport.symptoms` goes with the next release.",
                "an access to .symptoms",
                "It is called `.findings` now.",
            ),
            DeprecationWarning,
            stacklevel=2,
        )
        return self.findings

    @property
    def gradient_norm(self) -> float:
        """The global norm √Σ‖g‖² of the gradient by all weights that are trained."""
        norms = [one.weight_gradient_norm or 0.0 for one in self]
        return math.hypot(*norms)

    def table(self, width: int | None = None) -> str:
        """Returns the table as text.

        Args:
            width: columns, 80 to 120; None for the terminal's.
        """
        return as_text(self, width)

    def plot(self, title: str = "") -> Any:
        """Draws the report; see `keras_initlab.plots.signal_report`.

        Args:
            title: title of the figure; the model's name if empty.

        Returns:
            A matplotlib Figure.
        """
        from ..plots import signal_report

        return signal_report(self, title)

    def _values(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "loss": self.loss,
            "loss_name": self.loss_name,
            "training": self.training,
            "examples": self.examples,
            "trained": self.trained,
            "gradient_norm": self.gradient_norm,
            "findings": self.findings,
            "layers": self._records,
        }

    def __rich__(self) -> Any:
        return render(self._title(), self._records, self.diagnosis)

    def _title(self) -> str:
        mode = "training" if self.training else "inference"
        return (
            f"{self.model_name}: {self.examples} examples in {mode} mode, "
            f"{self.loss_name} loss {self.loss:.4g}, gradient norm "
            f"{self.gradient_norm:.4g}"
        )
