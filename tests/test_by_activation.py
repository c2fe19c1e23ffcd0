import math
import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special, stats
from scipy.integrate import quad

from keras_initlab import Fans, NotPointwiseError, fans
from keras_initlab.initializers import AdaptiveHe, initializer_for

DENSE = (1000, 500)


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def gain_of(function):
    """1/√E[φ(z)²] for z ~ N(0, 1)."""

    def integrand(z):
        return function(z) ** 2 * stats.norm.pdf(z)

    below, above = (quad(integrand, *half)[0] for half in [(-12, 0), (0, 12)])
    return 1 / math.sqrt(below + above)


# --- The textbook's table ------------------------------------------------------------

HE, LECUN, GLOROT = (
    keras.initializers.HeNormal,
    keras.initializers.LecunNormal,
    keras.initializers.GlorotUniform,
)
TEXTBOOK = {
    "sigmoid": GLOROT,
    "tanh": GLOROT,
    "relu": HE,
    "leaky_relu": HE,
    "selu": LECUN,
}
GIVEN = {
    **{name: (name, kind) for name, kind in TEXTBOOK.items()},
    **{
        f"function {name}": (getattr(keras.activations, name), kind)
        for name, kind in TEXTBOOK.items()
    },
    **{
        f"layer {name}": (layers.Activation(name), kind)
        for name, kind in TEXTBOOK.items()
    },
    "ReLU": (layers.ReLU(), HE),
    "ReLU with a slope": (layers.ReLU(negative_slope=0.2), HE),
    "LeakyReLU": (layers.LeakyReLU(negative_slope=0.2), HE),
}


@pytest.mark.parametrize(("activation", "kind"), GIVEN.values(), ids=GIVEN)
def test_textbook(activation, kind):
    found = initializer_for(activation, seed=3)
    assert type(found) is kind
    expected = to_numpy(kind(seed=3)((20, 30)))
    assert (to_numpy(found((20, 30))) == expected).all()


# The textbook's scale on a thousand inputs and five hundred outputs.
STDS = {
    "sigmoid": math.sqrt(2 / 1500),
    "tanh": math.sqrt(2 / 1500),
    "relu": math.sqrt(2 / 1000),
    "leaky_relu": math.sqrt(2 / 1000),
    "selu": math.sqrt(1 / 1000),
}


@pytest.mark.parametrize(("activation", "std"), STDS.items())
@pytest.mark.parametrize("fan", [None, (1000, 500)])
def test_scale_of_the_textbook(activation, std, fan):
    values = to_numpy(initializer_for(activation, fan, seed=0)(DENSE))
    tolerance = 5 * std / math.sqrt(2 * values.size)
    assert values.std() == pytest.approx(std, abs=tolerance)
    others = {other for other in STDS.values() if other != std}
    assert all(abs(values.std() - other) > tolerance for other in others)


# --- All other activations -----------------------------------------------------------

OTHERS = {
    "gelu": lambda z: z * stats.norm.cdf(z),
    "silu": lambda z: z * special.expit(z),
    "softplus": lambda z: np.logaddexp(0, z),
    "softsign": lambda z: z / (1 + abs(z)),
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "celu": lambda z: z if z > 0 else math.expm1(z),
    "mish": lambda z: z * math.tanh(np.logaddexp(0, z)),
    "relu6": lambda z: min(max(z, 0), 6),
    "hard_tanh": lambda z: min(max(z, -1), 1),
    "exponential": math.exp,
    "log_sigmoid": lambda z: -np.logaddexp(0, -z),
    "squareplus": lambda z: (z + math.sqrt(z**2 + 4)) / 2,
    "linear": lambda z: z,
    None: lambda z: z,
}
each_other = pytest.mark.parametrize(("activation", "function"), OTHERS.items())


@each_other
def test_others_have_the_gain_of_their_statistics(activation, function):
    found = initializer_for(activation)
    assert type(found) is AdaptiveHe
    expected = gain_of(function) / math.sqrt(100)
    assert found.std(100, 50) == pytest.approx(expected, rel=1e-5)


@each_other
def test_others_for_given_fans(activation, function):
    found = initializer_for(activation, fan=(100, 50))
    assert type(found) is keras.initializers.RandomNormal
    assert found.mean == 0
    expected = gain_of(function) / math.sqrt(100)
    assert found.stddev == pytest.approx(expected, rel=1e-5)


def test_gains_differ_from_the_textbooks():
    gains = [gain_of(function) for function in OTHERS.values()]
    near = [g for g in gains if abs(g - math.sqrt(2)) < 0.01]
    assert len(near) <= 1  # that of relu6, which is ReLU's but for the ceiling


def test_the_kernel_has_that_scale():
    values = to_numpy(initializer_for("gelu", seed=0)(DENSE))
    std = gain_of(OTHERS["gelu"]) / math.sqrt(1000)
    tolerance = 5 * std / math.sqrt(2 * values.size)
    assert values.std() == pytest.approx(std, abs=tolerance)
    assert abs(values.std() - math.sqrt(2 / 1000)) > tolerance


def test_an_activation_of_ones_own():
    def cubed(x):
        return x**3

    found = initializer_for(cubed, fan=4)
    assert found.stddev == pytest.approx(1 / math.sqrt(15 * 4), rel=1e-5)


# --- Fans ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fan", [9, 9.0, np.int64(9), np.float32(9), Fans(9, 500), (9, 500), [9, 500]]
)
def test_a_normal_one_follows_fan_in(fan):
    found = initializer_for("relu", fan=fan)
    assert type(found) is keras.initializers.RandomNormal
    assert found.stddev == pytest.approx(math.sqrt(2 / 9))
    assert initializer_for("selu", fan=fan).stddev == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("fan", "limit"),
    [
        (9, math.sqrt(6 / 18)),
        (Fans(9, 21), math.sqrt(6 / 30)),
        ((21, 9), math.sqrt(6 / 30)),
        (Fans(2.25, 9), math.sqrt(6 / 11.25)),
    ],
)
def test_a_uniform_one_follows_both_fans(fan, limit):
    found = initializer_for("tanh", fan=fan)
    assert type(found) is keras.initializers.RandomUniform
    assert (found.minval, found.maxval) == (
        pytest.approx(-limit),
        pytest.approx(limit),
    )


def test_fans_as_a_layer_tells_them():
    layer = layers.DepthwiseConv2D(3, depth_multiplier=2)
    layer.build((None, 8, 8, 16))
    (true,) = fans(layer).values()
    assert initializer_for("relu", true).stddev == pytest.approx(math.sqrt(2 / 9))


BAD_FANS = [
    "64",
    True,
    0,
    -1,
    -0.5,
    math.nan,
    math.inf,
    (3,),
    (1, 2, 3),
    {},
    [],
    1j,
]


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("fan", BAD_FANS, ids=repr)
def test_bad_fans(activation, fan):
    received = re.escape(f"Received: fan={fan!r}.")
    with pytest.raises(ValueError, match=rf"^`fan` must be .*\. {received}"):
        initializer_for(activation, fan=fan)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize(
    ("fan", "received"),
    [
        ((0, 5), "fan=0"),
        ((5, -2), "fan=-2"),
        (Fans(math.nan, 5), "fan=nan"),
        (("5", 5), "fan='5'"),
        ((5, None), "fan=None"),
    ],
)
def test_one_bad_fan(activation, fan, received):
    with pytest.raises(ValueError, match=rf"`fan` must be .*Received: {received}\."):
        initializer_for(activation, fan=fan)


# --- Activations without an initializer ----------------------------------------------


@pytest.mark.parametrize("fan", [None, 9])
@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "glu", "sparsemax"])
def test_activations_that_mix_units(activation, fan):
    with pytest.raises(
        NotPointwiseError,
        match=rf"each unit alone\. Received: activation='{activation}'",
    ):
        initializer_for(activation, fan)


@pytest.mark.parametrize("fan", [None, 9])
@pytest.mark.parametrize("activation", ["relux", "", 3, True, ["relu"], math.nan])
def test_what_is_no_activation(activation, fan):
    received = re.escape(f"Received: activation={activation!r}.")
    with pytest.raises(ValueError, match=rf"^`activation` must .*\. {received}"):
        initializer_for(activation, fan)


@pytest.mark.parametrize("fan", [None, 9])
def test_an_activation_that_passes_nothing_on(fan):
    with pytest.raises(ValueError, match="activation='zeros_like'"):
        initializer_for(ops.zeros_like, fan)


# --- Seeds and layers ----------------------------------------------------------------

KINDS = [("relu", None), ("relu", 9), ("tanh", None), ("tanh", 9), ("gelu", None)]


@pytest.mark.parametrize(("activation", "fan"), KINDS)
def test_seeds(activation, fan):
    def values(seed):
        return to_numpy(initializer_for(activation, fan, seed)((20, 30)))

    assert (values(3) == values(3)).all()
    assert (values(3) != values(4)).any()
    assert (values(None) != values(None)).any()
    advancing = initializer_for(activation, fan, keras.random.SeedGenerator(3))
    first, second = (to_numpy(advancing((20, 30))) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(("activation", "fan"), KINDS)
@pytest.mark.parametrize("seed", ["three", 1.5, [3]])
def test_bad_seeds(activation, fan, seed):
    with pytest.raises(ValueError, match=re.escape("Received: seed=")):
        initializer_for(activation, fan, seed)


@pytest.mark.parametrize(("activation", "fan"), KINDS)
def test_in_a_layer_that_is_saved(activation, fan, tmp_path):
    kernel = initializer_for(activation, fan, seed=3)
    dense = layers.Dense(30, activation, kernel_initializer=kernel)
    model = keras.Sequential([keras.Input((20,)), dense])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    assert loaded.kernel_initializer.get_config() == kernel.get_config()
    assert (to_numpy(loaded.kernel) == to_numpy(dense.kernel)).all()
