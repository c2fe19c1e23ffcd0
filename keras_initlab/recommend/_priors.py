"""What the biases of outputs start at: classes' log-priors, the middle of values.

A class that is rare is known to be so at the start by the output's bias, log p for a
softmax and log p/(1 − p) for a sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._core.errors import message
from ..inspection import Inspection, KernelRecord
from ._choice import Choice
from ._outputs import Output, output_names

_REFERENCE = "Lin et al. 2017, 1708.02002, sec. 3.3"
_OFFSETS = {
    "softmax": "the classes' log-priors",
    "sigmoid": "the classes' log-priors",
    "values": "the targets' middle",
}


def with_offsets(
    choices: list[Choice],
    offsets: Mapping[int, tuple[float, ...]],
    outputs: Mapping[int, Output],
) -> list[Choice]:
    """Returns the choices with the biases that shares and means ask for."""
    return [
        choice
        if position not in offsets or choice.initializer is None
        else replace(
            choice,
            reason=f"{choice.reason}; the bias starts at "
            f"{_OFFSETS[outputs[position].kind]}",
            reference=f"{choice.reference}; {_REFERENCE}",
            bias_offset=offsets[position],
        )
        for position, choice in enumerate(choices)
    ]


def log_priors(
    model: Any, inspection: Inspection, outputs: Mapping[int, Output], priors: Any
) -> dict[int, tuple[float, ...]]:
    """Returns what the biases of output kernels start at, by position.

    Args:
        model: the model.
        inspection: its kernels.
        outputs: what `meant_outputs` returns.
        priors: the share of each class, or a dict of them by the output's name.

    Raises:
        ValueError: for priors that are no probabilities, fit no output, or an output
            without a bias.
    """
    if priors is None:
        return {}
    names = output_names(model, inspection)
    named = {}
    for position, output in outputs.items():
        if not output.is_logits:
            continue
        kernel = inspection.kernels[position]
        named[names.get(position, kernel.layer.name)] = kernel
    if not isinstance(priors, Mapping):
        if len(named) != 1:
            raise ValueError(_misnamed(f"priors for one of {len(named)}", named))
        priors = dict.fromkeys(named, priors)
    unknown = [name for name in priors if name not in named]
    if unknown:
        raise ValueError(_misnamed(f"class_priors for {unknown}", named))
    return {
        named[name].position: _log_odds(named[name], outputs, given)
        for name, given in priors.items()
    }


def _log_odds(
    kernel: KernelRecord, outputs: Mapping[int, Output], given: Any
) -> tuple[float, ...]:
    """The bias at which the output gives these shares."""
    shares = np.atleast_1d(np.asarray(given, dtype="float64"))
    is_softmax = outputs[kernel.position].kind == "softmax"
    is_open = bool(np.all((shares > 0) & (shares < 1)))
    units = kernel.shape[-1]
    whole = not is_softmax or abs(shares.sum() - 1) < 1e-3
    if shares.shape != (units,) or not is_open or not whole:
        summed = " that sum to 1" if is_softmax else ""
        raise ValueError(
            message(
                f"`class_priors` must be {units} probabilities between 0 and 1"
                f"{summed} for output {kernel.layer.name!r}.",
                f"class_priors={_short(given)}",
            )
        )
    if kernel.bias is None or tuple(kernel.bias.shape) != (units,):
        raise ValueError(
            message(
                "`class_priors` need an output with a trainable bias.",
                f"output {kernel.layer.name!r} without one",
                "Build it with `use_bias=True`.",
            )
        )
    return logits_at(shares, is_softmax)


def logits_at(shares: np.ndarray, is_softmax: bool) -> tuple[float, ...]:
    """Returns the logits of classes of these shares."""
    log_odds = np.log(shares) if is_softmax else np.log(shares / (1 - shares))
    return tuple(float(f"{value:.6g}") for value in log_odds)


def _misnamed(received: str, named: Mapping[str, Any]) -> str:
    names = ", ".join(map(repr, sorted(named))) or "none"
    return message(
        "`class_priors` must be the shares of one output's classes, or a dict by "
        "the names of outputs that give probabilities.",
        received,
        f"The outputs that do are: {names}.",
    )


def _short(given: Any) -> str:
    text = repr(given).replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."
