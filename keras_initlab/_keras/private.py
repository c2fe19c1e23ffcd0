"""Every private name of Keras and its backends that is used, each with its guard.

A private name may go with any release. Nothing here imports one at module level, so
`import keras_initlab` works without any of them. A function that needs one says which
is missing; a function that has another way takes it. `tests/test_private.py` holds the
list, takes the names away one by one, and finds what is used elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from .._core.errors import message
from .replacing import held, replaced

_NOTHING = object()


class MissingNameError(RuntimeError):
    """A private name that a function needs is not in this release of a library."""


def _missing(name: str) -> MissingNameError:
    library = name.partition(".")[0]
    version = getattr(importlib.import_module(library), "__version__", "unknown")
    return MissingNameError(
        message(
            f"This function needs `{name}`, which is private to {library}.",
            f"{library} {version} without it",
            "Install a release that keras_initlab was tested with.",
        )
    )


def _read(owner: Any, name: str, default: Any = _NOTHING, of: str = "keras") -> Any:
    """The attribute of an object, or `default` where it has none."""
    found = getattr(owner, name, default)
    if found is _NOTHING:
        raise _missing(f"{of}.{type(owner).__name__}.{name}")
    return found


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _missing(f"{module}.{name}") from error


# Layers and models ------------------------------------------------------------------


def all_layers(layer: Any, include_self: bool = True) -> list[Any]:
    """A layer and all layers inside it; none for an operation that is no layer."""
    flatten = _read(layer, "_flatten_layers", None)
    if flatten is None:
        if isinstance(layer, keras.Layer):
            raise _missing("keras.Layer._flatten_layers")
        return []
    return list(flatten(include_self=include_self))


def sublayers(layer: Any) -> Sequence[Any]:
    """The layers that a layer holds itself; none for an operation that is no layer."""
    is_layer = isinstance(layer, keras.Layer)
    return _read(layer, "_layers", _NOTHING if is_layer else ())


def is_of_keras_layers(operation: Any) -> bool:
    """Whether an operation is one of Keras's layers, and of no model or application."""
    return type(operation).__module__.startswith("keras.src.layers")


def own_trainable(layer: Any) -> list[Any]:
    """The trainable variables that a layer, or an optimizer, holds itself."""
    has_them = isinstance(layer, (keras.Layer, keras.optimizers.Optimizer))
    return _read(layer, "_trainable_variables", _NOTHING if has_them else [])


def own_non_trainable(layer: Any) -> list[Any]:
    """The variables that a layer holds itself and that never train."""
    is_layer = isinstance(layer, keras.Layer)
    return _read(layer, "_non_trainable_variables", _NOTHING if is_layer else [])


def is_of_keras(kind: type) -> bool:
    """Whether a class is one of Keras's own, so that what it does is known."""
    return kind.__module__.startswith("keras.")


VARIABLE_LISTS = ("_trainable_variables", "_non_trainable_variables")
"""The attributes in which a layer keeps its own variables."""


def own_metrics(layer: Any) -> list[Any]:
    """The metrics that a layer holds itself."""
    return _read(layer, "_metrics", [])


def build_shapes(layer: Any) -> dict[str, Any]:
    """The shapes that a layer was built for, by argument; empty if it does not tell."""
    return _read(layer, "_build_shapes_dict", None) or {}


def takes_training(layer: Any) -> bool:
    """Whether the `call` of a layer has an argument `training`."""
    return _read(layer, "_call_has_training_arg")


def has_value(variable: Any) -> bool:
    """Whether a variable has a value yet."""
    return _read(variable, "_value") is not None


def given_width(layer: Any, default: int) -> int:
    """The width that a layer was made with, before quantization packed its kernel."""
    return _read(layer, "_orig_output_dim", default)


# Graphs -----------------------------------------------------------------------------


def functional_of(model: Any) -> Any:
    """The model that keeps the graph of a Sequential (None if it has none yet).

    Any other model is returned as it is.
    """
    is_sequential = isinstance(model, keras.Sequential)
    return _read(model, "_functional") if is_sequential else model


def has_nodes(model: Any) -> bool:
    """Whether a model keeps a graph of nodes."""
    return hasattr(model, "_nodes_by_depth")


def nodes_by_depth(model: Any) -> dict[int, list[Any]]:
    """The nodes of a functional model, the inputs' last."""
    return _read(model, "_nodes_by_depth")


def operations_of(model: Any) -> Iterable[Any]:
    """The operations of a functional model; none for another one."""
    return _read(model, "_operations", ())


def inputs_struct(model: Any, default: Any = None) -> Any:
    """The symbolic inputs of a functional model as they are nested."""
    return _read(model, "_inputs_struct", default)


def outputs_struct(model: Any) -> Any:
    """The symbolic outputs of a functional model as they are nested, else None."""
    return _read(model, "_outputs_struct", None)


def inbound_nodes(operation: Any) -> list[Any]:
    """The nodes at which an operation was called; none for one that keeps none."""
    return _read(operation, "_inbound_nodes", [])


def outbound_nodes(operation: Any) -> list[Any]:
    """The nodes that read what an operation returned."""
    return _read(operation, "_outbound_nodes")


def history_of(tensor: Any) -> Any:
    """`(operation, node_index, tensor_index)` of a symbolic tensor, else None."""
    return _read(tensor, "_keras_history", None)


def note_call(operation: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    """Notes a call of an operation on symbolic tensors."""
    _node_class()(operation, args, kwargs, outputs)


def taking_tensors_alone() -> list[tuple[Any, str, Any]]:
    """What has nodes keep, of all that a call returns, the symbolic tensors."""
    node = _node_class()
    former = held(node, "__init__")

    def init(
        self: Any,
        operation: Any,
        call_args: Any = None,
        call_kwargs: Any = None,
        outputs: Any = None,
    ) -> None:
        flat = keras.tree.flatten(outputs)
        tensors = [one for one in flat if isinstance(one, keras.KerasTensor)]
        former(self, operation, call_args, call_kwargs, tensors)

    return [(node, "__init__", init)]


def _node_class() -> Any:
    return _imported("keras.src.ops.node", "Node")


def control_flow(name: str) -> Any:
    """The class of a condition or loop on symbolic tensors."""
    return _imported("keras.src.ops.core", name)


# What Keras notes at tensors and beside them ----------------------------------------


def has_logits(tensor: Any) -> bool:
    """Whether Keras has noted the logits of a probability, to compute its loss by."""
    return hasattr(tensor, "_keras_logits")


def copy_notes(source: Any, target: Any) -> None:
    """Gives a tensor what Keras has noted at another one: mask and logits."""
    for name in ("_keras_mask", "_keras_logits"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def mask_of(tensor: Any) -> Any:
    """The mask that Keras has noted at a tensor, or for it, or None."""
    module = "keras.src.backend.common.masking"
    return _imported(module, "get_keras_mask")(tensor)


def global_state() -> dict[str, Any]:
    """What Keras notes by thread: scopes, automatic names; empty if it is elsewhere."""
    try:
        module = "keras.src.backend.common.global_state"
        return vars(_imported(module, "GLOBAL_STATE_TRACKER"))
    except MissingNameError:
        return {}


def drawing_seeds_from(generator: Any) -> AbstractContextManager[Any]:
    """A context in which default seeds come from a `random.Random`."""
    _imported("keras.src.random.seed_generator", "python_random")
    module = importlib.import_module("keras.src.random.seed_generator")
    return replaced(module, "python_random", generator)


def backend_module(name: str) -> Any:
    """The backend's functions behind `keras.ops`: its module `numpy` or `nn`."""
    return _imported("keras.src.backend", name)


def tensor_class() -> type:
    """The class of the backend's tensors in which operators can be replaced."""
    kind = type(keras.ops.zeros(()))
    own = (base for base in kind.__mro__ if "__matmul__" in vars(base))
    # A class of PyTorch's base cannot be changed; one of Python can.
    return next((base for base in own if base.__name__ != "TensorBase"), kind)


# Training ---------------------------------------------------------------------------


def compile_loss(loss: Any, weights: Any = None, output_names: Any = None) -> Any:
    """What computes a loss as `compile` takes it, one for several outputs too."""
    make = _imported("keras.src.trainers.compile_utils", "CompileLoss")
    return make(loss, weights, output_names=output_names)


def with_own_loss(model: Any) -> AbstractContextManager[Any]:
    """A context in which the compiled loss is a copy, whose metrics may be updated."""
    kind = _imported("keras.src.trainers.compile_utils", "CompileLoss")
    # A model that is not compiled has None, or a loss that Keras has yet to make.
    is_compiled = getattr(model, "compiled", False)
    compiled = _read(model, "_compile_loss", _NOTHING if is_compiled else None)
    if not isinstance(compiled, kind):
        return nullcontext()
    names = compiled.output_names
    given = _read(compiled, "_user_loss"), _read(compiled, "_user_loss_weights")
    return replaced(model, "_compile_loss", compile_loss(*given, output_names=names))


def training_loss(model: Any, x: Any, y: Any, outputs: Any, weights: Any) -> Any:
    """The loss of a compiled model, as its train step asks for it."""
    return _read(model, "_compute_loss")(x, y, outputs, weights, training=True)


def clipped_by(optimizer: Any, gradients: list[Any]) -> list[Any]:
    """Gradients as an optimizer clips them."""
    return _read(optimizer, "_clip_gradients")(gradients)


def without_model(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a callback, with no model."""
    return {**state, "_model": None}


def start_method(executor: Any) -> str | None:
    """How a process pool starts its processes, None if it does not tell."""
    context = getattr(executor, "_mp_context", None)
    return context and context.get_start_method()


# JAX --------------------------------------------------------------------------------


def set_jax_state(model: Any, state: dict[str, Any]) -> None:
    """Leaves the state of a training where `fit` looks for it when it fails."""
    model._jax_state = state
    model._jax_state_synced = False


def with_shardings(model: Any, shardings: Any) -> AbstractContextManager[Any]:
    """A context in which a model's train function is made for these shardings."""
    if not hasattr(model, "_get_state_sharding_spec"):
        raise _missing(f"keras.{type(model).__name__}._get_state_sharding_spec")
    return replaced(model, "_get_state_sharding_spec", lambda: shardings)


def trace_of(tracer: Any) -> Any:
    """The trace that a JAX tracer belongs to."""
    return _read(tracer, "_trace", of="jax")


# PyTorch ----------------------------------------------------------------------------


def without_torch_compile(model: Any) -> AbstractContextManager[Any]:
    """A context in which a model's train function is made to run eagerly."""
    if not hasattr(model, "_should_torch_compile"):
        raise _missing(f"keras.{type(model).__name__}._should_torch_compile")
    return replaced(model, "_should_torch_compile", lambda: False)


def stands_for_another(tensor: Any) -> bool:
    """Whether a PyTorch tensor is inside `vmap` or `torch.func.grad`."""
    return _imported("torch._C._functorch", "is_functorch_wrapped_tensor")(tensor)


def norms_of_each(tensors: list[Any], dtype: Any) -> Sequence[Any]:
    """The L2 norm of each of a list of PyTorch tensors, in one call."""
    return _imported("torch", "_foreach_norm")(tensors, 2, dtype)
