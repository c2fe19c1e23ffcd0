"""Models that ask much of whoever looks at them, and what they are run on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import Input, layers, ops

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(4, 3)).astype("float32")
IMAGES = RNG.normal(size=(4, 6, 6, 3)).astype("float32")
SERIES = RNG.normal(size=(4, 5, 3)).astype("float32")
WORDS = np.array([[1, 2, 3], [3, 2, 1], [0, 0, 1], [4, 4, 4]])

# Those that the backend at hand does not admit are left out.
NAMES = (
    *("..", "a:b", "C:\\x", "a,b", '"', "'", "new\nline", "\r\n", "größe", "名", "🙂"),
    *(
        "a b",
        " ",
        "\t",
        "x.y",
        "=1+1",
        "${x}",
        "$\\frac$",
        "%s",
        "{0}",
        "{}",
        "[red]",
        "[",
        "nul\0",
    ),
    *("-", "--help", "*", "?", "|", "~", "#", ";", "\\", "__proto__", "<b>", "step"),
    *("kernel", "0", "None", "n" * 300, "", "../x", "/x", "\ud800"),
)


class MineError(Exception):
    """What only a model's own code raises."""


class Host(NamedTuple):
    """A hostile model.

    Attributes:
        build: makes it.
        x: what it can be run on.
        refused: by the entry, or "" for all, what its message must match; an entry
            that is not there, or None, must work.
    """

    build: Callable[[], keras.Model]
    x: Any = ROWS
    refused: dict[str, str] = {}


def sequential(*inner, shape=(3,), name=None, dtype=None):
    return keras.Sequential([Input(shape, dtype=dtype), *inner], name=name)


def dense(units=4, **options):
    return layers.Dense(units, "relu", **options)


def admits(name):
    """Whether a layer of this backend can have this name."""
    try:
        sequential(layers.Dense(1, name=name))
    except Exception:  # each backend has its own
        return False
    return True


@functools.cache
def admitted():
    return [name for name in NAMES if admits(name)]


def of_all_names():
    return sequential(*[dense(name=name) for name in admitted()], name='a, "b"\n[c]')


def nested():
    """Paths that hold slashes, and read as rich's markup: `[` over `]`."""
    inner = sequential(dense(name="red]"), dense(name="kernel"), shape=(4,), name="[")
    outer = sequential(dense(name="a"), inner, shape=(3,), name="outer")
    return sequential(outer, layers.Dense(2, name="a"), name="outer")


def branches():
    """Equal names in different branches."""
    inputs = Input((3,))
    left = sequential(dense(name="d"), dense(name="e"), name="left")(inputs)
    right = sequential(dense(name="d"), dense(name="e"), name="right")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="d")(layers.add([left, right])))


def shared():
    inputs, layer = Input((3,)), layers.Dense(3, "tanh")
    return keras.Model(inputs, layer(layer(layer(inputs))))


def deeply_nested(levels=12):
    model = sequential(dense(3, name="innermost"))
    for level in range(levels):
        model = sequential(model, name=f"level{level}")
    return model


def with_values(value):
    def build():
        model = sequential(dense(), dense())
        for layer in model.layers:
            layer.kernel.assign(ops.full(layer.kernel.shape, value))
        return model

    return build


def one_broken_weight():
    model = sequential(dense(), dense())
    kernel = np.array(ops.convert_to_numpy(model.layers[0].kernel))
    kernel[0, 0] = np.nan
    model.layers[0].kernel.assign(kernel)
    return model


def of_dtype(policy):
    return lambda: sequential(dense(dtype=policy), dense(dtype=policy))


def quantized():
    model = sequential(dense(8), dense(8))
    for layer in model.layers:
        layer.quantize("int8")
    return model


def frozen():
    model = sequential(dense(), dense())
    model.trainable = False
    return model


def named_inputs():
    inputs = {name: Input((3,), name=name) for name in ("b", "a")}
    joined = layers.concatenate(list(inputs.values()))
    outputs = {"y, 1": layers.Dense(2)(joined), "y/2": layers.Dense(1)(joined)}
    return keras.Model(inputs, outputs)


class Raising(keras.Model):
    """Raises whenever it runs, and works where only shapes are asked."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2, name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        raise MineError("this is mine")


class RaisingOnValues(layers.Layer):
    """Raises on tensors that hold values, not on symbolic ones."""

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        if isinstance(inputs, keras.KerasTensor):
            return inputs
        raise MineError("this is mine")


class Secretive(layers.Dense):
    """Has no config, and nothing good to say of itself."""

    def get_config(self):
        raise MineError("no config")

    def __repr__(self):
        raise MineError("no words")


class Odd(layers.Layer):
    """Weights without a rule: a number, a vector, whole numbers and truth values."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(3,), initializer="zeros", name="a:shift")
        states = {"initializer": "zeros", "trainable": False}
        self.count = self.add_weight((2, 2), dtype="int32", name="count", **states)
        self.flag = self.add_weight((2,), dtype="bool", name="flag", **states)

    def call(self, inputs):
        return self.scale * inputs + self.shift


class Nothing(layers.Layer):
    """Returns its input in a nest, beside nothing."""

    def call(self, inputs):
        return {"x": [inputs], "none": None}["x"][0]


class Subclassed(keras.Model):
    """Layers in lists and dicts, one never called."""

    def __init__(self):
        super().__init__()
        self.parts = {"a": layers.Dense(4, "relu"), "b": [layers.Dense(2)]}
        self.unused = layers.Dense(5)

    def build(self, input_shape):
        """Of what is called alone; Keras would warn of a model that has no `build`."""
        self.parts["a"].build(input_shape)
        self.parts["b"][0].build((None, 4))
        self.unused.build((None, 7))

    def call(self, inputs):
        return self.parts["b"][0](self.parts["a"](inputs))


def built(model, shape=(None, 3)):
    model.build(shape)
    return model


READ = ("recommend", "rules", "apply", "calibrated", "audit")
DRAWN = ("plots.weights", "plots.weight_histograms")
RUN = ("calibrated", "probe", "calibrate")


def refused(entries, pattern):
    return dict.fromkeys(entries, pattern)


UNBUILT = {"": r"must be built\. Received: \w+='\w+' \(\w+\), not built\."}
CONSTANT = {"MatchPretrained": r"kernel that varies.* Received: .* with 0 of them"}
NO_KERNELS = CONSTANT | refused(
    (*READ, *DRAWN, "calibrate"),
    r"must (have at least one|hold a|hold a layer with a) kernel"
    r"( of floating point)?\. Received: \w+='",
)
BROKEN = {"calibrate": r"Layer '.*\(\d, 4\)\).* must be finite\. Received: NaN or Inf"}
UNTRACED = r"must run when it is traced\. Received: model='raising' .*this is mine"
MINE = refused(RUN, "this is mine")
IS_JAX = keras.backend.backend() == "jax"
IS_TORCH = keras.backend.backend() == "torch"  # the others take 1e-42 for 0

MODELS = {
    "no layers": Host(keras.Sequential, refused=UNBUILT),
    "unbuilt": Host(lambda: keras.Sequential([dense()]), refused=UNBUILT),
    "unbuilt subclass": Host(Subclassed, refused=UNBUILT),
    "inputs alone": Host(lambda: sequential(layers.Identity()), refused=NO_KERNELS),
    "no kernels": Host(lambda: sequential(layers.ReLU()), refused=NO_KERNELS),
    "odd weights": Host(lambda: sequential(Odd(), layers.ReLU()), refused=NO_KERNELS),
    "no features": Host(
        lambda: sequential(dense(), shape=(0,)),
        np.zeros((4, 0), "float32"),
        NO_KERNELS
        | dict.fromkeys(("recommend", "rules", "apply", "audit", "calibrate"))
        | {"calibrated": r"`data` must .*\. Received: data of 0 values"},
    ),
    "one unit": Host(
        lambda: sequential(dense(1), dense(1), shape=(1,)), ROWS[:, :1], CONSTANT
    ),
    "any size of image": Host(
        lambda: sequential(layers.Conv2D(4, 3), dense(), shape=(None, None, 3)), IMAGES
    ),
    "any length": Host(
        lambda: sequential(layers.GRU(4), dense(), shape=(None, 3)), SERIES
    ),
    "fixed batch": Host(
        lambda: keras.Model(i := Input(batch_shape=(4, 3)), dense()(i))
    ),
    "whole numbers": Host(
        lambda: sequential(
            layers.Embedding(9, 4), layers.Flatten(), dense(), shape=(3,), dtype="int32"
        ),
        WORDS,
    ),
    "every name": Host(of_all_names),
    "nested": Host(nested),
    "equal names": Host(branches),
    "shared": Host(shared),
    "12 deep": Host(deeply_nested),
    "NaN weights": Host(with_values(np.nan), refused=BROKEN | CONSTANT),
    "infinite weights": Host(with_values(np.inf), refused=BROKEN | CONSTANT),
    "one NaN": Host(one_broken_weight, refused=BROKEN),
    "zero weights": Host(with_values(0.0), refused=CONSTANT),
    "tiny weights": Host(
        with_values(1e-42), refused=CONSTANT | (BROKEN if IS_TORCH else {})
    ),
    "large weights": Host(with_values(3e38), refused=BROKEN | CONSTANT),
    "float16": Host(of_dtype("float16")),
    "bfloat16": Host(of_dtype("bfloat16")),
    **({} if IS_JAX else {"float64": Host(of_dtype("float64"))}),  # off by default
    "mixed": Host(of_dtype("mixed_float16")),
    "int8": Host(quantized, refused=CONSTANT | {"audit": NO_KERNELS["audit"]}),
    "frozen": Host(frozen),
    "named inputs": Host(named_inputs, {"a": ROWS, "b": ROWS}),
    "raises": Host(
        lambda: built(Raising()), refused=MINE | refused(READ[:4], UNTRACED)
    ),
    "raises on values": Host(
        lambda: sequential(dense(), RaisingOnValues(), dense()), refused=MINE
    ),
    "secretive": Host(lambda: sequential(Secretive(4), dense())),
    "nests": Host(lambda: sequential(dense(), Nothing(), dense())),
    "subclassed": Host(lambda: built(Subclassed())),
}


@functools.cache
def hosted(name):
    """A model of the table, made once: nothing that is asked of it may change it."""
    keras.utils.set_random_seed(0)
    return MODELS[name].build()
