"""The one way to run a model and hear it.

`recording` tells of operations: what each reads and returns. `listening` tells of
kernels: what each computes, before a bias or activation.
"""

from ._bias import Bias as Bias
from ._bias import bias_of as bias_of
from ._channels import Channels as Channels
from ._events import OperationEvent as OperationEvent
from ._events import Place as Place
from ._events import method_of as method_of
from ._events import recording as recording
from ._listener import Listener as Listener
from ._listener import Product as Product
from ._products import listening as listening
from ._products import normalizing_by_batch as normalizing_by_batch
