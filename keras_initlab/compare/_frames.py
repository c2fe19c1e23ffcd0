"""A comparison as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core.pandas import load_pandas
from ._run import Run


def frame_of(runs: Sequence[Run], curves: bool) -> Any:
    """Returns a row a run, or a row an epoch of each that finished."""
    pd = load_pandas(instead=".runs")
    if not curves:
        return pd.DataFrame(
            {"initializer": r.label, "seed": r.seed, **r.metrics, "error": r.error}
            for r in runs
        )
    parts = [
        pd.DataFrame(
            {
                "initializer": run.label,
                "seed": run.seed,
                "epoch": np.arange(len(run.curves["loss"])),
                **run.curves,
            }
        )
        for run in runs
        if run.error is None
    ]
    return pd.concat(parts, ignore_index=True)
