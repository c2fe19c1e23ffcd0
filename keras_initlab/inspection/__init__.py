"""A built model in, immutable records of its kernels and their surroundings out."""

from .._keras.kinds import Effect as Effect
from .._keras.paths import layer_paths as layer_paths
from .._keras.paths import operation_paths as operation_paths
from .._keras.paths import operations_in_sight as operations_in_sight
from .._keras.paths import variable_paths as variable_paths
from ._arguments import LARGEST as LARGEST
from ._arguments import SIZE as SIZE
from ._arguments import filled as filled
from ._arguments import sizes_to_try as sizes_to_try
from ._arguments import symbolic_inputs as symbolic_inputs
from ._custom import is_custom as is_custom
from ._graph import read_calls as read_calls
from ._inspect import inspect as inspect
from ._operations import activation_name as activation_name
from ._operations import activation_of as activation_of
from ._operations import effect_of as effect_of
from ._operations import is_activation as is_activation
from ._records import Edge as Edge
from ._records import Inspection as Inspection
from ._records import KernelRecord as KernelRecord
from ._records import Merge as Merge
from ._records import Transform as Transform
from ._true_fans import fans as fans
from ._unbuilt import all_built as all_built
from ._unbuilt import check_parts as check_parts

__all__ = [
    "LARGEST",
    "SIZE",
    "Edge",
    "Effect",
    "Inspection",
    "KernelRecord",
    "Merge",
    "Transform",
    "activation_name",
    "activation_of",
    "all_built",
    "check_parts",
    "effect_of",
    "fans",
    "filled",
    "inspect",
    "is_activation",
    "is_custom",
    "layer_paths",
    "operation_paths",
    "operations_in_sight",
    "sizes_to_try",
    "symbolic_inputs",
    "variable_paths",
]
