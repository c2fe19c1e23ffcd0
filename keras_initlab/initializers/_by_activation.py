"""The initializer that goes with an activation."""

from __future__ import annotations

import math
from typing import Any

import keras

from .._activations import gain, resolve
from .._core.errors import check_positive
from .._keras.kinds import Fans
from ._base import checked_seed
from ._he import AdaptiveHe

# The textbook's choice: scale, fan, distribution.
_TEXTBOOK = {
    "leaky_relu": (2.0, "fan_in", keras.initializers.HeNormal),
    "relu": (2.0, "fan_in", keras.initializers.HeNormal),
    "selu": (1.0, "fan_in", keras.initializers.LecunNormal),
    "sigmoid": (1.0, "fan_avg", keras.initializers.GlorotUniform),
    "tanh": (1.0, "fan_avg", keras.initializers.GlorotUniform),
}


def initializer_for(activation: Any, fan: Any = None, seed: Any = None) -> Any:
    """Returns the textbook's initializer for a layer with this activation.

    He's normal for ReLU and leaky ReLU, LeCun's normal for SELU, Glorot's uniform for
    sigmoid and tanh; for every other activation a normal kernel whose gain is computed
    from it, std = 1/√(E[φ(z)²]·fan_in). It looks at the activation alone:
    `recommend` looks at the model around it and does better in deep networks.

    Args:
        activation: a name, a callable, an activation layer, or None for linear.
        fan: the kernel's true fans, `Fans(fan_in, fan_out)` as `fans(layer)` tells
            them, or one number that stands for both. None to leave them to the
            initializer, which is right for dense layers and plain convolutions.
        seed: an int, a `keras.random.SeedGenerator` or None.

    Returns:
        A Keras initializer, ready for `kernel_initializer=`.

    Raises:
        ValueError: for an unknown activation, one that passes nothing on, or a fan
            that is not positive.
        NotPointwiseError: for softmax, GLU and others that mix units: theirs is the
            choice for the layer before them.

    Example:
        >>> type(initializer_for("tanh")).__name__
        'GlorotUniform'
        >>> initializer_for("gelu", seed=0).activation.__name__
        'gelu'
        >>> round(initializer_for("relu", fan=9).stddev, 4)
        0.4714

    References:
        He et al. 2015, 1502.01852, equation 10; Glorot and Bengio 2010, equation 16;
        Klambauer et al. 2017, 1706.02515, section 3, for SELU.
    """
    name, _ = resolve(activation)
    seed = checked_seed(seed)
    if name not in _TEXTBOOK:
        if fan is None:
            return AdaptiveHe(depth=0, activation=activation, seed=seed)
        return _normal(gain(activation) ** 2 / _fans(fan).fan_in, seed)
    scale, mode, textbook = _TEXTBOOK[name]
    if fan is None:
        return textbook(seed=seed)
    fan_in, fan_out = _fans(fan)
    if mode == "fan_in":
        return _normal(scale / fan_in, seed)
    limit = math.sqrt(3 * scale / ((fan_in + fan_out) / 2))
    return keras.initializers.RandomUniform(-limit, limit, seed)


def _normal(variance: float, seed: Any) -> Any:
    return keras.initializers.RandomNormal(stddev=math.sqrt(variance), seed=seed)


def _fans(fan: Any) -> Fans:
    values = fan if isinstance(fan, (tuple, list)) and len(fan) == 2 else (fan, fan)
    return Fans(*(check_positive("fan", value, usual=128) for value in values))
