"""Giving every kernel the right scale by one pass of a batch through the model."""

from ._calibrate import calibrate as calibrate
from ._report import Calibrated as Calibrated
from ._report import CalibratedKernel as CalibratedKernel
from ._running import one_pass as one_pass
from ._running import reasons_to_leave as reasons_to_leave
from ._scaling import Wanted as Wanted
from ._scaling import mean_square as mean_square

__all__ = [
    "Calibrated",
    "CalibratedKernel",
    "calibrate",
]
