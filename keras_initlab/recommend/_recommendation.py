"""What `recommend` returns: rows, a table, JSON, and `apply`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from .._core.errors import message
from .._core.reports import Report
from .._keras.batch import read_batch
from .._keras.unchanged import unchanged
from .._weights.writing import Applied, check_structure, structure
from ..inspection import Inspection
from ._apply import apply_rows
from ._calibrated import thinned
from ._choice import Choice
from ._comparison import PolicyComparison
from ._report import render
from ._row import Row, make_row
from ._synthetic import synthetic_inputs
from ._verify import Verification, verified


class Recommendation(Report[Row]):
    """Which initializer each kernel of a model should have, and why.

    A sequence of `Row`s in the order of the model; printing it shows a table.

    Attributes:
        policy: the policy that decided.
        issues: names of what is unusual about the model.
        advice: sentences on what to do about it.
        model_name: the model's name.
        inspection: what was found of the model's structure, which the rows rest on.

    Example:
        >>> layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(3)]
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
        measured_on: Any = None,
        input_std: float = 1.0,
    ):
        self._model = model
        self._batch = batch
        self._measured_on, self._input_std = measured_on, input_std
        self._structure = structure(model)
        self._records = tuple(
            make_row(kernel, choice)
            for kernel, choice in zip(inspection.kernels, choices, strict=True)
        )
        self.policy = policy
        self.issues = tuple(issues)
        self.advice = tuple(advice)
        self.model_name = inspection.model_name
        self.inspection = inspection

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
        variables stay. Each kernel is drawn and written before the next, so that the
        new values are never all held at once; if one fails, all have their former ones.

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

    def verify(self, x: Any = None) -> Verification:
        """Runs the model as it is and sets what its kernels give beside what is meant.

        The model is only looked at. Dropout does nothing, and batch normalization goes
        by the batch.

        Args:
            x: inputs to run on, as `recommend` takes `data`. None for the data that
                `recommend` was given, or else for synthetic ones made to what the model
                takes: normal numbers where it reads a signal, numbers of rows where it
                looks these up.

        Returns:
            A `Verification`: a table with a row for each kernel that is drawn, with
            `.path`, `.meant` and `.measured`, and `.missed`, the rows that are off.

        Raises:
            TypeError: if `x` holds anything else than arrays of numbers.
            ValueError: for inputs that are empty, not finite or not of the model's
                shapes, or if the model does not run on synthetic ones.
            StructureChangedError: if the model is no longer the one looked at.

        Example:
            >>> layers = [keras.layers.Dense(128, "relu") for _ in range(10)]
            >>> model = keras.Sequential([keras.Input((128,)), *layers])
            >>> advice = keras_initlab.recommend(model)
            >>> advice.verify()[-1].ratio < 0.1  # before `apply`
            True
            >>> _ = advice.apply(seed=0)
            >>> round(advice.verify()[-1].ratio, 1)
            1.0
        """
        check_structure(self._model, self._structure)
        with unchanged(self._model):
            if x is not None:
                batch = thinned(read_batch(self._model, x, "x"))
            else:
                batch = self._measured_on
            if batch is not None:
                return verified(self._model, self._records, batch, "data")
            taken = self._model, self.inspection, self._input_std
            for inputs in synthetic_inputs(*taken):
                with contextlib.suppress(Exception):  # of another size it may run
                    on = "synthetic inputs"
                    return verified(self._model, self._records, inputs, on)
        raise ValueError(
            message(
                "`x` must be given where a model does not run on synthetic inputs.",
                f"x=None for {self.model_name!r}",
                "Hand over a batch of its inputs.",
            )
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
            [False, False]
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
