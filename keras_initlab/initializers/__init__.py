"""Initializers for `kernel_initializer=`, one family a file.

All are registered under the package `keras_initlab`, so saved models load once the
package has been imported, and `"keras_initlab>AdaptiveHe"` works as a name.
"""

from ._base import LayoutInitializer as LayoutInitializer
from ._biases import FanInBias as FanInBias
from ._biases import ForgetGateBias as ForgetGateBias
from ._by_activation import initializer_for as initializer_for
from ._he import TRUNCATED_STD as TRUNCATED_STD
from ._he import AdaptiveHe as AdaptiveHe
from ._he import LayerSequential as LayerSequential
from ._he import ResidualAware as ResidualAware
from ._mirrored import MirroredOrthogonal as MirroredOrthogonal
from ._orthogonal import DeltaOrthogonal as DeltaOrthogonal
from ._orthogonal import Orthogonal as Orthogonal
from ._pretrained import MatchPretrained as MatchPretrained
from ._spectral import SpectralNorm as SpectralNorm
from ._widths import ScaledNoise as ScaledNoise
from ._widths import WidthAware as WidthAware

__all__ = [
    "AdaptiveHe",
    "DeltaOrthogonal",
    "FanInBias",
    "ForgetGateBias",
    "LayerSequential",
    "MatchPretrained",
    "MirroredOrthogonal",
    "Orthogonal",
    "ResidualAware",
    "ScaledNoise",
    "SpectralNorm",
    "WidthAware",
    "initializer_for",
]
