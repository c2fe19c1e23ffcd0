"""What `recommend` returns: rows, a table, JSON, and `apply`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from .._core.errors import message
from .._core.reports import Report
from .._weights.writing import Applied, check_structure, structure
from ..inspection import Inspection
from ._apply import apply_rows
from ._choice import Choice
from ._comparison import PolicyComparison
from ._report import render
from ._row import Row, make_row


class Recommendation(Report[Row]):
    """Which initializer each kernel of a model should have, and why.

    A sequence of `Row`s in the order of the model; printing it shows a table.

    Attributes:
        policy: the policy that decided.
        issues: names of what is unusual about the model.
        advice: sentences on what to do about it.
        model_name: the model's name.

    Example:
        >>> layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8,)), *layers])
        >>> advice = keras_initlab.recommend(model)
        >>> [(row.role, type(row.initializer).__name__) for row in advice]
        [('hidden', 'LecunNormal'), ('output', 'HeNormal')]
        >>> advice.apply(seed=0, dry_run=True).is_dry_run
        True
    """

    def __init__(
        self,
        model: keras.Model,
        inspection: Inspection,
        choices: Sequence[Choice],
        policy: str,
        issues: Sequence[str],
        advice: Sequence[str],
        batch: Any = None,
    ):
        self._model = model
        self._batch = batch
        self._structure = structure(model)
        self._records = tuple(
            make_row(kernel, choice)
            for kernel, choice in zip(inspection.kernels, choices, strict=True)
        )
        self.policy = policy
        self.issues = tuple(issues)
        self.advice = tuple(advice)
        self.model_name = inspection.model_name

    def apply(
        self,
        seed: int | None = None,
        only: Sequence[Any] | Callable[[Row], bool] | None = None,
        overwrite: bool = False,
        reset_optimizer: bool = False,
        dry_run: bool = False,
    ) -> Applied:
        """Writes fresh weights into the model, in place.

        Every recommended kernel is drawn from a seed of its own, derived from `seed`
        and the kernel's position in the model, and its layer's bias is drawn anew by
        the layer's own initializer (or set to center the activation, where the row
        says so). A batch normalization that has seen no data expects the variance that
        its kernel gives. Compile state, optimizer, frozen layers and all other
        variables stay. All values are computed first: if one fails, nothing has
        changed.

        With the policy `"calibrated"` the model then runs once on the data, and each
        kernel is scaled to the std that its row names, those before it scaled
        already; batch normalization goes by the batch, dropout does nothing.

        Args:
            seed: a non-negative int for repeatable weights; None for fresh ones.
            only: paths of kernels or layers, or layers themselves; or a function
                `row -> bool`; None for all.
            overwrite: also overwrite weights that look trained.
            reset_optimizer: also set the optimizer's slots and step count back.
            dry_run: check and draw everything, and write nothing. With the `seed` that
                the result names, the same call without it writes just these values.

        Returns:
            An `Applied`, which lists what changed (or would) and can undo it. With the
            policy `"calibrated"` it is also a table of the measured stds.

        Raises:
            TrainedWeightsError: if the model looks trained and `overwrite` is False.
            StructureChangedError: if the model is no longer the one looked at.
            ValueError: for a bad seed, or an `only` that names nothing.
        """
        check_structure(self._model, self._structure)
        return apply_rows(
            self._model,
            self._records,
            seed,
            only,
            overwrite,
            reset_optimizer,
            dry_run,
            self._batch,
        )

    def compare(self, other: Recommendation) -> PolicyComparison:
        """Sets another recommendation for the same model beside this one.

        Args:
            other: what another policy, or the same with other arguments, recommends.

        Returns:
            A `PolicyComparison`: print it, iterate over its rows. Each names both
            initializers and, where they differ, why.

        Raises:
            ValueError: if `other` is no recommendation for the same kernels.

        Example:
            >>> layers = [keras.layers.Dense(64, "relu", name=f"d{i}") for i in (1, 2)]
            >>> model = keras.Sequential([keras.Input((32,)), *layers])
            >>> advice = keras_initlab.recommend(model)
            >>> compared = advice.compare(keras_initlab.recommend(model, "rules"))
            >>> [difference.is_alike for difference in compared]
            [False, True]
            >>> compared[0].why.partition(":")[0]
            'reads the input of mean square 1'
        """
        if not isinstance(other, Recommendation):
            raise ValueError(
                message(
                    "`other` must be what `recommend` returned for the same model.",
                    f"other={other!r}",
                )
            )
        return PolicyComparison(self, other)

    def _values(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "policy": self.policy,
            "issues": self.issues,
            "advice": self.advice,
            "kernels": self._records,
        }

    def __rich__(self) -> Any:
        return render(self._title(), self._records, self.issues, self.advice)

    def _title(self) -> str:
        return f"{self.model_name}: {len(self)} kernels, policy {self.policy!r}"
