"""`audit`: what is wrong with a model's weights."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .._core.arrays import to_numpy
from .._core.errors import NoKernelsError, UnsupportedModelError, message
from .._core.reports import Report, new_table, printable
from .._keras.batch import Batch, read_batch
from .._keras.kinds import check_built, kernels
from .._keras.unchanged import unchanged
from .._weights.origins import noted
from ..inspection import Effect, Merge, check_parts, variable_paths
from ..recommend import Row, kernel_values, recommend
from . import _broken_weights as _broken
from . import _fresh_weights as _fresh
from ._finding import Finding
from ._matrices import Weights, gain_of
from ._signs import sign_of_training

_ALWAYS: tuple[Callable[[Sequence[Weights]], Iterator[Finding]], ...] = (
    _broken.constant,
    _broken.symmetric_units,
    _broken.identical_kernels,
)
_MOST_CURES = 5
_IF_FRESH = (_fresh.scale, _fresh.orthogonality, _fresh.bias)


class Audit(Report[Finding]):
    """What is wrong with a model's weights: a sequence of findings.

    Printing it shows a table. It is empty, and so false, if nothing was found.

    Attributes:
        model_name: the model's name.
        kernels: how many kernels were looked at.
        trained: None for fresh weights; else what shows that training has touched
            them, and why scale, orthogonality and biases were not judged.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> found = audit(model)
        >>> found.kernels, bool(found)
        (1, False)
    """

    def __init__(
        self,
        model_name: str,
        kernels: int,
        trained: str | None,
        findings: Sequence[Finding],
    ):
        self.model_name = model_name
        self.kernels = kernels
        self.trained = trained
        self._records = tuple(findings)

    def _values(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "kernels": self.kernels,
            "trained": self.trained,
            "findings": self._records,
        }

    def __rich__(self) -> Any:
        state = f"trained: {self.trained}" if self.trained else "fresh weights"
        title = f"{printable(self.model_name)}: {self.kernels} kernels, {state}"
        if not self:
            return Group(Text(title), Text("nothing found", style="green"))
        return Group(_table(title, self), *_cures(self))


def audit(model: keras.Model, data: Any = None) -> Audit:
    """Returns what is wrong with a model's weights as they are.

    In any weights: values that are not finite, kernels of a single value, units that
    are copies of another, kernels that are equal. In weights that training has not
    touched also: a scale far from all that the kernel's true fans ask for (as of
    Keras's depthwise kernels), a kernel that was to be orthogonal and is not (as each
    gate of Keras's recurrent kernels), a bias that is none of the known choices. What
    training makes of a scale is not judged, nor what `recommend(...).apply()` or
    `calibrate` has written, as long as the kernel holds it.

    Args:
        model: a built model; it is only looked at.
        data: inputs as for `recommend`, to judge the kernels that read them by their
            scale. None takes them for standardized; then kernels drawn for others may
            look far off in a model that was saved and loaded.

    Returns:
        An `Audit`: print it, iterate over its findings, ask whether there are any.

    Raises:
        TypeError: if it is no Keras model, or `data` holds no arrays of numbers.
        UnbuiltModelError: if the model has no weights yet.
        NoKernelsError: if no layer has a kernel of floating point.
        ValueError: for data that is empty, not finite, or not what the model takes.

    Example:
        >>> depthwise = keras.layers.DepthwiseConv2D(3, activation="relu")
        >>> layers = [keras.Input((8, 8, 64)), depthwise, keras.layers.Dense(3)]
        >>> (finding,) = audit(keras.Sequential(layers))
        >>> finding.kind, finding.text.partition(": ")[2]
        ('scale', 'its fan_in is 9, Keras counts 576')

    References:
        Glorot and Bengio 2010, eq. 12, and He et al. 2015, 1502.01852, eq. 10 and 14,
        for the scales; Saxe et al. 2014, 1312.6120, section 4, for orthogonality.
    """
    with unchanged(model):
        return _audit(model, data)


def _audit(model: keras.Model, data: Any) -> Audit:
    is_layer = isinstance(model, keras.Layer)
    # Once for both policies: what yields batches yields others the next time.
    batch = None if data is None else read_batch(model, data, "data")
    if is_layer:
        check_parts(model, batch and batch.x)
    weights = _weights(model, batch) if is_layer else []
    if not weights:
        raise _nothing_to_judge(model)
    trained = sign_of_training(model, weights)
    checks = _ALWAYS if trained else (*_ALWAYS, *_IF_FRESH)
    findings = itertools.chain(
        _broken.not_finite(_floating(model)), *(check(weights) for check in checks)
    )
    return Audit(model.name, len(weights), trained, list(findings))


def _nothing_to_judge(model: Any) -> NoKernelsError:
    check_built("model", model)
    dtypes = sorted({kernel.variable.dtype for kernel in kernels(model)})
    held = f"with kernels in {', '.join(dtypes)} alone" if dtypes else "without any"
    return NoKernelsError(
        message(
            "`model` must hold a layer with a kernel of floating point.",
            f"model={model.name!r} ({type(model).__name__}) {held}",
        )
    )


def _weights(model: keras.Model, data: Batch | None) -> list[Weights]:
    """All kernels of floating point with their part in the model."""
    found = [one for one in kernels(model) if _is_float(one.variable)]
    paths = variable_paths(model, [one.variable for one in found])
    parts = _parts(model, data)
    if parts:  # what the graph does not show to be a kernel may be anything
        is_kernel = [
            (one.is_known or id(one.variable) in parts)
            and parts.get(id(one.variable), {}).get("role") != "bias"
            for one in found
        ]
        found = list(itertools.compress(found, is_kernel))
        paths = list(itertools.compress(paths, is_kernel))
    return [
        Weights(
            one,
            path,
            **parts.get(id(one.variable), {}),
            origin=noted(one.variable),
            values=to_numpy(one.variable).astype("float64"),
        )
        for one, path in zip(found, paths, strict=True)
    ]


def _parts(model: keras.Model, data: Batch | None) -> dict[int, dict[str, Any]]:
    """What the graph tells of each kernel, where it can be read."""
    try:
        rows = recommend(model, data=data)
    except (UnsupportedModelError, NoKernelsError):
        return {}
    readers = rows.inspection.readers
    by_the_table = functools.cache(lambda: recommend(model, "rules", data=data))
    return {
        id(row.kernel.variable): {
            "role": row.role,
            "activation": row.kernel.activation,
            "asked": functools.partial(_asked, number, row, by_the_table),
            "takes_unit_inputs": data is None and row.kernel.upstream is None,
            "is_met": any(map(_meets_another, readers.get(row.kernel.position, ()))),
        }
        for number, row in enumerate(rows)
    }


def _meets_another(reader: Any) -> bool:
    """Whether a reader of a kernel's output adds or multiplies it to another signal."""
    return isinstance(reader, Merge) and reader.effect is not Effect.CONCATENATE


def _asked(number: int, row: Row, by_the_table: Callable[[], Any]) -> list[float]:
    """The gains of a kernel that two policies draw; a frozen one's are its own."""
    drawn = (row, by_the_table()[number])
    return [
        gain_of(kernel_values(one, seed=0), one.kernel)
        for one in drawn
        if one.initializer is not None
    ]


def _floating(model: keras.Model) -> list[tuple[str, Any]]:
    variables = [one for one in model.variables if _is_float(one)]
    return list(zip(variable_paths(model, variables), variables, strict=True))


def _is_float(variable: Any) -> bool:
    return keras.backend.is_float_dtype(variable.dtype)


def _table(title: str, findings: Sequence[Finding]) -> Table:
    table = new_table(title)
    table.add_column("weight", overflow="fold")
    table.add_column("what is wrong")
    for heading in ("measured", "expected"):
        table.add_column(heading, justify="right", no_wrap=True)
    for finding in findings:
        table.add_row(
            printable(finding.path),
            Text.assemble((finding.kind, "yellow"), f": {finding.text}"),
            f"{finding.measured:.3g}",
            finding.range,
        )
    return table


def _cures(findings: Sequence[Finding]) -> Iterator[Text]:
    cures = list(dict.fromkeys(finding.cure for finding in findings))
    for cure in cures[:_MOST_CURES]:
        yield Text(f"cure: {cure}")
    if len(cures) > _MOST_CURES:
        yield Text(f"and {len(cures) - _MOST_CURES} more: `finding.cure` of each")
