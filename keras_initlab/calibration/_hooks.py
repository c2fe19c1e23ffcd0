"""Where in each of Keras's layers a kernel's output comes by."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from .._keras.hearing import Hearing, runs_own_code_of_keras
from .._keras.private import all_layers, causal_padding, takes_training
from .._keras.replacing import InPlace
from ..inspection import activation_of
from ._listener import Listener

Hook = tuple[Any, str, Callable[..., Any]]


def hooks(model: keras.Layer, run: Listener) -> list[Hook]:
    """What to set on a model's layers while it runs: `(layer, name, value)`."""
    layers = {id(layer): layer for layer in all_layers(model)}.values()
    return [
        (owner, name, InPlace(getattr(owner, name), value))
        for layer in layers
        if (rule := _rule_of(layer)) is not None
        for owner, name, value in rule(layer, run)
    ]


def normalizing_by_batch(model: keras.Layer) -> list[Hook]:
    """What has batch normalization go by the batch while the model runs."""
    found = {
        id(layer): layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }

    return [(layer, "call", _by_batch(layer.call)) for layer in found.values()]


def _by_batch(call: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(call)

    def called(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments["training"] = True
        return call(*given.args, **given.kwargs)

    # A `call` of the user's own may know of no modes.
    return InPlace(call, called) if "training" in signature.parameters else call


def is_known(layer: Any) -> bool:
    """Whether a layer's kernels can be calibrated."""
    return _rule_of(layer) is not None


def _rule_of(layer: Any) -> Callable[[Any, Listener], Iterator[Hook]] | None:
    names = (c.__name__ for c in type(layer).__mro__ if _is_keras(c))
    return next((_RULES[name] for name in names if name in _RULES), None)


def _is_keras(layer_class: type) -> bool:
    return layer_class.__module__.startswith("keras.")


def _activated(layer: Any, run: Listener, name: str = "kernel") -> Iterator[Hook]:
    """A layer that hands what its kernel computes to its activation."""
    call, hearing = layer.call, Hearing(layer)
    fitted = functools.partial(run.fitted, layer, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        if not run.is_open(layer, name):
            return call(*args, **kwargs)
        if hearing.has_stand_in:
            return hearing.through(fitted)(*args, **kwargs)
        hear = functools.partial(_heard, layer, hearing, *args, **kwargs)
        return run.refitted(layer, name, hear)

    yield layer, "call", called


def _heard(layer: Any, hearing: Hearing, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """What a layer returns, and its pre-activation; None if that was not heard."""
    output, received = hearing(*args, **kwargs)
    if received is None and activation_of(layer) is None and ops.is_tensor(output):
        return output, output  # a linear activation need not be called
    return output, received


def _separable(layer: Any, run: Listener) -> Iterator[Hook]:
    """Two kernels in one operation: the first is run by itself once more."""
    ((_, _, call),) = _activated(layer, run, "pointwise_kernel")
    is_own = not runs_own_code_of_keras(layer)

    def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if is_own:
            run.leave(layer, "depthwise_kernel", "its layer has a `call` of its own")
        elif run.is_open(layer, "depthwise_kernel"):
            run.fitted(layer, "depthwise_kernel", _depthwise(layer, inputs))
        return call(inputs, *args, **kwargs)

    yield layer, "call", called


def _depthwise(layer: Any, inputs: Any) -> Any:
    is_causal = layer.padding == "causal"
    if is_causal:
        inputs = ops.pad(inputs, causal_padding(layer))
    return ops.depthwise_conv(
        inputs,
        layer.depthwise_kernel,
        strides=layer.strides,
        padding="valid" if is_causal else layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )


def _embedding(layer: Any, run: Listener) -> Iterator[Hook]:
    call, is_own = layer.call, not runs_own_code_of_keras(layer)

    def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # A reversible one reads words off vectors, too.
        is_reverse = kwargs.get("reverse", args[0] if args else False)
        if is_reverse and (layer.tie_weights or layer.logit_soft_cap is not None):
            return call(inputs, *args, **kwargs)
        name = "reverse_embeddings" if is_reverse else "embeddings"
        if is_own and run.is_open(layer, name):
            hear = functools.partial(_returned, call, inputs, *args, **kwargs)
            return run.refitted(layer, name, hear)
        return run.fitted(layer, name, call(inputs, *args, **kwargs))

    yield layer, "call", called


def _returned(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    output = call(*args, **kwargs)
    return output, output if ops.is_tensor(output) else None


def _recurrent(layer: Any, run: Listener) -> Iterator[Hook]:
    """A loop over time: its cells are calibrated on the sequence before it runs."""
    call = layer.call

    def called(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if not run.is_in_loop and run.has_open(layer):
            _fit_cells(layer, run, sequences, *args, **kwargs)
        with run.loop():
            return call(sequences, *args, **kwargs)

    yield layer, "call", called


def _fit_cells(
    layer: Any,
    run: Listener,
    sequences: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: Any = False,
) -> None:
    cells = getattr(layer.cell, "cells", [layer.cell])
    for number, cell in enumerate(cells):
        shape = ops.shape(sequences)
        _fit_cell(cell, run, ops.reshape(sequences, (-1, *shape[2:])))
        if not any(run.has_open(later) for later in cells[number + 1 :]):
            return
        # Above it, the sequence of its outputs counts: that takes a loop of its own.
        backwards = layer.go_backwards and number == 0
        alone = keras.layers.RNN(
            cell,
            return_sequences=True,
            go_backwards=backwards,
            name=layer.name,
            dtype=layer.dtype_policy,
        )
        state = None if initial_state is None else initial_state[number]
        with run.loop(), run.rehearsal():
            sequences = alone.call(sequences, state, mask, training)
        mask = ops.flip(mask, 1) if backwards and mask is not None else mask


def _fit_cell(cell: Any, run: Listener, inputs: Any) -> None:
    """Calibrates a cell on inputs of all steps, `(batch·steps, …)`."""
    if not any(c.__name__ in _CELLS for c in type(cell).__mro__ if _is_keras(c)):
        return
    if run.is_open(cell, "kernel"):
        inputs = ops.cast(inputs, cell.compute_dtype)
        kernel = ops.cast(run.value(cell.kernel), cell.compute_dtype)
        if hasattr(cell, "input_conv"):
            product = cell.input_conv(inputs, kernel, padding=cell.padding)
        else:
            product = ops.matmul(inputs, kernel)
        run.fitted(cell, "kernel", product, has_bias=False)
    run.keep(cell, "recurrent_kernel", "orthogonal for each gate")


def _cell(layer: Any, run: Listener) -> Iterator[Hook]:
    """A cell that a model calls itself."""
    call = layer.call

    def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not run.is_in_loop:
            _fit_cell(layer, run, inputs)
        return call(inputs, *args, **kwargs)

    yield layer, "call", called


def _time_distributed(layer: Any, run: Listener) -> Iterator[Hook]:
    """Steps one after another: its layer is calibrated on all of them at once."""
    call, inner = layer.call, layer.layer

    def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if run.has_open(inner):
            given = dict(zip(("training", "mask"), args, strict=False)) | kwargs
            training = {"training": given.get("training")}
            shape = ops.shape(inputs)
            merged = ops.reshape(inputs, (-1, *shape[2:]))
            with run.rehearsal():
                inner.call(merged, **(training if takes_training(inner) else {}))
        return call(inputs, *args, **kwargs)

    yield layer, "call", called


_CELLS = ("SimpleRNNCell", "GRUCell", "LSTMCell", "ConvLSTMCell")
_ACTIVATED = (
    "Dense",
    "EinsumDense",
    "BaseConv",
    "BaseDepthwiseConv",
    "BaseConvTranspose",
)
_RULES: dict[str, Callable[[Any, Listener], Iterator[Hook]]] = {
    **dict.fromkeys(_ACTIVATED, _activated),
    **dict.fromkeys(_CELLS, _cell),
    "BaseSeparableConv": _separable,
    "Embedding": _embedding,
    "RNN": _recurrent,
    "TimeDistributed": _time_distributed,
}
