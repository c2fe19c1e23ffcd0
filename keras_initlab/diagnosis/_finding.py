"""The one record of what is wrong, whoever found it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from .._core.errors import message
from .._core.reports import Record

NOT_FINITE = "not finite"  # the one kind that cannot wait for an epoch's end

KINDS = (
    NOT_FINITE,
    "input scale",
    "constant",
    "constant outputs",
    "vanishing signal",
    "exploding signal",
    "no gradient",
    "vanishing gradient",
    "exploding gradient",
    "gradient leaps",
    "large updates",
    "symmetric units",
    "identical kernels",
    "scale",
    "orthogonality",
    "bias",
    "saturated units",
    "dead units",
    "not recycled",
)


@dataclass(frozen=True)
class Finding(Record):
    """Something that is wrong with weights, a signal, a gradient or a training.

    `audit` finds it in weights, `probe` in one pass, the callbacks in a training.

    Attributes:
        kind: one of `KINDS`.
        path: where: a variable's path in an `Audit`, a layer's path elsewhere.
        measured: the number that shows it; what it is depends on the kind. For
            `not finite` how many values are not; for `constant` how many different
            values there are; for `symmetric units` how many units are copies; for
            `identical kernels` how many kernels are equal; for `scale` the gain
            rms(w)·√fan_in on a signal of independent units; for `orthogonality` the
            smallest over the largest singular value of the worst block; for `bias` the
            largest size; for `saturated units` and `dead units` a share in [0, 1]; for
            the others a size, or a ratio of two.
        expected: the numbers between which it should lie.
        text: the finding in words, after the path.
        cure: what to do about it, in one line.
        related: paths of others that it is about, as those of equal kernels.
        step: the train step at which it was found; None outside training.

    Example:
        >>> text, cure = "has 3 of 4 units dead (75%)", "Lower the rate."
        >>> found = Finding("dead units", "dense", 0.75, (0.0, 0.5), text, cure, step=9)
        >>> found.range
        '0 to 0.5'
        >>> found.line()
        'dead units, step 9: dense has 3 of 4 units dead (75%). Lower the rate.'
    """

    kind: str
    path: str
    measured: float
    expected: tuple[float, float]
    text: str
    cure: str
    related: tuple[str, ...] = ()
    step: int | None = None

    @property
    def range(self) -> str:
        """What was expected, to be read."""
        low, high = self.expected
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

    def line(self, others: int = 0) -> str:
        """The finding in one line.

        Args:
            others: in how many other layers the same was found at the same time.
        """
        layers = "layer" if others == 1 else "layers"
        more = f" (and {others} more {layers})" if others else ""
        step = "" if self.step is None else f", step {self.step}"
        return f"{self.kind}{step}: {self.path} {self.text}{more}. {self.cure}"

    @property
    def rule(self) -> str:
        """The kind, as an `Alert` called it."""
        return _renamed("rule", "kind", self.kind)

    @property
    def value(self) -> float:
        """The number measured, as an `Alert` called it."""
        return _renamed("value", "measured", self.measured)


def _renamed(old: str, new: str, value: Any) -> Any:
    warnings.warn(
        message(
            f"`Finding.{old}` goes with the next release.",
            f"an access to .{old}",
            f"It is called `.{new}` now.",
        ),
        DeprecationWarning,
        stacklevel=3,
    )
    return value
