"""Calls of public functions that work, and values that each argument is then given."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initlab as initlab
from keras_initlab import callbacks, plots
from keras_initlab.compare import Run
from keras_initlab.initializers import MatchPretrained

VALUES = {
    "None": None,
    "object": object(),
    "text": 'no, such\n"thing"',
    "empty text": "",
    "bytes": b"x",
    "NaN": math.nan,
    "infinity": math.inf,
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "10**400": 10**400,
    "complex": 1j,
    "True": True,
    "list": [],
    "nest": [[1, "a"], {}],
    "dict": {},
    "set": {1.5},
    "array": np.array([1.0, math.nan]),
    "array of objects": np.array([object()], dtype=object),
    "array of text": np.array(["a", "b"]),
    "empty array": np.zeros((0, 3)),
    "class": int,
    "unbuilt model": keras.Sequential(),
}
TEXT = frozenset({"text", "empty text"})
FLAG = frozenset({"True"})


@functools.cache
def model():
    hidden = layers.Dense(4, "relu", name="a")
    made = keras.Sequential([keras.Input((3,)), hidden, layers.Dense(2, name="b")])
    made.compile("sgd", "mse")
    return made


def build():
    made = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    made.compile("sgd", "mse", run_eagerly=True)  # nothing to compile
    return made


X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
Y = X[:, :2]
DATA = (X, Y), (X, Y)


@functools.cache
def advice(policy="signal"):
    return initlab.recommend(model(), policy)


@functools.cache
def report():
    return initlab.probe(model(), X)


@functools.cache
def compared():
    curves = {name: np.ones(2) for name in ("loss", "test_loss", "gradient_norm")}
    return initlab.Comparison(["a"], [0], [Run("a", 0, curves, 1.0)], 2, 32)


NORMS = {
    "step": np.arange(2),
    "epoch": np.arange(2),
    "global_norm": np.ones(2),
    "layers": {"a": np.ones(2)},
    "variables": {"a/kernel": np.ones(2)},
}
DEAD = {
    "epoch": np.arange(1),
    "dead_fraction": {"a": np.zeros(1)},
    "dead_units": {"a": [np.array([0])]},
}


class Later(NamedTuple):
    """What is made when it is first needed: models take time."""

    make: Callable[[], Any]


def made(value):
    return value.make() if isinstance(value, Later) else value


class Call(NamedTuple):
    """A call that works.

    `works` holds, by argument, the values of VALUES that are right there; `own` those
    that are functions, whose own error is passed on.
    """

    function: Any
    arguments: dict[str, Any]
    works: dict[str, frozenset[str] | set[str]] = {}
    own: dict[str, set[str]] = {}


NONE = {"None"}
FUNCTIONS = {"class", "unbuilt model"}
ONLY = {"only": NONE | {"list"}}
PICTURE = {"title": TEXT}
MODEL, REPORT = Later(model), Later(report)
DRAWN = {"a": "zeros"}  # by an initializer, which needs a shape


def pictures(**calls):
    return {
        f"plots.{name}": Call(getattr(plots, name), arguments, PICTURE | works)
        for name, (arguments, works) in calls.items()
    }


CALLS = {
    "activation_statistics": Call(
        initlab.activation_statistics,
        {"activation": "relu", "std": 1.0},
        {"activation": NONE, "std": {"2.5"}},
    ),
    "critical_point": Call(
        initlab.critical_point,
        {"activation": "tanh", "q": 1.0},
        {"activation": NONE, "q": {"2.5"}},
    ),
    "gain": Call(
        initlab.gain, {"activation": "relu", "kind": "variance"}, {"activation": NONE}
    ),
    "initializer_for": Call(
        initlab.initializer_for,
        {"activation": "relu", "fan": None, "seed": 0},
        # A dict is what Keras stores of a generator.
        {"activation": NONE, "fan": NONE | {"2.5"}, "seed": NONE | {"0", "dict"}},
    ),
    "recommend_widths": Call(
        initlab.recommend_widths,
        {"widths": [3, 4, 2], "activation": "relu"},
        {"activation": TEXT},  # all but ReLU's kin are alike to the table
    ),
    "fans": Call(initlab.fans, {"layer": MODEL}),
    "register_fans": Call(
        initlab.register_fans,
        {"layer_class": type("Own", (keras.Layer,), {}), "function": lambda layer: {}},
        {"function": NONE | FUNCTIONS},
    ),
    "recommend": Call(
        initlab.recommend,
        {
            "model": MODEL,
            "policy": "signal",
            "input_std": 1.0,
            "data": X,
            "class_priors": None,
        },
        {
            "data": NONE,
            "class_priors": NONE | {"dict"},
        },
    ),
    "audit": Call(
        initlab.audit,
        {"model": MODEL, "data": X},
        {"data": NONE},
    ),
    "probe": Call(
        initlab.probe,
        {
            "model": MODEL,
            "x": X,
            "y": Y,
            "loss": "mse",
            "sample_weight": np.ones(6),
            "training": True,
        },
        {"loss": NONE, "sample_weight": NONE, "training": FLAG},
        {"loss": {"unbuilt model"}},
    ),
    "calibrate": Call(
        initlab.calibrate,
        {
            "model": MODEL,
            "x": X,
            "target_std": 1.0,
            "per_channel": False,
            "center_bias": False,
            "orthogonal": False,
            "training": False,
            "only": None,
            "seed": 0,
            "overwrite": True,
        },
        {
            **dict.fromkeys(("per_channel", "center_bias", "orthogonal"), FLAG),
            **dict.fromkeys(("training", "overwrite"), FLAG),
            **ONLY,
            "target_std": {"2.5"},
            "seed": NONE | {"0"},
        },
        {"only": FUNCTIONS},
    ),
    "reinitialize": Call(
        initlab.reinitialize,
        {"model": MODEL, "seed": 0, "only": None, "reset_optimizer": False},
        {"seed": NONE | {"0"}, **ONLY, "reset_optimizer": FLAG},
        {"only": FUNCTIONS},
    ),
    "Recommendation": Call(
        Later(lambda: advice().apply),
        {
            "seed": 0,
            "only": None,
            "overwrite": True,
            "reset_optimizer": False,
            "dry_run": False,
        },
        {
            **dict.fromkeys(("overwrite", "reset_optimizer", "dry_run"), FLAG),
            **ONLY,
            "seed": NONE | {"0"},
        },
        {"only": FUNCTIONS},
    ),
    "Recommendation.compare": Call(
        Later(lambda: advice().compare), {"other": Later(lambda: advice("rules"))}
    ),
    "compare": Call(
        initlab.compare,
        {
            "build": build,
            "initializers": ["zeros"],
            "data": DATA,
            "epochs": 1,
            "seeds": (0,),
            "executor": None,
            "batch_size": 6,
            "results": None,
            "accuracy": None,
            "verbose": 0,
        },
        {
            "seeds": {"bytes"},  # whole numbers
            "executor": NONE,
            "results": NONE | {"text"},
            "accuracy": NONE,
            "verbose": {"0"},
        },
        {"build": {"unbuilt model"}, "data": {"unbuilt model"}},
    ),
    "initializers.MatchPretrained": Call(MatchPretrained.from_kernel, {"kernel": X}),
    "callbacks.CSVLog": Call(
        callbacks.CSVLog,
        {"path": "log", "append": False},
        {"path": {"text"}, "append": FLAG},
    ),
    "callbacks.JSONLinesLog": Call(
        callbacks.JSONLinesLog,
        {"path": "log", "append": False},
        {"path": {"text"}, "append": FLAG},
    ),
    "callbacks.TensorBoardLog": Call(
        callbacks.TensorBoardLog, {"directory": "log"}, {"directory": {"text"}}
    ),
    **pictures(
        activation_comparison=(
            {"reports": Later(lambda: {"a": report()}), "title": ""},
            {},
        ),
        activation_statistics=({"logger": None}, {}),
        activations_over_depth=(
            {"reports": Later(lambda: {"a": report()}), "title": ""},
            {},
        ),
        comparison=({"compared": Later(compared), "title": ""}, {}),
        dead_units=({"logger": DEAD, "title": ""}, {}),
        gradient_heat_map=({"logger": NORMS, "by": "layer", "title": ""}, {}),
        gradient_norms=({"logger": NORMS, "title": ""}, {}),
        learning_curves=({"compared": Later(compared), "title": ""}, {}),
        signal_report=({"report": REPORT, "title": ""}, {}),
        training_comparison=(
            {
                "histories": {"a": {"val_accuracy": [0.1]}},
                "gradient_norms": None,
                "dead_relus": None,
                "metric": "val_accuracy",
                "title": "",
            },
            dict.fromkeys(("gradient_norms", "dead_relus"), NONE | {"dict"}),
        ),
        weight_histograms=(
            {"weights": DRAWN, "shape": (3, 4), "most": 3, "title": ""},
            {},
        ),
        weights=({"model": DRAWN, "shape": (3, 4), "most": 3, "title": ""}, {}),
    ),
}
