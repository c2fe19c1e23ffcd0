"""What `recommend` returns: rows, a table, JSON, and `apply`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from .._fans import Fans
from ..inspection import Inspection, KernelRecord
from ._apply import Applied, apply_rows
from ._choice import Choice
from ._report import initializer_label, render


@dataclass(frozen=True)
class Row:
    """The recommendation for one kernel.

    Attributes:
        path: the kernel's path, unique in the model.
        role: `hidden`, `output`, `residual branch`, `recurrent`, `embedding`, ….
        initializer: a Keras initializer, ready for `kernel_initializer=`; None for a
            frozen kernel, which stays as it is.
        reason: why, in one sentence.
        reference: the paper and equation it rests on.
        confidence: in [0, 1]: 0.95 for a construction that is exact for this
            surrounding, 0.8 where the mean-field variance decides, 0.6 where pooling,
            products or unknown layers make its input an estimate. The rule table has
            its own scale.
        alternatives: names of initializers that come next.
        forward_gain: expected std of the pre-activation relative to the one before
            (to the input's for the first kernel), None where theory has no answer.
        backward_gain: the same for gradients, from this pre-activation to the one
            before.
        activation: name of the activation that the output really meets.
        shape: the kernel's shape.
        fans: its true fans.
        depth: number of kernels on the longest way from an input, itself included.
    """

    path: str
    role: str
    initializer: Any
    reason: str
    reference: str
    confidence: float
    alternatives: tuple[str, ...]
    forward_gain: float | None
    backward_gain: float | None
    activation: str
    shape: tuple[int, ...]
    fans: Fans
    depth: int
    kernel: KernelRecord = field(repr=False, compare=False)
    centered_mean: float | None = field(repr=False, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain values, numbers rounded to four digits."""
        return {
            "path": self.path,
            "role": self.role,
            "initializer": None
            if self.initializer is None
            else {
                "name": initializer_label(self.initializer),
                "class_name": type(self.initializer).__name__,
                "config": _rounded(self.initializer.get_config()),
            },
            "reason": self.reason,
            "reference": self.reference,
            "confidence": round(self.confidence, 4),
            "alternatives": list(self.alternatives),
            "forward_gain": _four_digits(self.forward_gain),
            "backward_gain": _four_digits(self.backward_gain),
            "centered_mean": _four_digits(self.centered_mean),
            "activation": self.activation,
            "shape": list(self.shape),
            "fan_in": self.fans.fan_in,
            "fan_out": self.fans.fan_out,
            "depth": self.depth,
        }


class Recommendation(Sequence[Row]):
    """Which initializer each kernel of a model should have, and why.

    A sequence of `Row`s in the order of the model; printing it shows a table.

    Attributes:
        policy: the policy that decided.
        issues: names of what is unusual about the model.
        advice: sentences on what to do about it.
        model_name: the model's name.
    """

    def __init__(
        self,
        model: keras.Model,
        inspection: Inspection,
        choices: Sequence[Choice],
        policy: str,
        issues: Sequence[str],
        advice: Sequence[str],
    ):
        self._model = model
        self._rows = tuple(
            _row(kernel, choice)
            for kernel, choice in zip(inspection.kernels, choices, strict=True)
        )
        self.policy = policy
        self.issues = tuple(issues)
        self.advice = tuple(advice)
        self.model_name = inspection.model_name

    def apply(
        self,
        seed: int | None = None,
        only: Sequence[str] | Callable[[Row], bool] | None = None,
        overwrite: bool = False,
        reset_optimizer: bool = False,
    ) -> Applied:
        """Writes fresh weights into the model, in place.

        Every recommended kernel is drawn from a seed of its own, derived from `seed`
        and the kernel's position in the model, and its layer's bias is drawn anew by
        the layer's own initializer (or set to center the activation, where the row
        says so). Compile state, optimizer, frozen layers and all other variables
        stay. All values are computed first: if one fails, nothing has changed.

        Args:
            seed: a non-negative int for repeatable weights; None for fresh ones.
            only: paths of kernels or layers, or a function `row -> bool`; None for
                all.
            overwrite: also overwrite weights that look trained.
            reset_optimizer: also set the optimizer's slots and step count back.

        Returns:
            An `Applied`, which lists what changed and can undo it.

        Raises:
            TrainedWeightsError: if the model looks trained and `overwrite` is False.
            StructureChangedError: if the model is no longer the one looked at.
            ValueError: for a bad seed, or an `only` that names nothing.
        """
        return apply_rows(
            self._model, self._rows, seed, only, overwrite, reset_optimizer
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, numbers rounded to four digits."""
        return {
            "model": self.model_name,
            "policy": self.policy,
            "issues": list(self.issues),
            "advice": list(self.advice),
            "kernels": [row.to_dict() for row in self._rows],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __rich__(self) -> Any:
        return render(self)

    def __repr__(self) -> str:
        from ._report import as_text

        return as_text(self)


def _row(kernel: KernelRecord, choice: Choice) -> Row:
    return Row(
        path=kernel.path,
        role=kernel.role,
        initializer=choice.initializer,
        reason=choice.reason,
        reference=choice.reference,
        confidence=choice.confidence,
        alternatives=choice.alternatives,
        forward_gain=choice.forward_gain,
        backward_gain=choice.backward_gain,
        activation=kernel.activation_name,
        shape=kernel.shape,
        fans=kernel.fans,
        depth=kernel.depth,
        kernel=kernel,
        centered_mean=choice.centered_mean,
    )


def _four_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _rounded(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _rounded(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_rounded(value) for value in config]
    return _four_digits(config) if isinstance(config, float) else config
