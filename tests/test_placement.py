"""Which layer is being built: scale and seed follow it, however it is built."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab import register_fans
from keras_initlab._keras.kinds import KernelAxes
from keras_initlab.initializers import AdaptiveHe, FanInBias, ForgetGateBias

BACKEND = keras.backend.backend()


def glorot(seed: Any = 7) -> AdaptiveHe:
    """Draws N(0, 2/(fan_in + fan_out)), so that both fans count."""
    return AdaptiveHe(depth=0, activation="linear", mode="fan_avg", seed=seed)


class Kind(NamedTuple):
    """A layer that takes a kernel's and a bias's initializer, and its true fans."""

    make: Callable[..., Any]
    shape: tuple[int, ...]
    fans: dict[str, tuple[int, int]]
    keras_is_right: bool = False


def simple(layer_class, *args, **kwargs):
    def make(kernel, bias="zeros"):
        named = {"bias_initializer": bias}
        for name in ("kernel", "depthwise", "pointwise", "recurrent"):
            if has_argument(layer_class, f"{name}_initializer"):
                named[f"{name}_initializer"] = kernel
        return layer_class(*args, **named, **kwargs)

    return make


def has_argument(layer_class, name):
    # Layers that take their arguments on to a base class name them there.
    code = layer_class.__init__.__code__
    return name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def within(wrapper, inner, **kwargs):
    return lambda kernel, bias="zeros": wrapper(inner(kernel, bias), **kwargs)


def embedding(layer_class, **kwargs):
    return lambda kernel, bias="zeros": layer_class(
        60, 8, embeddings_initializer=kernel, **kwargs
    )


def two_directions(kernel, bias="zeros"):
    backward = simple(layers.LSTM, 16, go_backwards=True)(kernel, bias)
    return layers.Bidirectional(
        simple(layers.LSTM, 16)(kernel, bias), backward_layer=backward
    )


def two_cells(kernel, bias="zeros"):
    cells = [simple(cell, 16)(kernel, bias) for cell in (layers.LSTMCell, GRU_CELL)]
    return layers.RNN(cells)


GRU_CELL = layers.GRUCell
GATED = {"recurrent_kernel": (16, 16), "kernel": (8, 16)}
SEQUENCE = (2, 3, 8)

KINDS = {
    "Dense": Kind(simple(layers.Dense, 40), (2, 10), {"kernel": (10, 40)}, True),
    "EinsumDense, a batch label": Kind(
        simple(layers.EinsumDense, "bhd,hde->bhe", (3, 32), bias_axes="he"),
        (2, 3, 8),
        {"kernel": (8, 32)},
    ),
    "EinsumDense, two outputs": Kind(
        simple(layers.EinsumDense, "abd,dhk->abhk", (None, 4, 8), bias_axes="hk"),
        (2, 3, 16),
        {"kernel": (16, 32)},
    ),
    "Embedding": Kind(embedding(layers.Embedding), (2, 3), {"embeddings": (1, 8)}),
    "ReversibleEmbedding": Kind(
        embedding(layers.ReversibleEmbedding, tie_weights=False),
        (2, 3),
        {"embeddings": (1, 8), "reverse_embeddings": (8, 60)},
    ),
    "Conv1D, groups": Kind(
        simple(layers.Conv1D, 32, 3, groups=4), (2, 6, 32), {"kernel": (24, 24)}
    ),
    "Conv2D, groups": Kind(
        simple(layers.Conv2D, 16, 3, groups=4), (2, 4, 4, 32), {"kernel": (72, 36)}
    ),
    "Conv3D": Kind(
        simple(layers.Conv3D, 8, 2), (2, 4, 4, 4, 8), {"kernel": (64, 64)}, True
    ),
    "DepthwiseConv1D": Kind(
        simple(layers.DepthwiseConv1D, 3, depth_multiplier=2),
        (2, 6, 32),
        {"kernel": (3, 6)},
    ),
    "DepthwiseConv2D": Kind(
        simple(layers.DepthwiseConv2D, 3), (2, 4, 4, 32), {"kernel": (9, 9)}
    ),
    "SeparableConv1D": Kind(
        simple(layers.SeparableConv1D, 24, 5),
        (2, 6, 32),
        {"depthwise_kernel": (5, 5), "pointwise_kernel": (32, 24)},
    ),
    "SeparableConv2D": Kind(
        simple(layers.SeparableConv2D, 8, 3, depth_multiplier=2),
        (2, 4, 4, 32),
        {"depthwise_kernel": (9, 18), "pointwise_kernel": (64, 8)},
    ),
    "Conv1DTranspose": Kind(
        simple(layers.Conv1DTranspose, 8, 8, strides=4),
        (2, 6, 32),
        {"kernel": (64, 64)},
    ),
    "Conv2DTranspose": Kind(
        simple(layers.Conv2DTranspose, 8, 4, strides=4),
        (2, 4, 4, 32),
        {"kernel": (32, 128)},
    ),
    "Conv3DTranspose": Kind(
        simple(layers.Conv3DTranspose, 4, 2, strides=2),
        (2, 4, 4, 4, 8),
        {"kernel": (8, 32)},
    ),
    "SimpleRNN": Kind(simple(layers.SimpleRNN, 16), SEQUENCE, GATED, True),
    "GRU": Kind(simple(layers.GRU, 16), SEQUENCE, GATED),
    "LSTM": Kind(simple(layers.LSTM, 16), SEQUENCE, GATED),
    "ConvLSTM1D": Kind(
        simple(layers.ConvLSTM1D, 4, 3),
        (2, 3, 5, 8),
        {"kernel": (24, 12), "recurrent_kernel": (12, 12)},
    ),
    "ConvLSTM2D": Kind(
        simple(layers.ConvLSTM2D, 4, 2),
        (2, 3, 4, 4, 8),
        {"kernel": (32, 16), "recurrent_kernel": (16, 16)},
    ),
    "RNN of two cells": Kind(
        two_cells, (2, 3, 16), {"kernel": (16, 16), "recurrent_kernel": (16, 16)}
    ),
    "Bidirectional": Kind(
        within(layers.Bidirectional, simple(layers.LSTM, 16)), SEQUENCE, GATED
    ),
    "Bidirectional, two layers": Kind(two_directions, SEQUENCE, GATED),
    "TimeDistributed": Kind(
        within(layers.TimeDistributed, simple(layers.DepthwiseConv1D, 3)),
        (2, 3, 6, 32),
        {"kernel": (3, 3)},
    ),
    "SpectralNormalization": Kind(
        within(layers.SpectralNormalization, simple(layers.DepthwiseConv2D, 3)),
        (2, 4, 4, 32),
        {"kernel": (9, 9)},
    ),
    "MultiHeadAttention": Kind(
        simple(layers.MultiHeadAttention, 8, 8),
        (2, 3, 32),
        {
            "query/kernel": (32, 64),
            "key/kernel": (32, 64),
            "value/kernel": (32, 64),
            "attention_output/kernel": (64, 32),
        },
    ),
    "GroupQueryAttention": Kind(
        simple(layers.GroupQueryAttention, 8, 8, 2),
        (2, 3, 32),
        {
            "query/kernel": (32, 64),
            "key/kernel": (32, 16),
            "value/kernel": (32, 16),
            "attention_output/kernel": (64, 32),
        },
    ),
}
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
# JAX compiles every draw of a new shape, so its everyday tests see fewer kinds.
SELDOM_ON_JAX = {
    "EinsumDense, two outputs",
    "ReversibleEmbedding",
    "Conv1D, groups",
    "Conv3D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "SimpleRNN",
    "GRU",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "Bidirectional, two layers",
    "GroupQueryAttention",
}


def kinds(names):
    return [
        pytest.param(name, marks=pytest.mark.slow)
        if BACKEND == "jax" and name in SELDOM_ON_JAX
        else name
        for name in names
    ]


SOME = [
    "DepthwiseConv1D",
    "LSTM",
    pytest.param("Bidirectional", marks=pytest.mark.slow),
    "SpectralNormalization",
    "MultiHeadAttention",
]


def ask(layer, x):
    return layer(x, x) if isinstance(layer, ATTENTION) else layer(x)


def build(layer, shape):
    layer.build(*([shape] * (1 + isinstance(layer, ATTENTION))))


def data(shape):
    return np.ones(shape, "int32" if shape == (2, 3) else "float32")


def values(layer):
    return [ops.convert_to_numpy(weight) for weight in layer.weights]


def kernels_of(layer, name):
    found = [w for w in layer.weights if f"/{w.path}".endswith(f"/{name}")]
    assert found, (name, [w.path for w in layer.weights])
    return [ops.convert_to_numpy(kernel) for kernel in found]


def has_variance(kernel, variance, factor=1.0):
    """Whether the second moment lies within five standard errors of a normal's."""
    error = 5 * factor * (2 / kernel.size) ** 0.5
    return abs((kernel.astype("float64") ** 2).mean() / variance - 1) < error


def has_true_scale(layer, fans):
    return all(
        has_variance(kernel, 2 / sum(fans[name]))
        for name in fans
        for kernel in kernels_of(layer, name)
    )


def same(first, second):
    return len(first) == len(second) > 0 and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )


def all_differ(arrays):
    # By their beginnings, so that those of unequal length are compared too.
    heads = [array.ravel()[:8] for array in arrays]
    return all(
        not np.allclose(a, b, atol=1e-6)
        for i, a in enumerate(heads)
        for b in heads[:i]
        if len(a) == len(b)
    )


class Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return ask(self.inner, x)


class SubclassedWithBuild(Subclassed):
    def build(self, input_shape):
        build(self.inner, input_shape)


class Composite(layers.Layer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return ask(self.inner, x)


class CompositeWithBuild(Composite):
    def build(self, input_shape):
        build(self.inner, input_shape)


class Untraceable(Composite):
    """Fails where Keras traces it, so that the call on data builds what is inside."""

    was_traced = False

    def call(self, x):
        if not self.was_traced:
            self.was_traced = True
            raise RuntimeError("not to be traced")
        return super().call(x)


def deferred_sequential(layer, x):
    keras.Sequential([layer])(x)


def nested_functional(layer, x):
    inner = keras.Input(x.shape[1:], dtype=x.dtype)
    model = keras.Model(inner, ask(layer, inner))
    outer = keras.Input(x.shape[1:], dtype=x.dtype)
    keras.Model(outer, model(outer))


ALONE = {
    "build": lambda layer, x: build(layer, x.shape),
    "data": ask,
    "Input": lambda layer, x: ask(layer, keras.Input(x.shape[1:], dtype=x.dtype)),
    "deferred Sequential": deferred_sequential,
    "nested functional": nested_functional,
    "subclassed": lambda layer, x: Subclassed(layer)(x),
    "subclassed, with build": lambda layer, x: SubclassedWithBuild(layer)(x),
    "subclassed, built": lambda layer, x: SubclassedWithBuild(layer).build(x.shape),
    "subclassed in subclassed": lambda layer, x: Subclassed(Subclassed(layer))(x),
    "called twice": lambda layer, x: (ask(layer, x), ask(layer, x)),
}
INSIDE = {
    "data": lambda layer, x: Composite(layer)(x),
    "build": lambda layer, x: CompositeWithBuild(layer).build(x.shape),
    "data, with build": lambda layer, x: CompositeWithBuild(layer)(x),
    "Input": lambda layer, x: Composite(layer)(keras.Input(x.shape[1:])),
    "not traced": lambda layer, x: Untraceable(layer)(x),
    "in a Sequential": lambda layer, x: keras.Sequential([Composite(layer)])(x),
    "in a subclassed model": lambda layer, x: Subclassed(Composite(layer))(x),
}


@pytest.mark.parametrize("name", kinds(KINDS))
def test_the_scale_is_that_of_the_true_fans(name):
    kind = KINDS[name]
    layer = kind.make(glorot())
    build(layer, kind.shape)
    assert has_true_scale(layer, kind.fans)
    traced = kind.make(glorot())
    Composite(traced)(data(kind.shape))
    assert has_true_scale(traced, kind.fans)


# Newer versions of Keras hand the axes of an `EinsumDense` over.
SELDOM_RIGHT = [
    name
    for name, kind in KINDS.items()
    if not (kind.keras_is_right or "Einsum" in name or "Attention" in name)
]


@pytest.mark.parametrize("name", kinds(SELDOM_RIGHT))
def test_the_check_rejects_the_fans_of_keras(name):
    kind = KINDS[name]
    layer = kind.make(keras.initializers.VarianceScaling(1.0, "fan_avg", "normal", 7))
    build(layer, kind.shape)
    assert not has_true_scale(layer, kind.fans)


@pytest.mark.parametrize("name", SOME)
def test_layers_outside_others_get_the_same_weights_however_built(name):
    kind = KINDS[name]
    expected = None
    for way, built_by in ALONE.items():
        if "Sequential" in way and "Attention" in name:  # takes two inputs
            continue
        layer = kind.make(glorot(), FanInBias(seed=3))
        built_by(layer, data(kind.shape))
        found = kernel_values(layer)
        expected = expected or found
        assert same(found, expected), way


@pytest.mark.parametrize("name", SOME)
def test_layers_inside_others_get_the_same_weights_however_built(name):
    kind = KINDS[name]
    expected = None
    for way, built_by in INSIDE.items():
        layer = kind.make(glorot(), FanInBias(seed=3))
        built_by(layer, data(kind.shape))
        found = kernel_values(layer)
        expected = expected or found
        assert same(found, expected), way


def kernel_values(layer):
    # `SpectralNormalization` has a vector of its own, which Keras draws.
    return [ops.convert_to_numpy(w) for w in layer.weights if "vector_u" not in w.path]


@pytest.mark.parametrize("seed", [5, "generator"])
@pytest.mark.parametrize(
    "name",
    kinds(
        [
            "MultiHeadAttention",
            "GroupQueryAttention",
            "Bidirectional",
            "Bidirectional, two layers",
            "RNN of two cells",
            "SeparableConv1D",
        ]
    ),
)
def test_kernels_within_a_layer_differ(name, seed):
    kind = KINDS[name]
    given = keras.random.SeedGenerator(5) if seed == "generator" else seed
    layer = kind.make(glorot(given))
    build(layer, kind.shape)
    kernels = [k for name in kind.fans for k in kernels_of(layer, name)]
    assert len(kernels) >= 2
    assert all_differ([kernel / kernel.std() for kernel in kernels])


def test_the_check_finds_equal_kernels():
    layer = KINDS["MultiHeadAttention"].make(keras.initializers.GlorotNormal(5))
    build(layer, (2, 3, 32))
    assert not all_differ([k for k in values(layer) if k.ndim == 3])


class Stack(layers.Layer):
    """Holds layers in a list and a dict, and a kernel of its own."""

    def __init__(self, initializer, own_first=True):
        super().__init__()
        self.initializer, self.own_first = initializer, own_first
        self.listed = [
            layers.Dense(16, kernel_initializer=initializer) for _ in range(2)
        ]
        self.named = {"a": layers.Dense(16, kernel_initializer=initializer)}

    def build(self, input_shape):
        if self.own_first:
            self.add_own()
        for layer in (*self.listed, self.named["a"]):
            layer.build(input_shape)
        if not self.own_first:
            self.add_own()

    def add_own(self):
        self.own = self.add_weight((16, 16), self.initializer, name="own")
        self.second = self.add_weight((16, 16), self.initializer, name="second")

    def call(self, x):
        for layer in (*self.listed, self.named["a"]):
            x = layer(x)
        return x @ self.own @ self.second


class StackWithoutBuild(layers.Layer):
    def __init__(self, initializer):
        super().__init__()
        self.listed = [
            layers.Dense(16, kernel_initializer=initializer) for _ in range(2)
        ]
        self.named = {"a": layers.Dense(16, kernel_initializer=initializer)}

    def call(self, x):
        for layer in (*self.listed, self.named["a"]):
            x = layer(x)
        return x


def test_layers_in_lists_and_dicts_all_differ():
    before, after, bare = (
        Stack(glorot()),
        Stack(glorot(), own_first=False),
        StackWithoutBuild(glorot()),
    )
    for stack in (before, after, bare):
        stack(data((2, 16)))
    kernels = [value for value in values(before) if value.ndim == 2]
    assert len(kernels) == 5
    assert all_differ(kernels)
    assert same(values(before), values(after))
    dense = [layer.kernel for layer in (*before.listed, before.named["a"])]
    traced = [layer.kernel for layer in (*bare.listed, bare.named["a"])]
    assert same(*[[ops.convert_to_numpy(k) for k in x] for x in (dense, traced)])


def test_a_shared_layer_is_placed_once():
    class Twice(layers.Layer):
        def __init__(self):
            super().__init__()
            self.shared = layers.DepthwiseConv2D(3, depthwise_initializer=glorot())
            self.again = [self.shared]

        def call(self, x):
            return self.again[0](self.shared(x))

    layer = Twice()
    layer(data((2, 8, 8, 32)))
    assert len(layer.weights) == 2
    assert has_true_scale(layer, {"kernel": (9, 9)})


class InInit(layers.Layer):
    """Makes its kernels in the constructor, without `build`."""

    def __init__(self, initializer):
        super().__init__()
        self.kernel = self.add_weight((16, 16), initializer, name="kernel")
        self.other = self.add_weight((16, 16), initializer, name="other")


class Early(layers.Layer):
    """Says that it is built before it is."""

    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer

    def build(self, input_shape):
        self.built = True
        self.kernel = self.add_weight((16, 16), self.initializer, name="kernel")
        self.other = self.add_weight((16, 16), self.initializer, name="other")

    def call(self, x):
        return x @ self.kernel @ self.other


class Never(Early):
    def build(self, input_shape):
        super().build(input_shape)
        self.built = False


def test_layers_that_misstate_whether_they_are_built():
    expected = values(InInit(glorot()))
    assert all_differ(expected)
    for layer_class in (Early, Never):
        alone = layer_class(glorot())
        alone(data((2, 16)))
        assert same(values(alone), expected)
        traced = [layer_class(glorot()) for _ in range(2)]
        Composite(traced[0])(data((2, 16)))
        CompositeWithBuild(traced[1])(data((2, 16)))
        assert same(*map(values, traced))


class Variables(layers.Layer):
    """Makes variables by hand, in whatever order."""

    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer

    def build(self, input_shape):
        self.offset = keras.Variable(self.initializer, (16,), name="offset")
        self.first = keras.Variable(self.initializer, (16, 16), name="first")
        self.state = self.add_weight((16, 16), self.initializer, trainable=False)
        self.second = keras.Variable(self.initializer, (16, 16), name="second")

    def call(self, x):
        return x @ self.first @ self.second @ self.state + self.offset


def test_variables_made_by_hand_differ_and_follow_no_order_of_building():
    layer = Variables(glorot())
    layer(data((2, 16)))
    assert all_differ([value for value in values(layer) if value.ndim == 2])
    traced, inside = Variables(glorot()), Variables(glorot())
    Composite(traced)(data((2, 16)))
    CompositeWithBuild(inside).build((2, 16))
    assert same(values(traced), values(inside))


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_under_lower_precision(policy):
    expected = values(fresh_model())
    keras.config.set_dtype_policy(policy)
    try:
        model = fresh_model()
        Composite(inside := layers.DepthwiseConv2D(3, depthwise_initializer=glorot()))(
            data((2, 4, 4, 32))
        )
    finally:
        keras.config.set_dtype_policy("float32")
    found = [ops.convert_to_numpy(ops.cast(w, "float32")) for w in model.weights]
    tolerance = 0 if policy.startswith("mixed") else 2**-7
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=1e-6)
    kernel = ops.convert_to_numpy(ops.cast(inside.kernel, "float32"))
    assert has_variance(kernel, 1 / 9)


def fresh_model():
    """Small, with a layer of every trouble: depthwise, gated, attention."""
    image = keras.Input((4, 4, 32))
    x = layers.DepthwiseConv2D(
        3, depthwise_initializer=glorot(1), bias_initializer=FanInBias(seed=1)
    )(image)
    x = layers.Reshape((-1, 8))(x)
    x = layers.LSTM(
        16, kernel_initializer=glorot(2), recurrent_initializer="zeros", name="lstm"
    )(x)
    x = layers.Reshape((2, 8))(x)
    x = layers.MultiHeadAttention(2, 4, kernel_initializer=glorot(3))(x, x)
    return keras.Model(image, x)


def test_two_threads_do_not_disturb_each_other():
    expected = values(fresh_model())
    found, errors = [], []
    barrier = threading.Barrier(2)

    def build_some():
        try:
            for _ in range(3):
                barrier.wait(30)
                found.append(values(fresh_model()))
                layer = layers.Dense(16, kernel_initializer=glorot())
                Composite(layer)(data((2, 16)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build_some) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 6
    assert all(same(each, expected) for each in found)


def test_saved_cloned_and_configured_models(tmp_path):
    model = fresh_model()
    expected = values(model)
    again = keras.Model.from_config(model.get_config())
    assert same(values(again), expected)
    assert same(values(keras.models.clone_model(model)), expected)
    model.set_weights([weight + 1 for weight in expected])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(values(loaded), [weight + 1 for weight in expected])


@pytest.mark.parametrize("name", ["LSTM", "MultiHeadAttention"])
def test_the_global_seed_decides_without_a_seed(name):
    kind = KINDS[name]
    found = []
    for way in ("build", "data", "Input", "subclassed"):
        keras.utils.set_random_seed(11)
        layer = kind.make(glorot(seed=None))
        ALONE[way](layer, data(kind.shape))
        found.append(values(layer))
    assert all(same(each, found[0]) for each in found)
    assert all_differ([k for k in found[0] if k.any()])


class Asking(layers.Layer):
    """Asks an initializer for values of its own, not for a variable."""

    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer
        self.inner = layers.DepthwiseConv1D(3, depthwise_initializer=glorot())
        self.drawn = []

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.drawn.append(self.initializer((16, 16)))

    def call(self, x):
        self.drawn.append(self.initializer((16, 16)))
        return self.inner(x)


def test_a_shape_alone_is_not_disturbed():
    expected = ops.convert_to_numpy(glorot()((16, 16)))
    asking = Asking(glorot())
    asking(data((2, 6, 32)))
    assert len(asking.drawn) == 2
    for drawn in asking.drawn:
        np.testing.assert_array_equal(ops.convert_to_numpy(drawn), expected)
    with keras.name_scope("scope", caller=layers.LSTM(4)):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(glorot()((16, 16))), expected
        )


def test_a_shape_alone_while_others_wait_to_be_drawn():
    found = []

    class Waiting(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.DepthwiseConv1D(3, depthwise_initializer=glorot())

        def call(self, x):
            x = self.inner(x)  # drawn when the trace is over
            drawn = glorot()((16, 16))
            found.append(drawn)
            return x + drawn[0, 0]

    layer = Waiting()
    y = layer(data((2, 6, 32)))
    assert y.shape == (2, 4, 32)
    expected = ops.convert_to_numpy(glorot()((16, 16)))
    np.testing.assert_array_equal(ops.convert_to_numpy(found[-1]), expected)
    assert has_true_scale(layer, {"kernel": (3, 3)})


@pytest.mark.parametrize("composite", [Composite, CompositeWithBuild])
def test_nothing_stays_behind_an_error_in_build(composite):
    class Failing(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight((16, 16), glorot(), name="kernel")
            raise RuntimeError("failed on purpose")

        def call(self, x):
            return x @ self.kernel

    alone = ops.convert_to_numpy(glorot()((16, 16)))
    with pytest.raises(RuntimeError, match="on purpose"):
        composite(Failing())(data((2, 16)))
    np.testing.assert_array_equal(ops.convert_to_numpy(glorot()((16, 16))), alone)
    dense = layers.Dense(16, kernel_initializer=glorot())
    dense(data((2, 16)))
    np.testing.assert_array_equal(ops.convert_to_numpy(dense.kernel), alone)
    inner = layers.DepthwiseConv1D(3, depthwise_initializer=glorot())
    Composite(inner)(data((2, 6, 32)))
    assert has_true_scale(inner, {"kernel": (3, 3)})


def test_variables_of_an_abandoned_trace_disturb_nobody():
    abandoned = layers.Dense(16, kernel_initializer=glorot())
    scope = keras.StatelessScope()
    scope.__enter__()
    abandoned.build((2, 16))  # waits for values from here on
    inner = layers.DepthwiseConv2D(3, depthwise_initializer=glorot())
    alone = layers.Dense(16, kernel_initializer=glorot())
    try:
        inner.build((2, 4, 4, 32))
    finally:
        scope.__exit__()
    alone(data((2, 16)))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(alone.kernel), ops.convert_to_numpy(glorot()((16, 16)))
    )


@pytest.mark.slow  # it builds nearly every layer
def test_an_initializer_that_fails_in_a_trace_disturbs_no_layer_after_it():
    class Failing(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            raise RuntimeError("failed on purpose")

    try:
        with pytest.raises(RuntimeError, match="on purpose"):
            Composite(layers.Dense(16, kernel_initializer=Failing()))(data((2, 16)))
        layer = layers.DepthwiseConv1D(3, depthwise_initializer=glorot())
        layer.build((2, 6, 32))
        assert has_true_scale(layer, {"kernel": (3, 3)})
    finally:
        keras.utils.clear_session()  # Keras keeps the variable for ever otherwise


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function is TensorFlow's")
def test_inside_a_tf_function():
    import tensorflow as tf

    layer = layers.DepthwiseConv2D(3, depthwise_initializer=glorot())
    tf.function(lambda x: layer(x))(data((2, 4, 4, 32)))
    expected = layers.DepthwiseConv2D(3, depthwise_initializer=glorot())
    expected.build((2, 4, 4, 32))
    assert has_true_scale(layer, {"kernel": (9, 9)})
    assert same(values(layer), values(expected))


@pytest.mark.skipif(BACKEND != "jax", reason="jax.jit is JAX's")
def test_inside_jax_jit():
    import jax

    layer = Asking(glorot())
    layer.build((2, 6, 32))
    expected = ops.convert_to_numpy(glorot()((16, 16)))
    outputs = jax.jit(lambda x: (layer(x), layer.drawn.pop()))
    np.testing.assert_allclose(outputs(data((2, 6, 32)))[1], expected, rtol=1e-5)


BRINGS_BIAS = {  # name of the kernel whose output the bias is added to
    name: list(kind.fans)[-1]
    for name, kind in KINDS.items()
    if "Embedding" not in name and not isinstance(kind.make("zeros"), ATTENTION)
}


@pytest.mark.parametrize("name", kinds(BRINGS_BIAS))
@pytest.mark.parametrize("way", ["build", "traced"])
def test_biases_have_the_scale_of_their_kernel(name, way):
    kind = KINDS[name]
    layer = kind.make("zeros", FanInBias(seed=3))
    if way == "build":
        build(layer, kind.shape)
    else:
        Composite(layer)(data(kind.shape))
    fan_in, _ = kind.fans["kernel" if "kernel" in kind.fans else BRINGS_BIAS[name]]
    for bias in kernels_of(layer, "bias"):
        bias = free_gates(name, bias)
        assert np.abs(bias).max() <= fan_in**-0.5
        # A uniform's square varies by √(4/5) of its mean, a normal's by √2.
        assert has_variance(bias, 1 / (3 * fan_in), factor=0.4**0.5)


def free_gates(name, bias):
    """A bias without the forget gate that Keras sets to one."""
    is_lstm = np.any(bias == 1)
    assert is_lstm == any(part in name for part in ("LSTM", "Bidirectional")) or (
        name == "RNN of two cells"
    )
    return bias[bias != 1] if is_lstm else bias.ravel()


def test_the_biases_of_attention_follow_their_projections():
    layer = KINDS["MultiHeadAttention"].make("zeros", FanInBias(seed=3))
    build(layer, (2, 3, 32))
    for name, fan_in in {"query": 32, "key": 32, "attention_output": 64}.items():
        (bias,) = kernels_of(layer, f"{name}/bias")
        assert has_variance(bias, 1 / (3 * fan_in), factor=0.4**0.5)
    query, key = (kernels_of(layer, f"{n}/bias")[0] for n in ("query", "key"))
    assert not np.allclose(query, key)


@pytest.mark.parametrize("name", ["LSTM", "ConvLSTM1D", "Bidirectional"])
def test_a_forget_gate_bias_in_an_lstm(name):
    make = {
        "LSTM": lambda **kw: layers.LSTM(4, **kw),
        "ConvLSTM1D": lambda **kw: layers.ConvLSTM1D(4, 3, **kw),
        "Bidirectional": lambda **kw: layers.Bidirectional(layers.LSTM(4, **kw)),
    }[name]
    shape = KINDS[name].shape
    layer = make(bias_initializer=ForgetGateBias(2.0), unit_forget_bias=False)
    build(layer, shape)
    for bias in kernels_of(layer, "bias"):
        np.testing.assert_array_equal(bias, [0] * 4 + [2] * 4 + [0] * 8)
    beside = make(bias_initializer=ForgetGateBias(1.0))
    build(beside, shape)
    for bias in kernels_of(beside, "bias"):
        np.testing.assert_array_equal(bias, [0] * 4 + [1] * 4 + [0] * 8)
    refused = make(bias_initializer=ForgetGateBias(2.0))
    with pytest.raises(ValueError, match=r"value=2.0 and unit_forget_bias=True"):
        build(refused, shape)


def test_an_update_gate_bias_in_a_gru():
    bias = ForgetGateBias(1.5, gates=3, gate=0)
    layer = layers.GRU(4, bias_initializer=bias)
    build(layer, SEQUENCE)
    (found,) = kernels_of(layer, "bias")
    np.testing.assert_array_equal(found, [[1.5] * 4 + [0] * 8] * 2)


class Transposed(layers.Layer):
    """Its kernel is (heads, outputs, inputs), and its bias comes first."""

    def __init__(self, initializer, name_of_kernel="mixing", **kwargs):
        super().__init__(**kwargs)
        self.initializer, self.name_of_kernel = initializer, name_of_kernel

    def build(self, input_shape):
        self.offset = self.add_weight((64,), "zeros", name="offset")
        shape = (2, 64, input_shape[-1])
        self.mixing = self.add_weight(shape, self.initializer, name=self.name_of_kernel)

    def call(self, x):
        return ops.einsum("bi,hoi->bho", x, self.mixing) + self.offset


class OwnModel(keras.Model):
    """A model with a kernel of its own, (outputs, inputs)."""

    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer

    def build(self, input_shape):
        shape = (64, input_shape[-1])
        self.mixing = self.add_weight(shape, self.initializer, name="mixing")
        self.second = self.add_weight(shape, self.initializer, name="second")

    def call(self, x):
        return x @ ops.transpose(self.mixing + self.second)


@pytest.fixture
def registered(monkeypatch):
    from keras_initlab._keras.kinds import _records

    monkeypatch.setattr(_records, "_registered", dict(_records._registered))
    monkeypatch.setattr(_records, "_known", {})
    axes = {"mixing": KernelAxes(inputs=(2,), outputs=(1,))}
    register_fans(Transposed, lambda layer: axes)
    swapped = KernelAxes(inputs=(1,), outputs=(0,))
    register_fans(OwnModel, lambda layer: {"mixing": swapped, "second": swapped})


def fan_in_only(seed=7):
    return AdaptiveHe(depth=0, activation="linear", seed=seed)


@pytest.mark.parametrize("name", ["mixing", "weird"])
@pytest.mark.parametrize("way", [*ALONE, *(f"inside, {way}" for way in INSIDE)])
@pytest.mark.usefixtures("registered")
def test_registered_layers(way, name):
    layer = Transposed(fan_in_only(), name_of_kernel=name)
    built_by = INSIDE.get(way.removeprefix("inside, "))
    (built_by if way.startswith("inside") else ALONE[way])(layer, data((2, 16)))
    # Keras takes the axes (2, 64, 16) for a window of 2, 64 inputs and 16 outputs.
    assert has_variance(ops.convert_to_numpy(layer.mixing), 1 / 16)


@pytest.mark.usefixtures("registered")
def test_registered_models_with_kernels_of_their_own():
    model = OwnModel(fan_in_only())
    model(data((2, 16)))
    assert has_variance(ops.convert_to_numpy(model.mixing), 1 / 16)
    assert all_differ(values(model))
    inner = OwnModel(fan_in_only())
    Composite(inner)(data((2, 16)))
    assert same(values(inner), values(model))
