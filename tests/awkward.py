"""Awkward fits: what trains them, what watches them, and what is compared.

A fit is a function of a `Trial`, which trains through the trial's `fit`. It is run
without callbacks and with them; whatever a user could find different must be equal to
the last bit, also where Keras itself fails.
"""

import contextlib
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import keras
import numpy as np
from keras import layers
from oracles import BACKEND, MODES, USUAL

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)

EXAMPLES, BATCH, WIDTH = 24, 6, 5
OWN_KEYS = {"grad_norm", "clipped_grad_norm", "update_ratio"}
OWN_KEYS |= {"dead_relu_fraction", "recycled_units"}
KINDS: dict[str, Callable[..., Any]] = {
    "norms": lambda every, log=(): GradientNormLogger(
        every, log_to=log, alerts=False, clipped=True, updates=True
    ),
    "dead": lambda every, log=(): DeadReLULogger(every, log_to=log, alerts=False),
    "stats": lambda every, log=(): ActivationStatsLogger(
        every, log_to=log, alerts=False, histograms=True
    ),
    "recycler": lambda every, log=(): DormantUnitRecycler(
        0.0, every, log_to=log, alerts=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Fit:
    """An awkward fit.

    Attributes:
        run: trains; a function of a `Trial`.
        but: the kinds of callbacks that refuse its models, or have nothing to watch.
        close: relative tolerance, 0 for equal bits.
        seen: whether every callback must have observed something.
        daily: whether it is tried every day.
        backends: where Keras knows what it does.
    """

    run: Callable[["Trial"], Any]
    but: tuple[str, ...] = ()
    close: float = 0.0
    seen: bool = True
    daily: bool = False
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")


FITS: dict[str, Fit] = {}


def awkward(**options: Any) -> Callable[[Any], Any]:
    """Adds a function to the table of awkward fits."""

    def add(run: Any) -> Any:
        FITS[run.__name__] = Fit(run, **options)
        return run

    return add


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def alive(units=8, kind=layers.Dense, *arguments, **options):
    """A rectified layer of which every unit responds to every batch."""
    start = {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.03),
        "bias_initializer": "ones",
    }
    return kind(units, *arguments, activation="relu", **start, **options)


def mlp(*more):
    return keras.Sequential(
        [keras.Input((WIDTH,)), alive(), *more, alive(6), layers.Dense(2)]
    )


def sync(model):
    """On JAX a model's variables are empty during an epoch."""
    getattr(model, "jax_state_sync", lambda: None)()


class Do(keras.callbacks.Callback):
    """Does something with the model at one moment of the training."""

    def __init__(self, moment, action, only_at=None):
        super().__init__()

        def act(index=None, logs=None):
            if only_at is None or index == only_at:
                action(self.model)

        setattr(self, moment, act)


class Trial:
    """One run of an awkward fit.

    Attributes:
        watchers: the callbacks that watch.
        folder: an empty folder.
        logged: how often each kind of callback has told what it saw.
        recycled: how many units were recycled, which changes training.
    """

    def __init__(self, kinds: tuple[str, ...], every: int, folder: Path):
        self.kinds, self.every, self.folder = kinds, every, folder
        self.logged, self.recycled = dict.fromkeys(kinds, 0), 0.0
        self.histories: list[Any] = []
        self.models: list[Any] = []
        self._again: dict[int, Callable[[], Any]] = {}
        self.watchers = self.watch()

    def watch(self) -> list[Any]:
        """More callbacks of the kinds on trial."""
        return [KINDS[kind](self.every, self._log_of(kind)) for kind in self.kinds]

    def _log_of(self, kind: str) -> Any:
        def log(metrics, step):
            self.logged[kind] += 1
            self.recycled += metrics.get("recycled_units", 0)

        return log

    def compile(self, model: Any, optimizer: Any = None, loss="mse", **options: Any):
        """Compiles a model as most do, and returns it."""
        options = options or MODES[USUAL]
        optimizer = optimizer or keras.optimizers.Adam(0.0005)
        model.compile(optimizer, loss, **options)
        return model

    def fit(self, model: Any, *callbacks: Any, watchers: Any = None, **options: Any):
        """Trains a model under observation."""
        if all(model is not known for known in self.models):
            self.models.append(model)
        data = {"x": numbers(EXAMPLES, WIDTH), "y": numbers(EXAMPLES, 2, seed=2)}
        usual = {**data, "batch_size": BATCH, "epochs": 2, "verbose": 0}
        options = {**usual, **options}
        again = {k: v for k, v in options.items() if not k.startswith("valid")}
        once = {"epochs": 1, "initial_epoch": 0}
        self._again[id(model)] = lambda: model.fit(**{**again, **once})
        watchers = self.watchers if watchers is None else watchers
        found = model.fit(callbacks=[*callbacks, *watchers], **options)
        self.note(found.history)
        return found

    def note(self, found: Any) -> None:
        """Keeps something that must be equal."""
        if isinstance(found, dict):
            found = {k: v for k, v in found.items() if k not in OWN_KEYS}
        self.histories.append(found)

    def after(self) -> None:
        """Uses every model once more, unobserved."""
        for model in self.models:
            self.note(self._again[id(model)]().history)


def outcome(fit: Fit, kinds: tuple[str, ...], every: int, folder: Path):
    """What a fit leaves, by name, and the trial."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(5)
    folder.mkdir()
    trial = Trial(kinds, every, folder)
    found: dict[str, Any] = {}
    for name, act in {"fit": lambda: fit.run(trial), "after": trial.after}.items():
        error = ""
        try:
            act()
        except BaseException as caught:
            error = f"{type(caught).__name__}: {caught}"[:200]
        found[f"{name}: error"] = error
        found |= {f"{name}: {k}": v for k, v in _state(trial).items()}
    return found, trial


def _state(trial: Trial) -> dict[str, Any]:
    found = {f"history {i}": one for i, one in enumerate(trial.histories)}
    for i, model in enumerate(trial.models):
        optimizer = getattr(model, "optimizer", None)
        variables = [*model.variables, *(optimizer.variables if optimizer else ())]
        for j, variable in enumerate(variables):
            with contextlib.suppress(Exception):  # a failed fit may have taken it away
                found[f"model {i}: {j} {variable.name}"] = hostile.to_array(variable)
        owners = [one for one in (model, optimizer) if one is not None]
        for j, owner in enumerate([*owners, *model._flatten_layers()]):
            found[f"model {i}: attributes of {j}"] = sorted(vars(owner))
        found[f"model {i}: trainable"] = [v.trainable for v in model.variables]
    found |= {f"draw by {name}": draw() for name, draw in DRAWS.items()}
    return found


def _torch_draw():
    import torch

    return float(torch.rand(()))


def _tensorflow_draw():
    import tensorflow as tf

    return float(tf.random.uniform(()))


DRAWS: dict[str, Callable[[], Any]] = {
    "Python": random.random,
    "NumPy": np.random.random,
    "Keras": lambda: float(keras.random.uniform(())),
}
if BACKEND == "torch":
    DRAWS["PyTorch"] = _torch_draw
if BACKEND == "tensorflow":
    DRAWS["TensorFlow"] = _tensorflow_draw


def differences(plain: dict[str, Any], observed: dict[str, Any], close: float):
    """The names under which two outcomes differ, with what they hold."""
    found = []
    for name in {**plain, **observed}:
        one, other = plain.get(name), observed.get(name)
        try:
            if close:
                _assert_close(one, other, close)
            else:
                np.testing.assert_equal(other, one)
        except AssertionError:
            found.append(f"{name}: {_brief(one)} became {_brief(other)}")
    return found


def _assert_close(one, other, close):
    if isinstance(one, (np.ndarray, float)):
        np.testing.assert_allclose(other, one, close, close)
    elif isinstance(one, dict) and isinstance(other, dict):
        assert set(one) == set(other)
        for key, value in one.items():
            np.testing.assert_allclose(other[key], value, close, close)
    else:
        np.testing.assert_equal(other, one)


def _brief(value):
    return " ".join(str(value).split())[:120]
