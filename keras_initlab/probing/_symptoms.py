"""What the figures of a pass say about a model, in rules with thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ._layers import LayerSignal
from ._spans import change, directions, tail

# Rounding alone makes float32 outputs that should be alike differ by about 1e-7.
ALIKE = 1e-6
# A layer of which more than half is lost has less than half of its width.
LOST_SHARE = 0.5
# A unit of random sign is 0 for all of 8 independent examples by chance once in 256.
FEWEST_EXAMPLES = 8
# Every scheme of initialization assumes inputs of about unit size.
INPUT_SPAN = 10.0

KINDS = (
    "not finite",
    "input scale",
    "constant outputs",
    "vanishing signal",
    "exploding signal",
    "no gradient",
    "vanishing gradient",
    "exploding gradient",
    "symmetric units",
    "saturated",
    "dead units",
)


@dataclass(frozen=True)
class Symptom:
    """Something in a pass that keeps a model from training well.

    Attributes:
        kind: one of `KINDS`.
        path: the layer where it begins.
        measured: the number that shows it.
        limit: where it becomes a symptom.
        text: a sentence.
    """

    kind: str
    path: str
    measured: float
    limit: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)


def symptoms(
    layers: Sequence[LayerSignal],
    broken: tuple[str, int] | None,
    loss: float,
    examples: int,
) -> list[Symptom]:
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
    - *saturated*: more than half of the outputs lie within 1 % of the activation's
      range from its limits; of those that would not at N(0, 1) pre-activations, where
      half of a ReLU6 is off.
    - *dead units*: more than half of the units of a layer with an activation are 0 for
      each of 8 or more examples.
    """
    ran = [one for one in layers if one.output is not None]
    stopped = _not_finite(ran, broken, loss)
    if stopped is not None:
        return [stopped]
    found: list[Symptom] = []
    found += _input_scale(ran)
    if examples > 1:  # one does not tell what varies between examples
        found += _forward(ran)
    found += _backward(ran)
    for one in ran:
        found += _of_layer(one, examples)
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def sentences(found: Sequence[Symptom]) -> list[str]:
    """Puts symptoms into words, those of one kind in several layers together."""
    groups: dict[str, list[Symptom]] = {}
    for one in found:
        groups.setdefault(one.kind, []).append(one)
    texts = []
    for first, *others in groups.values():
        more = ""
        if others:
            layers = "layers" if len(others) > 1 else "layer"
            until = "the last of them " if len(others) > 1 else ""
            more = f" So in {len(others)} more {layers}, {until}{others[-1].path}."
        texts.append(first.text + more)
    return texts


def _not_finite(
    layers: Sequence[LayerSignal], broken: tuple[str, int] | None, loss: float
) -> Symptom | None:
    """An infinite number alone may be meant, as in a mask: it must reach the loss."""
    stopped = _no_finite_gradient(layers)
    if math.isfinite(loss) and stopped is None:
        return None
    if broken is not None:
        path, count = broken
        text = f"{path} is the first to return NaN or infinity ({count} numbers)."
        return Symptom("not finite", path, float(count), 0.0, text)
    if layers and not math.isfinite(loss):
        path = layers[-1].path
        text = f"The loss is {loss}, while all outputs are finite."
        return Symptom("not finite", path, loss, 0.0, text)
    return stopped


def _no_finite_gradient(layers: Sequence[LayerSignal]) -> Symptom | None:
    for one in reversed(layers):
        norms = [one.gradient.norm if one.gradient else 0.0]
        norms.append(one.weight_gradient_norm or 0.0)
        bad = [norm for norm in norms if not math.isfinite(norm)]
        if bad:
            text = (
                f"{one.path} is the last layer, and so the first backward, with a "
                f"gradient of {bad[0]}, while all outputs are finite."
            )
            return Symptom("not finite", one.path, bad[0], 0.0, text)
    return None


def _input_scale(layers: Sequence[LayerSignal]) -> Iterator[Symptom]:
    first = next((one for one in layers if one.has_kernel), None)
    if first is None or first.input is None:
        return
    size = first.input.size
    if size and not 1 / INPUT_SPAN <= size <= INPUT_SPAN:
        text = (
            f"What {first.path} receives has a root mean square of {size:.3g}: "
            "standardize the inputs."
        )
        limit = INPUT_SPAN if size > 1 else 1 / INPUT_SPAN
        yield Symptom("input scale", first.path, size, limit, text)


def _forward(layers: Sequence[LayerSignal]) -> Iterator[Symptom]:
    constant = _constant_from(layers)
    if constant is not None:
        share, path = constant
        text = f"From {path} on, the outputs are the same for every example."
        yield Symptom("constant outputs", path, share, ALIKE, text)
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
            text = (
                f"The signal is {kind.split()[0]} from {path} on: {change(ratio)} "
                f"there and {change(end)} in the last kernel layer than the std of "
                f"{base:.3g} that such inputs should give."
            )
            yield Symptom(kind, path, ratio, limit, text)


def _backward(layers: Sequence[LayerSignal]) -> Iterator[Symptom]:
    kernels = [one for one in layers if one.has_kernel and one.gradient is not None]
    norms = [one.gradient.norm for one in kernels if one.gradient is not None]
    if not norms:
        return
    if not any(norms):
        text = "No gradient reaches any layer with a kernel."
        yield Symptom("no gradient", kernels[-1].path, 0.0, 0.0, text)
        return
    base = next(norm for norm in reversed(norms) if norm)
    for one, norm in zip(kernels, norms, strict=True):
        if not norm:
            text = f"No gradient reaches what {one.path} returns."
            yield Symptom("no gradient", one.path, 0.0, 0.0, text)
    living = [(o, n) for o, n in zip(kernels, norms, strict=True) if n]
    sizes: list[float | None] = [n for _, n in reversed(living)]
    for kind, is_beyond, limit in directions("gradient"):
        start = tail(sizes, base, is_beyond)
        if start is None:
            continue
        path, ratio = living[-1 - start][0].path, living[-1 - start][1] / base
        text = (
            f"The gradient is {kind.split()[0]} from {path} back: {change(ratio)} "
            f"there and {change(living[0][1] / base)} in the first layer than in the "
            "last."
        )
        yield Symptom(kind, path, ratio, limit, text)


def _of_layer(one: LayerSignal, examples: int) -> Iterator[Symptom]:
    for weight in one.weights:
        if weight.symmetric_units:
            text = (
                f"{weight.symmetric_units} of {weight.units} units of {weight.path} "
                "are symmetric: equal weights and equal gradients, which no training "
                "can tell apart."
            )
            count = float(weight.symmetric_units)
            yield Symptom("symmetric units", one.path, count, 0.0, text)
    share = one.saturated_share
    most = 1 - LOST_SHARE * (1 - one.usually_saturated)
    if share is not None and share > most:
        text = f"{one.path} is saturated: {share:.0%} of its {one.activation} are flat."
        yield Symptom("saturated", one.path, share, most, text)
    is_judged = one.activation != "linear" and examples >= FEWEST_EXAMPLES
    if is_judged and one.dead_share > LOST_SHARE:
        text = (
            f"{len(one.dead_units)} of {one.units} units of {one.path} are dead: 0 for "
            "every example."
        )
        yield Symptom("dead units", one.path, one.dead_share, LOST_SHARE, text)


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
