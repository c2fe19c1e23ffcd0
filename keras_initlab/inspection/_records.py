"""What inspection finds: immutable records of kernels and of what joins them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import keras

from .._fans import Fans, KernelAxes
from ._operations import Effect, activation_name

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
    "attention output",
)


@dataclass(frozen=True)
class Passage:
    """One operation on the way from a kernel, or the model's input, to a kernel.

    Attributes:
        effect: what it does to the signal.
        name: the operation's class name.
        activation: the activation itself, for an effect of that kind.
    """

    effect: Effect
    name: str
    activation: Any = None


@dataclass(frozen=True, eq=False)
class Merge:
    """An operation with several inputs and no kernel.

    Attributes:
        effect: what it does to the signals.
        links: the ways on which they reach it.
    """

    effect: Effect
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Link:
    """A way on which a signal reaches a kernel or a merge.

    Attributes:
        source: position of the kernel it comes from, a `Merge`, or None for a model
            input.
        passages: what it passes, in order, the source's own activation included.
    """

    source: int | Merge | None
    passages: tuple[Passage, ...] = ()

    def has(self, effect: Effect) -> bool:
        """Whether the way holds a passage of this effect."""
        return any(passage.effect is effect for passage in self.passages)


@dataclass(frozen=True, eq=False)
class KernelRecord:
    """A kernel of a model, and where it stands.

    Attributes:
        position: its number among the model's kernels, from 0.
        key: tells it from all others by its place in the graph upstream alone: layers
            added elsewhere, names and other models do not change it. Seeds rest on it.
        path: the variable's path, unique in the model.
        layer_path: the path of its layer.
        shape: the kernel's shape.
        axes: what its axes mean.
        fans: its true fans.
        role: one of `ROLES`.
        activation: the activation its output really meets, None for linear.
        normalization: class name of a normalization between the two, or None.
        depth: number of kernels on the longest way from an input, itself included.
        upstream: position of the last kernel before it on that way, or None.
        branches: for a residual branch, how many branches the model has; else 0.
        links: every way on which a signal reaches it.
        calls: how often the model uses it.
        trainable: whether training changes it.
        variable: the Keras variable.
        layer: the layer that owns it.
    """

    position: int
    key: tuple[int, int]
    path: str
    layer_path: str
    shape: tuple[int, ...]
    axes: KernelAxes
    fans: Fans
    role: str
    activation: Any
    normalization: str | None
    depth: int
    upstream: int | None
    branches: int
    links: tuple[Link, ...]
    calls: int
    trainable: bool
    variable: Any = field(repr=False)
    layer: Any = field(repr=False)

    @property
    def activation_name(self) -> str:
        """The name of the activation that the output meets."""
        return activation_name(self.activation)

    @property
    def bias(self) -> Any:
        """The bias variable of the kernel's layer if training changes it, or None."""
        bias: Any = vars(self.layer).get("bias")
        is_trained = isinstance(bias, keras.Variable) and bias.trainable
        return bias if is_trained else None

    @property
    def where(self) -> str:
        """The kernel as errors name it: path, layer class and shape."""
        return f"Layer {self.layer_path!r} ({type(self.layer).__name__}, " + (
            f"kernel {self.shape})"
        )


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
            for link in reader.links:
                if isinstance(link.source, int):
                    found[link.source][id(reader)] = reader
        return {position: tuple(group.values()) for position, group in found.items()}

    def longest_chain(self) -> tuple[KernelRecord, ...]:
        """Returns the kernels on the longest way from an input to an output."""
        last = max(self.kernels, key=lambda kernel: kernel.depth)
        chain = [last]
        while chain[-1].upstream is not None:
            chain.append(self.kernels[chain[-1].upstream])
        return tuple(reversed(chain))
