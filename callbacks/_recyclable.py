"""Which layers' units can be recycled: who reads them, and what they pass before.

A unit is let go by setting to 0 what its readers weigh it with. So every reader must be
found, each must weigh the units apart, and nothing on the way may mix them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_initlab._activations import check_pointwise, resolve
from keras_initlab._keras.kinds import (
    channel_axis,
    is_as_recorded,
    own_kernels,
    part_of,
    variable_of,
)
from keras_initlab._keras.paths import own_variables
from keras_initlab._keras.private import all_layers, sublayers
from keras_initlab.inspection import (
    activation_of,
    is_activation,
    operation_paths,
    read_calls,
)
from keras_initlab.observing import Reduction, mean_size_per_unit

from ._model_graph import (
    check_graph,
    described,
)
from ._unit_axis import UnitAxis, after, normalized_axis


@dataclass(frozen=True)
class Reader:
    """A kernel that reads units.

    Attributes:
        variable: the kernel.
        inputs: its axis of inputs, counted from the end.
        axis: where in the reader's input the units lie.
        groups: how many blocks of outputs read a block of inputs each.
    """

    variable: Any
    inputs: int
    axis: UnitAxis
    groups: int = 1

    def mask(self, units: np.ndarray, count: int) -> np.ndarray:
        """Where in the kernel some of `count` units are weighed."""
        found = np.zeros(tuple(self.variable.shape), dtype=bool)
        rows = np.moveaxis(found, self.inputs, 0)  # a view
        entries = self.axis.entries(rows.shape[0] * self.groups, count)
        width = rows.shape[-1] // self.groups
        for entry in entries[units].ravel():
            group, row = divmod(int(entry), rows.shape[0])
            rows[row, ..., group * width : (group + 1) * width] = True
        return found


@dataclass(frozen=True, eq=False)
class Recyclable:
    """A layer whose units can be recycled.

    Attributes:
        layer: a dense or convolution layer.
        place: which call of the model's it is; sources come first.
        units: how many it has.
        axis: where the units lie in what is observed.
        reduction: to the sizes of what they return after their activation.
        normalizations: batch normalizations behind it, and where units lie there.
        readers: all kernels that read the units.
    """

    layer: Any
    place: int
    units: int
    axis: UnitAxis
    reduction: Reduction
    normalizations: tuple[tuple[Any, UnitAxis], ...]
    readers: tuple[Reader, ...]

    def scores(self, figure: np.ndarray | None) -> np.ndarray:
        """Definition 3.1: a unit's mean size over that of all; NaN if not known."""
        unknown = np.full(self.units, np.nan)
        if figure is None:
            return unknown
        entries = self.axis.entries(figure.shape[1], self.units)
        sums, counts = figure.astype("float64")[:, entries].sum(axis=-1)
        with np.errstate(all="ignore"):  # a batch that is masked as a whole counts 0
            sizes = sums / counts
        mean = sizes.mean()
        return sizes / (mean or 1.0) if np.isfinite(mean) else unknown


@dataclass
class _Downstream:
    """What has been met on the way from a layer's units to their readers."""

    normalizations: list[tuple[Any, UnitAxis]] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)


class Skip(Exception):  # noqa: N818
    """Why a layer's units cannot be recycled; `is_usual` if that surprises nobody."""

    def __init__(self, reason: str, is_usual: bool = False, is_frozen: bool = False):
        super().__init__(reason)
        self.is_usual, self.is_frozen = is_usual, is_frozen


def recyclable(model: Any) -> tuple[dict[str, Recyclable], dict[str, Skip]]:
    """Returns the layers whose units can be recycled, and why others are skipped.

    Args:
        model: a built Sequential or Functional model.

    Returns:
        Two dicts by layer path, which together hold all layers with a kernel.

    Raises:
        UnsupportedModelError: if the model has no graph.
    """
    graph = _Graph(model)
    found: dict[str, Recyclable] = {}
    skipped: dict[str, Skip] = {}
    for path, layer in operation_paths(model):
        if isinstance(layer, keras.Layer) and own_kernels(layer):
            try:
                found[path] = graph.read(layer)
            except Skip as skip:
                skipped[path] = skip
    return found, skipped


class _Graph:
    """A model's calls, to be followed from a layer to the readers of its units."""

    def __init__(self, model: Any):
        check_graph(model)
        self.calls = read_calls(model)
        self.uses = Counter(id(call.operation) for call in self.calls)
        kernels = (kernel for call in self.calls for kernel in call.kernels)
        self.uses_of = Counter(id(kernel.variable) for kernel in kernels)
        parts = all_layers(model)
        self.owners = Counter(id(v) for part in parts for v in own_variables(part))
        self.holders = Counter(id(one) for part in parts for one in sublayers(part))
        self.readers: list[list[int]] = [[] for _ in self.calls]
        for index, call in enumerate(self.calls):
            for source in {one for one in call.inputs if one >= 0}:
                self.readers[source].append(index)

    def read(self, layer: Any) -> Recyclable:
        """Returns a layer with all that its units pass and meet, or raises `Skip`."""
        if not (is_as_recorded(layer) and part_of(layer, "kernel").is_plain):
            kind = type(layer).__name__
            reason = f"is a {kind}, neither a dense layer of Keras nor a convolution"
            raise Skip(reason, is_usual=True)
        places = [i for i, call in enumerate(self.calls) if call.operation is layer]
        if not places:
            raise Skip("lies inside another layer")
        if len(places) > 1:
            raise Skip("is called several times")
        met = _Downstream()
        start = UnitAxis(channel_axis(layer))
        last, axis = self._to_activation(places[0], start, met)
        self._to_readers(last, axis, met)
        if not met.readers:
            raise Skip("is read by no layer")
        self._check_own(layer, _kernel_and_bias(layer))
        return Recyclable(
            layer,
            places[0],
            layer.kernel.shape[-1],
            axis,
            _sizes(self.calls[last].operation, axis),
            tuple(met.normalizations),
            tuple(met.readers),
        )

    def _to_activation(
        self, index: int, axis: UnitAxis, met: _Downstream
    ) -> tuple[int, UnitAxis]:
        """The call that returns the units after their activation."""
        operation = self.calls[index].operation
        activation = activation_of(operation)
        while activation is None:
            if self.calls[index].is_output:
                raise Skip("returns the model's output", is_usual=True)
            if len(self.readers[index]) != 1:
                raise Skip("is read by other than one layer before an activation")
            (index,) = self.readers[index]
            operation = self.calls[index].operation
            if self.calls[index].kernels:
                raise Skip("has no activation", is_usual=True)
            axis = self._passed(index, axis, met)
            activation = activation_of(operation) if is_activation(operation) else None
        if self.calls[index].is_output:
            raise Skip("returns the model's output", is_usual=True)
        _check_pointwise(operation, activation)
        if self.uses[id(operation)] > 1:  # of which the figures would be joined
            raise Skip(f"shares its activation, {described(operation)}")
        return index, axis

    def _to_readers(self, index: int, axis: UnitAxis, met: _Downstream) -> None:
        """Follows the units behind a call to all kernels that read them."""
        if self.calls[index].is_output:
            raise Skip("returns an output of the model")
        for reader in self.readers[index]:
            if self.calls[reader].kernels:
                met.readers.append(self._reader(reader, axis))
            else:
                self._to_readers(reader, self._passed(reader, axis, met), met)

    def _passed(self, index: int, axis: UnitAxis, met: _Downstream) -> UnitAxis:
        """Where the units lie after a call without kernels that keeps them apart."""
        call = self.calls[index]
        operation = call.operation
        if len(call.inputs) != 1 or not is_as_recorded(operation):
            raise Skip(f"goes into {described(operation)}")
        if is_activation(operation):
            _check_pointwise(operation, activation_of(operation))
            return axis
        if isinstance(operation, layers.BatchNormalization):
            if normalized_axis(operation) != axis.number:
                raise Skip(f"goes into {described(operation)}, which has another axis")
            self._check_own(operation, own_variables(operation))
            met.normalizations.append((operation, axis))
            return axis
        passed = after(operation, axis)
        if passed is None:
            raise Skip(f"goes into {described(operation)}")
        return passed

    def _reader(self, index: int, axis: UnitAxis) -> Reader:
        call = self.calls[index]
        operation = call.operation
        kernel = call.kernels[0]  # that meets the input first
        # Layers within a layer may read the units several times, and otherwise.
        is_inside = isinstance(operation, keras.Layer) and kernel.layer is not operation
        inputs = None if is_inside else kernel.reads
        if inputs is None or not is_as_recorded(operation) or len(call.inputs) != 1:
            raise Skip(f"goes into {described(operation)}")
        if channel_axis(operation) != axis.number:
            raise Skip(f"goes into {described(operation)}, which reads another axis")
        self._check_own(kernel.layer, [kernel.variable])
        return Reader(kernel.variable, inputs, axis, kernel.axes.groups)

    def _check_own(self, layer: Any, variables: list[Any]) -> None:
        """Raises if anything else would notice that the variables are written."""
        uses = [self.uses[id(layer)], *(self.uses_of[id(v)] for v in variables)]
        if max(uses) > 1:
            raise Skip(
                f"would change {described(layer)}, which is called several times"
            )
        owners = [self.owners[id(variable)] for variable in variables]
        if max([self.holders[id(layer)], *owners]) > 1:
            raise Skip(f"would change {described(layer)}, which shares its weights")
        weights = [v for v in variables if not _is_statistic(layer, v)]
        if not (layer.trainable and all(v.trainable for v in weights)):
            raise Skip(f"would change {described(layer)}, which is frozen", False, True)


def _sizes(operation: Any, axis: UnitAxis) -> Reduction:
    """The sizes of the units that an operation returns along this axis."""
    if channel_axis(operation) != axis.number:
        raise Skip(f"goes through {described(operation)}, which has another axis")
    return mean_size_per_unit(operation)


def _check_pointwise(operation: Any, activation: Any) -> None:
    if activation is None or isinstance(operation, layers.PReLU):
        return
    try:
        check_pointwise(*resolve(activation), reach=1.0)
    except Exception as error:  # a custom one may say so in any way
        raise Skip(f"goes through {described(operation)}, which mixes units") from error


def _kernel_and_bias(layer: Any) -> list[Any]:
    found = [variable_of(layer, name) for name in ("kernel", "bias")]
    return [variable for variable in found if variable is not None]


def _is_statistic(layer: Any, variable: Any) -> bool:
    is_normalization = isinstance(layer, layers.BatchNormalization)
    return is_normalization and variable.name.startswith("moving_")
