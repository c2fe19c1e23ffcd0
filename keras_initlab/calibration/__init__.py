"""Giving every kernel the right scale by one pass of a batch through the model."""

from ._calibrate import calibrate as calibrate
from ._report import Calibrated as Calibrated
from ._report import CalibratedKernel as CalibratedKernel
