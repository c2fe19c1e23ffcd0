"""Models with parts that are not built, wherever such a part can be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import Input, layers, ops


class Late(NamedTuple):
    """A model of which a part is not built.

    Attributes:
        build: makes it.
        x: what it can be called on.
        part: the path of a part that a call would build; None if a call needs none.
    """

    build: Callable[[], keras.Model]
    x: Any
    part: str | None


ROWS = np.ones((2, 4), "float32")
SERIES = np.ones((2, 3, 4), "float32")


class Same(layers.Layer):
    """Says the shape of its output, so that Keras need not run it."""

    def compute_output_shape(self, input_shape, *others):
        return input_shape


class Block(Same):
    """Makes its layers and leaves them to be built by the first call."""

    def build(self, input_shape):
        self.up = layers.Dense(8, "gelu", name="up")
        self.down = layers.Dense(input_shape[-1], name="down")

    def call(self, inputs):
        return self.down(self.up(inputs))


class Half(Block):
    """Holds a kernel of its own, and one layer that is built."""

    def build(self, input_shape):
        super().build(input_shape)
        self.up.build(input_shape)
        self.kernel = self.add_weight((4, 4), name="kernel")

    def call(self, inputs):
        return super().call(ops.matmul(inputs, self.kernel))


class Outer(Same):
    """Holds layers in lists and dicts, which hold others."""

    def build(self, input_shape):
        self.parts = [Block(name="first"), {"x": Block(name="second")}]

    def call(self, inputs):
        return self.parts[1]["x"](self.parts[0](inputs))


class Holds(Same):
    """Runs the layers that it was given."""

    def __init__(self, *inner, **options):
        super().__init__(**options)
        self.inner = list(inner)

    def build(self, input_shape):
        """Of nothing."""

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs


class Cell(layers.Layer):
    """A cell of an RNN whose `build` leaves its layer to be built."""

    state_size = output_size = 4

    def build(self, input_shape, *others):
        self.mix = layers.Dense(4, name="mix")

    def call(self, inputs, states):
        return (new := ops.tanh(self.mix(inputs) + states[0])), [new]


class Own(layers.Dense):
    """A known layer with a layer inside that it does not build."""

    def build(self, input_shape):
        super().build(input_shape)
        self.gate = layers.Dense(4, name="gate")

    def call(self, inputs):
        return super().call(inputs) * self.gate(inputs)


class Needy(Block):
    """Runs on numbers alone."""

    def call(self, inputs):
        return super().call(inputs) * float(np.asarray(inputs).size)


class Spare(keras.Model):
    """Keeps a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = layers.Dense(4), layers.Dense(4, name="spare")

    def build(self, input_shape):
        self.used.build(input_shape)

    def call(self, inputs):
        return self.used(inputs)


class Bare(keras.Model):
    """Is built in name alone."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(4, name="inner")

    def build(self, input_shape):
        """Of nothing."""

    def call(self, inputs):
        return self.inner(inputs)


class Light(Same):
    """Has a `build`, and no weights."""

    def build(self, input_shape):
        self.size = input_shape[-1]

    def call(self, inputs):
        return inputs / self.size


class Hiding(Same):
    """Its layer without weights is not built."""

    def build(self, input_shape):
        self.kernel = self.add_weight((4, 4), name="kernel")
        self.light = Light()

    def call(self, inputs):
        return self.light(ops.matmul(inputs, self.kernel))


def around(*inner, shape=(4,)):
    inputs = outputs = Input(shape)
    for layer in inner:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def twice(inner):
    inputs = Input((4,))
    return keras.Model(inputs, inner(inner(inputs)))


def built(model):
    model.build((None, 4))
    return model


def called(model):
    model(ROWS)
    return model


LATE = {
    "inside a layer": Late(lambda: around(Block(name="b")), ROWS, "b/up"),
    "beside a kernel": Late(
        lambda: around(layers.Dense(4), Block(name="b")), ROWS, "b/up"
    ),
    "one of two": Late(lambda: around(Half(name="b")), ROWS, "b/down"),
    "two deep": Late(lambda: around(Outer(name="o")), ROWS, "o/first"),
    "in a nested model": Late(lambda: twice(around(Block(name="b"))), ROWS, "b/up"),
    "in a wrapper": Late(
        lambda: around(layers.TimeDistributed(Block(name="b")), shape=(3, 4)),
        SERIES,
        "b/up",
    ),
    "in a cell": Late(
        lambda: around(layers.RNN(Cell(name="c")), shape=(3, 4)), SERIES, "c/mix"
    ),
    "in a known layer": Late(lambda: around(Own(4, name="d")), ROWS, "d/gate"),
    "a Sequential": Late(
        lambda: around(Holds(keras.Sequential([layers.Dense(4)], name="s"), name="h")),
        ROWS,
        "h/s",
    ),
    "a model": Late(lambda: around(Holds(Spare(), name="h")), ROWS, "h/spare"),
    "built in name alone": Late(lambda: built(Bare()), ROWS, "inner"),
    "numbers alone": Late(lambda: around(Needy(name="n")), ROWS, "n/up"),
    "never called": Late(lambda: called(Spare()), ROWS, None),
    "without weights": Late(lambda: around(Hiding()), ROWS, None),
}
