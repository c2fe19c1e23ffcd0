"""Initializers for `kernel_initializer=`, one family a file.

All are registered under the package `keras_initlab`, so saved models load once the
package has been imported, and `"keras_initlab>AdaptiveHe"` works as a name.
"""

from ._orthogonal import DeltaOrthogonal as DeltaOrthogonal
from ._orthogonal import MirroredOrthogonal as MirroredOrthogonal
from ._orthogonal import Orthogonal as Orthogonal
from ._scaled import AdaptiveHe as AdaptiveHe
from ._scaled import LayerSequential as LayerSequential
from ._scaled import ScaledNoise as ScaledNoise
from ._scaled import WidthAware as WidthAware
from ._spectral import SpectralNorm as SpectralNorm
