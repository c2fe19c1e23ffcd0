"""What every public initializer class must do, one row a class."""

import contextlib
import functools
import inspect
import json
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers, ops
from scipy import stats
from scipy.integrate import quad

from keras_initlab import NotPointwiseError, callbacks, initializers
from keras_initlab.initializers import (
    AdaptiveHe,
    DeltaOrthogonal,
    FanInBias,
    ForgetGateBias,
    LayerSequential,
    MatchPretrained,
    MirroredOrthogonal,
    Orthogonal,
    ResidualAware,
    ScaledNoise,
    SpectralNorm,
    WidthAware,
)

# Every kernel class can fill the first. JAX compiles each new shape, so they are few.
CONV = (3, 3, 6, 8)
BIAS = (8,)
DENSE = (1000, 500)
IMAGES = (4, 5, 100, 250)


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


# --- The table -----------------------------------------------------------------------

AXES = {"input_axes": (0, 1), "output_axes": (0, 1, 3)}  # those of a depthwise kernel


class Row(NamedTuple):
    full: dict  # every argument, none at its default
    needed: dict = {}  # what a call on a shape alone cannot do without
    shape: tuple[int, ...] = CONV
    full_shape: tuple[int, ...] | None = None  # what fits `full`, where not `shape`
    std: Callable | None = None  # from (fan_in, fan_out), where the scheme is a scale

    @property
    def filled(self):
        return self.full_shape or self.shape


CONTRACT = {
    AdaptiveHe: Row(
        {
            "depth": 4,
            "activation": "gelu",
            "decay": 0.2,
            "mode": "fan_avg",
            "distribution": "uniform",
            "seed": 3,
            **AXES,
        },
        std=lambda fan_in, fan_out: math.sqrt(2 / fan_in / 1.1),
    ),
    LayerSequential: Row(
        {"index": 2, "decay": 0.9, "activation": "tanh", "seed": 3, **AXES},
        std=lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    ),
    ResidualAware: Row(
        {"residual": False, "branches": 3, "activation": "tanh", "seed": 3, **AXES},
        std=lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    ),
    WidthAware: Row(
        {"target_std": 2.5, "seed": 3, **AXES},
        std=lambda fan_in, fan_out: math.sqrt(fan_out / (fan_in + fan_out) / fan_in),
    ),
    ScaledNoise: Row(
        {"scale": 2.0, "noise_std": 0.05, "seed": 3, **AXES},
        std=lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out) + 0.01**2),
    ),
    SpectralNorm: Row(
        {
            "norm": 1.5,
            "operator": "convolution",
            "input_size": (5, 5),
            "seed": 3,
            **AXES,
        }
    ),
    Orthogonal: Row(
        {
            "gain": 1.5,
            "gates": 4,
            "seed": 3,
            "input_axes": (0,),
            "output_axes": (1, 2),
            "per_head": True,
        },
        full_shape=(6, 2, 8),
    ),
    DeltaOrthogonal: Row({"gain": 1.5, "seed": 3, **AXES}),
    MirroredOrthogonal: Row(
        {
            "gain": 1.5,
            "mirror_inputs": False,
            "mirror_outputs": False,
            "spread": True,
            "seed": 3,
            **AXES,
        }
    ),
    MatchPretrained: Row(
        {"std": 0.3, "mean": -0.1, "seed": 3, "fan_in": 36.0, **AXES},
        {"std": 0.3, "fan_in": 36.0},
        std=lambda fan_in, fan_out: 0.3 * math.sqrt(36 / fan_in),
    ),
    FanInBias: Row(
        {"scale": 2.0, "fan_in": 100, "seed": 3}, {"fan_in": 100}, shape=BIAS
    ),
    ForgetGateBias: Row({"value": 2.0, "gates": 2, "gate": 0}, shape=BIAS),
}
SEEDED = [kind for kind, row in CONTRACT.items() if "seed" in row.full]
MATRICES = [SpectralNorm, Orthogonal, DeltaOrthogonal, MirroredOrthogonal]
LAYOUTS = [kind for kind, row in CONTRACT.items() if "input_axes" in row.full]


def named(value):
    return getattr(value, "__name__", repr(value))


each_class = pytest.mark.parametrize("kind", CONTRACT, ids=named)
each_seeded = pytest.mark.parametrize("kind", SEEDED, ids=named)
each_layout = pytest.mark.parametrize("kind", LAYOUTS, ids=named)


def plain(kind, **arguments):
    return kind(**{**CONTRACT[kind].needed, **arguments})


def with_seed(kind, seed=3):
    return plain(kind, **({"seed": seed} if kind in SEEDED else {}))


def role(initializer):
    return "bias" if CONTRACT[type(initializer)].shape == BIAS else "kernel"


def convolution(initializer, **arguments):
    """A layer whose kernel of shape CONV, or bias of shape BIAS, is so drawn."""
    arguments[f"{role(initializer)}_initializer"] = initializer
    return layers.Conv2D(8, 3, **arguments)


def drawn_in(layer, initializer):
    return getattr(layer, role(initializer))


def parameters(kind):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
    }


def test_the_table_holds_every_public_class():
    offered = {getattr(initializers, name) for name in initializers.__all__}
    assert {one for one in offered if inspect.isclass(one)} == set(CONTRACT)


@each_class
def test_the_table_gives_every_argument_a_value_of_its_own(kind):
    full = CONTRACT[kind].full
    assert set(full) == set(parameters(kind))
    assert all(full[name] != default for name, default in parameters(kind).items())


# --- The scale -----------------------------------------------------------------------


def gain_of(function):
    """1/√E[φ(z)²], the gain that makes up for an activation."""

    def integrand(z):
        return function(z) ** 2 * stats.norm.pdf(z)

    below, above = (quad(integrand, *half)[0] for half in [(-12, 0), (0, 12)])
    return 1 / math.sqrt(below + above)


class Scale(NamedTuple):
    initializer: keras.initializers.Initializer
    std: float
    wrong: tuple[float, ...]
    shape: tuple[int, ...] = DENSE
    mean: float = 0.0


# fan_in = 1000 and fan_out = 500, unless a shape is given.
HE, LECUN = math.sqrt(2 / 1000), math.sqrt(1 / 1000)
TANH, LEAKY = gain_of(math.tanh), math.sqrt(2 / (1 + 0.3**2))
NOISY = 2 / (1500 * 2), 0.05**2

SCALES = {
    "adaptive He": Scale(
        AdaptiveHe(seed=0),
        HE / math.sqrt(1.1),
        # no damping, one layer too deep, no root, fan_out, fan_avg, LeCun's scale
        (
            HE,
            HE / math.sqrt(1.2),
            HE / 1.1,
            math.sqrt(2 / 500 / 1.1),
            math.sqrt(2 / 750 / 1.1),
            LECUN / math.sqrt(1.1),
        ),
    ),
    "adaptive He, deep": Scale(
        AdaptiveHe(depth=7, seed=0),
        HE / math.sqrt(1.7),
        (HE / math.sqrt(1.6), HE / math.sqrt(1.8)),
    ),
    "adaptive He, depth 0": Scale(
        AdaptiveHe(depth=0, seed=0), HE, (HE / math.sqrt(1.1),)
    ),
    "adaptive He, decay": Scale(
        AdaptiveHe(depth=2, decay=0.3, seed=0),
        HE / math.sqrt(1.6),
        (HE / math.sqrt(1.2), HE / math.sqrt(1.3), HE / 1.3),
    ),
    "adaptive He, no decay": Scale(
        AdaptiveHe(depth=5, decay=0, seed=0), HE, (HE / math.sqrt(1.5),)
    ),
    "adaptive He, leaky": Scale(
        AdaptiveHe(activation=layers.LeakyReLU(negative_slope=0.3), seed=0),
        LEAKY * LECUN / math.sqrt(1.1),
        (HE / math.sqrt(1.1), LECUN / math.sqrt(1.1)),
    ),
    "adaptive He, tanh": Scale(
        AdaptiveHe(activation="tanh", seed=0),
        TANH * LECUN / math.sqrt(1.1),
        (HE / math.sqrt(1.1), 5 / 3 * LECUN / math.sqrt(1.1)),
    ),
    "adaptive He, fan_out": Scale(
        AdaptiveHe(mode="fan_out", seed=0),
        math.sqrt(2 / 500 / 1.1),
        (math.sqrt(2 / 1000 / 1.1), math.sqrt(2 / 750 / 1.1)),
    ),
    "adaptive He, fan_avg": Scale(
        AdaptiveHe(mode="fan_avg", seed=0),
        math.sqrt(2 / 750 / 1.1),
        (math.sqrt(2 / 1000 / 1.1), math.sqrt(2 / 1500 / 1.1)),
    ),
    "adaptive He, truncated": Scale(
        AdaptiveHe(distribution="truncated_normal", seed=0),
        HE / math.sqrt(1.1),
        (0.8796 * HE / math.sqrt(1.1), HE / math.sqrt(1.1) / 0.8796),
    ),
    "adaptive He, uniform": Scale(
        AdaptiveHe(distribution="uniform", seed=0),
        HE / math.sqrt(1.1),
        (HE / math.sqrt(3 * 1.1), math.sqrt(2) * HE / math.sqrt(1.1)),
    ),
    "adaptive He, window": Scale(
        AdaptiveHe(seed=0),
        math.sqrt(2 / 2000 / 1.1),
        (math.sqrt(2 / 100 / 1.1), math.sqrt(2 / 5000 / 1.1)),
        IMAGES,
    ),
    "adaptive He, depthwise": Scale(
        AdaptiveHe(seed=0, input_axes=(0, 1), output_axes=(0, 1, 3)),
        math.sqrt(2 / 20 / 1.1),
        (math.sqrt(2 / 2000 / 1.1), math.sqrt(2 / 5000 / 1.1)),
        IMAGES,
    ),
    "adaptive He, inputs last": Scale(
        AdaptiveHe(seed=0, input_axes=(-1,), output_axes=(0, 1, 2)),
        math.sqrt(2 / 250 / 1.1),
        (math.sqrt(2 / 2000 / 1.1),),
        IMAGES,
    ),
    "layer sequential": Scale(LayerSequential(seed=0), HE, (0.95 * HE, LECUN)),
    "layer sequential, fourth": Scale(
        LayerSequential(index=4, seed=0), 0.95**3 * HE, (0.95**4 * HE, 0.95**2 * HE)
    ),
    "layer sequential, decay": Scale(
        LayerSequential(index=3, decay=0.8, seed=0),
        0.8**2 * HE,
        (0.95**2 * HE, 0.8**3 * HE, 0.8 * HE),
    ),
    "layer sequential, tanh": Scale(
        LayerSequential(index=2, activation="tanh", seed=0),
        0.95 * LECUN,
        (0.95 * HE, LECUN, 0.95 * TANH * LECUN),
    ),
    "layer sequential, leaky": Scale(
        LayerSequential(activation="leaky_relu", seed=0), LECUN, (HE, LEAKY * LECUN)
    ),
    "layer sequential, a ReLU layer": Scale(
        LayerSequential(activation=layers.ReLU(), seed=0), HE, (LECUN,)
    ),
    "layer sequential, an Activation layer": Scale(
        LayerSequential(activation=layers.Activation("relu"), seed=0), HE, (LECUN,)
    ),
    "layer sequential, depthwise": Scale(
        LayerSequential(seed=0, input_axes=(0, 1), output_axes=(0, 1, 3)),
        math.sqrt(2 / 20),
        (math.sqrt(2 / 2000),),
        IMAGES,
    ),
    "width aware": Scale(
        WidthAware(seed=0),
        math.sqrt(500 / 1500) * LECUN,
        # fans swapped in either place, no factor for the widths
        (
            math.sqrt(1000 / 1500) * LECUN,
            math.sqrt(500 / 1500 / 500),
            LECUN,
            math.sqrt(1 / 1500),
        ),
    ),
    "width aware, target": Scale(
        WidthAware(target_std=2.5, seed=0),
        2.5 * math.sqrt(500 / 1500) * LECUN,
        (math.sqrt(2.5 * 500 / 1500) * LECUN, math.sqrt(500 / 1500) * LECUN),
    ),
    "width aware, window": Scale(
        WidthAware(seed=0),
        math.sqrt(5000 / 7000 / 2000),
        (math.sqrt(250 / 350 / 100), math.sqrt(2000 / 7000 / 2000)),
        IMAGES,
    ),
    "scaled noise": Scale(
        ScaledNoise(seed=0),
        math.sqrt(2 / 1500 + 0.01**2),
        # no noise, noise_std taken for a variance, fan_in
        (math.sqrt(2 / 1500), math.sqrt(2 / 1500 + 0.01), math.sqrt(1e-3 + 0.01**2)),
    ),
    "scaled noise, both": Scale(
        ScaledNoise(scale=2, noise_std=0.05, seed=0),
        math.sqrt(sum(NOISY)),
        # no noise, scale as a factor, both parts drawn from the same bits
        (
            math.sqrt(NOISY[0]),
            math.sqrt(4 * NOISY[0] + NOISY[1]),
            math.sqrt(sum(NOISY) + 2 * math.sqrt(3 / math.pi * NOISY[0] * NOISY[1])),
        ),
    ),
    "scaled noise, window": Scale(
        ScaledNoise(noise_std=0, seed=0),
        math.sqrt(2 / 7000),
        (math.sqrt(2 / 350), math.sqrt(2 / 7000 + 0.01**2)),
        IMAGES,
    ),
    "residual aware, a branch": Scale(
        ResidualAware(seed=0), LECUN, (HE, math.sqrt(1 / 500), LECUN / math.sqrt(2))
    ),
    "residual aware, no branch": Scale(
        ResidualAware(residual=False, branches=4, seed=0),
        HE,
        (LECUN, HE / 2, math.sqrt(2 / 500)),
    ),
    "residual aware, eight branches": Scale(
        ResidualAware(branches=8, seed=0),
        HE / math.sqrt(8),
        # He's factor left out, no root, one branch more or fewer, the default
        (LECUN / math.sqrt(8), HE / 8, HE / math.sqrt(9), HE / math.sqrt(7), LECUN),
    ),
    "residual aware, one branch": Scale(
        ResidualAware(branches=1, seed=0), HE, (LECUN,)
    ),
    "residual aware, tanh": Scale(
        ResidualAware(activation="tanh", seed=0),
        TANH * LECUN / math.sqrt(2),
        (LECUN, TANH * LECUN, LECUN / math.sqrt(2), 5 / 3 * LECUN / math.sqrt(2)),
    ),
    "residual aware, window": Scale(
        ResidualAware(seed=0),
        math.sqrt(1 / 2000),
        (math.sqrt(1 / 100), math.sqrt(1 / 5000)),
        IMAGES,
    ),
    "match pretrained": Scale(
        # Keras's default std, a variance taken for the std and the other way about
        MatchPretrained(0.03, seed=0),
        0.03,
        (0.05, 0.03**2, math.sqrt(0.03), HE, LECUN),
    ),
    "match pretrained, mean": Scale(
        MatchPretrained(0.03, 0.02, seed=0), 0.03, (math.hypot(0.03, 0.02),), mean=0.02
    ),
    "fan-in bias": Scale(
        FanInBias(fan_in=1000, seed=0),
        math.sqrt(1 / 3000),
        # the limit taken for the std, Glorot's and He's limits
        (LECUN, math.sqrt(2 / 1000), math.sqrt(1 / 1500)),
    ),
    "fan-in bias, scale": Scale(
        FanInBias(scale=2.5, fan_in=40, seed=0),
        2.5 / math.sqrt(120),
        (math.sqrt(2.5 / 120), 2.5 / math.sqrt(40), 1 / math.sqrt(120)),
    ),
}


def standard_errors(values):
    """Of mean and std; no distribution here has larger ones than the normal."""
    std = values.std()
    return std / math.sqrt(values.size), std / math.sqrt(2 * values.size)


@pytest.mark.parametrize("case", SCALES.values(), ids=SCALES)
def test_mean_and_std_are_the_formulas_and_no_near_ones(case):
    values = draw(case.initializer, case.shape)
    of_mean, of_std = standard_errors(values)
    assert values.mean() == pytest.approx(case.mean, abs=5 * of_mean)
    assert values.std() == pytest.approx(case.std, abs=5 * of_std)
    assert all(abs(values.std() - wrong) > 5 * of_std for wrong in case.wrong)
    assert case.mean == 0 or abs(values.mean()) > 5 * of_mean


@each_class
def test_every_scheme_with_a_scale_is_in_the_table(kind):
    has_formula = CONTRACT[kind].std is not None or kind is FanInBias
    in_table = {type(case.initializer) for case in SCALES.values()}
    assert has_formula == (kind in in_table)


def test_stds_for_given_fans():
    assert AdaptiveHe(depth=10).std(50, 100) == pytest.approx(math.sqrt(2 / 50 / 2))
    assert LayerSequential(index=2).std(50) == pytest.approx(0.95 * math.sqrt(2 / 50))
    assert ResidualAware(branches=4).std(50) == pytest.approx(math.sqrt(2 / 50 / 4))
    assert WidthAware().std(50, 100) == pytest.approx(math.sqrt(100 / 150 / 50))
    assert ScaledNoise(scale=4).limit(50, 100) == pytest.approx(math.sqrt(6 / 600))


def test_a_kernels_own_std_and_mean_are_matched(rng):
    kernel = rng.normal(0.2, 0.05, (3, 3, 4, 5)).astype("float32")
    for given in (kernel, ops.convert_to_tensor(kernel), keras.Variable(kernel)):
        matched = MatchPretrained.from_kernel(given, match_mean=True, seed=3)
        assert matched.std == pytest.approx(kernel.astype("float64").std(), rel=1e-6)
        assert matched.mean == pytest.approx(kernel.astype("float64").mean(), rel=1e-6)
        assert matched.get_config()["seed"] == 3
    assert MatchPretrained.from_kernel(kernel).mean == 0


# --- The distribution ----------------------------------------------------------------


def uniform_and_normal(z, limit, std):
    """The distribution function of U(-limit, limit) + N(0, std²)."""

    def antiderivative(x):
        return x * stats.norm.cdf(x / std) + std * stats.norm.pdf(x / std)

    return (antiderivative(z + limit) - antiderivative(z - limit)) / (2 * limit)


# Each with variance 1; the noise has the share that it has by default.
NOISE = 0.01 / math.sqrt(2 / 1500 + 0.01**2)
TRUNCATED = stats.truncnorm.std(-2, 2)
CUMULATIVE = {
    "normal": stats.norm.cdf,
    "truncated normal": stats.truncnorm(-2, 2, scale=1 / TRUNCATED).cdf,
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)).cdf,
    "uniform and normal": lambda z: uniform_and_normal(
        z, math.sqrt(3 * (1 - NOISE**2)), NOISE
    ),
}
DISTRIBUTIONS = {
    "adaptive He": (AdaptiveHe(seed=0), "normal"),
    "truncated": (
        AdaptiveHe(distribution="truncated_normal", seed=0),
        "truncated normal",
    ),
    "uniform": (AdaptiveHe(distribution="uniform", seed=0), "uniform"),
    "layer sequential": (LayerSequential(seed=0), "normal"),
    "residual aware": (ResidualAware(seed=0), "normal"),
    "width aware": (WidthAware(seed=0), "normal"),
    "scaled noise": (ScaledNoise(seed=0), "uniform and normal"),
    "noise-free": (ScaledNoise(noise_std=0, seed=0), "uniform"),
    "match pretrained": (MatchPretrained(0.3, seed=0), "normal"),
    "fan-in bias": (FanInBias(fan_in=100, seed=0), "uniform"),
}


@pytest.mark.parametrize(
    ("initializer", "shape"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS
)
def test_distribution(initializer, shape):
    values = draw(initializer, DENSE).ravel()
    z = values / math.sqrt(np.mean(values**2))
    likelihood = {
        name: stats.kstest(z[:100_000], cumulative).pvalue
        for name, cumulative in CUMULATIVE.items()
    }
    assert likelihood.pop(shape) > 1e-6
    assert max(likelihood.values()) < 1e-6
    edges = {"uniform": math.sqrt(3), "truncated normal": 2 / TRUNCATED}
    edge = edges.get(shape, math.inf)
    # On PyTorch, Keras gives up truncating after four tries: 4 draws in a million.
    assert np.mean(abs(z) > 1.005 * edge) < 2e-5
    assert abs(z).max() > min(0.995 * edge, 2.5)


def test_uniform_limits_are_exact():
    limit = math.sqrt(6 / 1500)
    largest = abs(draw(ScaledNoise(noise_std=0, seed=0), DENSE)).max()
    assert 0.9999 * limit < largest <= limit * (1 + 1e-6)


# --- Seeds ---------------------------------------------------------------------------


@each_seeded
def test_an_int_gives_the_same_values_at_every_call(kind):
    shape = CONTRACT[kind].shape
    once = with_seed(kind)
    first = draw(once, shape)
    assert (draw(once, shape) == first).all()
    assert (draw(with_seed(kind), shape) == first).all()
    assert (draw(with_seed(kind, 4), shape) != first).any()
    assert (draw(once.clone(), shape) == first).all()


@each_seeded
def test_none_gives_every_instance_values_of_its_own(kind):
    shape = CONTRACT[kind].shape
    one, other = plain(kind), plain(kind)
    assert (draw(one, shape) != draw(other, shape)).any()
    assert (draw(one, shape) == draw(one, shape)).all()
    assert one.get_config()["seed"] is None
    assert (draw(one.clone(), shape) != draw(one, shape)).any()


@each_seeded
def test_the_global_seed_decides_without_a_seed(kind):
    shape = CONTRACT[kind].shape
    keras.utils.set_random_seed(5)
    first = draw(plain(kind), shape)
    keras.utils.set_random_seed(5)
    assert (draw(plain(kind), shape) == first).all()


@each_seeded
def test_a_seed_generator_advances(kind):
    shape = CONTRACT[kind].shape
    advancing = with_seed(kind, keras.random.SeedGenerator(3))
    first, second = draw(advancing, shape), draw(advancing, shape)
    assert (first != second).any()
    again = with_seed(kind, keras.random.SeedGenerator(3))
    assert (draw(again, shape) == first).all()
    text = json.dumps(keras.initializers.serialize(advancing))
    restored = keras.initializers.deserialize(json.loads(text))
    assert (draw(restored, shape) == first).all()


@each_seeded
@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_every_seed_of_32_bits_works(kind, seed):
    assert np.isfinite(draw(with_seed(kind, seed), CONTRACT[kind].shape)).all()


# --- Configuration -------------------------------------------------------------------


@keras.saving.register_keras_serializable("test_contract")
def squared_relu(x):
    return ops.square(ops.relu(x))


SLOPE = layers.LeakyReLU(negative_slope=0.3)
CONFIGURED = {
    **{kind.__name__: kind(**row.full) for kind, row in CONTRACT.items()},
    "AdaptiveHe, layer": AdaptiveHe(activation=SLOPE, seed=3),
    "AdaptiveHe, function": AdaptiveHe(activation=keras.activations.tanh, seed=3),
    "AdaptiveHe, registered": AdaptiveHe(activation=squared_relu, seed=3),
    "AdaptiveHe, linear": AdaptiveHe(activation=None, seed=3),
    "LayerSequential, layer": LayerSequential(activation=SLOPE, seed=3),
    "ResidualAware, layer": ResidualAware(activation=SLOPE, seed=3),
    "MirroredOrthogonal, inputs": MirroredOrthogonal(1.5, True, False, 3),
    "SpectralNorm, numpy": SpectralNorm(np.float32(1.5), seed=3),
    "Orthogonal, lists": Orthogonal(input_axes=[0, 1], output_axes=[2, 3], seed=3),
    "FanInBias, part": FanInBias(fan_in=2.25, seed=3),
}
each_configured = pytest.mark.parametrize(
    "initializer", CONFIGURED.values(), ids=CONFIGURED
)


@each_configured
def test_configuration_survives_json(initializer):
    row = CONTRACT[type(initializer)]
    text = json.dumps(keras.initializers.serialize(initializer))
    restored = keras.initializers.deserialize(json.loads(text))
    assert type(restored) is type(initializer)
    assert restored.get_config() == initializer.get_config()
    shape = row.filled if initializer.get_config() == row.full else row.shape
    assert (draw(restored, shape) == draw(initializer, shape)).all()


@each_configured
def test_clones_are_equal(initializer):
    config = initializer.get_config()
    restored = type(initializer).from_config(config)
    assert restored.get_config() == initializer.get_config() == config
    clone = initializer.clone()
    assert type(clone) is type(initializer)
    assert clone is not initializer
    assert clone.get_config() == config


@each_class
def test_every_argument_is_in_the_configuration(kind):
    full = CONTRACT[kind].full
    assert kind(**full).get_config() == full
    assert set(plain(kind).get_config()) == set(parameters(kind))


@each_class
def test_names_with_the_package(kind):
    name = f"keras_initlab>{kind.__name__}"
    assert keras.saving.get_registered_name(kind) == name
    if kind is MatchPretrained:  # a name cannot say what to match
        with pytest.raises(TypeError, match="'std'"):
            keras.initializers.get(name)
        return
    assert type(keras.initializers.get(name)) is kind
    where = role(plain(kind))
    layer = layers.Conv2D(8, 3, **{f"{where}_initializer": name})
    layer.build((None, 5, 5, 6))
    assert np.isfinite(to_numpy(getattr(layer, where))).all()


def model_with(initializer):
    return keras.Sequential([keras.Input((5, 5, 6)), convolution(initializer)])


@each_class
def test_saved_models_load(kind, tmp_path):
    initializer = with_seed(kind)
    model = model_with(initializer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = getattr(loaded.layers[0], f"{role(initializer)}_initializer")
    assert type(found) is kind
    assert found.get_config() == initializer.get_config()
    for value, original in zip(loaded.weights, model.weights, strict=True):
        assert (to_numpy(value) == to_numpy(original)).all()


@each_class
def test_cloned_models_draw_again(kind):
    initializer = with_seed(kind)
    model = model_with(initializer)
    variable = drawn_in(model.layers[0], initializer)
    drawn = to_numpy(variable)
    variable.assign(ops.zeros(variable.shape))
    cloned = keras.models.clone_model(model)
    assert (to_numpy(drawn_in(cloned.layers[0], initializer)) == drawn).all()


# --- Precision -----------------------------------------------------------------------


@each_class
@pytest.mark.parametrize(
    ("dtype", "resolution"), [("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_half_precision_is_rounded_at_the_end(kind, dtype, resolution):
    shape = CONTRACT[kind].shape
    values = with_seed(kind)(shape, dtype=dtype)
    exact = draw(with_seed(kind), shape)
    assert keras.backend.standardize_dtype(values.dtype) == dtype
    np.testing.assert_allclose(to_numpy(values), exact, rtol=resolution, atol=1e-6)


def double_precision():
    """A context in which JAX keeps float64; the other backends always do."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


@each_class
def test_double_precision_is_drawn_in_double_precision(kind):
    with double_precision():
        values = ops.convert_to_numpy(
            with_seed(kind)(CONTRACT[kind].shape, dtype="float64")
        )
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    needs_more_than_single = (values != values.astype("float32")).any()
    assert needs_more_than_single == (kind is not ForgetGateBias)


@each_class
def test_floatx_is_the_default_dtype(kind):
    shape = CONTRACT[kind].shape
    assert keras.backend.standardize_dtype(plain(kind)(shape).dtype) == "float32"
    keras.config.set_floatx("float16")
    try:
        values = plain(kind)(shape)
    finally:
        keras.config.set_floatx("float32")
    assert keras.backend.standardize_dtype(values.dtype) == "float16"


@each_class
@pytest.mark.parametrize(
    ("policy", "variable_dtype", "compute_dtype"),
    [
        ("mixed_float16", "float32", "float16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_policies(kind, policy, variable_dtype, compute_dtype):
    initializer = with_seed(kind)
    layer = convolution(initializer, dtype=policy)
    output = layer(np.ones((2, 5, 5, 6), "float32"))
    variable = drawn_in(layer, initializer)
    assert keras.backend.standardize_dtype(variable.dtype) == variable_dtype
    assert keras.backend.standardize_dtype(output.dtype) == compute_dtype
    assert np.isfinite(to_numpy(output)).all()
    if variable_dtype == "float32":
        exact = convolution(initializer)
        exact.build((None, 5, 5, 6))
        assert (to_numpy(variable) == to_numpy(drawn_in(exact, initializer))).all()


# --- While something else traces -----------------------------------------------------


def compilers():
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            # AutoGraph, which Keras turns off for its own code, would only read ours.
            function = functools.partial(tensorflow.function, autograph=False)
            return {
                "function": function,
                "XLA": functools.partial(function, jit_compile=True),
            }
        case "jax":
            import jax

            return {"jit": jax.jit}
        case _:
            import torch

            return {"inference": torch.inference_mode()}


COMPILERS = compilers()


@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(one, marks=[pytest.mark.slow] * (name == "XLA"), id=name)
        for name, one in COMPILERS.items()
    ],
)
@each_class
def test_values_are_the_same_in_a_compiled_function(kind, compiled):
    shape = CONTRACT[kind].shape
    traced, again = (
        to_numpy(compiled(lambda: with_seed(kind)(shape))()) for _ in range(2)
    )
    eager = draw(with_seed(kind), shape)
    assert (traced == again).all()
    if compiled is not COMPILERS.get("XLA"):
        np.testing.assert_allclose(traced, eager, atol=1e-5)
        return
    # TensorFlow draws other numbers there, also for Keras's own initializers.
    assert np.isfinite(traced).all()
    tolerance = 5 / math.sqrt(2 * eager.size)
    assert np.linalg.norm(traced) == pytest.approx(
        np.linalg.norm(eager), rel=2 * tolerance
    )


@each_class
def test_variables_can_be_created_in_a_stateless_scope(kind):
    shape = CONTRACT[kind].shape
    with keras.StatelessScope():
        variable = keras.Variable(with_seed(kind), shape=shape, dtype="float32")
    assert (to_numpy(variable) == draw(with_seed(kind), shape)).all()


# --- In layers -----------------------------------------------------------------------


class Place(NamedTuple):
    make: Callable  # from the arguments that hold the initializers
    inputs: tuple  # shapes
    roles: tuple[str, ...]  # which arguments take a kernel's initializer
    fans: list  # true (fan_in, fan_out), one a kernel, in the order of creation
    of_biases: tuple[float, ...] = ()  # fan_in of the kernel beside each bias
    has_window: bool = False
    has_pairs: bool = True


KERNEL = ("kernel_initializer",)
RECURRENT = ("kernel_initializer", "recurrent_initializer")

PLACES = {
    "Dense": Place(
        lambda **given: layers.Dense(64, **given),
        ((None, 48),),
        KERNEL,
        [(48, 64)],
        of_biases=(48,),
    ),
    "EinsumDense": Place(
        lambda **given: layers.EinsumDense(
            "bhd,hde->bhe", (4, 64), bias_axes="e", **given
        ),
        ((None, 4, 48),),
        KERNEL,
        [(48, 64)],
        of_biases=(48,),
    ),
    "MultiHeadAttention": Place(
        lambda **given: layers.MultiHeadAttention(4, 16, value_dim=8, **given),
        ((None, 9, 96), (None, 9, 96)),
        KERNEL,
        [(96, 64), (96, 64), (96, 32), (32, 96)],
        of_biases=(96, 96, 96, 32),
    ),
    "GroupQueryAttention": Place(
        lambda **given: layers.GroupQueryAttention(16, 4, 2, **given),
        ((None, 9, 96), (None, 9, 96)),
        KERNEL,
        [(96, 64), (96, 32), (96, 32), (64, 96)],
        of_biases=(96, 96, 96, 64),
    ),
    "LSTM": Place(
        lambda **given: layers.LSTM(32, unit_forget_bias=False, **given),
        ((None, 9, 48),),
        RECURRENT,
        [(48, 32), (32, 32)],
        of_biases=(48,),
        has_pairs=False,
    ),
    "Bidirectional": Place(
        lambda **given: layers.Bidirectional(
            layers.LSTM(32, unit_forget_bias=False, **given)
        ),
        ((None, 9, 48),),
        RECURRENT,
        [(48, 32), (32, 32)] * 2,
        of_biases=(48, 48),
        has_pairs=False,
    ),
    "ConvLSTM2D": Place(
        lambda **given: layers.ConvLSTM2D(8, 3, unit_forget_bias=False, **given),
        ((None, 4, 6, 6, 4),),
        RECURRENT,
        [(36, 72), (72, 72)],
        of_biases=(36,),
        has_window=True,
        has_pairs=False,
    ),
    "DepthwiseConv2D": Place(
        lambda **given: layers.DepthwiseConv2D(3, depth_multiplier=2, **given),
        ((None, 6, 6, 64),),
        ("depthwise_initializer",),
        [(9, 18)],
        of_biases=(9,),
        has_window=True,
        has_pairs=False,
    ),
    "SeparableConv2D": Place(
        lambda **given: layers.SeparableConv2D(64, 3, **given),
        ((None, 6, 6, 64),),
        ("depthwise_initializer", "pointwise_initializer"),
        [(9, 9), (64, 64)],
        of_biases=(64,),
        has_window=True,
        has_pairs=False,
    ),
    "Conv2DTranspose": Place(
        lambda **given: layers.Conv2DTranspose(8, 4, strides=2, **given),
        ((None, 6, 6, 32),),
        KERNEL,
        [(128, 128)],
        of_biases=(128,),
        has_window=True,
    ),
    "Embedding": Place(
        lambda **given: layers.Embedding(300, 16, **given),
        ((None, 9),),
        ("embeddings_initializer",),
        [(1, 16)],
        has_pairs=False,
    ),
}
each_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def built(place, initializer, roles=None):
    layer = place.make(**dict.fromkeys(roles or place.roles, initializer))
    layer.build(*place.inputs)
    return layer


def split(layer):
    """The values of the layer's kernels and of its biases."""
    biases = [to_numpy(w) for w in layer.weights if w.name == "bias"]
    return [to_numpy(w) for w in layer.weights if w.name != "bias"], biases


def fits(kind, place):
    """Whether the class claims to fill this layer's kernels."""
    return (kind is not DeltaOrthogonal or place.has_window) and (
        kind is not MirroredOrthogonal or place.has_pairs
    )


def is_right(values, std):
    _, of_std = standard_errors(values)
    return abs(values.std() - std) < 5 * of_std


@each_class
def test_the_one_kernel_of_a_layer_is_what_the_shape_alone_draws(kind):
    layer = convolution(with_seed(kind))
    layer.build((None, 5, 5, 6))
    values = to_numpy(drawn_in(layer, with_seed(kind)))
    alone = draw(with_seed(kind), CONTRACT[kind].shape)
    assert (values == alone).all() == (kind is not FanInBias)  # it comes second


@each_place
@pytest.mark.parametrize(
    "kind",
    [
        # JAX compiles a decomposition for every shape of a matrix.
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in MATRICES))
        for kind, row in CONTRACT.items()
        if row.shape == CONV
    ],
    ids=named,
)
def test_layers_that_build_themselves(kind, place):
    initializer = with_seed(kind)
    if not fits(kind, place):
        with pytest.raises(ValueError, match=r"needs .*\. Received: shape=\("):
            built(place, initializer)
        return
    kernels, _ = split(built(place, initializer))
    for values, fans in zip(kernels, place.fans, strict=True):
        assert np.isfinite(values).all()
        assert np.any(values)
        std = CONTRACT[kind].std
        assert std is None or is_right(values, std(*fans))
    for values in kernels[1:]:  # a seed of its own for each
        assert values.shape != kernels[0].shape or (values != kernels[0]).any()


@each_place
def test_the_check_tells_true_fans_from_those_of_the_shape(place, rng):
    kernels, _ = split(built(place, "ones"))
    std = CONTRACT[AdaptiveHe].std
    for kernel, fans in zip(kernels, place.fans, strict=True):
        *window, inputs, outputs = kernel.shape
        of_shape = [math.prod(window) * n for n in (inputs, outputs)]
        values = std(*fans) * rng.normal(size=kernel.shape)
        assert is_right(values, std(*fans))
        assert is_right(values, std(*of_shape)) == (fans[0] == of_shape[0])


@each_place
@pytest.mark.parametrize("seed", [3, "generator"])
def test_biases_in_layers_that_build_themselves(place, seed):
    if seed == "generator":
        seed = keras.random.SeedGenerator(3)
    if not place.of_biases:
        pytest.skip("has no bias")
    layer = built(place, FanInBias(seed=seed), ("bias_initializer",))
    _, biases = split(layer)
    for values, fan_in in zip(biases, place.of_biases, strict=True):
        limit = 1 / math.sqrt(fan_in)
        assert 0.7 * limit < abs(values).max() <= limit * (1 + 1e-6)
        assert np.unique(values).size == values.size
    for values in biases[1:]:
        assert values.shape != biases[0].shape or (values != biases[0]).any()


@each_place
def test_a_given_fan_in_wins(place):
    if not place.of_biases:
        pytest.skip("has no bias")
    layer = built(place, FanInBias(fan_in=10_000, seed=3), ("bias_initializer",))
    _, biases = split(layer)
    assert all(0.005 < abs(values).max() <= 0.01 for values in biases)


RIVALS = ["MultiHeadAttention", "GroupQueryAttention", "Bidirectional"]


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("seed", [3, None, "generator"])
def test_projections_and_directions_differ_under_one_seed(name, seed):
    if seed == "generator":
        seed = keras.random.SeedGenerator(3)
    kernels, _ = split(built(PLACES[name], WidthAware(seed=seed)))
    for i, values in enumerate(kernels):
        others = [k for k in kernels[:i] if k.shape == values.shape]
        assert all(abs(values - other).max() > 0.01 for other in others)


@pytest.mark.parametrize("name", RIVALS)
def test_under_one_int_every_such_layer_is_the_same(name):
    one, other = (split(built(PLACES[name], WidthAware(seed=3)))[0] for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in MATRICES))
        for kind in LAYOUTS
        if kind is not DeltaOrthogonal  # which finds no window to fill
    ],
    ids=named,
)
def test_einsum_dense_hands_over_the_axes(kind):
    initializer = with_seed(kind)
    layer = layers.EinsumDense(
        "abc,cde->abde", (None, 4, 4), kernel_initializer=initializer
    )
    layer.build((None, 9, 16))
    config = {**initializer.get_config(), "input_axes": (0,), "output_axes": (1, 2)}
    told = kind.from_config(config)
    assert (to_numpy(layer.kernel) == draw(told, (16, 4, 4))).all()
    assert (to_numpy(layer.kernel) != draw(initializer, (16, 4, 4))).any()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.LSTM, (None, 9, 6)),
        (
            lambda units, **given: layers.ConvLSTM2D(units, 3, **given),
            (None, 4, 6, 6, 3),
        ),
    ],
    ids=["LSTM", "ConvLSTM2D"],
)
def test_the_gates_of_a_bias_beside_kerass_forget_gate(layer, shape):
    for given, forget in [(ForgetGateBias(), 1), (FanInBias(seed=3), 1)]:
        cell = layer(5, bias_initializer=given)
        cell.build(shape)
        gates = to_numpy(cell.cell.bias).reshape(4, 5)
        assert (gates[1] == forget).all()
        if isinstance(given, FanInBias):
            assert np.unique(gates).size == 16
        else:
            assert (gates[[0, 2, 3]] == 0).all()


@pytest.mark.parametrize(
    ("layer", "initializer", "gate"),
    [
        (
            lambda b: layers.LSTM(5, unit_forget_bias=False, bias_initializer=b),
            ForgetGateBias(2.5),
            1,
        ),
        (
            lambda b: layers.GRU(5, reset_after=False, bias_initializer=b),
            ForgetGateBias(-1.5, gates=3, gate=0),
            0,
        ),
    ],
    ids=["LSTM", "GRU"],
)
def test_one_gate_is_open(layer, initializer, gate):
    built = layer(initializer)
    built.build((None, 9, 6))
    gates = to_numpy(built.cell.bias).reshape(initializer.gates, 5)
    assert (gates[gate] == initializer.value).all()
    assert np.count_nonzero(gates) == 5


def test_the_forget_gate_is_left_to_one_of_them():
    layer = layers.LSTM(5, bias_initializer=ForgetGateBias(2.0))
    with pytest.raises(ValueError, match=r"value=2\.0 and unit_forget_bias=True"):
        layer.build((None, 9, 6))


# --- Bad arguments -------------------------------------------------------------------

NOT_NUMBERS = ["0.9", [1.0], True, math.nan, math.inf, -math.inf, 1j]
FINITE = [*NOT_NUMBERS, None]
NON_NEGATIVE = [*FINITE, -0.5]
POSITIVE = [*NON_NEGATIVE, 0, 0.0]
WHOLE = [*NON_NEGATIVE, -1, 1.5]
COUNT = [*WHOLE, 0]
FLAG = ["yes", None, [True], 1, 0, 1.0, math.nan]
CHOICE = ["fan_sum", "", None, True, 1, ["fan_in"], math.nan]
ACTIVATION = ["relux", "", 3, True, ["relu"], {}, math.nan]
INDICES = ["01", 1, 0.5, True, (0.5,), (None,), ("0",), (True,), [[0]], math.nan]
SEED = ["three", 1.5, True, [3], -1, 2**32, math.nan, math.inf]


def or_none(values):
    return [value for value in values if value is not None]


# By argument, or by class and argument where one class differs.
BAD = {
    "activation": ACTIVATION,
    "branches": or_none(COUNT),
    "decay": POSITIVE,
    (AdaptiveHe, "decay"): NON_NEGATIVE,
    "depth": WHOLE,
    "distribution": [*CHOICE, "normal"],
    "fan_in": or_none(POSITIVE),
    "gain": POSITIVE,
    "gate": WHOLE,
    "gates": COUNT,
    (Orthogonal, "gates"): or_none(COUNT),
    "index": COUNT,
    "input_axes": INDICES,
    "input_size": ["32", 1.5, True, 0, -1, [], [8, 0]],
    "mean": FINITE,
    "mirror_inputs": FLAG,
    "mirror_outputs": FLAG,
    "mode": CHOICE,
    "noise_std": NON_NEGATIVE,
    "norm": POSITIVE,
    "output_axes": INDICES,
    "operator": CHOICE,
    "per_head": FLAG,
    "residual": FLAG,
    "scale": POSITIVE,
    "seed": SEED,
    "spread": FLAG,
    "std": POSITIVE,
    "target_std": POSITIVE,
    "value": FINITE,
}
BAD_ARGUMENTS = [
    (kind, name, value)
    for kind in CONTRACT
    for name in parameters(kind)
    for value in BAD.get((kind, name), BAD.get(name, ()))
]


@each_class
def test_bad_values_are_known_for_every_argument(kind):
    assert all((kind, name) in BAD or name in BAD for name in parameters(kind))


@pytest.mark.parametrize(("kind", "name", "value"), BAD_ARGUMENTS, ids=named)
def test_bad_arguments(kind, name, value):
    received = re.escape(f" Received: {name}={value!r}")
    with pytest.raises(ValueError, match=rf"^`{name}` must .*\.{received}[.,]"):
        plain(kind, **{name: value})


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (AdaptiveHe, {"decay": 0, "depth": 0}),
        (ScaledNoise, {"noise_std": 0}),
        (MatchPretrained, {"mean": -1}),
        (ForgetGateBias, {"value": 0, "gates": 1, "gate": 0}),
        (Orthogonal, {"gates": np.int64(4), "gain": np.float32(2)}),
        (MirroredOrthogonal, {"mirror_inputs": np.True_}),
        (FanInBias, {"fan_in": 0.5}),
        (WidthAware, {"input_axes": np.array([0]), "output_axes": [-1]}),
        (AdaptiveHe, {"depth": 2.0}),
    ],
    ids=named,
)
def test_arguments_at_the_edge(kind, arguments):
    config = plain(kind, **arguments).get_config()
    assert all(np.array_equal(config[name], given) for name, given in arguments.items())
    json.dumps(config)


@each_class
@pytest.mark.parametrize(
    "shape", [5, "33", None, (3, -1), (2.5, 3), (None, 3), (True,)]
)
def test_bad_shapes(kind, shape):
    received = re.escape(f"Received: shape={shape!r}.")
    with pytest.raises(ValueError, match=rf"`shape` must .*\. {received}"):
        plain(kind)(shape)


@each_class
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_bad_dtypes(kind, dtype):
    received = rf"Received: dtype='{dtype}'\."
    with pytest.raises(ValueError, match=rf"^`dtype` must .*\. {received}"):
        plain(kind)(CONTRACT[kind].shape, dtype=dtype)


@each_class
@pytest.mark.parametrize("dtype", ["float31", 3])
def test_unknown_dtypes(kind, dtype):
    with pytest.raises(ValueError, match=f"Invalid dtype: {dtype}"):
        plain(kind)(CONTRACT[kind].shape, dtype=dtype)


@each_class
@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (3, 3, 0, 8), (0,)])
def test_empty_shapes(kind, shape):
    values = plain(kind)(shape, dtype="float16")
    assert tuple(values.shape) == shape
    assert keras.backend.standardize_dtype(values.dtype) == "float16"


@each_class
@pytest.mark.parametrize("shape", [(8,), ()])
def test_shapes_that_are_no_matrix(kind, shape):
    if kind in MATRICES or (kind is ForgetGateBias and not shape):
        with pytest.raises(
            ValueError, match=rf"\. Received: shape={re.escape(str(shape))}"
        ):
            plain(kind)(shape)
    else:
        values = draw(plain(kind), shape)
        assert values.shape == shape
        assert np.isfinite(values).all()


WRONG_AXES = {
    "twice": ((0, 0), (1,), r"named once .*\. Received: axes=\(0, 0\)"),
    "twice, from the end": ((0,), (1, -1), r"Received: axes=\(1, -1\)"),
    "out of range": ((0,), (2,), r"must lie in \[-2, 1\]\. Received: axes=\(2,\)"),
    "out of range, from the end": ((-3,), (1,), r"\. Received: axes=\(-3,\)"),
    "inputs alone": (
        (0,),
        None,
        r"given together\. Received: input_axes=\(0,\), output_axes=None",
    ),
    "outputs alone": (None, (1,), r"Received: input_axes=None, output_axes=\(1,\)"),
}


@each_layout
@pytest.mark.parametrize(
    ("input_axes", "output_axes", "received"), WRONG_AXES.values(), ids=WRONG_AXES
)
def test_axes_that_a_kernel_does_not_have(kind, input_axes, output_axes, received):
    initializer = plain(kind, input_axes=input_axes, output_axes=output_axes)
    with pytest.raises(ValueError, match=received):
        initializer((4, 6))


COMBINATIONS = {
    "gate": (lambda: ForgetGateBias(gate=4), "gate=4, gates=4"),
    "gates of a bias": (
        lambda: ForgetGateBias(gates=3, gate=0)((8,)),
        r"shape=\(8,\), gates=3",
    ),
    "gates of a kernel": (
        lambda: Orthogonal(gates=4)((32, 10)),
        r"divide into its gates .*: shape=\(32, 10\), gates=4",
    ),
    "no fan_in": (lambda: FanInBias()((8,)), r"fan_in=None for a bias of shape \(8,\)"),
    "no window": (
        lambda: DeltaOrthogonal()((4, 3)),
        r"needs a kernel with a window\. Received: shape=\(4, 3\)",
    ),
    "no window among the axes": (
        lambda: DeltaOrthogonal(input_axes=(0,), output_axes=(1, 2))((4, 3, 2)),
        r"shape=\(4, 3, 2\)",
    ),
    "one input to mirror": (
        lambda: MirroredOrthogonal()((1, 8)),
        r"`mirror_inputs` needs .*: shape=\(1, 8\), 1 unit",
    ),
    "one output to mirror": (
        lambda: MirroredOrthogonal()((8, 1)),
        r"`mirror_outputs` needs .*: shape=\(8, 1\), 1 unit",
    ),
    "gates to mirror": (
        lambda: (
            layers.SimpleRNN(8, kernel_initializer=MirroredOrthogonal()).build(
                (None, 9, 8)
            )
            or layers.GRU(8, kernel_initializer=MirroredOrthogonal()).build(
                (None, 9, 8)
            )
        ),
        r"without gates and groups\. Received: shape=\(8, 24\), gates=3, groups=1",
    ),
    "groups to mirror": (
        lambda: layers.Conv2D(
            12, 3, groups=3, kernel_initializer=MirroredOrthogonal()
        ).build((None, 5, 5, 6)),
        r"Received: shape=\(3, 3, 2, 12\), gates=1, groups=3",
    ),
    "no heads": (
        lambda: Orthogonal(per_head=True)((8, 8)),
        r"`per_head` needs .*\. Received: shape=\(8, 8\) with inputs \(0,\)",
    ),
    "heads on both sides": (
        lambda: Orthogonal(input_axes=(0, 1), output_axes=(2, 3), per_head=True)(
            (2, 3, 2, 3)
        ),
        r"with inputs \(0, 1\) and outputs \(2, 3\)",
    ),
    "no gain": (
        lambda: AdaptiveHe(activation=ops.zeros_like),
        "activation='zeros_like'",
    ),
    "a kernel without numbers": (
        lambda: MatchPretrained.from_kernel("kernel"),
        "kernel='kernel'",
    ),
    "an empty kernel": (
        lambda: MatchPretrained.from_kernel(np.zeros((0, 3))),
        r"kernel of shape \(0, 3\)",
    ),
    "a constant kernel": (
        lambda: MatchPretrained.from_kernel(np.ones((2, 3))),
        r"kernel of shape \(2, 3\) with 0 NaN or Inf and std 0",
    ),
    "a kernel with NaN": (
        lambda: MatchPretrained.from_kernel([[1.0, math.nan], [math.inf, 0.0]]),
        "with 2 NaN or Inf",
    ),
    "neither mean nor none": (
        lambda: MatchPretrained.from_kernel([[1.0, 2.0]], match_mean="yes"),
        "match_mean='yes'",
    ),
}


@pytest.mark.parametrize(("act", "received"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_arguments_that_do_not_go_together(act, received):
    with pytest.raises(ValueError, match=received):
        act()


@pytest.mark.parametrize("kind", [AdaptiveHe, ResidualAware], ids=named)
def test_an_activation_that_mixes_units_has_no_gain(kind):
    with pytest.raises(NotPointwiseError, match="activation='softmax'"):
        kind(activation="softmax")


# --- Any shape -----------------------------------------------------------------------

# One of a few sizes, since every new shape is compiled anew on JAX.
SIZES = st.sampled_from([0, 1, 2, 3, 6])
SIDES = st.sampled_from(["inputs", "outputs", "window", "batch"])


@st.composite
def kernel_layouts(draw_from):
    shape = tuple(draw_from(st.lists(SIZES, min_size=2, max_size=5)))
    if draw_from(st.booleans()):
        return shape, {}
    sides = [draw_from(SIDES) for _ in shape]
    return shape, {
        f"{side}put_axes": tuple(
            axis - len(shape) * draw_from(st.booleans())
            for axis, meant in enumerate(sides)
            if meant in (f"{side}puts", "window")
        )
        for side in ("in", "out")
    }


def examples(count):
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def check_any(initializer, shape):
    try:
        values = initializer(shape)
    except ValueError as error:
        if not re.search(r"\. Received: shape=\(", str(error)):
            raise
        return
    assert tuple(values.shape) == shape
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    assert np.isfinite(to_numpy(values)).all()


each_without_layout = pytest.mark.parametrize(
    "kind", [kind for kind in CONTRACT if kind not in LAYOUTS], ids=named
)
vectors = st.lists(SIZES, min_size=1, max_size=2).map(tuple)


@pytest.mark.seconds
@each_layout
@examples(4)
@hypothesis.given(kernel_layouts())
def test_any_kernel(kind, layout):
    shape, axes = layout
    check_any(plain(kind, seed=3, **axes), shape)


@each_without_layout
@examples(4)
@hypothesis.given(vectors)
def test_any_bias(kind, shape):
    check_any(with_seed(kind), shape)


@pytest.mark.slow
@each_layout
@examples(60)
@hypothesis.given(kernel_layouts())
def test_any_kernel_at_length(kind, layout):
    shape, axes = layout
    check_any(plain(kind, seed=3, **axes), shape)


@pytest.mark.slow
@each_without_layout
@examples(30)
@hypothesis.given(vectors)
def test_any_bias_at_length(kind, shape):
    check_any(with_seed(kind), shape)


# --- Callbacks that observe ----------------------------------------------------------

SHARED = {
    "every": ["often", 0, -1, 1.5, None, True, math.nan],
    "layers": [],  # said when training begins, by the model
    "log_to": ["log", [None], 3],
    "verbose": [3, -1, "yes", 0.5, None, [1]],
    "alerts": ["yes", None, 2, [True], math.nan],
}
WATCHING = {
    callbacks.ActivationStatsLogger: SHARED
    | {"histograms": ["yes", None, 3, [1.0], [2.0, 1.0], [0.0, math.inf]]},
    callbacks.DeadReLULogger: SHARED
    | {"threshold": [0, 0.5, -0.1, math.nan, math.inf, "0.1", True, [0.1]]},
    callbacks.GradientNormLogger: SHARED | {"clipped": FLAG, "updates": FLAG},
    callbacks.DormantUnitRecycler: {
        "tau": [-0.1, 1.0, math.nan, math.inf, "0.1", None, True],
        **{key: SHARED[key] for key in ("every", "layers")},
        "start": [-1, 1.5, None, True, math.nan],
        "stop": [-1, 0, 1.5, True, math.nan],
        **{key: SHARED[key] for key in ("log_to", "verbose")},
        "seed": [-1, 1.5, "0", True],
        "alerts": SHARED["alerts"],
    },
}


def test_bad_values_are_known_for_every_argument_of_a_callback():
    public = {getattr(callbacks, name) for name in dir(callbacks) if name[0] != "_"}
    loggers = {kind for kind in public if hasattr(kind, "on_epoch_begin")}
    assert loggers == set(WATCHING)
    for kind, bad in WATCHING.items():
        assert list(inspect.signature(kind).parameters) == list(bad)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (kind, name, value)
        for kind, arguments in WATCHING.items()
        for name, values in arguments.items()
        for value in values
    ],
    ids=named,
)
def test_bad_arguments_of_a_callback(kind, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must.*{name}=") as error:
        kind(**{name: value})
    assert str(value).strip("[]") in str(error.value)
