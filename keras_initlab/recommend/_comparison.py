"""Two recommendations for one model side by side, and why they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from .._core.errors import message
from .._core.reports import Record, Report, new_table
from ._apply import kernel_values
from ._grouping import skeleton, spanned
from ._labels import initializer_label
from ._normal import PLAIN
from ._report import (
    add_blocks,
    common_prefix,
    folded_label,
    notes,
    shown_paths,
)
from ._row import Row


@dataclass(frozen=True)
class Difference(Record):
    """Two recommendations for one kernel.

    Attributes:
        one: the row of the first recommendation.
        other: the row of the second one.
        why: the reasons of both, where they differ; else empty.
    """

    one: Row
    other: Row
    why: str

    @property
    def path(self) -> str:
        """The kernel's path."""
        return self.one.path

    @property
    def is_alike(self) -> bool:
        """Whether both recommend the same initializer."""
        return not self.why

    def size_ratio(self) -> float:
        """Returns the other's root mean square over this one's, drawn with one seed.

        1 for a kernel that both leave as it is or set to zero.
        """
        if self.one.initializer is None or self.other.initializer is None:
            return 1.0
        drawn = [kernel_values(row, seed=0) for row in (self.one, self.other)]
        sizes = [float(np.linalg.norm(values.astype("float32"))) for values in drawn]
        if sizes[0] == 0:
            return math.inf if sizes[1] else 1.0
        return sizes[1] / sizes[0]

    def _values(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "role": self.one.role,
            "initializers": [
                row.to_dict()["initializer"] for row in (self.one, self.other)
            ],
            "is_alike": self.is_alike,
            "why": self.why,
        }


class PolicyComparison(Report[Difference]):
    """What two recommendations say about each kernel of a model.

    A sequence of `Difference`s in the order of the model; printing it shows a table.

    Attributes:
        policies: the two policies.
        model_name: the model's name.
    """

    def __init__(self, one: Any, other: Any):
        _check_same(one, other)
        self.model_name = one.model_name
        self.policies = (one.policy, other.policy)
        self._both = (one, other)
        self._records = tuple(
            Difference(a, b, _why(a, b)) for a, b in zip(one, other, strict=True)
        )

    def _values(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "policies": self.policies,
            "issues": [advice.issues for advice in self._both],
            "advice": [advice.advice for advice in self._both],
            "kernels": self._records,
        }

    def __rich__(self) -> Any:
        alike = sum(difference.is_alike for difference in self)
        title = (
            f"{self.model_name}: policies {self.policies[0]!r} and "
            f"{self.policies[1]!r}, alike for {alike} of {len(self)} kernels"
        )
        whys = list(dict.fromkeys(skeleton(d.why) for d in self if d.why))
        texts = [
            spanned([d.why for d in self if skeleton(d.why) == why]) for why in whys
        ]
        advice = [
            Text(f"advice ({one.policy}): {sentence}")
            for one in self._both
            for sentence in one.advice
        ]
        table = _table(title, self.policies, self._records, whys)
        return Group(table, notes(texts), _LEGEND, *advice)


_LEGEND = Text(
    "size: root mean square of the second kernel over that of the first.", style="dim"
)


def _table(
    title: str, policies: Sequence[str], rows: Sequence[Difference], whys: list[str]
) -> Any:
    table = new_table(title)
    table.add_column("kernel\n  shape", overflow="fold")
    for policy in policies:
        table.add_column(policy, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("why", justify="right", no_wrap=True)
    prefix = common_prefix([row.path for row in rows])
    looks = [tuple(map(skeleton, _look(row))) for row in rows]
    add_blocks(table, rows, looks, lambda group: _cells(group, prefix, whys))
    return table


def _cells(rows: Sequence[Difference], prefix: str, whys: list[str]) -> list[str]:
    first, looks = rows[0], map(_look, rows)
    shape, one, other, _ = (spanned(texts) for texts in zip(*looks, strict=True))
    return [
        shown_paths([row.path for row in rows], shape, prefix),
        folded_label(one),
        "the same" if first.is_alike else folded_label(other),
        "1" if first.is_alike else _sizes(rows),
        f"({whys.index(skeleton(first.why)) + 1})" if first.why else "",
    ]


def _sizes(rows: Sequence[Difference]) -> str:
    ends = (rows[0], rows[-1]) if len(rows) > 1 else rows
    return spanned([f"{row.size_ratio():.2g}" for row in ends])


def _look(row: Difference) -> tuple[str, str, str, str]:
    labels = [initializer_label(one.initializer) for one in (row.one, row.other)]
    return (" × ".join(map(str, row.one.shape)), labels[0], labels[1], row.why)


def _why(one: Row, other: Row) -> str:
    """The reasons of two rows that differ, side by side."""
    return "" if _is_alike(one, other) else f"{one.reason} / {other.reason}"


def _is_alike(one: Row, other: Row) -> bool:
    return _drawn_from(one) == _drawn_from(other)


def _drawn_from(row: Row) -> Any:
    """What tells initializers apart; whether the tails are cut does not."""
    if row.initializer is None:
        return None
    found = row.to_dict()["initializer"]
    settings = {**found["config"], "seed": None}
    name = found["class_name"]
    if type(row.initializer) in PLAIN and row.initializer.distribution != "uniform":
        own = row.initializer
        name, settings = "VarianceScaling", {"scale": own.scale, "mode": own.mode}
    return name, settings


def _check_same(one: Any, other: Any) -> None:
    kernels = [[id(row.kernel.variable) for row in advice] for advice in (one, other)]
    if kernels[0] == kernels[1]:
        return
    names = [
        f"{advice.model_name!r} ({len(advice)} kernels)" for advice in (other, one)
    ]
    raise ValueError(
        message(
            "`other` must be a recommendation for the same model.",
            f"other for {names[0]}, and this one for {names[1]}",
            'For example `recommend(model, "rules")`.',
        )
    )
