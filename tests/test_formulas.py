import functools

import keras
import numpy as np
import pytest
from keras import activations, layers, ops

from keras_initlab._activations import evaluate, resolve
from keras_initlab._activations._formulas import formula_of

NOT_POINTWISE = {"glu", "log_softmax", "softmax", "sparsemax"}
NO_ACTIVATION = {"deserialize", "get", "serialize"}
Z = np.concatenate([np.linspace(-12, 12, 481), [-0.5, 0.5, -1e-3, 1e-3, 0.0]])
SETTINGS = {
    "relu": [
        {"negative_slope": 0.3},
        {"max_value": 2.0},
        {"threshold": 0.7},
        {"negative_slope": 0.3, "max_value": 2.0, "threshold": 0.7},
        {"negative_slope": 0.1, "max_value": 6},
    ],
    "leaky_relu": [{"negative_slope": 0.01}, {"negative_slope": 1.5}],
    "elu": [{"alpha": 0.3}],
    "celu": [{"alpha": 0.3}, {"alpha": 2.0}],
    "gelu": [{"approximate": True}, {"approximate": False}],
    "squareplus": [{"b": 1}],
    "soft_shrink": [{"threshold": 1.5}],
    "hard_shrink": [{"threshold": 1.5}],
    "threshold": [{"threshold": 0.41, "default_value": -2.0}],
}


def pointwise_names():
    public = {name for name in dir(activations) if not name.startswith("_")}
    return sorted(public - NOT_POINTWISE - NO_ACTIVATION)


def keras_values(function, z, **arguments):
    """What Keras computes by its ordinary route, in float32."""
    output = function(ops.convert_to_tensor(z, dtype="float32"), **arguments)
    return ops.convert_to_numpy(output).astype(float)


def assert_close(found, expected):
    assert np.all(np.abs(found - expected) <= 1e-6 * np.maximum(1, np.abs(expected)))


@pytest.mark.parametrize("name", pointwise_names())
def test_formulas_are_what_keras_computes(name):
    function = getattr(activations, name)
    for arguments in ([] if name == "threshold" else [{}]) + SETTINGS.get(name, []):
        formula = formula_of(functools.partial(function, **arguments))
        assert formula is not None, arguments
        z = Z.astype("float32").astype(float)
        assert_close(formula(z), keras_values(function, z, **arguments))


@pytest.mark.parametrize("name", [*pointwise_names(), "exp"])
def test_formulas_are_what_the_operations_compute(name):
    function = getattr(ops, name, None)
    if function is None or name == "threshold":
        return
    formula = formula_of(function)
    assert formula is not None
    z = Z.astype("float32").astype(float)
    assert_close(formula(z), keras_values(function, z))


def test_the_two_gelus_differ():
    """Their defaults do, so the comparison above can tell them apart."""
    z = np.array([-2.0])  # 9.8e-5 apart
    exact, approximate = formula_of(activations.gelu), formula_of(ops.gelu)
    assert abs(exact(z) - approximate(z)) > 5e-5


@pytest.mark.parametrize("wrong", ["relu", "silu", "softplus", "selu"])
def test_the_comparison_can_fail(wrong):
    gelu = formula_of(activations.gelu)
    with pytest.raises(AssertionError):
        assert_close(gelu(Z), keras_values(getattr(ops, wrong), Z))


LAYERS = {
    "relu": layers.ReLU(),
    "relu, all": layers.ReLU(max_value=2.0, negative_slope=0.3, threshold=0.7),
    "relu6": layers.ReLU(max_value=6),
    "leaky_relu": layers.LeakyReLU(),
    "elu": layers.ELU(alpha=0.3),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers_are_evaluated_by_formula(layer):
    name, function = resolve(layer)
    z = Z.astype("float32").astype(float)
    assert formula_of(function) is not None
    assert_close(evaluate(name, function, z), keras_values(layer, z))
    assert_close(keras_values(function, z), keras_values(layer, z))


class Doubled(layers.ReLU):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_subclass_with_its_own_call_is_another_activation():
    name, function = resolve(Doubled())
    assert evaluate(name, function, np.array([-1.0, 3.0])).tolist() == [0, 6]


@pytest.mark.parametrize(
    "function",
    [
        len,
        keras.activations.softmax,
        functools.partial(activations.relu, sides=2),
        functools.partial(activations.leaky_relu, negative_slope=np.ones(2)),
        functools.partial(activations.threshold, threshold=1),
        activations.threshold,
    ],
)
def test_no_formula_for_others(function):
    assert formula_of(function) is None
