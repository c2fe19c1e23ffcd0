"""Gradient norms while a model trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_initlab.inspection import layer_paths, variable_paths
from keras_initlab.signal import Measured, Recipe

from ._observing import ObservingCallback, select


class GradientNormLogger(ObservingCallback):
    """Logs the L2 norm of the gradients that train the model, layer by layer.

    The gradients are the very ones that the optimizer receives, taken inside the train
    step; there is no second backward pass. Norms are of the unscaled gradient, before
    accumulation and clipping. A variable that the loss does not depend on has norm 0;
    one whose gradient does not reach an optimizer within reach has norm NaN.

    Keras's logs get `grad_norm`, the global norm's mean over the epoch's observed
    steps, so History, EarlyStopping and others see it. Logs given in `log_to` get, per
    observed step, `grad_norm` and `grad_norm/<layer path>`.

    Args:
        every: observe every n-th step, or the steps for which a function says so; the
            first step of every epoch always.
        layers: paths, names or objects of the layers to log; None for all. The global
            norm is always of the whole model.
        log_to: a function of `(metrics, step)`, or several.
        verbose: 1 for a line an epoch, 0 for none.

    Attributes:
        history: a dict, filled while training. `"step"`, `"epoch"`, `"global_norm"`:
            arrays `(observations,)`; steps count from 0 over a fit, and on from the
            last one where `initial_epoch` continues it. `"layers"`: `{layer path:
            array (observations,)}`. `"variables"`: `{variable path: array
            (observations,)}`, in the order of `model.trainable_variables`.

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
    """

    def reset(self) -> None:
        """Drops the history."""
        self._steps: list[int] = []
        self._epochs: list[int] = []
        self._norms: list[np.ndarray] = []
        self._variables: list[str] = []
        self._owner: dict[str, list[int]] = {}
        self._named: list[int] = []
        self._epoch_start = 0

    def prepare(self, model: Any) -> Recipe:
        """Asks for the gradients."""
        if model.built:  # else the first step builds it
            self._name(model, model.trainable_variables)
        return Recipe(gradients=True)

    def _name(self, model: Any, variables: Sequence[Any]) -> None:
        """Finds the paths of the variables and of the layers that own them."""
        found = _owners(model, variables)
        chosen = select(
            model,
            {path: layer for path, (layer, _) in found.items()},
            self.layers,
            "layers with trainable variables",
        )
        paths = variable_paths(model, variables)
        if self._norms and paths != self._variables:
            self.reset()  # layers were frozen or thawed between two fits
        self._variables = paths
        self._named = [id(variable) for variable in variables]
        self._owner = {path: found[path][1] for path in chosen}

    def begin_epoch(self, epoch: int) -> None:
        """Notes where the epoch's observations begin."""
        self._epoch_start = len(self._norms)

    def receive(self, step: int, epoch: int, measured: Measured) -> None:
        """Keeps and logs the norms of a step."""
        norms = measured.gradient_norms
        assert norms is not None
        if self._named != [id(variable) for variable in measured.variables]:
            self._name(self._seen_model, measured.variables)
        self._steps.append(step)
        self._epochs.append(epoch)
        self._norms.append(norms)
        if self.logs:
            metrics = {"grad_norm": float(_joined(norms))}
            for path, indices in self._owner.items():
                metrics[f"grad_norm/{path}"] = float(_joined(norms[indices]))
            self.log(metrics, step)

    def finish_epoch(self, epoch: int) -> tuple[dict[str, float], str]:
        """Returns the mean global norm of the epoch."""
        rows = self._norms[self._epoch_start :]
        if not rows:
            return {}, ""
        mean = float(np.mean([_joined(norms) for norms in rows]))
        layers = {
            path: float(np.mean([_joined(norms[indices]) for norms in rows]))
            for path, indices in self._owner.items()
        }
        line = f"epoch {epoch + 1}: gradient norm {mean:.3g}"
        if layers:
            low = min(layers, key=layers.__getitem__)
            high = max(layers, key=layers.__getitem__)
            line += f", from {layers[low]:.3g} ({low}) to {layers[high]:.3g} ({high})"
        return {"grad_norm": mean}, line

    @property
    def history(self) -> dict[str, Any]:
        """The norms as arrays; see the class."""
        norms = np.array(self._norms, dtype="float64")
        norms = norms.reshape(len(self._norms), len(self._variables))
        return {
            "step": np.array(self._steps, dtype="int64"),
            "epoch": np.array(self._epochs, dtype="int64"),
            "global_norm": _joined(norms),
            "layers": {
                path: _joined(norms[:, indices])
                for path, indices in self._owner.items()
            },
            "variables": dict(zip(self._variables, norms.T, strict=True)),
        }


def _owners(model: Any, variables: Sequence[Any]) -> dict[str, tuple[Any, list[int]]]:
    """`{path: (layer, indices of its own variables)}` for layers that have any."""
    index_of = {id(variable): i for i, variable in enumerate(variables)}
    found: dict[str, tuple[Any, list[int]]] = {}
    for path, layer in [*layer_paths(model), (model.name, model)]:
        own = [index_of[id(v)] for v in layer._trainable_variables if id(v) in index_of]
        if own:
            found[path] = (layer, own)
    return found


def _joined(norms: np.ndarray) -> np.ndarray:
    """The norm over several variables, from the norm of each, last axis.

    In float64, so that the squares of float32 norms cannot overflow.
    """
    return np.sqrt(np.sum(np.square(norms, dtype="float64"), axis=-1))
