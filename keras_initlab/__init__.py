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
from ._errors import NoKernelsError as NoKernelsError
from ._errors import NotPointwiseError as NotPointwiseError
from ._errors import StructureChangedError as StructureChangedError
from ._errors import TrainedWeightsError as TrainedWeightsError
from ._errors import UnbuiltModelError as UnbuiltModelError
from ._errors import UnknownLayerWarning as UnknownLayerWarning
from ._errors import UnsupportedModelError as UnsupportedModelError
from ._fans import Fans as Fans
from ._fans import KernelAxes as KernelAxes
from ._fans import register_fans as register_fans
from ._reinitialize import reinitialize as reinitialize
from ._writing import Applied as Applied
from .audit import Audit as Audit
from .audit import Finding as Finding
from .audit import audit as audit
from .calibration import calibrate as calibrate
from .compare import Comparison as Comparison
from .compare import compare as compare
from .initializers import initializer_for as initializer_for
from .inspection import fans as fans
from .probing import SignalReport as SignalReport
from .probing import probe as probe
from .recommend import Recommendation as Recommendation
from .recommend import WidthsRecommendation as WidthsRecommendation
from .recommend import recommend as recommend
from .recommend import recommend_widths as recommend_widths

__version__ = "0.2.0"
