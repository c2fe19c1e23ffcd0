"""What the model's outputs mean: probabilities, by loss or activation, or values.

Logits start below one, and no kernel for them is far larger than Keras's own: what
reads small features, as a mean of embeddings, learns faster if it does not make up for
all of that. Cross-entropy then starts near the log of the number of classes, above
which logits of std s cost s²/2, here 0.32. Smaller ones would start nearer still, and
learn slower: what a step of the layers below changes reaches the logits through this
kernel. Behind an average over positions, as in most networks for images, a good part of
the logits is moreover the same for all examples. Values that a squared or absolute
error judges start small for the same reason: of standardized ones, those of std s
explain −s² of the variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from .._keras.private import (
    functional_of,
    history_of,
    inbound_nodes,
    outputs_struct,
    sublayers,
)
from ..inspection import Inspection, KernelRecord
from ._choice import Choice, tidy

# Of what outputs give, by what that means; of values, as a share of their spread.
_STDS = {"softmax": 0.8, "sigmoid": 0.8, "values": 0.3}

_LOGIT_REFERENCE = "Goyal et al. 2017, 1706.02677, sec. 5.1"

_STARTS = {
    "softmax": "softmax logits",
    "sigmoid": "sigmoid logits",
    "values": "predictions",
}
_LOSSES = {
    "softmax": "the log of the number of classes",
    "sigmoid": "log 2",
    "values": "the spread of the targets",
}
_ROBUST_LOSSES = ("meanabsoluteerror", "mae", "huber", "logcosh")
_VALUE_LOSSES = ("meansquarederror", "mse", *_ROBUST_LOSSES)
_SOFTMAX_LOSSES = ("categoricalcrossentropy", "categoricalfocalcrossentropy")
_SIGMOID_LOSSES = ("binarycrossentropy", "binaryfocalcrossentropy")


@dataclass(frozen=True)
class Output:
    """What a kernel of a known meaning gives.

    Attributes:
        kind: `softmax` or `sigmoid` for logits, `values` for predicted ones.
        spread: the std of the values, where targets tell it.
        is_robust: whether the loss of values grows no faster than they do.
    """

    kind: str
    spread: float | None = None
    is_robust: bool = False

    @property
    def std(self) -> float:
        """What it starts with."""
        return tidy(_STDS[self.kind] * (self.spread or 1.0))

    @property
    def is_logits(self) -> bool:
        """Whether it gives logits, and no values."""
        return self.kind != "values"

    def told(self, std: float) -> str:
        """That it starts with a std, and why, in words."""
        part = f", {_STDS[self.kind]:g} of the targets'" if self.spread else ""
        if std < self.std:
            part = ", of a kernel no larger than that"
        return (
            f"{_STARTS[self.kind]} of std {std:.3g}{part}, so that the loss "
            f"starts near {_LOSSES[self.kind]}"
        )


def meant_outputs(model: Any, inspection: Inspection) -> dict[int, Output]:
    """Returns what each output kernel gives whose meaning is known, by position.

    An output's own activation decides; for a linear one the loss that the model was
    compiled with.
    """
    names = output_names(model, inspection)
    found: dict[int, Output] = {}
    for kernel in inspection.kernels:
        if kernel.role == "output":
            loss = _loss_of(model, kernel, names.get(kernel.position))
            kind = _kind(kernel.activation_name, loss)
            if kind:
                is_robust = _name_of(loss).endswith(_ROBUST_LOSSES)
                found[kernel.position] = Output(kind, is_robust=is_robust)
    return found


def as_output(choice: Choice, output: Output | None, std: float) -> Choice:
    """Returns a choice that says so where it is for an output that starts small.

    Args:
        choice: for a kernel.
        output: what it gives, as `meant_outputs` tells; None for any other kernel.
        std: that it starts with.
    """
    if output is None:
        return choice
    return replace(
        choice,
        reason=f"{choice.reason}; {output.told(std)}",
        reference=f"{choice.reference}; {_LOGIT_REFERENCE}",
    )


def output_names(model: Any, inspection: Inspection) -> dict[int, str]:
    """Returns the name of the model's output that each kernel gives, by position."""
    model = functional_of(model)
    outputs = outputs_struct(model)
    if outputs is None:
        return {}
    if isinstance(outputs, dict):
        pairs = list(outputs.items())
    else:
        pairs = list(zip(model.output_names, keras.tree.flatten(outputs), strict=False))
    position_of = {id(k.layer): k.position for k in inspection.kernels}
    found: dict[int, str] = {}
    for name, tensor in pairs:
        for layer in _back(tensor):
            if id(layer) in position_of:
                found[position_of[id(layer)]] = name
                break
    return found


def _back(tensor: Any) -> Iterator[Any]:
    """The layers on the path back from a tensor, as far as it is a single one."""
    while history_of(tensor) is not None:
        operation, number, _ = history_of(tensor)
        yield from _inside(operation)
        nodes = inbound_nodes(operation)
        before = nodes[number].input_tensors if number < len(nodes) else []
        if len(before) != 1 or getattr(operation, "is_input", False):
            return
        (tensor,) = before


def _inside(layer: Any) -> Iterator[Any]:
    """A layer and those inside it, the last ones first."""
    for inner in reversed(sublayers(layer)):
        yield from _inside(inner)
    yield layer


def _loss_of(model: Any, kernel: KernelRecord, name: str | None) -> Any:
    """The loss that the model was compiled with for this output, or None."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        return loss.get(name or kernel.layer.name)
    if isinstance(loss, (list, tuple)):
        names: list[Any] = list(getattr(functional_of(model), "output_names", ()))
        known = name in names and len(names) == len(loss)
        return loss[names.index(name)] if known else None
    return loss


def _kind(activation: str, loss: Any) -> str | None:
    if activation in ("softmax", "log_softmax"):
        return "softmax"
    if activation == "sigmoid":
        return "sigmoid"
    name = _name_of(loss)
    if activation != "linear":
        return None
    if name.endswith(_SOFTMAX_LOSSES):
        return "softmax"
    if name.endswith(_SIGMOID_LOSSES):
        return "sigmoid"
    return "values" if name.endswith(_VALUE_LOSSES) else None


def _name_of(loss: Any) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    return (name or type(loss).__name__).replace("_", "").lower()
