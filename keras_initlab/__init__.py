"""Weight initialization for Keras 3 that you can see, trust and choose in one line.

>>> model = keras.Sequential(
...     [keras.Input((64,))]
...     + [keras.layers.Dense(128, "relu") for _ in range(50)]
...     + [keras.layers.Dense(10)]
... )
>>> advice = keras_initlab.recommend(model)
>>> applied = advice.apply(seed=0)
"""

from . import initializers as initializers
from ._activations import ActivationStatistics as ActivationStatistics
from ._activations import CriticalPoint as CriticalPoint
from ._activations import activation_statistics as activation_statistics
from ._activations import critical_point as critical_point
from ._activations import gain as gain
from ._core.errors import NoKernelsError as NoKernelsError
from ._core.errors import NotPointwiseError as NotPointwiseError
from ._core.errors import StructureChangedError as StructureChangedError
from ._core.errors import TrainedWeightsError as TrainedWeightsError
from ._core.errors import UnbuiltModelError as UnbuiltModelError
from ._core.errors import UnknownLayerWarning as UnknownLayerWarning
from ._core.errors import UnsupportedModelError as UnsupportedModelError
from ._keras.kinds import Fans as Fans
from ._keras.kinds import KernelAxes as KernelAxes
from ._keras.kinds import register_fans as register_fans
from ._weights.reinitialize import reinitialize as reinitialize
from ._weights.writing import Applied as Applied
from .calibration import calibrate as calibrate
from .compare import Comparison as Comparison
from .compare import compare as compare
from .diagnosis import Audit as Audit
from .diagnosis import Finding as Finding
from .diagnosis import audit as audit
from .initializers import initializer_for as initializer_for
from .inspection import fans as fans
from .probing import SignalReport as SignalReport
from .probing import probe as probe
from .recommend import Recommendation as Recommendation
from .recommend import WidthsRecommendation as WidthsRecommendation
from .recommend import recommend as recommend
from .recommend import recommend_widths as recommend_widths

__all__ = [
    "ActivationStatistics",
    "Applied",
    "Audit",
    "Comparison",
    "CriticalPoint",
    "Fans",
    "Finding",
    "KernelAxes",
    "NoKernelsError",
    "NotPointwiseError",
    "Recommendation",
    "SignalReport",
    "StructureChangedError",
    "TrainedWeightsError",
    "UnbuiltModelError",
    "UnknownLayerWarning",
    "UnsupportedModelError",
    "WidthsRecommendation",
    "activation_statistics",
    "audit",
    "calibrate",
    "compare",
    "critical_point",
    "fans",
    "gain",
    "initializer_for",
    "initializers",
    "probe",
    "recommend",
    "recommend_widths",
    "register_fans",
    "reinitialize",
]

__version__ = "0.2.0"
