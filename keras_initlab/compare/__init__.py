"""The same model trained from several initializers, and what that shows.

`_starts` gives a model its weights, `_training` trains it wherever it runs, `_results`
keeps what is finished, and `_comparison` is what comes out.
"""

from ._compare import compare as compare
from ._comparison import Comparison as Comparison
from ._ranking import Score as Score
from ._run import Run as Run

__all__ = [
    "Comparison",
    "Run",
    "Score",
    "compare",
]
