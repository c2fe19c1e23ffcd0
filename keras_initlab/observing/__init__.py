"""What happens inside a model while it runs or trains."""

from ._observe import TrainingObserver as TrainingObserver
from ._recipe import Measured as Measured
from ._recipe import Place as Place
from ._recipe import Recipe as Recipe
from ._recipe import Reduction as Reduction
from ._reductions import STATISTICS as STATISTICS
from ._reductions import escapes_per_unit as escapes_per_unit
from ._reductions import fires_per_unit as fires_per_unit
from ._reductions import histogram as histogram
from ._reductions import mean_size_per_unit as mean_size_per_unit
from ._reductions import statistics as statistics
from ._reductions import total as total
from ._training import Subscriber as Subscriber
from ._training import Training as Training
from ._training import calling_list as calling_list

__all__ = [
    "STATISTICS",
    "Measured",
    "Place",
    "Recipe",
    "Reduction",
    "Subscriber",
    "Training",
    "TrainingObserver",
    "calling_list",
    "escapes_per_unit",
    "fires_per_unit",
    "histogram",
    "mean_size_per_unit",
    "statistics",
    "total",
]
