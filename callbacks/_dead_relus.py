"""Dead and saturated units while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_initlab._core.errors import check_finite, message
from keras_initlab._keras.private import sublayers
from keras_initlab.diagnosis import LOST_SHARE, Finding
from keras_initlab.inspection import activation_of
from keras_initlab.observing import Measured, Recipe

from ._logs import Log
from ._observing import NothingToWatchError, ObservingCallback
from ._schedule import Schedule
from ._unit_history import UnitHistory, Watched, watched
from ._watchable import select, visible_operations


class DeadReLULogger(ObservingCallback):
    """Logs which units never fire, layer by layer, and the life of every unit.

    A unit is dead in an epoch if its output is positive on no example (and, in a
    convolution, at no position) of the epoch's observed steps: all of them at
    `every=1`, a sample otherwise, which can only overstate. The outputs are those of
    the training steps themselves, with the weights of each step; no extra pass is run.
    Positions that a mask takes out do not count. A unit of a shared layer fires if it
    does in any of its calls; where a shared activation is given layers of different
    widths, the units of each width follow one another. Units lie on the last axis, or
    on the layer's channel axis if it has a `data_format`. A unit that is NaN is not
    dead, unless TensorFlow fused its ReLU into an operation that turns NaN into 0.

    Watched are all layers whose activation is exactly 0 for negative input (ReLU,
    ReLU6): as an `activation=`, an `Activation` or `ReLU` layer, or `keras.ops.relu`
    in a Functional model. With a `threshold` also those that only come near to a limit
    (GELU, SiLU, ELU, softplus, tanh, sigmoid and others; a unit is then dead if its
    output stays within the threshold of the activation's lower limit), and leaky ReLU
    (dead if its output is never above the threshold).

    A unit is saturated if its activation is flat on every example but not always at
    its lower limit: a ReLU6 that stays at 6, a tanh that stays near 1 or flips between
    both ends. Neither lets a gradient through.

    Layers inside recurrent ones run in a loop and are not watched. Another layer cannot
    be seen if any of its calls in a train step is inside a compiled loop, branch or
    `vmap`, on PyTorch inside a `torch.compile` of your own, or, on JAX, inside a `jit`,
    a `checkpoint` (Keras's `RematScope`) or a derivative other than `jax.grad` and
    `jax.value_and_grad`; its fraction is NaN.

    Keras's logs get `dead_relu_fraction`, the dead share of all watched units. Logs
    given in `log_to` get it once an epoch, and `dead_relu_fraction/<layer path>`; where
    a watched activation has two limits, also `saturated_fraction`, in the same way. An
    alert names layers of which more than half the units are dead or saturated, or all
    of them, where fewer than ten steps of a longer epoch were observed.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to watch; None for all.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1, 2 or "auto" for a line an epoch, 0 for none.
        alerts: True to print what goes wrong, in few lines, to the error output; False
            for silence; or a function that receives each line, as `logging.warning`.
        threshold: how near to a limit counts as flat, in (0, 0.5), such as 0.01; None
            to watch only activations that are exactly flat.

    Attributes:
        history: a dict, filled while training. `"epoch"`: array `(epochs,)`.
            `"dead_fraction"`, `"saturated_fraction"`: `{layer path: array (epochs,)}`,
            in [0, 1], NaN if not seen. `"dead_units"`, `"saturated_units"`: `{layer
            path: list of int arrays, one an epoch}`. `"sampled"`: array `(epochs,)`,
            False where every step was observed, so that the figures are exact.
            `"events"`: `{layer path: list of UnitEvent}`, the histories of the units:
            `(unit, step, kind)` with kind `"dead at start"`, `"died"` (the step after
            the last observed one in which it fired; the first of a later fit, if it
            fired in none of that) or `"revived"` (the first in which it fired again).
            A unit that dies is found when an epoch ends in which it never fired. All
            is NaN, or empty, where the model had no such layer.
        alerts: everything that the rules have found.

    Raises:
        ValueError: for an argument out of range, or layers that the model lacks.

    Example:
        >>> layers = [keras.layers.Dense(3, "relu"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> _ = model.layers[0].bias.assign([0.0, -100.0, 0.0])
        >>> model.compile("sgd", "mse")
        >>> dead = DeadReLULogger(every=1)
        >>> x, y = np.ones((8, 4)), np.zeros((8, 1))
        >>> _ = model.fit(x, y, verbose=0, callbacks=[dead])
        >>> 1 in dead.history["dead_units"][model.layers[0].path][0]
        True

    References:
        Lu et al. 2020, "Dying ReLU and initialization: theory and numerical examples",
        1903.06733, section 1, for the definition.
    """

    _index, _picture = "epoch", "dead_units"

    def __init__(
        self,
        every: int | Schedule = 10,
        layers: Sequence[Any] | None = None,
        log_to: Log | Iterable[Log] = (),
        verbose: int | str = 0,
        alerts: bool | Callable[[str], Any] = True,
        threshold: float | None = None,
    ):
        self.threshold = None if threshold is None else _checked(threshold)
        super().__init__(every, layers, log_to, verbose, alerts)

    def reset(self) -> None:
        """Drops the history."""
        self._epochs: list[int] = []
        self._sampled: list[bool] = []
        self._histories: dict[str, UnitHistory] = {}
        self._watched: dict[str, Watched] = {}
        self._last_step: int | None = None
        self._count = 0
        self._is_named = False

    def _unbound(self) -> dict[str, Any]:
        return {**super()._unbound(), "_watched": {}}

    def prepare(self, model: Any) -> Recipe:
        """Asks which units fire."""
        found = dict(watchable(model, self.threshold))
        if not found and self.layers is None:
            raise NothingToWatchError(_nothing(model, self.threshold))
        operations = {path: one.operation for path, one in found.items()}
        chosen = select(model, operations, self.layers, "layers with ReLU units")
        self._watched = {path: found[path] for path in chosen}
        self._is_named = bool(model.built)
        return Recipe(reductions=tuple(one.reduction for one in self._watched.values()))

    def begin_epoch(self, epoch: int) -> None:
        """Counts anew."""
        super().begin_epoch(epoch)
        for histories in self._histories.values():
            histories.begin_epoch()
        self._last_step, self._count = None, 0

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Notes which units fired in a step."""
        if not self._is_named:  # the step may have built the model and set paths
            self.prepare(self._seen_model)
            self._is_named = True
        self._last_step, self._count = step, self._count + 1
        for path, one in self._watched.items():
            if path not in self._histories:
                self._histories[path] = UnitHistory(len(self._epochs))
            figure = measured.figures.get(one.reduction)
            if figure is not None:
                self._histories[path].observe(step, figure > 0)

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the dead share of the epoch."""
        if self._last_step is None:
            return {}, ""
        self._epochs.append(epoch)
        assert self._training is not None
        self._sampled.append(self._count < self._training.steps_in_epoch)
        for histories in self._histories.values():  # also of layers that are no more
            histories.finish_epoch()
        metrics = self._shares("dead")
        if any(one.is_bounded for one in self._watched.values()):
            metrics |= self._shares("saturated")
        self._judge()
        self.log(metrics, self._last_step)
        return {k: v for k, v in metrics.items() if "/" not in k}, self._line(epoch)

    def _shares(self, kind: str) -> dict[str, float]:
        """The share of units of one kind, in all and by layer."""
        histories = {path: self._histories[path] for path in self._watched}
        units = sum(one.units for one in histories.values())
        count = sum(len(getattr(one, kind)[-1]) for one in histories.values())
        name = _NAMES[kind]
        each = {f"{name}/{p}": one.share(kind) for p, one in histories.items()}
        return {name: count / units if units else math.nan, **each}

    def _line(self, epoch: int) -> str:
        histories = {path: self._histories[path] for path in self._watched}
        units = sum(one.units for one in histories.values())
        dead = sum(len(one.dead[-1]) for one in histories.values())
        kind = "ReLU units" if self.threshold is None else "units"
        line = f"epoch {epoch + 1}: {dead} of {units} {kind} dead"
        if dead:
            shares = {path: one.share("dead") for path, one in histories.items()}
            worst = max(shares, key=lambda path: np.nan_to_num(shares[path]))
            line += f", most in {worst} ({shares[worst]:.0%})"
        saturated = sum(len(one.saturated[-1]) for one in histories.values())
        if saturated:
            line += f", {saturated} saturated"
        unseen = [path for path, one in histories.items() if not one.is_seen]
        if unseen:
            line += f"; {len(unseen)} not seen, such as {unseen[0]}"
        return line

    def _judge(self) -> None:
        """Notes the layers of which most units let no gradient through."""
        assert self._last_step is not None
        is_known = not self._sampled[-1] or self._count >= _STEPS_TO_KNOW
        limit = LOST_SHARE if is_known else 1.0
        for kind, cure in _CURES.items():
            for path in self._watched:
                histories = self._histories[path]
                share = histories.share(kind)
                if share > LOST_SHARE and share >= limit:
                    count = len(getattr(histories, kind)[-1])
                    text = (
                        f"has {count} of {histories.units} units {kind} ({share:.0%})"
                    )
                    found = Finding(
                        f"{kind} units",
                        path,
                        share,
                        (0.0, LOST_SHARE),
                        text,
                        cure,
                        step=self._last_step,
                    )
                    self.alert(found)

    @property
    def history(self) -> dict[str, Any]:
        """The dead units by epoch; see the class."""
        found: dict[str, Any] = {
            "epoch": np.array(self._epochs, dtype="int64"),
            "sampled": np.array(self._sampled, dtype=bool),
        }
        for kind in _NAMES:
            found[f"{kind}_fraction"] = {
                path: np.array(one.shares(kind))
                for path, one in self._histories.items()
            }
            found[f"{kind}_units"] = {
                path: list(getattr(one, kind)) for path, one in self._histories.items()
            }
        events = {path: one.events for path, one in self._histories.items()}
        return {**found, "events": events}

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"epoch": self.history["epoch"]}
        for kind, name in _NAMES.items():
            shares = {p: one.shares(kind) for p, one in self._histories.items()}
            columns |= {f"{name}/{path}": each for path, each in shares.items()}
        return columns


# A sample of fewer steps overstates: only a layer without any living unit shows.
_STEPS_TO_KNOW = 10
_NAMES = {"dead": "dead_relu_fraction", "saturated": "saturated_fraction"}
_CURES = {
    "dead": "Lower the learning rate, or start from "
    "`keras_initlab.recommend(model).apply()`; `DormantUnitRecycler` revives units.",
    "saturated": "Its input is too large: scale the data or the weights, as "
    "`keras_initlab.recommend(model).apply()` does.",
}


def _nothing(model: Any, threshold: float | None) -> str:
    others = "" if threshold else ", or give a `threshold` for other units"
    return message(
        "`DeadReLULogger` needs a model with ReLU units.",
        f"model={model.name!r} without any",
        f"Leave the callback out{others}.",
    )


def watchable(model: Any, threshold: float | None) -> list[tuple[str, Watched]]:
    """Every operation of a model whose units can die, with its path."""
    found = []
    for path, operation in visible_operations(model):
        is_leaf = not sublayers(operation)
        activation = activation_of(operation) if is_leaf else None
        one = watched(operation, activation, threshold)
        if one is not None:
            found.append((path, one))
    return found


def _checked(threshold: float) -> float:
    number = check_finite("threshold", threshold, usual=0.01)
    if not 0 < number < 0.5:
        raise ValueError(
            message(
                "`threshold` must lie in (0, 0.5).",
                f"threshold={threshold!r}",
                "The usual value is 0.01; None watches only what is exactly flat.",
            )
        )
    return number
