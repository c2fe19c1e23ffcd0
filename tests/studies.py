"""What comparisons are about: functions that other processes can import."""

import keras
import numpy as np

CLASSES = 3
# Compiling takes TensorFlow far longer than these few steps.
EAGER = keras.config.backend() == "tensorflow"


def data():
    """Three classes of points: 40 to train on, 16 to test on."""
    rng = np.random.default_rng(0)
    y = np.arange(56) % CLASSES
    x = rng.normal(size=(56, 4)) + 1.5 * np.eye(4)[y]
    x, y = x.astype("float32"), y.astype("int32")
    return (x[:40], y[:40]), (x[40:], y[40:])


def build():
    """A compiled classifier with two kernels."""
    return _classifier("glorot_uniform")


def build_from(initializer):
    """The same, from an initializer."""
    return _classifier(initializer)


def build_dropping():
    """One that depends on the seed while it trains, too."""
    hidden = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.3)]
    return _compiled(hidden, run_eagerly=EAGER)


def build_failing():
    """Fails as soon as it is called."""
    raise OSError("no such weights")


def _classifier(initializer):
    return _compiled([keras.layers.Dense(6, "relu", kernel_initializer=initializer)])


def _compiled(hidden, **options):
    kernel = hidden[0].kernel_initializer
    head = keras.layers.Dense(CLASSES, "softmax", kernel_initializer=kernel)
    model = keras.Sequential([keras.Input((4,)), *hidden, head])
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.3), loss, metrics=["accuracy"], **options)
    return model
