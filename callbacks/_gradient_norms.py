"""Gradient norms while a model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initlab._core.errors import check_flag, message
from keras_initlab._keras.private import own_trainable
from keras_initlab.diagnosis import NOT_FINITE, Finding, Observation, Rules
from keras_initlab.inspection import layer_paths, variable_paths
from keras_initlab.observing import Measured, Recipe, total

from ._logs import Log
from ._norm_table import NormTable
from ._observing import NothingToWatchError, ObservingCallback
from ._phases import joined
from ._schedule import Schedule
from ._watchable import can_break, select, visible_operations


class GradientNormLogger(ObservingCallback):
    """Logs the L2 norm of the gradients that train the model, layer by layer.

    The gradients are the very ones that the optimizer receives, taken inside the train
    step; there is no second backward pass. Norms are of the unscaled gradient, before
    accumulation and clipping; on several replicas, of the gradient of the whole batch.
    A variable that the loss does not depend on has norm 0; one whose gradient does not
    reach an optimizer within reach has norm NaN.

    Keras's logs get `grad_norm`, the global norm's mean over the epoch's observed
    steps, so History, EarlyStopping and others see it. Logs given in `log_to` get, per
    observed step, `grad_norm` and `grad_norm/<layer path>`. With `clipped` both get
    `clipped_grad_norm` beside it, with `updates` also `update_ratio`.

    Alerts name the layer when a loss or gradient is not finite, when gradients vanish
    or explode with depth, when a norm leaps, when a layer gets no gradient, and, with
    `updates`, when a step changes a layer by more than a tenth.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to log; None for all. The global
            norm is always of the whole model.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1, 2 or "auto" for a line an epoch, 0 for none.
        alerts: True to print what goes wrong, in few lines, to the error output; False
            for silence; or a function that receives each line, as `logging.warning`.
        clipped: whether to take the norms once more after the optimizer's clipping. NaN
            with gradient accumulation, where the mean of several steps is clipped.
        updates: whether to take the update-to-weight ratio ‖Δw‖/‖w‖ of every layer,
            around 1e-3 in healthy training. It reads all weights twice.

    Attributes:
        history: a dict, filled while training. `"step"`, `"epoch"`, `"global_norm"`:
            arrays `(observations,)`; steps count from 0 over a fit, and on from the
            last one where `initial_epoch` continues it. `"layers"`: `{layer path:
            array (observations,)}`. `"variables"`: `{variable path: array
            (observations,)}`, in the order of `model.trainable_variables`. With
            `clipped` also `"clipped_global_norm"`, `"clipped_layers"` and
            `"clipped_variables"`; with `updates` also `"update_ratio"`, of the whole
            model, and `"update_ratios"`, by layer path; NaN for weights that are 0. If
            layers are frozen, thawed or added between two fits of the model, rows of
            both are kept, with NaN for what did not train.
        first_nonfinite: None, or the first finding of a number that is not finite, an
            `Finding` with path and step: the first layer whose output was not, or, if
            all outputs were finite, the last one whose gradient was not.
        alerts: everything that the rules have found.

    Raises:
        ValueError: for an argument out of range, or layers that the model lacks.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> norms = GradientNormLogger(every=1)
        >>> x, y = np.ones((8, 4)), np.zeros((8, 1))
        >>> _ = model.fit(x, y, batch_size=4, verbose=0, callbacks=[norms])
        >>> norms.history["global_norm"].shape
        (2,)

    References:
        Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent
        neural networks", 1211.5063, sections 2 and 3, for vanishing, exploding and
        clipping.
    """

    _index, _picture = "step", "gradient_norms"

    def __init__(
        self,
        every: int | Schedule = 10,
        layers: Sequence[Any] | None = None,
        log_to: Log | Iterable[Log] = (),
        verbose: int | str = 0,
        alerts: bool | Callable[[str], Any] = True,
        clipped: bool = False,
        updates: bool = False,
    ):
        self.clipped = check_flag("clipped", clipped)
        self.updates = check_flag("updates", updates)
        super().__init__(every, layers, log_to, verbose, alerts)

    def reset(self) -> None:
        """Drops the history."""
        self._steps: list[int] = []
        self._epochs: list[int] = []
        self._phases: list[NormTable] = []  # one after the other trained these
        self._kernels: set[str] = set()
        self._named: tuple[int, ...] = ()
        self._paths: dict[int, str] = {}
        self._epoch_start = 0
        self._rules = Rules()
        self.first_nonfinite: Finding | None = None

    def _unbound(self) -> dict[str, Any]:
        return {**super()._unbound(), "_paths": {}, "_named": ()}

    def prepare(self, model: Any) -> Recipe:
        """Asks for the gradients, and for what tells where a number stops being one."""
        if model.built and not model.trainable_variables:
            raise NothingToWatchError(_nothing(model))
        if model.built:  # else the first step builds it
            self._name(model, model.trainable_variables)
        return self._recipe(model)

    def _recipe(self, model: Any) -> Recipe:
        seen = [
            (path, one) for path, one in visible_operations(model) if can_break(one)
        ]
        self._paths = {id(operation): path for path, operation in seen}
        return Recipe(
            gradients=True,
            clipped=self.clipped,
            updates=self.updates,
            reductions=tuple(total(operation) for _, operation in seen),
        )

    def _name(self, model: Any, variables: Sequence[Any]) -> None:
        """Finds the paths of the variables and of the layers that own them."""
        found = _owners(model, variables)
        chosen = select(
            model,
            {path: layer for path, (layer, _) in found.items()},
            self.layers,
            "layers with trainable variables",
            [layer for _, layer in layer_paths(model) if own_trainable(layer)],
        )
        owner = {path: found[path][1] for path in chosen}
        paths = variable_paths(model, variables)
        table = NormTable(paths, owner, self.clipped, self.updates)
        if not (self._phases and self._phases[-1].is_like(table)):
            self._phases.append(table)
            self._rules = Rules()  # what was usual is so no more
        self._named = tuple(map(id, variables))
        self._kernels = {
            path
            for path, own in owner.items()
            if any(len(variables[i].shape) > 1 for i in own)
        }

    def begin_epoch(self, epoch: int) -> None:
        """Notes where the epoch's observations begin."""
        super().begin_epoch(epoch)
        self._epoch_start = len(self._steps)

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Keeps, judges and logs the norms of a step."""
        if self._named != tuple(map(id, measured.variables)):
            self._recipe(self._seen_model)
            self._name(self._seen_model, measured.variables)
        self._steps.append(step)
        self._epochs.append(epoch)
        self._phases[-1].add(_norms_of(measured))
        columns = self._phases[-1].columns(-1)
        row = {name: float(column[0]) for name, column in columns.items()}
        self._judge(step, measured, row)
        self.log(row, step)

    def _judge(self, step: int, measured: Measured, row: dict[str, float]) -> None:
        for alert in self._rules.judge(self._observation(step, measured, row)):
            is_urgent = alert.kind == NOT_FINITE
            if is_urgent and self.first_nonfinite is None:
                self.first_nonfinite = alert
            self.alert(alert, is_urgent)

    def _observation(
        self, step: int, measured: Measured, row: dict[str, float]
    ) -> Observation:
        reached = {  # NaN stands for the others
            path: own
            for path, own in self._phases[-1].owner.items()
            if all(measured.reached[i] for i in own)
        }
        return Observation(
            step,
            norms={path: row[f"grad_norm/{path}"] for path in reached},
            totals={
                self._paths[id(reduction.operation)]: figure
                for reduction, figure in measured.figures.items()
                if reduction.name == "total"
            },
            kernels=self._kernels,
            ratios={
                path: row[f"update_ratio/{path}"]
                for path in self._phases[-1].owner
                if self.updates
            },
            is_scaled=isinstance(
                self._seen_model.optimizer, keras.optimizers.LossScaleOptimizer
            ),
        )

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the mean norms of the epoch."""
        if self._epoch_start == len(self._steps):
            return {}, ""
        columns = self._columns_from(self._epoch_start)
        means = {name: float(np.mean(column)) for name, column in columns.items()}
        line = f"epoch {epoch + 1}: gradient norm {means['grad_norm']:.3g}"
        layers = {path: means[f"grad_norm/{path}"] for path in self._phases[-1].owner}
        if layers:
            low = min(layers, key=layers.__getitem__)
            high = max(layers, key=layers.__getitem__)
            line += f", from {layers[low]:.3g} ({low}) to {layers[high]:.3g} ({high})"
        return {k: mean for k, mean in means.items() if "/" not in k}, line

    @property
    def history(self) -> dict[str, Any]:
        """The norms as arrays; see the class."""
        columns = self._columns()
        found: dict[str, Any] = {key: columns[key] for key in ("step", "epoch")}
        kinds = {"": "gradient_norms"}
        if self.clipped:
            kinds["clipped_"] = "clipped_norms"
        for prefix, kind in kinds.items():
            norms = [(len(one), one.of_variables(kind)) for one in self._phases]
            found |= {
                f"{prefix}global_norm": columns[f"{prefix}grad_norm"],
                f"{prefix}layers": _of_layers(columns, f"{prefix}grad_norm"),
                f"{prefix}variables": joined(norms),
            }
        if self.updates:
            found["update_ratio"] = columns["update_ratio"]
            found["update_ratios"] = _of_layers(columns, "update_ratio")
        return found

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "step": np.array(self._steps, dtype="int64"),
            "epoch": np.array(self._epochs, dtype="int64"),
            **self._columns_from(0),
        }

    def _columns_from(self, start: int) -> dict[str, np.ndarray]:
        """What is logged of the observations from one on."""
        phases = self._phases or [NormTable([], {}, self.clipped, self.updates)]
        parts = []
        for one in phases:
            first = min(start, len(one))
            start -= first
            if first < len(one) or one is phases[-1]:
                parts.append((len(one) - first, one.columns(first)))
        return joined(parts)


def _of_layers(columns: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The columns of one kind by layer path."""
    start = f"{name}/"
    each = columns.items()
    return {key.removeprefix(start): c for key, c in each if key.startswith(start)}


def _nothing(model: Any) -> str:
    return message(
        "`GradientNormLogger` needs a model with weights that train.",
        f"model={model.name!r} without any",
        "Leave the callback out, or set `trainable` and compile the model again.",
    )


def _norms_of(measured: Measured) -> dict[str, np.ndarray]:
    """The norms that were measured, by kind."""
    kinds = ("gradient_norms", "clipped_norms", "weight_norms", "update_norms")
    found = {kind: getattr(measured, kind) for kind in kinds}
    return {kind: norms for kind, norms in found.items() if norms is not None}


def _owners(model: Any, variables: Sequence[Any]) -> dict[str, tuple[Any, list[int]]]:
    """`{path: (layer, indices of its own variables)}` for layers that have any."""
    index_of = {id(variable): i for i, variable in enumerate(variables)}
    found: dict[str, tuple[Any, list[int]]] = {}
    for path, layer in [*layer_paths(model), (model.name, model)]:
        own = [index_of[id(v)] for v in own_trainable(layer) if id(v) in index_of]
        if own:
            found[path] = (layer, own)
    return found
