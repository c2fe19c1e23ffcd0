"""Recycling of dormant units while a model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_initlab._core.errors import check_count, check_non_negative, message
from keras_initlab._core.seeds import derive, fresh
from keras_initlab._core.transaction import uninterrupted
from keras_initlab.inspection import operation_paths
from keras_initlab.observing import Measured, Recipe

from ._logs import Log
from ._observing import NothingToWatchError, ObservingCallback
from ._phases import filled
from ._recyclable import Recyclable, recyclable
from ._recycling_report import columns_of, not_recycled, nothing
from ._renewal import check_optimizer, renew
from ._schedule import Schedule, after_every, checked_span
from ._watchable import select


class DormantUnitRecycler(ObservingCallback):
    """Starts units over that hardly respond to any example (ReDo).

    The score of a unit is the mean of |output| over the examples (and positions) of one
    train step's batch, after its activation, divided by the mean of the same over all
    units of its layer. A unit is dormant if its score is at most `tau`. It is then
    recycled:

    - its incoming weights and its bias are drawn anew by the layer's own initializers;
    - its outgoing weights are set to 0, but for those to units that are recycled too;
    - a batch normalization that it passes starts over for it;
    - so do all slots that the optimizer has for these entries (momentum, Adam's
      moments, accumulated gradients, averages; not slots of another shape than their
      variable, such as Adafactor's).

    So the model's output changes by what the unit contributed, for a dead ReLU by
    nothing, and everything else keeps its bits. If something cannot be written,
    nothing is. The weights are written before the step that follows, or when the epoch
    ends, and training goes on from there, compiled as it is. A loop of your own has to
    call `on_train_batch_begin` and `on_epoch_end` of its callbacks for that.

    Recycled are layers of kind Dense, Conv1D, Conv2D and Conv3D with an activation, of
    their own or behind them, if all that reads their units is known: a Dense,
    convolution, depthwise, separable or transposed convolution layer, behind any number
    of activations, batch normalizations, pooling, cropping, padding, upsampling,
    dropout and Flatten layers. Left alone, with the reason in `skipped`, are layers
    whose units are the model's output or go into anything else (an addition, a
    concatenation, attention, a recurrent layer, a layer normalization), and all that
    are frozen, called several times or share weights, or whose readers are.

    A model without units to recycle trains as it would without this callback, and a
    warning says why: none of its layers is of that kind, it has no graph or no weights
    yet, or its optimizer cannot be made again from its `get_config`.

    Keras's logs get `recycled_units`, how many were recycled in the epoch. Logs given
    in `log_to` get it for every scheduled step, and `recycled_units/<layer path>`. An
    alert names layers with an activation that are skipped.

    Args:
        tau: the largest score of a dormant unit, in [0, 1). The paper uses 0.025 to
            0.1; 0 recycles only what is exactly 0 on the whole batch.
        every: recycle after every n-th train step, or after the steps for which a
            function of the step's number, from 0, says so. With several steps per
            execution, after the execution, by its last step.
        layers: paths, names or objects of the layers to recycle; None for all.
        start: the first step that counts.
        stop: the step from which on none counts; None for no end.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1, 2 or "auto" for a line an epoch, 0 for none.
        seed: a non-negative int for repeatable weights; None for fresh ones.
        alerts: True to print what is skipped, in few lines, to the error output; False
            for silence; or a function that receives each line, as `logging.warning`.

    Attributes:
        history: a dict, filled while training. `"step"`, `"epoch"`: arrays
            `(recyclings,)`, of every scheduled step. `"recycled"`: `{layer path: list
            of int arrays, one a recycling}`. `"scores"`: `{layer path: array
            (recyclings, units)}`, NaN if not seen or not finite, or if the layer was
            not recycled in that fit.
        skipped: `{layer path: reason}` for every other layer with a kernel, set when
            training begins.
        alerts: everything that the rules have found.

    Raises:
        ValueError: for an argument out of range, or layers that the model lacks.

    Example:
        >>> layers = [keras.layers.Dense(3, "relu"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> _ = model.layers[0].bias.assign([0.0, -100.0, 0.0])
        >>> model.compile("adam", "mse")
        >>> recycler = DormantUnitRecycler(every=1, seed=0)
        >>> x, y = np.eye(4), np.zeros((4, 1))
        >>> _ = model.fit(x, y, verbose=0, callbacks=[recycler])
        >>> 1 in recycler.history["recycled"][model.layers[0].path][0]
        True
        >>> float(keras.ops.convert_to_numpy(model.layers[0].bias)[1])
        0.0

    References:
        Sokar, Agarwal, Castro and Evci 2023, "The dormant neuron phenomenon in deep
        reinforcement learning", 2302.12902, definition 3.1 and algorithm 1.
    """

    _index = "step"

    def __init__(
        self,
        tau: float = 0.025,
        every: int | Schedule = 1000,
        layers: Sequence[Any] | None = None,
        start: int = 0,
        stop: int | None = None,
        log_to: Log | Iterable[Log] = (),
        verbose: int | str = 0,
        seed: int | None = None,
        alerts: bool | Callable[[str], Any] = True,
    ):
        self.tau = _checked_tau(tau)
        self.start, self.stop = checked_span(start, stop)
        self.seed = None if seed is None else check_count("seed", seed, 0, least=0)
        self.skipped: dict[str, str] = {}
        super().__init__(after_every(every), layers, log_to, verbose, alerts)

    def wants(self, step: int) -> bool:
        """Whether to recycle after this step."""
        is_over = self.stop is not None and step >= self.stop
        return step >= self.start and not is_over and super().wants(step)

    def reset(self) -> None:
        """Drops the history."""
        self._steps: list[int] = []
        self._epochs: list[int] = []
        self._recycled: dict[str, list[np.ndarray]] = {}
        self._scores: dict[str, list[np.ndarray]] = {}
        self._watched: dict[str, Recyclable] = {}
        self._base = self.seed
        self._epoch_start = 0
        self._waiting: tuple[int, int, dict[str, np.ndarray]] | None = None

    def _unbound(self) -> dict[str, Any]:
        return {**super()._unbound(), "_watched": {}, "_waiting": None}

    def prepare(self, model: Any) -> Recipe:
        """Asks how large the units of all layers are that can be recycled."""
        found = self._watched = self._found(model)
        for path in found if self._steps else ():  # not those of an earlier fit
            missed = [np.zeros(0, dtype="int64") for _ in self._steps]
            self._recycled.setdefault(path, missed)
            self._scores.setdefault(path, [np.zeros(0) for _ in self._steps])
        self._last_step, self._waiting = -1, None
        return Recipe(reductions=tuple(one.reduction for one in found.values()))

    def _found(self, model: Any) -> dict[str, Recyclable]:
        """The layers to recycle by path, and in `skipped` why others are not."""
        self.skipped = {}
        try:
            check_optimizer(model)
            found, skipped = recyclable(model)
        except ValueError as error:
            raise NothingToWatchError(str(error)) from error
        self.skipped = {path: str(skip) for path, skip in skipped.items()}
        layer_of = dict(operation_paths(model))
        frozen = [layer_of[path] for path, skip in skipped.items() if skip.is_frozen]
        owners = {path: one.layer for path, one in found.items()}
        kind = "layers whose units can be recycled"
        chosen = select(model, owners, self.layers, kind, frozen)
        if not chosen:
            raise NothingToWatchError(nothing(model, self.skipped))
        for path, skip in skipped.items():
            if self.layers is None and not skip.is_usual:
                self.alert(not_recycled(path, str(skip)))
        return {path: found[path] for path in chosen}

    def begin_epoch(self, epoch: int) -> None:
        """Notes where the epoch's recyclings begin."""
        super().begin_epoch(epoch)
        self._epoch_start = len(self._steps)
        self._waiting = None

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Notes the scores, if it is time to recycle."""
        # A function that runs several steps tells of the last one.
        first = max(
            self._last_step + 1, step - self._seen_model.steps_per_execution + 1
        )
        self._last_step = step
        if any(self.wants(each) for each in range(first, step + 1)):
            scores = {
                path: one.scores(measured.figures.get(one.reduction))
                for path, one in self._watched.items()
            }
            for path in self._recycled:  # those that take no part in this fit, too
                scores.setdefault(path, np.zeros(0))
            self._waiting = step, epoch, scores

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Recycles what the step before has shown to be dormant.

        Not in `on_train_batch_end`: there JAX would give up asynchronous dispatch for
        the whole fit. Here `fit` is about to look whether it is to read the model's
        variables anew.
        """
        super().on_train_batch_begin(batch, logs)
        self._recycle()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Recycles what is left, and adds the count to Keras's logs."""
        self._recycle()
        super().on_epoch_end(epoch, logs)

    def _recycle(self) -> None:
        if self._waiting is None:
            return
        (step, epoch, scores), self._waiting = self._waiting, None
        dormant = {path: np.flatnonzero(s <= self.tau) for path, s in scores.items()}
        # The history tells of just what was written, also after Ctrl-C.
        uninterrupted(lambda _: self._renew(step, epoch, dormant, scores))
        counts = {path: len(units) for path, units in dormant.items()}
        self.log(columns_of(counts, sum(counts.values())), step)

    def _renew(
        self,
        step: int,
        epoch: int,
        dormant: dict[str, np.ndarray],
        scores: dict[str, np.ndarray],
    ) -> None:
        chosen = [(self._watched[path], u) for path, u in dormant.items() if len(u)]
        if chosen:
            # On JAX the model's variables are empty during an epoch.
            getattr(self._seen_model, "jax_state_sync", lambda: None)()
            if self._base is None:  # not before: others draw from there, too
                self._base = fresh()
            seed = derive(self._base, len(self._steps))
            renew(self._seen_model, chosen, seed)
        self._steps.append(step)
        self._epochs.append(epoch)
        for path, units in dormant.items():
            self._recycled.setdefault(path, []).append(units)
            self._scores.setdefault(path, []).append(scores[path])

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns how many units were recycled in the epoch."""
        counts = {
            path: sum(map(len, each[self._epoch_start :]))
            for path, each in self._recycled.items()
        }
        total = sum(counts.values())
        line = f"epoch {epoch + 1}: {total} units recycled"
        if total:
            most = max(counts, key=counts.__getitem__)
            line += f", most in {most} ({counts[most]})"
        return {"recycled_units": float(total)}, line

    @property
    def history(self) -> dict[str, Any]:
        """What was recycled; see the class."""
        return {
            "step": np.array(self._steps, dtype="int64"),
            "epoch": np.array(self._epochs, dtype="int64"),
            "recycled": {path: list(each) for path, each in self._recycled.items()},
            "scores": {path: filled(each) for path, each in self._scores.items()},
        }

    def _columns(self) -> dict[str, Any]:
        counts = {
            path: np.array([len(units) for units in each], dtype="int64")
            for path, each in self._recycled.items()
        }
        none = np.zeros(len(self._steps), dtype="int64")
        history = self.history
        columns = {key: history[key] for key in ("step", "epoch")}
        return columns | columns_of(counts, sum(counts.values(), none))


def _checked_tau(tau: float) -> float:
    number = check_non_negative("tau", tau, usual=0.025)
    if number >= 1:
        raise ValueError(
            message(
                "`tau` must be below 1, the mean of all scores.",
                f"tau={tau!r}",
                "The usual value is 0.025.",
            )
        )
    return number
