"""What all tests of hostile input share: their mark, and models left as they were."""

import contextlib
import sys

import keras
import numpy as np
import pytest

import keras_initlab
from keras_initlab import callbacks, initializers, observing, plots
from keras_initlab._cli._commands import COMMANDS

PACKAGES = {
    "": keras_initlab,
    "initializers.": initializers,
    "callbacks.": callbacks,
    "plots.": plots,
    "compare.": sys.modules["keras_initlab.compare"],  # `compare` itself is a function
    "observing.": observing,
}


def public_names():
    """Every name that users import, once, as this report calls it."""
    found = {}
    for prefix, package in PACKAGES.items():
        for name in package.__all__:
            value = getattr(package, name)
            is_module = hasattr(value, "__path__")
            if not is_module and all(value is not other for other in found.values()):
                found[prefix + name] = value
    return {*found} | {f"cli.{command.name}" for command in COMMANDS}


def asks(*names):
    """Marks a case as one of hostile input to these public names."""
    return pytest.mark.hostile(*names)


def case(*values, asks, id):
    """A row of a table of cases, marked with the public names that it asks."""
    names = [asks] if isinstance(asks, str) else asks
    return pytest.param(*values, marks=pytest.mark.hostile(*names), id=id)


# --- Models are left as they were ----------------------------------------------------


def to_array(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def _bits(variable):
    values = to_array(variable)
    return variable.path, str(variable.dtype), values.shape, values.tobytes()


def _all_variables(model):
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer else ())]


def snapshot(model):
    """All of a model that a user could find changed, to the last bit."""
    layers = model._flatten_layers()
    return {
        "variables": [_bits(variable) for variable in _all_variables(model)],
        "trainable": [variable.trainable for variable in model.variables],
        "layers": [(id(one), one.name, one.trainable, one.built) for one in layers],
        "patched": [sorted({"call", "quantized_call"} & {*vars(o)}) for o in layers],
        "activations": [id(vars(one).get("activation")) for one in layers],
        "methods": sorted({"train_step", "call", "train_function"} & {*vars(model)}),
        "compiled": getattr(model, "compiled", None),
    }


@contextlib.contextmanager
def left_as_it_was(model, but=()):
    """Checks that what happens inside changes nothing in a model, to the last bit."""
    before = snapshot(model)
    yield
    after = snapshot(model)
    for part, value in before.items():
        assert part in but or after[part] == value, part
