"""The true fans of every kernel of a layer or model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import keras

from .._core.errors import UnknownLayerWarning, message
from .._keras.kinds import Fans, Kernel, check_built, kernels
from .._keras.paths import variable_paths
from ._unbuilt import check_parts


def fans(layer: keras.Layer) -> dict[str, Fans]:
    """Returns the true fans of every kernel of a built layer.

    fan_in is the number of products that one output unit sums, fan_out the number of
    output units that one input unit reaches, so that a kernel drawn N(0, 1/fan_in)
    keeps the variance of a signal with independent units. Holds away from the borders
    of padded convolutions, and on average over positions for strides that do not
    divide the window. A label that an `EinsumDense` sums in its input alone is not in
    the kernel's shape and not counted.

    Args:
        layer: a built Keras layer or model.

    Returns:
        A dict `{variable path: Fans(fan_in, fan_out)}`; equal paths in nested models
        are told apart by the models around them. A layer of a class that is
        not known (a custom layer) gets Keras's rule for the shape of its kernel, with
        an `UnknownLayerWarning`; `register_fans` makes it known.

    Raises:
        TypeError: if `layer` is no Keras layer.
        UnbuiltModelError: if it, or a layer inside that it calls, has no weights yet.

    Example:
        >>> layer = keras.layers.DepthwiseConv2D(3, name="depthwise")
        >>> layer.build((None, 8, 8, 64))
        >>> fans(layer)
        {'depthwise/kernel': Fans(fan_in=9, fan_out=9)}

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep
        feedforward neural networks", equations 5 and 6, for the two fans.
    """
    check_built("layer", layer)
    check_parts(layer, name="layer")
    found = kernels(layer)
    _warn_of_unknown(found)
    paths = variable_paths(layer, [kernel.variable for kernel in found])
    return {path: kernel.fans for path, kernel in zip(paths, found, strict=True)}


def _warn_of_unknown(found: Iterable[Kernel]) -> None:
    unknown = [
        f"{kernel.variable.path!r} {kernel.shape} in a {type(kernel.layer).__name__}"
        for kernel in found
        if not kernel.is_known
    ]
    if unknown:
        warnings.warn(
            message(
                "The fans of a custom layer are only Keras's rule for the shape.",
                ", ".join(unknown),
                "`keras_initlab.register_fans` makes the layer known.",
            ),
            UnknownLayerWarning,
            stacklevel=3,
        )
