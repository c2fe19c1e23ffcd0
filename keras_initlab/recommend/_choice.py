"""What a policy decides for one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A policy's decision for one kernel.

    Attributes:
        initializer: a Keras initializer, or None to leave the kernel as it is.
        reason: why, in one sentence.
        reference: the paper or table it rests on.
        confidence: in [0, 1]; see `Recommendation`.
        alternatives: names of initializers that come next.
        forward_gain: expected std of the pre-activation, relative to that of the
            kernel before (or to the input's); None where theory has no answer.
        backward_gain: the same for gradients, from this pre-activation to the one
            before.
        centered_mean: E[φ] of the activation that the kernel reads, if its bias
            is to take that out: bias = −E[φ]·Σ kernel over the inputs.
        std: the std at which its output is meant to come, its bias left out.
        bias_offset: what its bias starts at beside that, a value per unit: an output
            layer's log-priors. None for what the layer starts it at.
        moving_variance: of the batch normalization after it, which is to start at
            what the kernel gives. None where there is none.
        is_kept: whether the initializer is the one that the layer has.
    """

    initializer: Any
    reason: str
    reference: str
    confidence: float
    alternatives: tuple[str, ...] = ()
    forward_gain: float | None = None
    backward_gain: float | None = None
    centered_mean: float | None = None
    bias_offset: tuple[float, ...] | None = None
    std: float = 1.0
    moving_variance: float | None = None
    is_kept: bool = False


# What a confidence rests on; see `Row`.
CONSTRUCTION, VARIANCE, MEASURED, ESTIMATE = 0.95, 0.75, 0.65, 0.55

FROZEN = Choice(None, "frozen: kept as it is", "", 1.0)
KEPT_BIAS = Choice(
    None, "only meets the logits of an attention, as a bias: kept as it is", "", 1.0
)


def tidy(value: float) -> float:
    """Drops the quadrature's rounding, so that ReLU's 2 is 2 on every backend."""
    return float(f"{value:.5g}")
