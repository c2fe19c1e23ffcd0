"""What can be said of one kind of layer or operation: the form of a record."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._axes import KernelAxes


class Effect(enum.Enum):
    """What an operation without kernels does to the units of a signal."""

    SAME_UNITS = "keeps every unit, in training up to noise"
    CHANNEL_LINEAR = "linear, the same for all channels"
    REARRANGE = "moves units to other axes"
    POOL = "nonlinear choice among positions"
    ACTIVATION = "acts on every unit alone"
    NORMALIZATION = "sets mean and scale anew"
    ADD = "adds signals"
    CONCATENATE = "puts channels side by side"
    OTHER = "anything else"


class Units(enum.Enum):
    """Where an operation leaves units that lie along its axis of channels."""

    SAME = "every number where it was, whatever the axis"
    CHANNELS = "on the same axis"
    LAST = "on the last axis, of a map that has lost its positions"
    FLAT = "on the only axis, beside their positions"


class Use(enum.Enum):
    """What a weight is to the signal that meets it in an operation."""

    KERNEL = "sums products of the signal with it"
    SIGNAL = "is a signal itself, as a learned token"
    SHIFT = "is added to each unit, as a bias"
    SCALE = "scales each unit"
    BEND = "bends each unit, as an exponent"


Hook = tuple[Any, str, Callable[..., Any]]
"""What to set on a layer while a model runs: `(layer, name, value)`."""


@dataclass(frozen=True)
class Part:
    """What is known of one kernel of a layer, beside its axes.

    Attributes:
        bias: name of the layer's bias that is added to what it computes, or None.
        role: its role, where the layer alone decides that; else None.
        is_plain: whether it is one matrix from units to units, the same everywhere.
    """

    bias: str | None = "bias"
    role: str | None = None
    is_plain: bool = False


@dataclass(frozen=True)
class Kind:
    """The record of one kind of layer or operation: all that is known of it.

    What a record leaves out is that of the class above.

    Attributes:
        kernels: maps a layer to the axes of the kernels that it creates itself, by
            their names, in the order of creation. It is also asked while the layer is
            being built, so it reads the layer's settings and not its weights.
        used: maps a layer and the arguments of a call to the names of the kernels that
            this call uses, and to what it uses them for; None where all calls are
            alike.
        parts: what else is known of these kernels, by their names.
        effect: what it does to a signal, for a kind without kernels.
        mean_square: for a normalization, maps it and the shape of its input to the mean
            square of what it returns; None for 1.
        activation: maps it to the activation that it applies to its output; None for
            its attribute `activation`.
        units: where it leaves units; None where it may mix them.
        roles: roles of the kernels of layers inside it, by these layers' names.
        operands: roles of the kernels whose outputs it multiplies, input by input.
        multiplies: whether it multiplies its two inputs with one another.
        chooses: whether it tells which entries are the largest.
        hands_axes: whether its `build` tells an initializer the axes of its kernel.
        steps: maps it to the layers that it runs step by step, the first one first.
        is_loop: whether these run in a loop, where their calls cannot be seen.
        loop: tells how to hear kernels that run step by step: maps the layer, and
            whoever listens, to what is set on layers while a model runs.
        use: what a weight is to a signal beside it, for a raw operation.
        weight_axes: maps it, a weight's rank and number among its inputs to the axes
            of the weight as a kernel; None where they cannot be told.
    """

    kernels: Callable[[Any], Mapping[str, KernelAxes]] | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    used: Callable[[Any, Mapping[str, Any]], tuple[Sequence[str], str]] | None = None
    effect: Effect | None = None
    mean_square: Callable[[Any, Sequence[int | None]], float] | None = None
    activation: Callable[[Any], Any] | None = None
    units: Units | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    operands: tuple[str, ...] = ()
    multiplies: bool = False
    chooses: bool = False
    hands_axes: bool = False
    steps: Callable[[Any], Sequence[Any]] | None = None
    is_loop: bool = False
    loop: Callable[[Any, Any], Iterator[Hook]] | None = None
    use: Use | None = None
    weight_axes: Callable[[Any, int, int], KernelAxes | None] | None = None

    def over(self, other: Kind) -> Kind:
        """This record, completed by that of the class above."""
        mine = {name: value for name, value in vars(self).items() if _says(value)}
        if self.kernels is not None:
            mine["parts"] = self.parts  # of other kernels the class above knows nothing
        return Kind(**{**vars(other), **mine})


class Computed:
    """Operations that make one, known by what they do.

    Attributes:
        kind: its record.
        name: those of the operations.
        gain: for a linear one, the factor on the root mean square.
        bends: whether it is known to be neither linear nor that and an offset.
    """

    def __init__(self, kind: Kind, name: str, gain: float = 1.0, bends: bool = False):
        self.kind, self.name, self.gain, self.bends = kind, name, gain, bends


def _says(value: Any) -> bool:
    return value is not None and value is not False and value not in ((), {})
