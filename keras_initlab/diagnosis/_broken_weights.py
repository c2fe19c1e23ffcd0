"""What is wrong with weights whether training has touched them or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._core.arrays import to_numpy
from ._finding import Finding
from ._matrices import Weights

# Fewer weights than these may be equal in two units by chance, in half precision.
_LEAST_ROWS = 4
_MAY_BE_ZERO = ("residual branch", "output", "embedding")


def not_finite(variables: Sequence[tuple[str, Any]]) -> Iterator[Finding]:
    """Finds NaN and infinity in any variable."""
    for path, variable in variables:
        values = to_numpy(variable).astype("float64")
        count = int(np.size(values) - np.sum(np.isfinite(values)))
        if count:
            yield Finding(
                "not finite",
                path,
                count,
                (0.0, 0.0),
                f"{count} of {values.size} values are NaN or infinite",
                f"reinitialize(model, only=[{path!r}])",
            )


def constant(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds kernels of a single value, whose units can never differ.

    Zeros are left alone where they are a choice: in an output layer; in a table of
    rows, of which every one gets gradients of its own; where another signal is added to
    what they give or multiplied with it, as in the last kernel of a residual branch, a
    modulation, or a convolution that begins to control another network. So is what a
    custom layer has along one axis only, as a factor for each channel: nothing says
    that it is a kernel.
    """
    for one in kernels:
        is_vector = not one.kernel.is_known and one.values.size == max(one.kernel.shape)
        if not one.is_constant or is_vector:
            continue
        value = float(one.values.flat[0])
        if value and one.has_one_unit:
            continue  # there is no other unit that it could equal
        told = (
            "its units give the same"
            if value
            else "nothing of the signal passes, and no gradient to what is before it"
        )
        if value or not (one.role in _MAY_BE_ZERO or one.is_met):
            yield Finding(
                "constant",
                one.path,
                1.0,
                (2.0, float(one.values.size)),
                f"all {one.values.size} weights are {value:.3g}: {told}",
                f"recommend(model).apply(only=[{one.path!r}], overwrite=True)",
            )


def symmetric_units(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds units with the weights and bias of another unit of their layer."""
    for one in kernels:
        if not one.is_finite or one.is_constant:
            continue
        units = one.units()
        count = sum(map(_copies, units, one.unit_biases(units)))
        if count:
            yield Finding(
                "symmetric units",
                one.path,
                count,
                (0.0, 0.0),
                f"{count} units have the weights of another one: they get equal "
                "gradients and stay equal",
                f"recommend(model).apply(only=[{one.path!r}], overwrite=True)",
            )


def identical_kernels(kernels: Sequence[Weights]) -> Iterator[Finding]:
    """Finds trainable kernels that are equal, as one seed for several makes them.

    Of single weights, as of gates with one unit, orthogonal ones are all 1 or −1.
    """
    groups: dict[Any, list[Weights]] = {}
    for one in kernels:
        is_varied = one.is_finite and not one.is_constant and not one.is_single
        if one.kernel.variable.trainable and is_varied:
            key = (one.values.shape, one.values.tobytes())
            groups.setdefault(key, []).append(one)
    for first, *others in groups.values():
        if others:
            related = tuple(other.path for other in others)
            yield Finding(
                "identical kernels",
                first.path,
                1.0 + len(others),
                (1.0, 1.0),
                f"has the values of {_listed(related)}, as one seed or one initializer "
                "for several layers makes them",
                "recommend(model).apply(overwrite=True), or an initializer without a "
                "seed for each layer",
                related,
            )


def _copies(block: np.ndarray, bias: np.ndarray) -> int:
    """How many columns, other than zero, have the values of one before them."""
    if block.shape[0] < _LEAST_ROWS:
        return 0
    columns = np.concatenate([block, bias]).T
    columns = columns[np.any(block != 0, axis=0)]  # zeros may have been pruned
    return len(columns) - len(np.unique(columns, axis=0))


def _listed(paths: Sequence[str]) -> str:
    rest = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return ", ".join(repr(path) for path in paths[:2]) + rest
