"""A built model in, an initializer and a reason for each of its kernels out."""

from ._apply import kernel_values as kernel_values
from ._grouping import blocks as blocks
from ._labels import initializer_label as initializer_label
from ._recommend import recommend as recommend
from ._recommendation import Recommendation as Recommendation
from ._report import folded_path as folded_path
from ._row import Row as Row
from ._rules import WidthsRecommendation as WidthsRecommendation
from ._rules import recommend_widths as recommend_widths

__all__ = [
    "Recommendation",
    "Row",
    "WidthsRecommendation",
    "kernel_values",
    "recommend",
    "recommend_widths",
]
