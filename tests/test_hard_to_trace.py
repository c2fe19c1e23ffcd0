"""Custom layers whose call is hard to follow: conditions, loops, caches.

Kernels inside get records with the right roles, and looking changes nothing.
"""

import functools
import itertools
import operator

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_tracing import assert_unchanged, backend_functions

from keras_initlab import recommend
from keras_initlab.inspection import inspect

pytestmark = [pytest.mark.once_a_day]


class Holding(layers.Layer):
    """Runs a function with two layers of its own, an up and a down."""

    def __init__(self, run, width=8, **others):
        super().__init__(**others)
        self.run, self.width = run, width
        self.up = layers.Dense(2 * width, "gelu", name="up")
        self.down = layers.Dense(width, name="down")

    def build(self, input_shape):
        self.up.build((*input_shape[:-1], self.width))
        self.down.build((*input_shape[:-1], 2 * self.width))

    def call(self, x):
        return self.run(self, x)

    def branch(self, x):
        return x + self.down(self.up(x))


def conditional(self, x):
    return ops.cond(ops.mean(x) > -5.0, lambda: self.branch(x), lambda: x)


def conditional_by_python(self, x):
    return self.branch(x) if ops.sum(x) < 1e9 else x


def switched(self, x):
    branches = [lambda x: x, lambda x: self.branch(x), lambda x: 2 * x]
    return ops.switch(1, branches, x)


def over_while(self, x):
    def body(step, x):
        return step + 1, self.branch(x)

    return ops.while_loop(lambda step, x: step < 3, body, (0, x))[1]


def over_fori(self, x):
    return ops.fori_loop(0, 3, lambda step, x: self.branch(x), x)


def over_scan(self, x):
    def step(carry, entry):
        return carry, self.branch(entry)

    steps = ops.swapaxes(x, 0, 1)
    return ops.swapaxes(ops.scan(step, x[:, 0], steps)[1], 0, 1)


def over_map(self, x):
    return ops.map(self.branch, x)


def over_vectorized_map(self, x):
    return ops.vectorized_map(self.branch, x)


def over_python(self, x):
    for _ in range(3):
        x = self.branch(x)
    return x


def over_unstack(self, x):
    return ops.stack([self.branch(one) for one in ops.unstack(x, axis=1)], axis=1)


def on_shapes(self, x):
    batch, steps, width = ops.shape(x)
    y = self.branch(ops.reshape(x, (batch * steps, width)))
    return ops.reshape(y, (batch, steps, width))


RUNS = {
    "cond": conditional,
    "while_loop": over_while,
    "fori_loop": over_fori,
    "scan": over_scan,
    "map": over_map,
    "vectorized_map": over_vectorized_map,
    "switch": switched,
    "if": conditional_by_python,
    "for": over_python,
    "unstack": over_unstack,
    "shapes": on_shapes,
}


def model_of(layer, shape=(5, 8)):
    inputs = Input(shape)
    x = layers.Dense(shape[-1], name="before")(inputs)
    x = layer(x)
    x = x[0] if isinstance(x, (tuple, list)) else x
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


class Spelled(Holding):
    """Says the shape of its output, for calls that Keras cannot run on symbols."""

    def compute_output_shape(self, input_shape):
        return input_shape


def roles(model):
    return {
        kernel.layer.name: kernel.role
        for kernel in inspect(model).kernels
        if kernel.variable.name == "kernel"
    }


BRANCH = {
    "before": "hidden",
    "up": "hidden",
    "down": "residual branch",
    "out": "output",
}


@pytest.mark.whole
@pytest.mark.parametrize("name", RUNS)
def test_kernels_in_conditions_and_loops_are_found(name):
    model = model_of(Spelled(RUNS[name]))
    kernels = {kernel.layer.name: kernel for kernel in inspect(model).kernels}
    assert {name: kernel.role for name, kernel in kernels.items()} == BRANCH
    assert kernels["up"].activation_name == "gelu"
    assert kernels["down"].branch == 0
    assert kernels["up"].upstream == kernels["before"].position


@pytest.mark.parametrize("name", RUNS)
def test_looking_at_them_changes_nothing(name):
    model = model_of(Spelled(RUNS[name]))
    assert_unchanged(model, lambda: inspect(model))
    assert_unchanged(model, lambda: recommend(model))


def test_the_roles_do_not_come_of_themselves():
    """Without the sum there is no branch."""
    model = model_of(
        Spelled(lambda self, x: ops.map(lambda one: self.down(self.up(one)), x))
    )
    assert roles(model) == {**BRANCH, "down": "hidden"}


# ---- what is returned, and what is said of it ---------------------------------------


class WithCache(Holding):
    """Hands a cache through beside what it computes."""

    def compute_output_spec(self, x, cache=None):
        return x, cache

    def call(self, x, cache=None):
        return self.branch(x), cache


class Several(Holding):
    """Returns nothing beside tensors, in several places."""

    def compute_output_spec(self, x):
        return {"x": x, "attention": None, "more": (x, None)}

    def call(self, x):
        y = self.branch(x)
        return {"x": y, "attention": None, "more": (y, None)}


class Passing(layers.Layer):
    """Holds one that returns a cache, as a block of a language model does."""

    def __init__(self, inner, take, **others):
        super().__init__(**others)
        self.inner, self.take = inner, take

    def build(self, input_shape):
        self.inner.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return self.take(self.inner(x))


class Raising(Holding):
    """Its shape is told by nobody until it is built."""

    def compute_output_shape(self, input_shape):
        if self.is_strict:
            raise NotImplementedError("no shape")
        return input_shape

    def compute_output_spec(self, x):
        if self.is_strict:
            raise NotImplementedError("no specification")
        return keras.KerasTensor(x.shape, x.dtype)

    is_strict = False

    def call(self, x):
        return self.branch(x)


class Lying(Holding):
    """Says another shape than it returns; a layer around it makes that good."""

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 77)

    def call(self, x):
        return self.branch(x)


def raising():
    layer = Raising(None)
    model = model_of(layer)
    layer.is_strict = True
    return model


RETURNS = {
    "a cache": lambda: model_of(
        Passing(WithCache(None), lambda returned: returned[0]),
    ),
    "nothing in a nest": lambda: model_of(
        Passing(Several(None), lambda returned: returned["more"][0])
    ),
    "a shape that raises": raising,
    "a shape that lies": lambda: model_of(
        Passing(Lying(None), lambda returned: returned)
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", RETURNS)
def test_what_a_call_returns_is_followed(name):
    model = RETURNS[name]()
    assert roles(model) == BRANCH
    assert_unchanged(model, lambda: inspect(model))


# ---- what only true tensors get through --------------------------------------------


@pytest.mark.parametrize("where", ["beside", "in a loop"])
def test_functions_of_the_backend_are_heard(where):
    relu, _, add = backend_functions()

    def beside(self, x):
        return add(x, self.down(relu(self.up(x))))

    def in_a_loop(self, x):
        for _ in range(2):
            x = add(x, self.down(relu(self.up(x))))
        return x

    layer = Spelled(beside if where == "beside" else in_a_loop)
    layer.build((None, 5, 8))
    model = Outer(layer)
    model(np.zeros((2, 5, 8), "float32"))
    found = roles(model)
    assert set(found) == {"before", "up", "down", "out"}
    assert found["up"] == found["before"] == "hidden"
    assert found["out"] == "output"
    assert_unchanged(model, lambda: inspect(model))


def test_layers_that_are_heard_alike_start_differently():
    relu, _, add = backend_functions()

    class Alike(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = [layers.Dense(8, name=f"alike_{i}") for i in range(3)]

        def call(self, x):
            # All read what the layer is given, as an attention's query and key do.
            one, *others = (relu(dense(x)) for dense in self.dense)
            return functools.reduce(add, others, one)

    model = Outer(Alike())
    model(np.zeros((2, 5, 8), "float32"))
    assert len({kernel.key for kernel in inspect(model).kernels}) == 5
    recommend(model).apply(seed=0)
    drawn = [ops.convert_to_numpy(dense.kernel) for dense in model.layer.dense]
    for one, other in itertools.combinations(drawn, 2):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5


LEFT = {
    "a tensor": lambda x: ops.full((8,), 2.0),
    "an array": lambda x: np.full(8, 2.0, "float32"),
    "a NumPy number": lambda x: np.sqrt(np.float32(4.0)),
}
OPERATORS = ["add", "sub", "mul", "truediv", "pow", "matmul", "lt", "ge"]


def runs(function):
    try:
        function(ops.ones((2, 5, 8)))
    except (TypeError, ValueError, RuntimeError, Warning):
        return False
    return True


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_between_an_array_and_a_signal_are_seen(name, left):
    def function(x):
        return getattr(operator, name)(LEFT[left](x), x)

    if not runs(function):
        pytest.skip("the backend knows no such operator")
    if keras.backend.backend() == "tensorflow" and (name, left) in (
        ("lt", "a tensor"),
        ("ge", "a tensor"),
    ):
        pytest.skip("TensorFlow never asks the other operand how to compare")
    seen = []

    class Left(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inside = layers.Dense(8, name="inside")

        def call(self, x):
            y = function(self.inside(x))
            seen.append(type(y))
            y = ops.cast(y, "float32")
            return ops.broadcast_to(ops.reshape(y, (2, 5, -1))[..., :1], (2, 5, 8))

    model = Outer(Left())
    model(np.zeros((2, 5, 8), "float32"))
    seen.clear()
    inspect(model)
    assert issubclass(seen[0], keras.KerasTensor)
    assert len(seen) == 1


class Outer(keras.Model):
    """A subclassed model around a layer."""

    def __init__(self, layer):
        super().__init__(name="outer")
        self.before = layers.Dense(8, name="before")
        self.layer, self.out = layer, layers.Dense(2, name="out")

    def call(self, inputs):
        return self.out(self.layer(self.before(inputs)))


# --- Sizes that are open -------------------------------------------------------------


class Places(layers.Layer):
    """A table of positions of which as many rows are taken as there are steps."""

    def __init__(self, rows, **others):
        super().__init__(**others)
        self.rows = rows

    def build(self, input_shape):
        shape = (self.rows, input_shape[-1])
        self.table = self.add_weight(shape=shape, name="table")

    def call(self, x):
        shape = ops.shape(x)
        rows = ops.slice(ops.convert_to_tensor(self.table), (0, 0), shape[1:])
        return ops.broadcast_to(rows, shape)

    def compute_output_shape(self, input_shape):
        return input_shape


class AllPlaces(Places):
    """All rows of it, so that no other number of steps runs."""

    def call(self, x):
        return ops.broadcast_to(ops.convert_to_tensor(self.table), ops.shape(x))


class TokensAndPlaces(layers.Layer):
    def __init__(self, places, **others):
        super().__init__(**others)
        self.tokens, self.places = layers.Embedding(50, 8), places

    def build(self, input_shape):
        self.tokens.build(input_shape)
        self.places.build((*input_shape, 8))

    def call(self, x):
        x = self.tokens(x)
        return x + self.places(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape, 8)


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("places", [Places, AllPlaces])
@pytest.mark.parametrize("rows", [6, 12, 100])
def test_a_table_holds_fewer_places_than_are_tried_first(rows, places, is_inside):
    inputs = Input((None,), dtype="int32")
    table = places(rows)
    if is_inside:
        x = TokensAndPlaces(table)(inputs)
    else:
        x = layers.Embedding(50, 8)(inputs)
        x = x + table(x)
    x = layers.Dense(8)(layers.LayerNormalization()(x))
    found = inspect(keras.Model(inputs, layers.Dense(2)(x))).kernels
    (role,) = {one.role for one in found if one.variable is table.table}
    assert role == "embedding"
