"""Kernels seen from their layer: axes, fans, and the place where one is drawn.

`_axes` says what the axes of one kernel mean and which fans follow, `_layouts` knows
that for every layer, `_kernels` finds the kernels of a built layer or model, and
`_placement` the one that is just being drawn.
"""

from ._axes import Fans as Fans
from ._axes import KernelAxes as KernelAxes
from ._axes import keras_fans as keras_fans
from ._axes import read_axes as read_axes
from ._kernels import Kernel as Kernel
from ._kernels import check_built as check_built
from ._kernels import kernels as kernels
from ._kernels import register_fans as register_fans
from ._layouts import own_kernels as own_kernels
from ._layouts import variable_of as variable_of
from ._placement import Placement as Placement
from ._placement import placed as placed
from ._placement import placement as placement
from ._placement import standing as standing
