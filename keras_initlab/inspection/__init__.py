"""A built model in, immutable records of its kernels and their surroundings out."""

from .._paths import layer_paths as layer_paths
from .._paths import operation_paths as operation_paths
from .._paths import operations_in_sight as operations_in_sight
from .._paths import variable_paths as variable_paths
from ._custom import is_opened as is_opened
from ._inspect import inspect as inspect
from ._nodes import nodes_in as nodes_in
from ._operations import Effect as Effect
from ._operations import activation_name as activation_name
from ._operations import activation_of as activation_of
from ._operations import effect_of as effect_of
from ._operations import is_activation as is_activation
from ._records import Inspection as Inspection
from ._records import KernelRecord as KernelRecord
from ._records import Link as Link
from ._records import Merge as Merge
from ._records import Passage as Passage
from ._true_fans import fans as fans
from ._unbuilt import all_built as all_built
from ._unbuilt import check_parts as check_parts
