"""Layers that look at their own activation or `call`, each in another way.

What they see decides what they compute, so whoever puts something else in its place
changes the model.
"""

import inspect
import types

import keras
from keras import layers, ops

RELU = keras.activations.relu
TABLE = {RELU: 2.0}


class Looking(layers.Dense):
    """Doubles what it returns, unless what it looks at is not what it was given."""

    def looks(self):
        raise NotImplementedError

    def call(self, x):
        y = ops.matmul(x, self.kernel) + self.bias
        return self.activation(y) * (2.0 if self.looks() else 1.0)


def _looking(name, looks):
    return type(name, (Looking,), {"looks": looks, "__module__": __name__})


class Super(layers.Dense):
    """Leaves the work to Keras's `call`, and looks at the activation of another."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.other = layers.Dense(4, "relu")

    def build(self, shape):
        super().build(shape)
        self.other.build(shape)

    def call(self, x):
        is_own = self.other.activation is RELU and self.activation is RELU
        return super().call(x) * (2.0 if is_own else 1.0) + 0 * ops.sum(self.other(x))


class Kernel(layers.Dense):
    """Overrides a property alone, which looks at the activation."""

    @property
    def kernel(self):
        kernel = super().kernel
        return kernel if self.activation is RELU else 2.0 * kernel


WAYS = {
    "is": lambda self: self.activation is RELU,
    "equals": lambda self: self.activation == RELU,
    "type": lambda self: type(self.activation) is types.FunctionType,
    "isinstance": lambda self: isinstance(self.activation, types.FunctionType),
    "attribute": lambda self: (
        self.activation.__module__ == RELU.__module__
        and not hasattr(self.activation, "__wrapped__")
    ),
    "serialize": lambda self: keras.activations.serialize(self.activation) == "relu",
    "get_config": lambda self: self.get_config()["activation"] == "relu",
    "dict": lambda self: TABLE.get(self.activation, 1.0) == 2.0,
    "signature": lambda self: list(inspect.signature(self.call).parameters) == ["x"],
    "method": lambda self: (
        self.call.__func__ is type(self).call
        and self.call.__self__ is self
        and self.call == types.MethodType(type(self).call, self)
        and self.call in {types.MethodType(type(self).call, self)}
    ),
}
KINDS = {name: _looking(f"Looks{name.title()}", way) for name, way in WAYS.items()}
KINDS |= {"super": Super, "kernel": Kernel}


def factor(kind):
    """What a layer multiplies its activation by."""
    return 1.0 if kind == "kernel" else 2.0
