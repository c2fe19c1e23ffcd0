"""What an activation does to a signal: from what it is to what its statistics say.

`_formulas` knows Keras's functions in float64, `_layers` the layers that act as
activations, `_pointwise` evaluates any of them and refuses what mixes units,
`_asymptotes` finds where it saturates, `_quadrature` integrates, `_memory` keeps what
has been computed, `_statistics` and `_criticality` answer.
"""

from ._asymptotes import Asymptotes as Asymptotes
from ._asymptotes import asymptotes as asymptotes
from ._criticality import CriticalPoint as CriticalPoint
from ._criticality import critical_point as critical_point
from ._pointwise import check_pointwise as check_pointwise
from ._pointwise import evaluate as evaluate
from ._pointwise import is_rectifier as is_rectifier
from ._pointwise import name_of as name_of
from ._pointwise import resolve as resolve
from ._statistics import ActivationStatistics as ActivationStatistics
from ._statistics import activation_statistics as activation_statistics
from ._statistics import gain as gain
from ._statistics import moments_by_std as moments_by_std
