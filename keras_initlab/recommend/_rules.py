"""The rule table: an initializer by activation, depth category and widths."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from .._core.errors import check_count, message
from .._keras.kinds import keras_fans
from ..initializers import AdaptiveHe, LayerSequential, SpectralNorm, WidthAware
from ..inspection import Inspection, KernelRecord
from ._chain import chain_widths
from ._choice import FROZEN, Choice

# activation: (shallow, deep, very deep)
_TABLE = {
    "relu": ("he_normal", "adaptive_he", "spectral_norm"),
    "leaky_relu": ("he_normal", "he_normal", "adaptive_he"),
    "sigmoid": ("xavier_normal", "xavier_normal", "layer_sequential"),
    "tanh": ("xavier_normal", "xavier_normal", "layer_sequential"),
    "selu": ("lecun_normal", "lecun_normal", "lecun_normal"),
}
_OTHER = ("he_normal", "he_normal", "he_normal")
_CATEGORIES = ("shallow", "deep", "very_deep")
_ALTERNATIVES = {
    "he_normal": ("he_uniform", "adaptive_he"),
    "xavier_normal": ("xavier_uniform", "lecun_normal"),
    "adaptive_he": ("he_normal", "spectral_norm"),
}
_OTHER_ALTERNATIVES = ("he_normal", "xavier_normal")
_ADVICE = {
    "wide_layers": "Add batch normalization beside layers of more than 1,000 units.",
    "narrow_bottleneck": "A hidden layer of fewer than 10 units can lose information.",
    "irregular_width": "Widths change by more than 10 times: initialize by layer.",
    "very_deep": "Add residual connections: there are more than 20 hidden layers.",
}


@dataclass(frozen=True)
class WidthsRecommendation:
    """What the rule table says about a dense network.

    Attributes:
        method: name of the initializer.
        confidence: in [0.3, 0.95].
        alternatives: names of two others.
        advice: sentences, one an issue.
        issues: among `wide_layers`, `narrow_bottleneck`, `very_deep` and
            `irregular_width`, in this order.
        depth_category: `shallow`, `deep` or `very_deep`.
        hidden: number of hidden layers.
        params: number of weights and biases.

    Example:
        >>> found = recommend_widths([784, 128, 10])
        >>> found.depth_category, found.params
        ('shallow', 101770)
    """

    method: str
    confidence: float
    alternatives: tuple[str, ...]
    advice: tuple[str, ...]
    issues: tuple[str, ...]
    depth_category: str
    hidden: int
    params: int


def recommend_widths(
    widths: Iterable[int], activation: str = "relu"
) -> WidthsRecommendation:
    """Returns what the rule table says about a dense network of these widths.

    The table knows five activations and three depths, and corrects its choice for
    wide, narrow and irregular layers. It is the textbook's answer; `recommend` looks
    at the model instead.

    Args:
        widths: units per layer, inputs and outputs included, `[d0, ..., dn]` with at
            least two entries.
        activation: name of the hidden layers' activation, in any case.

    Returns:
        A `WidthsRecommendation`.

    Raises:
        ValueError: for fewer than two widths, or a width that is no positive whole
            number.

    Example:
        >>> recommend_widths([784, 128, 64, 10]).method
        'he_normal'
        >>> recommend_widths([10, 1000, 5, 500, 1]).issues
        ('narrow_bottleneck', 'irregular_width')
    """
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise ValueError(
            message(
                "`widths` must be a sequence of whole numbers.",
                f"widths={widths!r}",
                "For example [784, 128, 10].",
            )
        )
    widths = [check_count("widths", width, usual=128) for width in widths]
    if len(widths) < 2:
        raise ValueError(
            message(
                "`widths` must name at least an input and an output.",
                f"widths={widths}",
                "For example [784, 128, 10].",
            )
        )
    if not isinstance(activation, str):
        raise ValueError(
            message("`activation` must be a name.", f"activation={activation!r}")
        )
    hidden = len(widths) - 2
    activation = activation.lower()
    category = 0 if hidden <= 3 else 1 if hidden <= 10 else 2
    base = _TABLE.get(activation, _OTHER)[category]
    issues = _issues(widths)
    method = _corrected(base, issues)
    return WidthsRecommendation(
        method=method,
        confidence=_confidence(activation, issues),
        alternatives=_ALTERNATIVES.get(method, _OTHER_ALTERNATIVES),
        advice=tuple(_ADVICE[issue] for issue in _ADVICE if issue in issues),
        issues=issues,
        depth_category=_CATEGORIES[category],
        hidden=hidden,
        params=sum(m * n + n for m, n in itertools.pairwise(widths)),
    )


def rules_choices(
    inspection: Inspection,
) -> tuple[list[Choice], WidthsRecommendation]:
    """Returns the rule table's choice for every kernel, and the table's record."""
    hidden = [k.activation_name for k in inspection.kernels if k.role != "output"]
    common = Counter(hidden).most_common(1)
    activation = common[0][0] if common else "linear"
    record = recommend_widths(chain_widths(inspection), activation)
    choices = [
        Choice(
            initializer=_MAKERS[record.method](kernel),
            reason=f"{activation}, {record.hidden} hidden layers ({category}): "
            f"{record.method} by the rule table"
            + (f", for {', '.join(record.issues)}" if record.issues else ""),
            reference="rule table of the source course",
            confidence=record.confidence,
            alternatives=record.alternatives,
        )
        if kernel.trainable
        else FROZEN
        for category in [record.depth_category.replace("_", " ")]
        for kernel in inspection.kernels
    ]
    return choices, record


def _issues(widths: Sequence[int]) -> tuple[str, ...]:
    ratios = [n / m for m, n in itertools.pairwise(widths)]
    found = {
        "wide_layers": any(width > 1000 for width in widths),
        "narrow_bottleneck": any(width < 10 for width in widths[1:-1]),
        "very_deep": len(widths) - 2 > 20,
        "irregular_width": any(ratio > 10 or ratio < 0.1 for ratio in ratios),
    }
    return tuple(issue for issue, is_present in found.items() if is_present)


def _corrected(base: str, issues: Sequence[str]) -> str:
    method = base
    if "wide_layers" in issues and base == "he_normal":
        method = "adaptive_he"
    if "irregular_width" in issues and base in ("he_normal", "xavier_normal"):
        method = "width_aware"
    if "very_deep" in issues:
        method = "spectral_norm"
    return method


def _confidence(activation: str, issues: Sequence[str]) -> float:
    confidence = 0.8
    if activation in ("relu", "sigmoid", "tanh"):
        confidence += 0.1
    if len(issues) > 2:
        confidence -= 0.2
    return min(0.95, max(0.3, confidence))


def _scaling(scale: float, mode: str) -> Callable[[KernelRecord], Any]:
    def make(kernel: KernelRecord) -> Any:
        if kernel.fans == keras_fans(kernel.shape):
            return keras.initializers.VarianceScaling(scale, mode, "untruncated_normal")
        fan_in, fan_out = kernel.fans  # Keras would take others from the shape
        fan = fan_in if mode == "fan_in" else (fan_in + fan_out) / 2
        return keras.initializers.RandomNormal(stddev=math.sqrt(scale / fan))

    return make


_MAKERS: dict[str, Callable[[KernelRecord], Any]] = {
    "he_normal": _scaling(2.0, "fan_in"),
    "xavier_normal": _scaling(1.0, "fan_avg"),
    "lecun_normal": _scaling(1.0, "fan_in"),
    "adaptive_he": lambda kernel: AdaptiveHe(
        depth=kernel.depth,
        input_axes=kernel.axes.input_axes,
        output_axes=kernel.axes.output_axes,
    ),
    "layer_sequential": lambda kernel: LayerSequential(
        index=kernel.depth,
        activation="sigmoid",
        input_axes=kernel.axes.input_axes,
        output_axes=kernel.axes.output_axes,
    ),
    "spectral_norm": lambda kernel: SpectralNorm(
        input_axes=kernel.axes.input_axes, output_axes=kernel.axes.output_axes
    ),
    "width_aware": lambda kernel: WidthAware(
        input_axes=kernel.axes.input_axes, output_axes=kernel.axes.output_axes
    ),
}
