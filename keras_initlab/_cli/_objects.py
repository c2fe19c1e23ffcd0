"""The objects that a `.keras` file has Keras build, before it builds them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import keras

from ._found import Found

# Where Keras keeps what models are made of. Elsewhere are wrappers of foreign code, and
# functions that read, write and download.
_PARTS = (
    *("activations", "constraints", "dtype_policies", "initializers", "layers"),
    *("losses", "metrics", "models", "ops", "optimizers", "quantizers", "random"),
    *("regularizers", "trainers"),
)
# A backend's own optimizers have the names of those that they stand in for.
_OPTIMIZERS = re.compile(r"keras\.src\.backend\.\w+\.optimizers(\.\w+)?")
_VALUES = (
    *("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__"),
    *("__slice__", "__tuple__", "TensorShape"),
)
_CODE = ("__lambda__", "Lambda")
_FUNCTIONS = ("activations", "losses", "metrics")
_NO_FUNCTIONS = ("deserialize", "get", "serialize")
# Of these Keras makes a list each: of thresholds, classes, tokens and steps.
_COUNTS = (
    *("chain_depth", "num_chains", "num_classes", "num_oov_indices", "num_ops"),
    *("num_thresholds", "power_iterations"),
)
_LARGEST_COUNT = 2**22


def look_at_objects(config: Any, with_compile: bool, found: Found) -> None:
    """Notes what in a configuration speaks against building it.

    Args:
        config: a model's configuration, as JSON holds it.
        with_compile: also look at what `compile` was given.
        found: where it is noted.
    """
    waiting = [config]
    if isinstance(config, dict) and not with_compile:  # as Keras then leaves it out
        waiting = [{k: v for k, v in config.items() if k != "compile_config"}]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if "class_name" in one:
                _look_at(one, found)
            found += _faults(one)
        elif isinstance(one, list):
            waiting += one


def _faults(one: dict[str, Any]) -> Iterator[str]:
    if isinstance(one.get("vocabulary"), str):
        yield f"the path of a vocabulary, {one['vocabulary']!r}"
    nodes = one.get("inbound_nodes")
    if isinstance(nodes, list) and not all(map(_is_symbolic, nodes)):
        yield f"a call on values while it is built, of {one.get('name')!r}"
    counts = _COUNTS + (("max_tokens",) if one.get("output_mode") == "tf_idf" else ())
    for name in counts:
        count = one.get(name)
        if isinstance(count, (int, float)) and count > _LARGEST_COUNT:
            yield f"{name}={count}"


def _is_symbolic(node: Any) -> bool:
    """Whether a call has a symbolic input; Keras would carry out one without."""
    if not isinstance(node, dict):  # as older files name their inputs
        return bool(node)
    waiting = [node.get("args"), node.get("kwargs")]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            name = one.get("class_name")
            if name == "__keras_tensor__":
                return True
            if name in (None, "__tuple__"):  # in any other Keras would not look
                waiting += one.values()
    return False


def _look_at(one: dict[str, Any], found: Found) -> None:
    name, module = one["class_name"], one.get("module")
    found.objects += 1
    if name in _CODE:
        found.code.append(str(name))
    elif name == "function":
        if not _is_function(module, one.get("config")):
            found.foreign.append(f"the function {one.get('config')!r} of {module!r}")
    elif name not in _VALUES and not _is_part(name, module, one.get("registered_name")):
        found.foreign.append(f"the class {name!r} of {module!r}")


def _is_function(module: Any, name: Any) -> bool:
    """Whether Keras has a function of this name that models are made of."""
    modules = [module] if module != "builtins" else [f"keras.{m}" for m in _FUNCTIONS]
    return name not in _NO_FUNCTIONS and any(
        one in [f"keras.{m}" for m in _FUNCTIONS] and callable(_looked_up(one, name))
        for one in modules
    )


def _is_part(name: Any, module: Any, registered: Any) -> bool:
    """Whether a name means a class that models are made of."""
    ours = None
    if isinstance(registered, str):
        ours = keras.saving.get_registered_object(registered)
    if ours is not None:
        return isinstance(ours, type) and ours.__module__.startswith("keras_initlab.")
    if isinstance(module, str) and _OPTIMIZERS.fullmatch(module):
        module = "keras.optimizers"
    kind = _looked_up(module, name)
    if not isinstance(kind, type):
        return False
    root, *parts = kind.__module__.split(".")
    return root == "keras" and len(parts) > 1 and parts[1] in _PARTS


def _looked_up(module: Any, name: Any) -> Any:
    """What Keras has under a name, if it has been imported; imports nothing."""
    is_keras = isinstance(module, str) and module.partition(".")[0] == "keras"
    if not (is_keras and isinstance(name, str)):
        return None
    return vars(sys.modules.get(module, object)).get(name)
