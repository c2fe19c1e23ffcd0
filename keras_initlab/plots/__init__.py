"""Every picture; matplotlib is imported in `_style` and `_figure`, only when called.

Every function returns a matplotlib `Figure` and never shows it. Colors of lines come
from the palette of Okabe and Ito (2008), those of areas from maps that are uniform in
perception; color-blind readers can tell both apart.
"""

from ._activation_statistics import activation_statistics as activation_statistics
from ._activations_over_depth import activation_comparison as activation_comparison
from ._activations_over_depth import activations_over_depth as activations_over_depth
from ._comparison import comparison as comparison
from ._comparison import learning_curves as learning_curves
from ._dead_units import dead_units as dead_units
from ._gradient_norms import gradient_heat_map as gradient_heat_map
from ._gradient_norms import gradient_norms as gradient_norms
from ._signal_report import signal_report as signal_report
from ._training import training_comparison as training_comparison
from ._weight_histograms import weight_histograms as weight_histograms
from ._weights import weights as weights

__all__ = [
    "activation_comparison",
    "activation_statistics",
    "activations_over_depth",
    "comparison",
    "dead_units",
    "gradient_heat_map",
    "gradient_norms",
    "learning_curves",
    "signal_report",
    "training_comparison",
    "weight_histograms",
    "weights",
]
