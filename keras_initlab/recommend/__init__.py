"""A built model in, an initializer and a reason for each of its kernels out."""

from ._apply import kernel_values as kernel_values
from ._recommend import recommend as recommend
from ._recommendation import Recommendation as Recommendation
from ._row import Row as Row
from ._rules import WidthsRecommendation as WidthsRecommendation
from ._rules import recommend_widths as recommend_widths
