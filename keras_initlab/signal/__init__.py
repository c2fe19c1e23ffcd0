"""What happens inside a model while it runs or trains."""

from ._observe import Subscriber as Subscriber
from ._observe import TrainingObserver as TrainingObserver
from ._recipe import Measured as Measured
from ._recipe import Recipe as Recipe
from ._record import recording as recording
