"""A built model in, an initializer and a reason for each of its kernels out."""

from ._recommend import recommend as recommend
from ._recommendation import Recommendation as Recommendation
from ._row import Row as Row
from ._row import asked_gain as asked_gain
from ._rules import WidthsRecommendation as WidthsRecommendation
from ._rules import recommend_widths as recommend_widths
