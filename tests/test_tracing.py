"""What is inside custom layers and models, and that looking at it changes nothing."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from zoo import ZOO, built, without_draws

from keras_initlab import (
    UnbuiltModelError,
    UnsupportedModelError,
    recommend,
    register_fans,
)
from keras_initlab._keras.kinds import KernelAxes
from keras_initlab.inspection import Merge, inspect
from keras_initlab.recommend._choice import MEASURED

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    without_draws(monkeypatch)


def example(*shape, dtype="float32"):
    return keras.KerasTensor((2, *shape), dtype)


def called(model, *inputs):
    model(*inputs)
    return model


def roles(model, data=None):
    return {
        kernel.layer.name
        if kernel.variable.name in ("kernel", "embeddings")
        else kernel.variable.name: kernel.role
        for kernel in inspect(model, data).kernels
    }


def by_name(model, data=None):
    return {kernel.layer.name: kernel for kernel in inspect(model, data).kernels}


def sources(kernel, kernels):
    """Names of the layers whose kernels feed a kernel, through sums and products."""

    def of(edge):
        if isinstance(edge.source, Merge):
            return {name for inner in edge.source.edges for name in of(inner)}
        return {"input" if edge.source is None else kernels[edge.source].layer.name}

    return {name for edge in kernel.edges for name in of(edge)}


def backend_functions() -> Any:
    """ReLU, concatenation and addition, not of Keras."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.nn.relu, functools.partial(tf.concat, axis=-1), tf.add
    if BACKEND == "jax":
        import jax

        join = functools.partial(jax.numpy.concatenate, axis=-1)
        return jax.nn.relu, join, jax.numpy.add
    import torch

    return torch.relu, functools.partial(torch.cat, dim=-1), torch.add


class Residual(layers.Layer):
    def __init__(self, units=8, **others):
        super().__init__(**others)
        self.up = layers.Dense(2 * units, "relu", name=f"{self.name}_up")
        self.down = layers.Dense(units, name=f"{self.name}_down")

    def build(self, input_shape):
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.up.units))

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return inputs + self.down(self.up(inputs))


class Outer(layers.Layer):
    """A residual layer inside another."""

    def __init__(self, **others):
        super().__init__(**others)
        self.inner = Residual(name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


class Chain(keras.Model):
    """Runs a function with layers of its own; `parts` are named as given."""

    def __init__(self, run, **parts):
        super().__init__(name="chain")
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, inputs):
        return self.run(self, inputs)


def dense(name, units=8, activation=None):
    return layers.Dense(units, activation, name=name)


# ---- what is seen ---------------------------------------------------------------


def test_a_custom_layer_in_a_functional_model_is_opened():
    inputs = Input((8,))
    x = Residual(name="two")(Residual(name="one")(inputs))
    model = keras.Model(inputs, dense("out", 2)(x))
    kernels = by_name(model)
    assert {name: (k.role, k.depth, k.branch) for name, k in kernels.items()} == {
        "one_up": ("hidden", 1, None),
        "one_down": ("residual branch", 2, 0),
        "two_up": ("hidden", 3, None),
        "two_down": ("residual branch", 4, 1),
        "out": ("output", 5, None),
    }
    assert {k.branches for k in kernels.values()} == {0, 2}


def test_a_custom_layer_in_a_custom_layer_in_a_nested_model_is_opened():
    class Pair(layers.Layer):
        def __init__(self):
            super().__init__(name="pair")
            self.inner = keras.Sequential([Input((8,)), Residual(name="one")])
            self.other = Residual(name="two")

        def call(self, inputs):
            return self.other(self.inner(inputs))

    nested = keras.Sequential([Input((8,)), Pair(), dense("after")])
    model = called(
        Chain(
            lambda self, x: self.out(self.nested(x)), nested=nested, out=dense("out")
        ),
        example(8),
    )
    assert roles(model) == {
        "one_up": "hidden",
        "one_down": "residual branch",
        "two_up": "hidden",
        "two_down": "residual branch",
        "after": "hidden",
        "out": "output",
    }


def test_a_shared_custom_layer_is_one_with_two_calls():
    inputs, block = Input((8,)), Residual(name="one")
    kernels = by_name(keras.Model(inputs, dense("out", 2)(block(block(inputs)))))
    assert {name: k.calls for name, k in kernels.items()} == {
        "one_up": 2,
        "one_down": 2,
        "out": 1,
    }
    assert not any(kernel.is_tied for kernel in kernels.values())
    assert kernels["out"].depth == 5


def test_a_layer_over_time_is_opened():
    inputs = Input((5, 8))
    x = layers.TimeDistributed(Residual(name="one"), name="each")(inputs)
    model = keras.Model(inputs, dense("out", 2)(x))
    kernels = by_name(model)
    assert kernels["one_down"].role == "residual branch"
    assert sources(kernels["out"], inspect(model).kernels) == {"one_down", "input"}


def test_what_a_lambda_does_is_seen():
    inputs = Input((8,))
    x = layers.Lambda(lambda x: ops.tanh(x))(dense("one")(inputs))
    kernels = by_name(keras.Model(inputs, dense("out", 2)(x)))
    assert kernels["one"].activation_name == "tanh"


@pytest.mark.parametrize("name", ["celu", "gelu", "relu", "relu6", "silu", "softplus"])
def test_activations_in_a_call_are_seen(name):
    function = keras.activations.get(name)
    model = called(
        Chain(lambda self, x: self.b(function(self.a(x))), a=dense("a"), b=dense("b")),
        example(8),
    )
    assert by_name(model)["a"].activation_name == name


def test_tied_weights_are_told():
    model = built("TiedAutoencoder")
    kernels = inspect(model).kernels
    assert [(k.calls, k.is_tied) for k in kernels] == [(2, True), (2, True)]
    # The embedding of a language model is looked up, and read back.
    named = by_name(built("SubclassedGPT"))
    (words,) = (k for name, k in named.items() if name.startswith("reversible"))
    assert (words.calls, words.is_tied) == (2, True)


def test_gates_are_told():
    cells = inspect(built("stacked_cells")).kernels
    assert [k.gates for k in cells if k.role == "recurrent"] == [4, 3, 1]


class Raw(layers.Layer):
    """Multiplies by weights of its own in the way it is told."""

    def __init__(self, multiply, shape, **others):
        super().__init__(**others)
        self.multiply, self.weight_shape = multiply, shape

    def build(self, input_shape):
        self.weight = self.add_weight(shape=self.weight_shape, name="weight")

    def call(self, inputs):
        return self.multiply(inputs, self.weight)


@pytest.mark.parametrize(
    ("multiply", "shape", "fans"),
    [
        (ops.matmul, (8, 3), (8, 3)),
        (lambda x, w: ops.matmul(x, ops.transpose(w)), (3, 8), (8, 3)),
        (lambda x, w: x @ ops.cast(w, "float32"), (8, 3), (8, 3)),
        (lambda x, w: ops.dot(x, w), (8, 3), (8, 3)),
        (lambda x, w: ops.einsum("bi,oi->bo", x, w), (3, 8), (8, 3)),
        (lambda x, w: ops.einsum("bi,ihd->bhd", x, w), (8, 2, 3), (8, 6)),
        (lambda x, w: ops.einsum("bi,eio->beo", x, w), (4, 8, 3), (8, 12)),
        (
            lambda x, w: ops.conv(ops.reshape(x, (-1, 8, 1)), w, padding="same"),
            (3, 1, 5),
            (3, 15),
        ),
        (lambda x, w: ops.take(w, ops.cast(x, "int32"), axis=0), (9, 3), (1, 3)),
    ],
)
def test_the_fans_of_a_raw_weight_follow_from_its_use(multiply, shape, fans):
    inputs = Input((8,))
    x = layers.Flatten()(Raw(multiply, shape, name="raw")(inputs))
    kernel, _ = inspect(keras.Model(inputs, dense("out", 2)(x))).kernels
    assert kernel.fans == fans
    assert kernel.kernel.is_known
    assert kernel.variable.name == "weight"


def test_registered_fans_come_first():
    class Registered(Raw):
        pass

    register_fans(Registered, lambda layer: {"weight": KernelAxes((1,), (0,))})
    inputs = Input((8,))
    x = Registered(ops.matmul, (8, 3), name="raw")(inputs)
    kernel, _ = inspect(keras.Model(inputs, dense("out", 2)(x))).kernels
    assert kernel.fans == (3, 8)


def test_weights_that_scale_or_shift_are_no_kernels():
    class Affine(layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(4, 8), name="scale")
            self.shift = self.add_weight(shape=(1, 8), name="shift")

        def call(self, inputs):
            return inputs * self.scale + self.shift

    inputs = Input((4, 8))
    x = Affine()(dense("one")(inputs))
    assert set(by_name(keras.Model(inputs, dense("out")(x)))) == {"one", "out"}


def by_hand(inputs, mask=None):
    """Attention as many write it."""
    query, key, value = (dense(name)(inputs) for name in ("q", "k", "v"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / 2.8
    scores = scores if mask is None else scores + mask
    x = ops.matmul(ops.softmax(scores), value)
    return inputs + dense("o")(x)


@pytest.mark.parametrize("mask", [None, np.zeros((5, 5), "float32")])
def test_attention_by_hand_is_told(mask):
    inputs = Input((5, 8))
    model = keras.Model(inputs, dense("out", 2)(by_hand(inputs, mask)))
    assert roles(model) == {
        "q": "query",
        "k": "key",
        "v": "value",
        "o": "attention output",
        "out": "output",
    }
    assert by_name(model)["o"].branch == 0


def test_the_attention_layer_tells_what_it_multiplies():
    inputs = Input((5, 8))
    query, value, key = (dense(name)(inputs) for name in ("q", "v", "k"))
    x = layers.Attention()([query, value, key])
    model = keras.Model(inputs, dense("out", 2)(x))
    assert roles(model) == {"q": "query", "v": "value", "k": "key", "out": "output"}


def test_gates_are_told_from_activations_made_by_hand():
    inputs = Input((8,))
    x = dense("silu")(inputs)
    x = x * ops.sigmoid(x)  # a signal by itself: no gate
    x = dense("value")(x) * ops.gelu(dense("gate")(x))
    model = keras.Model(inputs, dense("out", 2)(x))
    assert roles(model) == {
        "silu": "hidden",
        "value": "hidden",
        "gate": "gate",
        "out": "output",
    }


def test_a_kernel_reads_its_own_argument():
    queries, memory = Input((3, 8)), Input((5, 8))
    query, key = dense("a")(queries), dense("b")(memory)
    value = dense("c")(memory)
    attention = layers.MultiHeadAttention(2, 4)
    x = attention(query=query, key=key, value=value)
    model = keras.Model([queries, memory], dense("out", 2)(x))
    kernels = inspect(model).kernels
    feeding = {k.role: sources(k, kernels) for k in kernels}
    expected = {"query": {"a"}, "key": {"b"}, "value": {"c"}}
    assert feeding.items() >= {**expected, "attention output": {"value"}}.items()


# ---- models that do not tell all ------------------------------------------------


def test_parts_that_the_call_does_not_reach_are_looked_at_alone():
    model = Chain(
        lambda self, x: self.b(self.a(x)), a=dense("a"), b=dense("b"), c=dense("c")
    )
    extra = keras.Sequential([Input((4,)), dense("d", 8, "relu"), dense("e")])
    model.extra, model.block = extra, Residual(4, name="f")
    model.block(example(4))
    model.c(example(5))
    called(model, example(8))
    kernels = by_name(model)
    assert {name: (k.role, k.depth) for name, k in kernels.items()} == {
        "a": ("hidden", 1),
        "b": ("output", 2),
        "c": ("output", 1),
        "d": ("hidden", 1),
        "e": ("output", 2),
        "f_up": ("hidden", 1),
        "f_down": ("output", 2),
    }


def test_functions_of_the_backend_hide_only_themselves():
    relu, join, add = backend_functions()

    def run(self, x):
        y = join([relu(self.a(x)), self.b(x)])
        return self.out(add(self.block(self.c(y)), 1.0))

    block = Residual(name="block")
    parts = {name: dense(name) for name in ("a", "b", "c", "out")}
    model = called(Chain(run, block=block, **parts), example(8))
    kernels = by_name(model)
    assert {name: (k.role, k.depth) for name, k in kernels.items()} == {
        "a": ("hidden", 1),
        "b": ("hidden", 1),
        "c": ("hidden", 2),
        "block_up": ("hidden", 3),
        "block_down": ("residual branch", 4),
        "out": ("output", 5),
    }
    assert sources(kernels["c"], inspect(model).kernels) == {"a", "b"}
    row = next(row for row in recommend(model) if row.path.endswith("c/kernel"))
    assert row.confidence == MEASURED  # the run hears what cannot be traced


def test_a_custom_layer_that_hides_itself_hides_only_itself():
    relu, _, _ = backend_functions()

    class Hidden(layers.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.b = dense("a"), dense("b")

        def call(self, inputs):
            return self.b(relu(self.a(inputs)))

    inputs = Input((8,))
    model = keras.Model(inputs, dense("out")(Hidden()(dense("first")(inputs))))
    depths = {name: k.depth for name, k in by_name(model).items()}
    assert depths == {"first": 1, "a": 2, "b": 3, "out": 4}


def test_weights_that_are_used_out_of_sight_are_not_lost():
    relu, _, add = backend_functions()

    class Leaf(layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(8, 8), name="leaf")

        def call(self, inputs):
            return relu(add(ops.matmul(inputs, self.w), 0.0))

    class Composite(Leaf):
        def __init__(self):
            super().__init__(name="composite")
            self.first = dense("first")

        def build(self, input_shape):
            self.first.build(input_shape)
            self.w = self.add_weight(shape=(8, 8), name="composite")

        def call(self, inputs):
            return super().call(self.first(inputs))

    inputs = Input((8,))
    model = keras.Model(inputs, dense("out")(Composite()(Leaf(name="leaf")(inputs))))
    kernels = inspect(model).kernels
    assert [(k.variable.name, k.layer.name, k.depth) for k in kernels] == [
        ("leaf", "leaf", 1),
        ("kernel", "first", 2),
        ("composite", "composite", 3),
        ("kernel", "out", 4),
    ]
    assert [kernel.role for kernel in kernels] == ["hidden"] * 3 + ["output"]
    assert [k.kernel.is_known for k in kernels] == [False, True, False, True]


def test_data_tells_the_inputs_that_building_does_not():
    class Two(keras.Model):
        def __init__(self):
            super().__init__(name="two")
            self.a, self.b = dense("a"), dense("b")
            self.out = dense("out")

        def call(self, left, right):
            return self.out(self.a(left) + self.b(right))

    model = called(Two(), example(8), example(4))
    with pytest.raises(UnsupportedModelError, match=r"Received: model='two' \(Two\)"):
        inspect(model)
    data = {"left": np.zeros((3, 8)), "right": np.zeros((3, 4))}
    assert roles(model, data) == {"a": "hidden", "b": "hidden", "out": "output"}


def test_data_may_be_an_array_or_a_list():
    model = built("NeuralCollaborativeFilter")
    expected = roles(model)
    assert roles(model, ZOO["NeuralCollaborativeFilter"].example()) == expected
    model = built("SubclassedResNet")
    assert [k.role for k in recommend(model, data=np.ones((3, 16, 16, 3)))] == [
        k.role for k in inspect(model).kernels
    ]


def test_training_is_given_to_a_call_that_asks_for_it():
    class Asking(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = dense("a"), dense("b")

        def call(self, inputs, training):
            return self.b(self.a(inputs)) if not training else inputs

    model = Asking()
    model(example(8), training=False)
    assert roles(model) == {"a": "hidden", "b": "output"}


class Failing(keras.Model):
    def __init__(self):
        super().__init__(name="failing")
        self.dense, self.broken = dense("dense"), False

    def call(self, inputs):
        if self.broken:
            raise KeyError("no such thing.\nAnd more")
        return self.dense(inputs)


def failing():
    model = called(Failing(), example(8))
    model.broken = True
    return model


def shapeless():
    model = failing()
    model._build_shapes_dict = None
    return model


@pytest.mark.parametrize(
    ("build", "error", "received"),
    [
        (
            failing,
            UnsupportedModelError,
            r"Received: model='failing' \(Failing\), whose `call` raised KeyError: "
            r".*no such thing.*\. Pass `data=`",
        ),
        (
            shapeless,
            UnsupportedModelError,
            r"Received: model='failing' \(Failing\), which does not tell what it was "
            r"built for\. Pass `data=`",
        ),
        (
            Failing,
            UnbuiltModelError,
            r"Received: model='failing' \(Failing\), not built",
        ),
        (
            lambda: keras.Model(name="nothing"),
            UnbuiltModelError,
            r"Received: model='nothing' \(Model\), not built",
        ),
    ],
)
def test_what_cannot_be_seen_is_told(build, error, received):
    with pytest.raises(error, match=received):
        inspect(build())


# ---- looking changes nothing ----------------------------------------------------

CUSTOM = [
    "SubclassedResNet",
    "TiedAutoencoder",
    "VAE",
    "GAN",
    "transformer_encoder",
    "SubclassedGPT",
    "vision_transformer",
    "mixture_of_experts",
    "RawExperts",
    "graph_network",
]


def state(model):
    """All that a model and its layers hold, and the numbers Keras counts with."""
    found = []
    for layer in model._flatten_layers():
        nodes = [list(layer._inbound_nodes), list(layer._outbound_nodes)]
        attributes = {name: id(value) for name, value in vars(layer).items()}
        found.append((attributes, [[id(n) for n in some] for some in nodes]))
    seeds = [
        np.array(s.state)
        for layer in model._flatten_layers()
        for s in layer._seed_generators
    ]
    values = [ops.convert_to_numpy(v) for v in model.variables]
    return found, [*seeds, *values], keras.backend.get_uid("dense")


def assert_unchanged(model, look):
    before, losses = state(model), len(model.losses)
    look()
    after = state(model)
    assert after[0] == before[0]
    for former, now in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(former, now)
    assert after[2] == before[2] + 1  # what the next automatic name rests on
    assert len(model.losses) == losses


@pytest.mark.parametrize("name", CUSTOM)
def test_looking_leaves_no_trace(name):
    model = built(name)
    assert_unchanged(model, lambda: inspect(model))


def test_a_failure_leaves_no_trace():
    model = failing()

    def look():
        with pytest.raises(UnsupportedModelError):
            inspect(model)

    assert_unchanged(model, look)


def test_listening_leaves_no_trace():
    relu, _, _ = backend_functions()
    model = Chain(lambda self, x: self.b(relu(self.a(x))), a=dense("a"), b=dense("b"))
    called(model, example(8))
    assert_unchanged(model, lambda: inspect(model))


def test_looking_warns_of_nothing_that_building_has_warned_of():
    inputs = Input((7,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True, name="words")(inputs)
    with pytest.warns(UserWarning, match="destroy the mask"):
        x = Outer(name="outer")(x)
    assert len(inspect(keras.Model(inputs, x)).kernels) == 3


def test_what_a_call_keeps_or_counts_is_put_back():
    class Keeping(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.drop = dense("dense"), layers.Dropout(0.5, seed=1)
            self.mean = keras.metrics.Mean()
            self.last = None

        def build(self, input_shape):
            self.dense.build(input_shape)
            self.steps = self.add_weight(
                shape=(), dtype="int32", trainable=False, initializer="zeros"
            )

        def call(self, inputs):
            self.steps.assign_add(1)
            self.last = self.drop(self.dense(inputs), training=True)
            self.mean.update_state(ops.mean(self.last))
            self.add_loss(ops.mean(self.last))
            return self.last

    model = Keeping()
    model.build((None, 8))
    assert_unchanged(model, lambda: inspect(model))
    assert model.last is None
    assert int(ops.convert_to_numpy(model.steps)) == 0
    assert roles(model) == {"dense": "output"}


def test_a_model_runs_and_saves_after_it_was_looked_at(tmp_path):
    model = built("transformer_encoder")
    inputs = ZOO["transformer_encoder"].example()
    before = ops.convert_to_numpy(model(inputs))
    recommend(model)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(inputs)), before)
    model.save_weights(tmp_path / "model.weights.h5")


# ---- places ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_every_kernel_has_a_place_of_its_own(name):
    keys = [kernel.key for kernel in inspect(built(name)).kernels]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["SubclassedResNet", "vision_transformer", "GAN"])
def test_places_do_not_depend_on_names(name):
    former, again = (inspect(one).kernels for one in (built(name), ZOO[name].build()))
    assert [kernel.key for kernel in again] == [kernel.key for kernel in former]
    assert [kernel.path for kernel in again] != [kernel.path for kernel in former]


def test_a_subclassed_model_has_the_places_of_its_functional_twin():
    def run(parts, x):
        x = parts["b"](ops.relu(parts["a"](x)))
        return parts["out"](x + parts["c"](x))

    functional = {name: dense(name) for name in ("a", "b", "c", "out")}
    inputs = Input((8,))
    twin = keras.Model(inputs, run(functional, inputs))
    parts = {name: dense(name) for name in ("a", "b", "c", "out")}
    model = called(Chain(lambda self, x: run(parts, x), **parts), example(8))
    places = [
        {k.layer.name: (k.key, k.role, k.depth) for k in inspect(one).kernels}
        for one in (twin, model)
    ]
    assert places[0] == places[1]


def test_layers_added_after_a_custom_layer_leave_its_places_alone():
    inputs = Input((8,))
    x = Residual(name="one")(inputs)
    before = {k.layer.name: k.key for k in inspect(keras.Model(inputs, x)).kernels}
    longer = keras.Model(inputs, Residual(name="two")(dense("more")(x)))
    after = {k.layer.name: k.key for k in inspect(longer).kernels}
    assert before.items() <= after.items()
