"""Keras callbacks that watch a model while it trains."""

if __name__ != "keras_initlab.callbacks":
    raise ImportError(
        "This folder is the package `keras_initlab.callbacks`. Received: an import as "
        f"{__name__!r}. Install the project and import `keras_initlab.callbacks`."
    )

from ._activation_stats import ActivationStatsLogger as ActivationStatsLogger
from ._alerts import Alert as Alert
from ._dead_relus import DeadReLULogger as DeadReLULogger
from ._gradient_norms import GradientNormLogger as GradientNormLogger
from ._json_lines import JSONLinesLog as JSONLinesLog
from ._lives import UnitEvent as UnitEvent
from ._log import CSVLog as CSVLog
from ._recycler import DormantUnitRecycler as DormantUnitRecycler
from ._tensorboard import TensorBoardLog as TensorBoardLog

__all__ = [
    "ActivationStatsLogger",
    "Alert",
    "CSVLog",
    "DeadReLULogger",
    "DormantUnitRecycler",
    "GradientNormLogger",
    "JSONLinesLog",
    "TensorBoardLog",
    "UnitEvent",
]
