"""The signal through a model on one batch, forward and backward, layer by layer.

`_observer` watches one pass that `_run` makes, `_backward_*` differentiate and hand
over each gradient as it is computed, `_figures` reduce a tensor to a few numbers,
`_weights` compares kernels with their initializers.
"""

from ._figures import GradientSpread as GradientSpread
from ._figures import Spread as Spread
from ._layers import LayerSignal as LayerSignal
from ._probe import probe as probe
from ._report import SignalReport as SignalReport
from ._weights import WeightSignal as WeightSignal

__all__ = [
    "GradientSpread",
    "LayerSignal",
    "SignalReport",
    "Spread",
    "WeightSignal",
    "probe",
]
