"""What the figures of a pass say about a model, in rules with thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ._finding import KINDS, NOT_FINITE, Finding
from ._spans import change, directions, tail, within
from ._thresholds import ALIKE, FINITE, INPUT_SPAN, LEAST_GRADIENT, LOST_SHARE

if TYPE_CHECKING:
    from ..probing import LayerSignal

_START = "Start from `keras_initlab.recommend(model).apply()`."
_DEAD = "All units after it may be dead, or the loss may not depend on it."
_LOOK = "Look at its weights and at what it receives."

# A unit of random sign is 0 for all of 8 independent examples by chance once in 256.
FEWEST_EXAMPLES = 8


def probe_findings(
    layers: Sequence[LayerSignal],
    broken: tuple[str, int] | None,
    loss: float,
    examples: int,
) -> list[Finding]:
    """Judges the layers of one pass.

    - *not finite*: NaN or infinity first leaves this layer, or reaches the loss or a
      gradient alone. Nothing else is judged then.
    - *input scale*: what the first layer receives is 10 times larger or smaller than 1.
    - *constant outputs*: from this layer on, no output depends on the example: the std
      over examples is below 1e-6 of the outputs' size.
    - *vanishing* and *exploding signal*: from this layer on, the std over examples of
      the pre-activations stays 1,000 times below (above) both that of what the first
      layer receives and that of the same brought to unit size, which is what a
      recommended or calibrated first kernel makes of inputs of any scale.
    - None of these three is told of a single example.
    - *no gradient*: the loss does not depend on what the layer returns.
    - *vanishing* and *exploding gradient*: this layer and all before it get a gradient
      (L2 norm over all outputs) 1,000 times below (above) that of the last layer.
    - *symmetric units*: units with equal weights, biases and gradients.
    - *saturated units*: more than half of the outputs lie within 1 % of the
      activation's range from its limits; of those that would not at N(0, 1)
      pre-activations, where half of a ReLU6 is off.
    - *dead units*: more than half of the units of a layer with an activation are 0 for
      each of 8 or more examples.
    """
    ran = [one for one in layers if one.output is not None]
    stopped = _not_finite(ran, broken, loss)
    if stopped is not None:
        return [stopped]
    found: list[Finding] = []
    found += _input_scale(ran)
    if examples > 1:  # one does not tell what varies between examples
        found += _forward(ran)
    found += _backward(ran)
    for one in ran:
        found += _of_layer(one, examples)
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def sentences(found: Sequence[Finding]) -> list[str]:
    """Puts findings into words, those of one kind in several layers together."""
    groups: dict[str, list[Finding]] = {}
    for one in found:
        groups.setdefault(one.kind, []).append(one)
    texts = []
    for first, *others in groups.values():
        more = ""
        if others:
            layers = "layers" if len(others) > 1 else "layer"
            until = "the last of them " if len(others) > 1 else ""
            more = f" So in {len(others)} more {layers}, {until}{others[-1].path}."
        texts.append(f"{first.path} {first.text}.{more} {first.cure}")
    return texts


def _not_finite(
    layers: Sequence[LayerSignal], broken: tuple[str, int] | None, loss: float
) -> Finding | None:
    """An infinite number alone may be meant, as in a mask: it must reach the loss."""
    stopped = _no_finite_gradient(layers)
    if math.isfinite(loss) and stopped is None:
        return None
    if broken is not None:
        path, count = broken
        text = f"is the first to return NaN or infinity ({count} numbers)"
        return Finding(NOT_FINITE, path, float(count), (0.0, 0.0), text, _LOOK)
    if layers and not math.isfinite(loss):
        path = layers[-1].path
        text = f"is the last to return finite outputs, of which the loss is {loss}"
        cure = "Look at the loss: it may take the log of 0."
        return Finding(NOT_FINITE, path, loss, FINITE, text, cure)
    return stopped


def _no_finite_gradient(layers: Sequence[LayerSignal]) -> Finding | None:
    for one in reversed(layers):
        norms = [one.gradient.norm if one.gradient else 0.0]
        norms.append(one.weight_gradient_norm or 0.0)
        bad = [norm for norm in norms if not math.isfinite(norm)]
        if bad:
            text = (
                "is the last layer, and so the first backward, with a gradient of "
                f"{bad[0]}, while all outputs are finite"
            )
            cure = "Look at the derivative of what follows it: of √0, log 0 or 0/0."
            return Finding(NOT_FINITE, one.path, bad[0], FINITE, text, cure)
    return None


def _input_scale(layers: Sequence[LayerSignal]) -> Iterator[Finding]:
    first = next((one for one in layers if one.has_kernel), None)
    if first is None or first.input is None:
        return
    size = first.input.size
    if size and not 1 / INPUT_SPAN <= size <= INPUT_SPAN:
        text = f"receives inputs of a root mean square of {size:.3g}"
        expected = 1 / INPUT_SPAN, INPUT_SPAN
        cure = "Standardize the inputs."
        yield Finding("input scale", first.path, size, expected, text, cure)


def _forward(layers: Sequence[LayerSignal]) -> Iterator[Finding]:
    constant = _constant_from(layers)
    if constant is not None:
        share, path = constant
        text = "and all layers after it return the same for every example"
        expected = ALIKE, math.inf
        yield Finding("constant outputs", path, share, expected, text, _START)
    kernels = [one for one in layers if one.has_kernel]
    sizes = [_varying(one) for one in kernels]
    lower, upper = _range(kernels)
    if lower:
        for kind, is_beyond, limit in directions("signal"):
            base = lower if limit < 1 else upper
            start = tail(sizes, base, is_beyond)
            if start is None:
                continue
            paths = [one.path for one in layers]
            if constant is not None and paths.index(constant[1]) <= paths.index(
                kernels[start].path
            ):
                continue  # that has been said
            path, ratio = kernels[start].path, (sizes[start] or 0.0) / base
            end = (sizes[-1] or 0.0) / base
            verb = "lets the signal vanish" if limit < 1 else "makes the signal explode"
            text = (
                f"{verb}: {change(ratio)} here, and {change(end)} in the last kernel "
                f"layer, than the std of {base:.3g} that such inputs should give"
            )
            yield Finding(kind, path, ratio, within(limit), text, _START)


def _backward(layers: Sequence[LayerSignal]) -> Iterator[Finding]:
    kernels = [one for one in layers if one.has_kernel and one.gradient is not None]
    norms = [one.gradient.norm for one in kernels if one.gradient is not None]
    if not norms:
        return
    if not any(norms):
        text = "gets no gradient, nor does any other layer with a kernel"
        path, expected = kernels[-1].path, (LEAST_GRADIENT, math.inf)
        yield Finding("no gradient", path, 0.0, expected, text, _DEAD)
        return
    base = next(norm for norm in reversed(norms) if norm)
    for one, norm in zip(kernels, norms, strict=True):
        if not norm:
            text = "gets no gradient for what it returns"
            expected = LEAST_GRADIENT, math.inf
            yield Finding("no gradient", one.path, 0.0, expected, text, _DEAD)
    living = [(o, n) for o, n in zip(kernels, norms, strict=True) if n]
    sizes: list[float | None] = [n for _, n in reversed(living)]
    for kind, is_beyond, limit in directions("gradient"):
        start = tail(sizes, base, is_beyond)
        if start is None:
            continue
        path, ratio = living[-1 - start][0].path, living[-1 - start][1] / base
        adjective = kind.split()[0]
        text = (
            f"and all layers before it get {'an' if limit > 1 else 'a'} {adjective} "
            f"gradient: {change(ratio)} here, and {change(living[0][1] / base)} in the "
            "first layer, than in the last"
        )
        yield Finding(kind, path, ratio, within(limit), text, _START)


def _of_layer(one: LayerSignal, examples: int) -> Iterator[Finding]:
    for weight in one.weights:
        if weight.symmetric_units:
            count, kind = float(weight.symmetric_units), "symmetric units"
            text = (
                f"has {count:.0f} of {weight.units} units of {weight.path} symmetric: "
                "equal weights and equal gradients, which no training can tell apart"
            )
            yield Finding(kind, one.path, count, (0.0, 0.0), text, _START)
    share = one.saturated_share
    most = 1 - LOST_SHARE * (1 - one.usually_saturated)
    if share is not None and share > most:
        text = f"is saturated: {share:.0%} of its {one.activation} are flat"
        yield Finding("saturated units", one.path, share, (0.0, most), text, _START)
    is_judged = one.activation != "linear" and examples >= FEWEST_EXAMPLES
    if is_judged and one.dead_share > LOST_SHARE:
        text = (
            f"has {len(one.dead_units)} of {one.units} units dead: 0 for every example"
        )
        share, expected = one.dead_share, (0.0, LOST_SHARE)
        yield Finding("dead units", one.path, share, expected, text, _START)


def _constant_from(layers: Sequence[LayerSignal]) -> tuple[float, str] | None:
    """The layer from which on nothing depends on the example, and how little."""
    found = None
    for one in reversed(layers):
        after = one.output
        if after is None or after.example_std is None:
            return None
        if after.example_std > ALIKE * after.size:
            return found
        share = after.example_std / after.size if after.size else 0.0
        found = share, one.path
    return found


def _varying(one: LayerSignal) -> float | None:
    """What tells examples apart in a layer's pre-activations."""
    signal = one.signal
    if signal is None:
        return None
    return signal.std if signal.example_std is None else signal.example_std


def _range(kernels: Sequence[LayerSignal]) -> tuple[float, float]:
    """Between which sizes a signal is as large as its inputs let it be.

    A kernel either keeps the scale of what the model is given, or brings it to unit
    size, as every scheme has it. What varies between examples is then the share of the
    whole that it is of the inputs. Words have no scale: what is looked up for them
    counts.
    """
    if not kernels:
        return 0.0, 0.0
    given = kernels[0].input or kernels[0].signal
    if given is None or not given.size:
        return 0.0, 0.0
    varying = given.std if given.example_std is None else given.example_std
    sizes = varying, varying / given.size
    return min(sizes), max(sizes)
