"""The networks that a fair benchmark of weight initializations trains.

`NETWORKS` maps a name to a `Network`: its family, its data, its budget, and a `build`
that takes the initializer for hidden kernels, a textbook's or Keras's default. Outputs,
embeddings, attention and what recurrent layers give themselves keep Keras's
initializers; only what an architecture's authors set by hand is set (a layer scale, a
gate's bias). `is_fitted` says which families constants may be chosen on.
"""

from __future__ import annotations

from . import autoencoders as autoencoders
from . import convolutions as convolutions
from . import dense as dense
from . import language as language
from . import later_convolutions as later_convolutions
from . import mixers as mixers
from . import others as others
from . import recurrent as recurrent
from . import tables as tables
from . import text as text
from ._network import DEFAULT as DEFAULT
from ._network import NETWORKS as NETWORKS
from ._network import Network as Network
from ._split import is_fitted as is_fitted
