"""Layers that run others step by step, and the cells that they run.

What a kernel computes at one step depends on the steps before it, so kernels within a
loop are heard on the whole sequence before the loop runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from ..private import takes_training
from ._axes import KernelAxes
from ._convolutions import conv_axes, stride_of
from ._kind import Hook, Kind, Part


def _gated_cell(gates: int) -> Callable[[Any], Mapping[str, KernelAxes]]:
    axes = KernelAxes(inputs=(0,), outputs=(1,), gates=gates)
    return lambda layer: {"kernel": axes, "recurrent_kernel": axes}


def _conv_lstm_cell(layer: Any) -> Mapping[str, KernelAxes]:
    # Only the input is strided over: the state has the output's size.
    return {
        "kernel": conv_axes(layer.rank, gates=4, stride=stride_of(layer)),
        "recurrent_kernel": conv_axes(layer.rank, gates=4),
    }


def _cells(layer: Any) -> Sequence[Any]:
    return getattr(layer.cell, "cells", [layer.cell])


def _loop_over_time(layer: Any, run: Any) -> Iterator[Hook]:
    """A loop over time: its cells are heard on the sequence before it runs."""
    call = layer.call

    def called(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if not run.is_in_loop and run.has_open(layer):
            _hear_cells(layer, run, sequences, *args, **kwargs)
        with run.loop():
            return call(sequences, *args, **kwargs)

    yield layer, "call", called


def _hear_cells(
    layer: Any,
    run: Any,
    sequences: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: Any = False,
) -> None:
    cells = _cells(layer)
    for number, cell in enumerate(cells):
        shape = ops.shape(sequences)
        run.hear_cell(cell, ops.reshape(sequences, (-1, *shape[2:])))
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


def _cell(layer: Any, run: Any) -> Iterator[Hook]:
    """A cell that a model calls itself."""
    call = layer.call

    def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not run.is_in_loop:
            run.hear_cell(layer, inputs)
        return call(inputs, *args, **kwargs)

    yield layer, "call", called


def cell_product(cell: Any, inputs: Any, kernel: Any) -> Any:
    """What the kernel of a cell makes of inputs of all steps, `(batch·steps, …)`."""
    if hasattr(cell, "input_conv"):
        return cell.input_conv(inputs, kernel, padding=cell.padding)
    return ops.matmul(inputs, kernel)


def _loop_over_steps(layer: Any, run: Any) -> Iterator[Hook]:
    """Steps one after another: its layer is heard on all of them at once."""
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


_PARTS = {
    "kernel": Part(role="recurrent input"),
    "recurrent_kernel": Part(bias=None, role="recurrent"),
}
_CELL = functools.partial(Kind, parts=_PARTS, loop=_cell)

RECORDS = {
    "SimpleRNNCell": _CELL(_gated_cell(1)),
    "GRUCell": _CELL(_gated_cell(3)),
    "LSTMCell": _CELL(_gated_cell(4)),
    "ConvLSTMCell": _CELL(_conv_lstm_cell),
    "RNN": Kind(steps=_cells, is_loop=True, loop=_loop_over_time),
    "TimeDistributed": Kind(steps=lambda one: [one.layer], loop=_loop_over_steps),
}
