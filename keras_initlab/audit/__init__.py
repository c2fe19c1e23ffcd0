"""A model's weights as they are: what is wrong with them, and what to do about it.

`_broken` finds what is wrong with any weights, `_fresh` what is wrong with weights that
no training has touched yet, and `_signs` tells the two apart.
"""

from ._audit import Audit as Audit
from ._audit import audit as audit
from ._finding import KINDS as KINDS
from ._finding import Finding as Finding
from ._matrices import Weights as Weights

__all__ = [
    "KINDS",
    "Audit",
    "Finding",
    "audit",
]
