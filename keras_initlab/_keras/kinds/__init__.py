"""What is known of every kind of layer and operation, one record each.

`_kind` says what a record holds; `_convolutions`, `_recurrent` and `_signals` hold
them. Their users ask `kind_of`. `_kernels` finds the kernels of a built layer or model,
and `_placement` the one that is just being drawn.
"""

from ._axes import Fans as Fans
from ._axes import KernelAxes as KernelAxes
from ._axes import keras_fans as keras_fans
from ._axes import read_axes as read_axes
from ._kernels import Kernel as Kernel
from ._kernels import check_built as check_built
from ._kernels import kernels as kernels
from ._kernels import register_fans as register_fans
from ._kind import Computed as Computed
from ._kind import Effect as Effect
from ._kind import Hook as Hook
from ._kind import Kind as Kind
from ._kind import Part as Part
from ._kind import Units as Units
from ._kind import Use as Use
from ._placement import Placement as Placement
from ._placement import placed as placed
from ._placement import placement as placement
from ._placement import standing as standing
from ._records import is_as_recorded as is_as_recorded
from ._records import is_of_known_kind as is_of_known_kind
from ._records import kind_of as kind_of
from ._records import looks_up as looks_up
from ._records import own_kernels as own_kernels
from ._records import part_of as part_of
from ._records import register as register
from ._records import steps_of as steps_of
from ._records import variable_of as variable_of
from ._recurrent import cell_product as cell_product
from ._units import channel_axis as channel_axis
