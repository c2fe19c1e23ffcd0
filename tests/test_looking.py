"""Looking at a model changes nothing, whatever the model does meanwhile."""

import random
from types import SimpleNamespace

import hostile
import keras
import numpy as np
import pytest
from everything import Everything, nothing_changes
from keras import layers, ops
from unbuilt import LATE, ROWS, Same, around
from zoo import ZOO

import keras_initlab as initlab
from keras_initlab import UnbuiltModelError, UnsupportedModelError

pytestmark = pytest.mark.filterwarnings(
    "ignore::keras_initlab.UnknownLayerWarning"  # of the custom layers here
)
LOOKS = {
    "fans": lambda model, x: initlab.fans(model),
    "recommend": lambda model, x: initlab.recommend(model),
    "rules": lambda model, x: initlab.recommend(model, "rules"),
    "data": lambda model, x: initlab.recommend(model, data=x),
    "audit": lambda model, x: initlab.audit(model),
    "probe": lambda model, x: initlab.probe(model, x),
}
WRITES = {
    "apply": lambda model, x: initlab.recommend(model).apply(seed=0).undo(),
    "calibrate": lambda model, x: initlab.calibrate(model, x, seed=0).undo(),
    "reinitialize": lambda model, x: initlab.reinitialize(model, seed=0).undo(),
}
ALL = LOOKS | WRITES


@hostile.asks("UnbuiltModelError", *["fans", "recommend", "audit", "probe"])
@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("name", LATE)
def test_a_part_that_is_not_built_is_named_or_left_alone(name, function):
    late = LATE[name]
    model = late.build()
    with nothing_changes(model):
        if late.part is None:
            ALL[function](model, late.x)
        else:
            told = rf"not built in it: .*{late.part}.*Call the model once on data"
            with pytest.raises(UnbuiltModelError, match=f"(?s){told}"):
                ALL[function](model, late.x)
    model(late.x)
    ALL[function](model, late.x)  # the cure that the message names


class StopError(BaseException):
    """No error that anybody catches."""


class Messy(Same):
    """Leaves traces of a call in all that it can reach."""

    def __init__(self, raises=None, **options):
        super().__init__(**options)
        self.raises = raises
        self.seen, self.by_name, self.numbers = [], {"a": 1}, {1}
        self.notes = SimpleNamespace(last=None)
        self.mean = keras.metrics.Mean()
        self.drop = layers.Dropout(0.5, seed=1)

    def build(self, input_shape):
        self.kernel = self.add_weight((4, 4), name="kernel")
        self.steps = self.add_weight((), "zeros", trainable=False, name="steps")
        self.inner = layers.Dense(4, name="inner")
        self.inner.build(input_shape)

    def call(self, inputs):
        outputs = self.inner(self.drop(ops.matmul(inputs, self.kernel), training=True))
        self.seen.append(outputs)
        self.by_name = self.by_name | {"b": outputs}
        self.numbers.add(random.random())
        self.notes.last = layers.Dense(2)
        self.add_loss(ops.mean(outputs) + np.random.random())  # noqa: NPY002
        self.last, self.supports_masking, self.trainable = outputs, True, False
        self._tracker.unlock()
        self.extra = layers.Dense(2)
        self.steps.assign_add(1.0)
        if self.raises:
            raise self.raises
        return outputs


@pytest.mark.parametrize("raises", [None, ValueError, StopError])
@pytest.mark.parametrize("function", [*LOOKS, "calibrate"])
def test_what_a_call_leaves_behind_is_taken_back(function, raises):
    model = around(Messy(raises), layers.Dense(3))
    with nothing_changes(model):
        try:
            ALL[function](model, ROWS)
        except (ValueError, StopError):
            assert raises


def test_a_first_seed_that_others_draw_is_as_if_nobody_had_looked():
    model = around(layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(3))
    keras.utils.set_random_seed(0)
    expected = keras.initializers.GlorotUniform().seed
    keras.utils.set_random_seed(0)
    rows = [*initlab.recommend(model), *initlab.recommend(model, "rules")]
    initlab.probe(model, ROWS)
    assert keras.initializers.GlorotUniform().seed == expected
    # An initializer of the advice is none that Keras makes next.
    assert expected not in [row.initializer.get_config().get("seed") for row in rows]
    assert all(row.initializer._init_seed is None for row in rows)


class Anew(Same):
    """Makes its layer in every call."""

    def call(self, inputs):
        return layers.Dense(4, name="passing")(inputs)


@hostile.asks("UnsupportedModelError", "recommend")
def test_layers_that_a_call_makes_are_no_part_of_the_model():
    model = around(Anew(), layers.Dense(3))
    with (
        nothing_changes(model),
        pytest.raises(UnsupportedModelError, match=r"makes anew .*'passing' \(Dense\)"),
    ):
        initlab.recommend(model)
    assert not list(initlab.audit(model))


def zoo():
    for number, (name, entry) in enumerate(ZOO.items()):
        if entry.is_called:
            marks = [pytest.mark.slow] if number % 8 else []
            yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [*zoo()])
def test_a_model_of_the_zoo_is_left_as_it_was(name):
    model, x = ZOO[name].build(), ZOO[name].example()
    for look in ALL.values():
        with nothing_changes(model):
            look(model, x)


CHANGES = {
    "a weight": lambda model: model.weights[0].assign(model.weights[0] + 1),
    "an attribute": lambda model: setattr(model.layers[1], "mine", 1),
    "a flag": lambda model: setattr(model.layers[1], "trainable", False),
    "a list": lambda model: model.layers[1]._losses.append(1),
    "a lock": lambda model: model.layers[1]._tracker.unlock(),
    "a node": lambda model: model.layers[1](model.inputs[0]),
    "a name": lambda model: keras.backend.get_uid("dense"),
    "Python's generator": lambda model: random.random(),
    "NumPy's generator": lambda model: np.random.random(),  # noqa: NPY002
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_check_sees_what_changes(change):
    model = around(layers.Dense(3))
    before = Everything(model)
    assert before.changes() == []
    CHANGES[change](model)
    assert before.changes() != []
