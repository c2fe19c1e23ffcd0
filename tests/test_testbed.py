"""Models of other libraries: the recommendation is written, and taken back."""

import keras
import numpy as np
import pytest
from testbed import TESTBED
from testbed_roles import ROLES_OF, is_expected, role_of

import keras_initlab

CHEAP = ("llama", "vit", "tcn")


def values_of(model):
    return [np.array(keras.ops.convert_to_numpy(one)) for one in model.variables]


@pytest.mark.slow_on_jax
@pytest.mark.filterwarnings("ignore")  # those of libraries, as they are imported
@pytest.mark.parametrize("name", CHEAP)
def test_a_recommendation_is_written_and_taken_back(name):
    foreign = TESTBED[name]
    pytest.importorskip(foreign.library)
    keras.utils.set_random_seed(0)
    model, inputs = foreign.make(), foreign.inputs()
    before = values_of(model)
    advice = keras_initlab.recommend(model)
    applied = advice.apply(seed=0)
    drawn = {row.path for row in advice if row.initializer is not None}
    assert drawn <= set(applied.changed)
    for output in keras.tree.flatten(model(inputs)):
        assert np.isfinite(keras.ops.convert_to_numpy(output)).all()
    applied.undo()
    for value, former in zip(values_of(model), before, strict=True):
        np.testing.assert_array_equal(value, former)


def test_a_row_says_what_it_needs():
    for name, foreign in TESTBED.items():
        assert foreign.name == name
        assert set(foreign.backends) <= {"tensorflow", "jax", "torch"}
        assert isinstance(foreign.is_possible, bool)
        has_logits = (
            foreign.kind.endswith("language model") or "sequence" in foreign.kind
        )
        assert (foreign.vocabulary is not None) == has_logits


def called(name):
    """A model that has been called, so that all of it is built."""
    foreign = TESTBED[name]
    pytest.importorskip(foreign.library)
    model = foreign.make()
    model(foreign.inputs())
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROLES_OF)
def test_every_weight_has_an_expected_role(name):
    model = called(name)
    paths = [one.path for one in model.trainable_variables if len(one.shape) > 1]
    assert paths
    for path in paths:
        role_of(name, path)
        assert is_expected(name, path, "nothing") is False


# Its query and key are one another's in half of the logits.
KNOWN_OTHERWISE = {
    "deberta masked": {
        "disentangled_attention_encoder_layer_0/self_attention_layer/key/kernel",
        "disentangled_attention_encoder_layer_1/self_attention_layer/query/kernel",
    }
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROLES_OF)
def test_roles_are_those_of_the_papers(name):
    model = called(name)
    rows = {row.path: row for row in keras_initlab.recommend(model)}
    wrong = set()
    for variable in model.trainable_variables:
        row = rows.get(variable.path)
        if len(variable.shape) < 2:
            assert row is None or row.initializer is None
            continue
        role = None if row is None or row.role == "bias" else row.role
        if not is_expected(name, variable.path, role):
            wrong.add(variable.path)
    assert wrong <= KNOWN_OTHERWISE.get(name, set())


def test_the_first_pattern_says_the_role():
    path = "stack1_block0_0_conv/kernel"
    assert role_of("resnet", path) == "shortcut"
    assert is_expected("resnet", path, "shortcut")
    assert not is_expected("resnet", path, None)
    assert is_expected("vit", "patching/class_token", None)
    with pytest.raises(KeyError, match="another/weight"):
        role_of("resnet", "another/weight")
