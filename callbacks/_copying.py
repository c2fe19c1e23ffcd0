"""Copies and pickles of callbacks, as tuners and workers make them."""

from __future__ import annotations

import copy
from typing import Any

from keras_initlab._keras.private import without_model
from keras_initlab.observing import Recipe


class Copied:
    """What of an observing callback is copied, and what belongs to its model."""

    layers: Any
    logs: Any
    _schedule: Any
    _alerts: Any

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: not the model, so that they watch nothing."""
        return without_model({**vars(self), **self._unbound()})

    def _unbound(self) -> dict[str, Any]:
        """The attributes that belong to a model, as they are without one."""
        nothing = dict.fromkeys(("_seen_model", "_observer", "_training", "_summary"))
        asked: Any = self.layers
        is_many = isinstance(asked, (list, tuple))
        layers = [path_of(one) for one in asked] if is_many else path_of(asked)
        asides = {"_outer": [], "_is_aside": False, "_is_idle": False}
        return {**nothing, **asides, "recipe": Recipe(), "layers": layers}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The functions of the user's are called by the copy, too: what they belong to,
        # as a run of an experiment tracker, may be anything.
        for one in (*self.logs, self._schedule, self._alerts.send_line):
            if not type(one).__module__.startswith("keras_initlab."):
                memo[id(one)] = one
        found = memo[id(self)] = type(self).__new__(type(self))
        found.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return found

    def __copy__(self) -> Any:
        return copy.deepcopy(self, {id(log): log for log in self.logs})


def path_of(layer: Any) -> Any:
    """What finds a layer in a copy of its model; a path, or None, as it is."""
    return getattr(layer, "path", None) or getattr(layer, "name", layer)
