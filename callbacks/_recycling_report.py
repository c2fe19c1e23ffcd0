"""What is told of recyclings: by logs, alerts and warnings."""

from __future__ import annotations

import math
from typing import Any

from keras_initlab._core.errors import message
from keras_initlab.diagnosis import Finding


def columns_of(counts: dict[str, Any], total: Any) -> dict[str, Any]:
    """The figures of one recycling, or of many, by the names that logs get."""
    each = {f"recycled_units/{path}": count for path, count in counts.items()}
    return {"recycled_units": total, **each}


def not_recycled(path: str, reason: str) -> Finding:
    cure = "`skipped` has all reasons; `layers` says which layers to recycle."
    text = f"keeps its dormant units: it {reason}"
    nowhere = math.nan, math.nan
    return Finding("not recycled", path, math.nan, nowhere, text, cure, step=0)


def nothing(model: Any, skipped: dict[str, str]) -> str:
    reasons = "; ".join(f"{path} {why}" for path, why in list(skipped.items())[:5])
    return message(
        "`DormantUnitRecycler` needs a layer whose units it can recycle.",
        f"model={model.name!r}, where {reasons or 'no layer has a kernel'}",
        "Leave the callback out, or look at what it asks of a layer.",
    )
