"""A report as a table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .._core.reports import new_table
from ..recommend import blocks, folded_path
from ._layers import LayerSignal

# Of a longer table, repetitions are left out.
_MOST_ROWS = 24
_NONE = "–"
_LEGEND = Text(
    "std: of the pre-activation, and of what is returned; kept: variance preservation, "
    "ideally 1; zeros: share of outputs, and dead units; ∂: gradient with respect to "
    "what is returned, its std and norm; weights: std of the kernel beside what its "
    "initializer says (≠ where chance does not explain it), and norm of the gradient.",
    style="dim",
)


def render(
    title: str, layers: Sequence[LayerSignal], diagnosis: Sequence[str]
) -> Group:
    """Returns the table with its diagnosis, for a rich console.

    Where a model has many layers, of those in a row that look alike, and of blocks that
    repeat, the first and the last are shown.
    """
    looks: list[Any] = [(layer.path,) for layer in layers]
    if len(layers) > _MOST_ROWS:
        looks = list(map(_look, layers))
    sentences: list[Any] = [Text(f"• {text}", style="yellow") for text in diagnosis]
    sentences = sentences or [Text("nothing unusual", style="green")]
    return Group(_table(title, layers, looks), _LEGEND, *sentences)


def _table(title: str, layers: Sequence[LayerSignal], looks: Sequence[Any]) -> Table:
    prefix = _common_prefix([layer.path for layer in layers])
    table = new_table(title)
    table.add_column("layer\n  kind", overflow="fold")
    for heading in (
        "std before\nafter",
        "kept\n",
        "zeros\ndead",
        "∂ std\nnorm",
        "kernel std\ntheory",
        "∂ weights\n",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for block in blocks(looks):
        first = range(block.start, block.start + block.length)
        last = range(block.end - block.length, block.end)
        between = block.times - 2
        for index in first:
            table.add_row(*_cells(layers[index], prefix))
        if between > 0:
            these = "such layers" if block.length == 1 else f"of these {block.length}"
            table.add_row(f"  … {between} × {these}")
        for index in last if block.times > 1 else ():
            table.add_row(*_cells(layers[index], prefix))
    return table


def _cells(one: LayerSignal, prefix: str) -> list[str]:
    return [
        f"{folded_path(one.path, prefix)}\n  {_kind(one)}",
        f"{_std_before(one)}\n{_std_after(one)}",
        _number(one.variance_preservation),
        f"{_zeros(one)}\n{_dead(one)}",
        f"{_gradient_std(one)}\n{_gradient_norm(one)}",
        f"{_kernel_std(one)}\n{_theory_std(one)}",
        _number(one.weight_gradient_norm),
    ]


def _kind(one: LayerSignal) -> str:
    return one.kind if one.activation == "linear" else f"{one.kind}, {one.activation}"


def _std_before(one: LayerSignal) -> str:
    return _NONE if one.preactivation is None else _number(one.preactivation.std)


def _std_after(one: LayerSignal) -> str:
    return _NONE if one.output is None else _number(one.output.std)


def _zeros(one: LayerSignal) -> str:
    return _NONE if one.output is None else f"{one.output.zero_share:.0%}"


def _dead(one: LayerSignal) -> str:
    return str(len(one.dead_units)) if one.units else _NONE


def _gradient_std(one: LayerSignal) -> str:
    return _NONE if one.gradient is None else _number(one.gradient.std)


def _gradient_norm(one: LayerSignal) -> str:
    return _NONE if one.gradient is None else _number(one.gradient.norm)


def _kernel_std(one: LayerSignal) -> str:
    return _NONE if one.kernel is None else _number(one.kernel.std)


def _theory_std(one: LayerSignal) -> str:
    kernel = one.kernel
    if kernel is None or kernel.theory_std is None:
        return _NONE
    return f"{'≠ ' if kernel.is_off_theory else ''}{_number(kernel.theory_std)}"


def _look(one: LayerSignal) -> tuple[Any, ...]:
    """What layers must share to stand in one row."""
    shapes = tuple(weight.shape for weight in one.weights)
    return one.kind, one.activation, one.shape[1:], shapes


def _common_prefix(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    first = paths[0].partition("/")[0] + "/"
    return first if all(path.startswith(first) for path in paths) else ""


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.2g}" if value and abs(value) < 0.1 else f"{value:.3g}"
