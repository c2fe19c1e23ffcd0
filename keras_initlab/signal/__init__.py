"""What happens inside a model while it runs or trains."""

from ._observe import Measured as Measured
from ._observe import Recipe as Recipe
from ._observe import Subscriber as Subscriber
from ._observe import TrainingObserver as TrainingObserver
from ._record import recording as recording
