import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_initlab._activations import Asymptotes, asymptotes

NONE = Asymptotes(None, None, is_leaky=False)
LEAKY = Asymptotes(None, None, is_leaky=True)


def bounded(low, high=None):
    return Asymptotes(low, high, is_leaky=False)


SELU_LOW = -1.0507009873554805 * 1.6732632423543772
# The limits at −∞ and ∞, by hand.
KNOWN = {
    "celu": bounded(-1.0),
    "elu": bounded(-1.0),
    "exponential": bounded(0.0),
    "gelu": bounded(0.0),
    "glu": NONE,
    "hard_shrink": NONE,
    "hard_sigmoid": bounded(0.0, 1.0),
    "hard_silu": bounded(0.0),
    "hard_swish": bounded(0.0),
    "hard_tanh": bounded(-1.0, 1.0),
    "leaky_relu": LEAKY,
    "linear": NONE,
    "log_sigmoid": bounded(None, 0.0),
    "log_softmax": NONE,
    "mish": bounded(0.0),
    "relu": bounded(0.0),
    "relu6": bounded(0.0, 6.0),
    "selu": bounded(SELU_LOW),
    "sigmoid": bounded(0.0, 1.0),
    "silu": bounded(0.0),
    "soft_shrink": NONE,
    "softmax": NONE,
    "softplus": bounded(0.0),
    "softsign": bounded(-1.0, 1.0),
    "sparse_plus": bounded(0.0),
    "sparse_sigmoid": bounded(0.0, 1.0),
    "sparsemax": NONE,
    "squareplus": bounded(0.0),
    "swish": bounded(0.0),
    "tanh": bounded(-1.0, 1.0),
    "tanh_shrink": NONE,
    "threshold": NONE,  # says not at what
}


def same(found, expected):
    ends = [(found.low, expected.low), (found.high, expected.high)]
    return found.is_leaky == expected.is_leaky and all(
        a is b is None or (a is not None and b is not None and math.isclose(a, b))
        for a, b in ends
    )


def test_the_table_holds_every_activation_of_keras():
    names = {
        name
        for name in dir(keras.activations)
        if not name.startswith("_") and name not in ("get", "serialize", "deserialize")
    }
    assert names <= set(KNOWN)


@pytest.mark.parametrize(
    "name", [name for name in KNOWN if hasattr(keras.activations, name)]
)
def test_activations_of_keras(name):
    found = asymptotes(getattr(keras.activations, name))
    assert same(found, KNOWN[name]), found
    assert "-0.0" not in repr(found)


@pytest.mark.parametrize("name", ["celu", "gelu", "relu6", "leaky_relu", "tanh"])
def test_given_otherwise(name):
    for given in (name, layers.Activation(name), getattr(keras.ops, name)):
        assert same(asymptotes(given), KNOWN[name])


OTHERS = {
    "ReLU": (layers.ReLU(), bounded(0.0)),
    "bounded ReLU": (layers.ReLU(max_value=3.0), bounded(0.0, 3.0)),
    "sloped ReLU": (layers.ReLU(negative_slope=0.1), LEAKY),
    "sloped, bounded": (
        layers.ReLU(negative_slope=0.1, max_value=3.0),
        Asymptotes(None, 3.0, is_leaky=True),
    ),
    "LeakyReLU": (layers.LeakyReLU(), LEAKY),
    "steep LeakyReLU": (layers.LeakyReLU(negative_slope=0.6), NONE),
    "PReLU": (layers.PReLU(), LEAKY),
    "ELU": (layers.ELU(alpha=0.5), bounded(-0.5)),
    "Softmax": (layers.Softmax(), NONE),
    "threshold": (lambda z: keras.ops.threshold(z, 1.0, 0.5), bounded(0.5)),
    "wave": (keras.ops.sin, NONE),
    "square": (keras.ops.square, NONE),
    "mixes units": (lambda z: z / keras.ops.sum(z), NONE),
    "asks for three axes": (lambda z: keras.ops.transpose(z, (0, 2, 1)), NONE),
    "raises": (lambda z: z.no_such_thing(), NONE),
    "unknown": ("no such activation", NONE),
}


@pytest.mark.parametrize(("activation", "expected"), OTHERS.values(), ids=OTHERS)
def test_others(activation, expected):
    found = asymptotes(activation)
    assert same(found, expected), found


@pytest.mark.parametrize(
    "name", [name for name, one in KNOWN.items() if one not in (NONE, LEAKY)]
)
def test_the_limits_are_where_the_activation_is_flat(name):
    """Keras's own values far out."""
    expected, function = KNOWN[name], getattr(keras.activations, name)
    for end, z in ((expected.low, -300.0), (expected.high, 300.0)):
        if end is not None:
            value = np.asarray(keras.ops.convert_to_numpy(function(np.float32([z]))))
            np.testing.assert_allclose(value, [end], atol=0.02)
