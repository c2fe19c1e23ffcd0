"""Dead ReLUs while a model trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initlab._activations import is_rectifier
from keras_initlab._errors import message
from keras_initlab.inspection import activation_of, operation_paths
from keras_initlab.signal import Measured, Recipe

from ._observing import ObservingCallback, select


class DeadReLULogger(ObservingCallback):
    """Logs which ReLU units never fire, layer by layer, epoch by epoch.

    A unit is dead in an epoch if its output is positive on no example (and, in a
    convolution, at no position) of the epoch's observed steps: all of them at
    `every=1`, a sample otherwise, which can only overstate. The outputs are those of
    the training steps themselves, with the weights of each step; no extra pass is run.
    Watched are all layers whose activation is exactly 0 for negative input (ReLU,
    ReLU6): as an `activation=`, an `Activation` or `ReLU` layer, or `keras.ops.relu`
    in a Functional model. Units lie on the last axis, or on the layer's channel axis
    if it has a `data_format`. A unit that is NaN is not dead, unless TensorFlow fused
    its ReLU into an operation that turns NaN into 0.

    Layers inside recurrent ones run in a loop and are not watched. Another layer cannot
    be seen if any of its calls in a train step is inside a compiled loop, branch or
    `vmap`, or, on JAX, inside a `jit`, a `checkpoint` (Keras's `RematScope`) or a
    derivative other than `jax.grad` and `jax.value_and_grad`; its fraction is NaN.

    Keras's logs get `dead_relu_fraction`, the dead share of all watched units. Logs
    given in `log_to` get it once an epoch, and `dead_relu_fraction/<layer path>`.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to watch; None for all.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1 for a line an epoch, 0 for none.

    Attributes:
        history: a dict, filled while training. `"epoch"`: array `(epochs,)`.
            `"dead_fraction"`: `{layer path: array (epochs,)}`, in [0, 1], NaN if not
            seen. `"dead_units"`: `{layer path: list of int arrays, one an epoch}`.

    Raises:
        ValueError: for an argument out of range, or, when training begins, a model
            without a ReLU.

    Example:
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input((4,)),
        ...         keras.layers.Dense(3, "relu"),
        ...         keras.layers.Dense(1),
        ...     ]
        ... )
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

    def reset(self) -> None:
        """Drops the history."""
        self._epochs: list[int] = []
        self._dead: dict[str, list[np.ndarray]] = {}
        self._shares: dict[str, list[float]] = {}
        self._watched: dict[str, Any] = {}
        self._fired: dict[str, np.ndarray] = {}
        self._last_step: int | None = None

    def prepare(self, model: Any) -> Recipe:
        """Asks which units fire."""
        found = dict(_rectifiers(model))
        if not found:
            raise ValueError(
                message(
                    "`DeadReLULogger` needs a model with ReLU units.",
                    f"model={model.name!r} without any",
                    "Leave the callback out.",
                )
            )
        self._watched = select(model, found, self.layers, "layers with ReLU units")
        return Recipe(
            reductions=tuple(
                (operation, _fired_per_unit(operation))
                for operation in self._watched.values()
            )
        )

    def begin_epoch(self, epoch: int) -> None:
        """Counts anew."""
        self._fired = {}
        self._last_step = None

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Notes which units fired in a step."""
        if self._last_step is None:  # the step may have built the model and set paths
            self.prepare(self._seen_model)
        self._last_step = step
        for path, operation in self._watched.items():
            units = measured.units.get(id(operation))
            if units is None:
                continue
            fired = units > 0
            before = self._fired.get(path)
            self._fired[path] = fired if before is None else before | fired

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the dead share of the epoch."""
        if self._last_step is None:
            return {}, ""
        self._epochs.append(epoch)
        shares: dict[str, float] = {}
        dead = units = 0
        for path in self._watched:
            alive = self._fired.get(path, np.zeros(0, dtype=bool))
            own = np.flatnonzero(~alive)
            shares[path] = len(own) / len(alive) if len(alive) else math.nan
            self._dead.setdefault(path, []).append(own)
            self._shares.setdefault(path, []).append(shares[path])
            dead, units = dead + len(own), units + len(alive)
        metrics = {"dead_relu_fraction": dead / units if units else math.nan}
        line = f"epoch {epoch + 1}: {dead} of {units} ReLU units dead"
        if dead:
            worst = max(self._fired, key=shares.__getitem__)
            line += f", most in {worst} ({shares[worst]:.0%})"
        if len(self._fired) < len(shares):
            unseen = next(path for path in shares if path not in self._fired)
            line += f"; {len(shares) - len(self._fired)} not seen, such as {unseen}"
        each = {f"dead_relu_fraction/{path}": share for path, share in shares.items()}
        self.log({**metrics, **each}, self._last_step)
        return metrics, line

    @property
    def history(self) -> dict[str, Any]:
        """The dead units by epoch; see the class."""
        return {
            "epoch": np.array(self._epochs, dtype="int64"),
            "dead_fraction": {
                path: np.array(shares) for path, shares in self._shares.items()
            },
            "dead_units": {path: list(dead) for path, dead in self._dead.items()},
        }


def _rectifiers(model: Any) -> Iterator[tuple[str, Any]]:
    """Every operation of a model whose output is a ReLU's, with its path."""
    looped: set[int] = set()
    for path, operation in operation_paths(model):
        if isinstance(operation, keras.layers.RNN):
            looped.update(id(inner) for inner in operation._flatten_layers())
        is_leaf = not getattr(operation, "_layers", ())
        if id(operation) not in looped and is_leaf and _is_rectified(operation):
            yield path, operation


def _is_rectified(operation: Any) -> bool:
    activation = activation_of(operation)
    return activation is not None and is_rectifier(activation)


def _fired_per_unit(operation: Any) -> Any:
    is_first = getattr(operation, "data_format", None) == "channels_first"
    return _fired_by_channel if is_first else _fired_by_last


def _fired_by_last(output: Any) -> Any:
    return ops.max(_fired(output), axis=list(range(len(output.shape) - 1)))


def _fired_by_channel(output: Any) -> Any:
    others = [axis for axis in range(len(output.shape)) if axis != 1]
    return ops.max(_fired(output), axis=others)


def _fired(output: Any) -> Any:
    # NaN is broken, but not dead; XLA's maximum would drop it.
    return ops.where(output <= 0, 0.0, 1.0)
