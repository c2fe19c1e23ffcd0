"""What an audit finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = (
    "not finite",
    "constant",
    "symmetric units",
    "identical kernels",
    "scale",
    "orthogonality",
    "bias",
)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a weight.

    Attributes:
        kind: one of `KINDS`.
        path: the variable's path, unique in the model.
        related: paths of others that it is about, as those of equal kernels.
        measured: the number that gave it away; what it is depends on the kind. For
            `not finite` how many values are not; for `constant` how many different
            values there are; for `symmetric units` how many units are copies; for
            `identical kernels` how many kernels are equal; for `scale` the gain
            rms(w)·√fan_in on a signal of independent units; for `orthogonality` the
            smallest over the largest singular value of the worst block; for `bias` the
            largest size.
        expected: the numbers between which it should lie.
        text: the finding in words.
        cure: what to do about it, in one line.

    Example:
        >>> text, cure = "all 12 weights are 0", "recommend(model).apply()"
        >>> found = Finding("constant", "kernel", (), 1.0, (2.0, 12.0), text, cure)
        >>> found.range
        '2 to 12'
    """

    kind: str
    path: str
    related: tuple[str, ...]
    measured: float
    expected: tuple[float, float]
    text: str
    cure: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the finding as plain values, numbers rounded to four digits."""
        return {
            **asdict(self),
            "related": list(self.related),
            "measured": _four_digits(self.measured),
            "expected": [_four_digits(bound) for bound in self.expected],
        }

    @property
    def range(self) -> str:
        """What was expected, to be read."""
        low, high = self.expected
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")
