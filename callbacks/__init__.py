"""Keras callbacks that watch a model while it trains."""

import warnings

if __name__ != "keras_initlab.callbacks":
    raise ImportError(
        "This folder is the package `keras_initlab.callbacks`. Received: an import as "
        f"{__name__!r}. Install the project and import `keras_initlab.callbacks`."
    )

from keras_initlab.diagnosis import Finding

from ._activation_stats import ActivationStatsLogger as ActivationStatsLogger
from ._dead_relus import DeadReLULogger as DeadReLULogger
from ._gradient_norms import GradientNormLogger as GradientNormLogger
from ._json_lines import JSONLinesLog as JSONLinesLog
from ._log import CSVLog as CSVLog
from ._recycler import DormantUnitRecycler as DormantUnitRecycler
from ._tensorboard import TensorBoardLog as TensorBoardLog
from ._unit_history import UnitEvent as UnitEvent

__all__ = [
    "ActivationStatsLogger",
    "CSVLog",
    "DeadReLULogger",
    "DormantUnitRecycler",
    "GradientNormLogger",
    "JSONLinesLog",
    "TensorBoardLog",
    "UnitEvent",
]


def __getattr__(name: str) -> type[Finding]:
    if name != "Alert":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "`keras_initlab.callbacks.Alert` goes with the next release: it is "
        "`keras_initlab.Finding` now.",
        DeprecationWarning,
        stacklevel=2,
    )
    return Finding
