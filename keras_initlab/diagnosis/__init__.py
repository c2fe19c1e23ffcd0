"""What is wrong: one record, one table of thresholds, and the rules over it.

`_thresholds` holds every limit with its argument. Rules on weights are those of `audit`
(`_broken_weights`, and `_fresh_weights` before any training, which `_signs` tells), on
one pass those of `probe` (`_probe_rules`), on a training those of the callbacks
(`_gradient_rules`, `_activation_rules`).
"""

from ._activation_rules import Signal as Signal
from ._activation_rules import SignalRules as SignalRules
from ._audit import Audit as Audit
from ._audit import audit as audit
from ._finding import KINDS as KINDS
from ._finding import NOT_FINITE as NOT_FINITE
from ._finding import Finding as Finding
from ._gradient_rules import Observation as Observation
from ._gradient_rules import Rules as Rules
from ._matrices import Weights as Weights
from ._probe_rules import probe_findings as probe_findings
from ._probe_rules import sentences as sentences
from ._thresholds import LOST_SHARE as LOST_SHARE

__all__ = [
    "KINDS",
    "Audit",
    "Finding",
    "audit",
]
