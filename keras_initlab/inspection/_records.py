"""What inspection finds: immutable records of kernels and of what joins them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from .._keras.kinds import Effect, Fans, Kernel, KernelAxes
from ._operations import activation_name

ROLES = (
    "hidden",
    "output",
    "residual branch",
    "shortcut",
    "recurrent",
    "recurrent input",
    "embedding",
    "query",
    "key",
    "value",
    "qkv",
    "attention output",
    "gate",
    "bias",
)


@dataclass(frozen=True)
class Transform:
    """One operation on an edge, from a kernel, or the model's input, to a kernel.

    Attributes:
        effect: what it does to the signal.
        name: the operation's class name.
        activation: the activation itself, for an effect of that kind.
        mean_square: that of what a normalization gives.
        gain: for a linear one, the factor on the root mean square, as far as known.
        bends: whether it is known to be neither linear nor that and an offset.
        operation: the layer or operation itself; None if it is called several times.
    """

    effect: Effect
    name: str
    activation: Any = None
    mean_square: float = 1.0
    gain: float = 1.0
    bends: bool = False
    operation: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Merge:
    """An operation with several inputs and no kernel.

    Attributes:
        effect: what it does to the signals.
        edges: the edges on which they reach it.
        shares: of signals put side by side, the share that each has of the units.
        operation: the layer or operation itself; None if it is called several times.
    """

    effect: Effect
    edges: tuple[Edge, ...]
    shares: tuple[float, ...] = ()
    operation: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Edge:
    """An edge, on which a signal reaches a kernel or a merge.

    Attributes:
        source: position of the kernel it comes from, a `Merge`, or None for a model
            input.
        transforms: what it passes, in order, the source's own activation included.
        entry: for a model input, which one it is, from 0; else None.
    """

    source: int | Merge | None
    transforms: tuple[Transform, ...] = ()
    entry: int | None = None

    def has(self, effect: Effect) -> bool:
        """Whether the edge holds a transform of this effect."""
        return any(transform.effect is effect for transform in self.transforms)


@dataclass(frozen=True, eq=False)
class KernelRecord:
    """A kernel of a model, and where it stands.

    Attributes:
        position: its number among the model's kernels, from 0.
        key: tells it from all others by its place in the graph upstream alone: layers
            added elsewhere, names and other models do not change it. Seeds rest on it.
        path: the variable's path, unique in the model.
        role: one of `ROLES`.
        activation: the activation its output really meets, None for linear.
        activation_gain: the factor on its output where that meets it.
        normalization: class name of a normalization between the two, or None.
        depth: number of kernels on the longest path from an input, itself included.
        upstream: position of the last kernel before it on that path, or None.
        branches: for a residual branch, how many branches the model has; else 0.
        branch: which one it closes, from 0 in the order of the model, or None.
        edges: every edge on which a signal reaches it.
        calls: how often the model uses it.
        is_tied: whether different operations use it, as an encoder and a decoder.
        normalizer: the layer or operation that `normalization` names, or None.
        time_steps: over how many steps the recurrent layer runs that it is in; None if
            that is open, or it is in none.
        attention_std: for a query or key, the std at which attention logits have
            variance 1.
        trainable: whether training changes it.
        kernel: its variable, layer and axes.
    """

    position: int
    key: tuple[int, int]
    path: str
    role: str
    activation: Any
    normalization: str | None
    depth: int
    upstream: int | None
    branches: int
    edges: tuple[Edge, ...]
    calls: int
    trainable: bool
    kernel: Kernel = field(repr=False)
    branch: int | None = None
    is_tied: bool = False
    normalizer: Any = field(default=None, repr=False)
    attention_std: float = 1.0
    activation_gain: float = 1.0
    time_steps: int | None = None

    @property
    def activation_name(self) -> str:
        """The name of the activation that the output meets."""
        return activation_name(self.activation)

    @property
    def gates(self) -> int:
        """How many gates of a recurrent layer lie side by side in it, 1 for none."""
        return self.axes.gates

    @property
    def bias(self) -> Any:
        """The bias it brings if training changes that, or None."""
        bias = self.kernel.bias
        return bias if bias is not None and bias.trainable else None

    @property
    def variable(self) -> Any:
        """The Keras variable."""
        return self.kernel.variable

    @property
    def layer(self) -> Any:
        """The layer that owns it."""
        return self.kernel.layer

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.kernel.shape

    @property
    def axes(self) -> KernelAxes:
        """What its axes mean."""
        return self.kernel.axes

    @property
    def fans(self) -> Fans:
        """Its true fans."""
        return self.kernel.fans


@dataclass(frozen=True, eq=False)
class Inspection:
    """All kernels of a model, in the order of their positions.

    Attributes:
        model_name: the model's name.
        kernels: the records.
        merges: every merge of signals, sources first.
    """

    model_name: str
    kernels: tuple[KernelRecord, ...]
    merges: tuple[Merge, ...]

    @functools.cached_property
    def readers(self) -> dict[int, tuple[KernelRecord | Merge, ...]]:
        """Which kernels and merges read each kernel's output, by its position."""
        found: dict[int, dict[int, KernelRecord | Merge]] = {
            kernel.position: {} for kernel in self.kernels
        }
        for reader in (*self.kernels, *self.merges):
            for edge in reader.edges:
                if isinstance(edge.source, int):
                    found[edge.source][id(reader)] = reader
        return {position: tuple(group.values()) for position, group in found.items()}
