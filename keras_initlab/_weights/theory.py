"""What standard deviation an initializer gives the entries of a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import initializers

from .._core.arrays import to_numpy
from .._keras.kinds import (
    Fans,
    Kernel,
    Placement,
    keras_fans,
    kind_of,
    placed,
    read_axes,
)
from ..initializers import (
    TRUNCATED_STD,
    AdaptiveHe,
    LayerSequential,
    LayoutInitializer,
    MatchPretrained,
    Orthogonal,
    ResidualAware,
    ScaledNoise,
    WidthAware,
)
from .origins import drawn_by, is_rebuilt, noted

# So many standard errors are no chance.
_SURE = 5.0


def initializer_of(kernel: Kernel) -> Any:
    """The initializer that a kernel's layer keeps for it, or None."""
    for name in (kernel.name, kernel.name.removesuffix("_kernel"), "depthwise"):
        initializer = getattr(kernel.layer, f"{name}_initializer", None)
        if callable(initializer):
            return initializer
    return None


def known_draw(root: Any, kernel: Kernel) -> tuple[Any, float | None]:
    """Returns what drew a kernel's values, and with what standard deviation.

    The latter by the initializer's formula: Keras's on the fans that Keras counts, this
    package's on the true ones. None for an initializer that has no such formula: a
    spectral norm, a delta, a mirrored kernel. Both are None where it cannot be known
    what drew the values, as of trained, loaded or assigned ones. Where an initializer
    cannot repeat its draw, as attention's keep no seed, it counts as the one if the
    values have the standard deviation that it gives.

    Args:
        root: the model or layer that was asked about.
        kernel: its kernel.

    References:
        Glorot and Bengio 2010, eq. 12 and 16, He et al. 2015, 1502.01852, eq. 10, for
        the scales. An orthonormal r × c matrix has r·c entries of which the squares
        add up to min(r, c), so their mean square is 1/max(r, c).
    """
    own = initializer_of(kernel)
    drawn = drawn_by(root, kernel, own)
    if drawn is None and noted(kernel.variable) is None and _keeps_no_seed(own, kernel):
        theory = std_by_formula(own, kernel)
        values = to_numpy(kernel.variable).astype("float64")
        if theory is not None and not is_off(float(values.std()), theory, values.size):
            return own, theory
    return drawn, std_by_formula(drawn, kernel)


def standard_error(theory: float, count: int) -> float:
    """What chance makes of the std of so many normal draws: theory/√(2n)."""
    return theory / math.sqrt(2 * max(1, count))


def is_off(std: float, theory: float, count: int) -> bool:
    """Whether a std is farther from a theory's than chance explains."""
    # What rounding makes of a constant in half precision comes on top.
    slack = _SURE * standard_error(theory, count) + 1e-3 * theory
    return not abs(std - theory) <= slack


def _keeps_no_seed(initializer: Any, kernel: Kernel) -> bool:
    """Whether an initializer with a formula draws by a seed that nobody knows."""
    if _rule_for(initializer) is None:
        return False
    has_generator = isinstance(
        getattr(initializer, "seed", None), keras.random.SeedGenerator
    )
    return has_generator or is_rebuilt(kernel.layer, initializer)


def theoretical_std_on(initializer: Any, shape: Sequence[int]) -> float | None:
    """The same for an initializer that draws this shape, and no layer's kernel."""
    given = _axes_given(initializer)
    axes = read_axes(len(shape), *(given or ()))
    return std_by_formula(initializer, Kernel(None, None, "kernel", axes, tuple(shape)))


def std_by_formula(initializer: Any, kernel: Kernel) -> float | None:
    """The std that an initializer gives a kernel, None if it has no formula for it."""
    rule = _rule_for(initializer)
    return None if rule is None else rule(initializer, kernel)


def _rule_for(initializer: Any) -> Callable[[Any, Kernel], float | None] | None:
    kinds = type(initializer).__mro__
    return next((_RULES[kind] for kind in kinds if kind in _RULES), None)


def _axes_given(initializer: Any) -> tuple[Sequence[int], Sequence[int]] | None:
    """The axes that an initializer was told; Keras needs both of them."""
    inputs = getattr(initializer, "input_axes", None)
    outputs = getattr(initializer, "output_axes", None)
    return None if inputs is None or outputs is None else (inputs, outputs)


def _none(initializer: Any, kernel: Kernel) -> None:
    return None


def _true_fans(initializer: Any, kernel: Kernel) -> Fans:
    with placed(Placement(kernel.layer, kernel.axes, variable=kernel.variable)):
        axes = initializer._axes_for(len(kernel.shape))
    return axes.fans(kernel.shape).at_least_one()


def _by_both(initializer: Any, kernel: Kernel) -> float:
    return initializer.std(*_true_fans(initializer, kernel))


def _by_fan_in(initializer: Any, kernel: Kernel) -> float:
    return initializer.std(_true_fans(initializer, kernel).fan_in)


def _scaled_noise(initializer: Any, kernel: Kernel) -> float:
    limit = initializer.limit(*_true_fans(initializer, kernel))
    return math.hypot(limit / math.sqrt(3), initializer.noise_std)


def _orthogonal_blocks(initializer: Any, kernel: Kernel) -> float | None:
    axes, shape = kernel.axes, kernel.shape
    if initializer.per_head or initializer.gates is not None:
        return None
    rows, columns = (
        math.prod(shape[axis] for axis in part)
        for part in (axes.input_axes, axes.outputs)
    )
    return initializer.gain / math.sqrt(max(rows, columns / axes.blocks))


def _variance_scaling(initializer: Any, kernel: Kernel) -> float:
    fans = _fans_of_keras(initializer, kernel)
    size = {"fan_in": fans.fan_in, "fan_out": fans.fan_out}.get(
        initializer.mode, (fans.fan_in + fans.fan_out) / 2
    )
    return math.sqrt(initializer.scale / max(1.0, size))


def _fans_of_keras(initializer: Any, kernel: Kernel) -> Fans:
    given = _axes_given(initializer)
    # Before Keras 3.15 an `EinsumDense` did not hand over its axes.
    hands_over_axes = kind_of(kernel.layer).hands_axes and hasattr(
        initializers.VarianceScaling(), "input_axes"
    )
    if hands_over_axes:
        fan_in = math.prod(kernel.shape[axis] for axis in kernel.axes.inputs)
        return Fans(fan_in, math.prod(kernel.shape) / fan_in)
    if given is not None:
        return Fans(*(math.prod(kernel.shape[a] for a in axes) for axes in given))
    return keras_fans(kernel.shape)


def _flat_orthogonal(initializer: Any, kernel: Kernel) -> float:
    columns = kernel.shape[-1]
    rows = math.prod(kernel.shape) // columns
    return initializer.gain / math.sqrt(max(rows, columns))


_RULES: dict[type, Callable[[Any, Kernel], float | None]] = {
    AdaptiveHe: _by_both,
    WidthAware: _by_both,
    LayerSequential: _by_fan_in,
    ResidualAware: _by_fan_in,
    ScaledNoise: _scaled_noise,
    Orthogonal: _orthogonal_blocks,
    MatchPretrained: lambda own, kernel: float(own.std),
    LayoutInitializer: _none,
    initializers.VarianceScaling: _variance_scaling,
    initializers.RandomNormal: lambda own, kernel: float(own.stddev),
    initializers.TruncatedNormal: lambda own, kernel: TRUNCATED_STD * float(own.stddev),
    initializers.RandomUniform: lambda own, kernel: (
        (float(own.maxval) - float(own.minval)) / math.sqrt(12)
    ),
    initializers.Orthogonal: _flat_orthogonal,
    initializers.Zeros: lambda own, kernel: 0.0,
    initializers.Ones: lambda own, kernel: 0.0,
    initializers.Constant: lambda own, kernel: 0.0,
}
