"""What a kernel computes is heard, however a layer multiplies by it."""

import threading

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

import keras_initlab
from keras_initlab._keras.kinds import kernels
from keras_initlab._keras.running import Channels, Listener, listening


class Custom(layers.Layer):
    """Multiplies by a weight of its own, as it is told."""

    def __init__(self, shape, product):
        super().__init__()
        self.shape, self.product = shape, product

    def build(self, shape):
        self.weight = self.add_weight(self.shape, "glorot_normal", name="weight")

    def call(self, x):
        return self.product(x, self.weight)


VECTOR, IMAGE = (6,), (9, 9, 4)
# Each with the shape of an example, that of the weight and, in NumPy, the product.
PRODUCTS = {
    "matmul": (VECTOR, (6, 8), ops.matmul, "bi,io->bo"),
    "operator": (VECTOR, (6, 8), lambda x, w: x @ w, "bi,io->bo"),
    "operator, turned": ((6, 5), (8, 6), lambda x, w: w @ x, "bip,oi->bop"),
    "matmul, turned": ((6, 5), (8, 6), lambda x, w: ops.matmul(w, x), "bip,oi->bop"),
    "tensor": (
        VECTOR,
        (6, 8),
        lambda x, w: ops.matmul(x, ops.convert_to_tensor(w)),
        "bi,io->bo",
    ),
    "experts": ((5, 6), (5, 6, 8), lambda x, w: _experts(x, w), "bei,eio->beo"),
    "dot": ((5, 6), (6, 8), ops.dot, "bpi,io->bpo"),
    "tensordot": ((5, 6), (6, 8), lambda x, w: ops.tensordot(x, w, 1), "bpi,io->bpo"),
    "tensordot of axes": (
        (5, 6),
        (8, 6),
        lambda x, w: ops.tensordot(x, w, [[2], [1]]),
        "bpi,oi->bpo",
    ),
    "einsum": (
        (5, 6),
        (2, 6, 4),
        lambda x, w: ops.einsum("bpi,hid->bphd", x, w),
        "bpi,hid->bphd",
    ),
    "einsum, turned": (
        (5, 6),
        (6, 8),
        lambda x, w: ops.einsum("io,bpi->bpo", w, x),
        "bpi,io->bpo",
    ),
}
PATCHES = {
    "conv": (IMAGE, (1, 1, 4, 8), lambda x, w: ops.conv(x, w), "bhwi,xyio->bhwo"),
    "depthwise": (
        IMAGE,
        (1, 1, 4, 2),
        lambda x, w: ops.depthwise_conv(x, w),
        "bhwi,xyim->bhwim",
    ),
    "transposed": (
        IMAGE,
        (1, 1, 8, 4),
        lambda x, w: ops.conv_transpose(x, w, 1),
        "bhwi,xyoi->bhwo",
    ),
}


def _experts(x, w):
    return ops.swapaxes(ops.matmul(ops.swapaxes(x, 0, 1), w), 0, 1)


def numbers(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def in_numpy(x, weight, equation):
    return np.einsum(equation, x.astype("float64"), numbers(weight))


def model_of(example, shape, product, dtype="float32"):
    keras.utils.set_random_seed(1)
    custom = Custom(shape, product)
    return keras.Sequential([Input(example, dtype=dtype), custom]), custom


@pytest.mark.parametrize("kind", [*PRODUCTS, *PATCHES])
def test_a_weight_of_a_custom_layer_is_calibrated(kind):
    example, shape, product, equation = (PRODUCTS | PATCHES)[kind]
    model, custom = model_of(example, shape, product)
    x = normal(64, *example)
    (row,) = keras_initlab.calibrate(model, x)
    assert row.is_changed, row.note
    found = in_numpy(x, custom.weight, equation)
    assert found.std() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("kind", [*PRODUCTS, *PATCHES])
def test_its_channels_are_told_apart(kind):
    example, shape, product, equation = (PRODUCTS | PATCHES)[kind]
    model, custom = model_of(example, shape, product)
    x = normal(64, *example)
    (row,) = keras_initlab.calibrate(model, x, per_channel=True)
    assert row.is_changed, row.note
    found = in_numpy(x, custom.weight, equation)
    own, output = equation.replace("->", ",").split(",")[1:]
    others = tuple(i for i, label in enumerate(output) if label not in own)
    np.testing.assert_allclose(found.std(axis=others), 1, rtol=1e-3)


def looked_up(x, weight):
    return ops.take(weight, x, axis=0)


def picked(x, weight):
    return ops.take(weight, [1, 2], axis=1)


def test_rows_that_are_looked_up():
    model, custom = model_of((5,), (20, 8), looked_up, "int32")
    words = np.random.default_rng(0).integers(0, 20, (64, 5))
    (row,) = keras_initlab.calibrate(model, words)
    assert row.is_changed, row.note
    assert numbers(custom.weight)[words].std() == pytest.approx(1, rel=1e-3)


def test_columns_that_are_picked_are_no_product():
    model, _ = model_of((5,), (20, 8), picked)
    (row,) = keras_initlab.calibrate(model, normal(64, 5))
    assert not row.is_changed
    assert row.note == "no product with it was heard"


def test_half_precision():
    keras.utils.set_random_seed(0)
    custom = Custom((6, 8), ops.matmul)
    custom.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential([Input(VECTOR), custom])
    x = normal(512, 6)
    (row,) = keras_initlab.calibrate(model, x)
    assert row.is_changed, row.note
    assert in_numpy(x, custom.weight, "bi,io->bo").std() == pytest.approx(1, rel=0.02)


class Heard(Listener):
    def __init__(self, found):
        super().__init__(found)
        self.products = []

    def on_product(self, product):
        self.products.append(product)
        return product.output


class Squared(layers.Dense):
    """Keras's layer, which uses its kernel unheard before it is heard."""

    def call(self, x):
        return ops.matmul(ops.matmul(x, ops.transpose(self.kernel)), self.kernel)


class LowRank(layers.Layer):
    """Multiplies by a product of weights."""

    def __init__(self, turns):
        super().__init__()
        self.turns = turns

    def build(self, shape):
        size = (8, shape[-1]) if not self.turns else (shape[-1], 8)
        self.down = self.add_weight((shape[-1], 8), "glorot_normal", name="down")
        self.up = self.add_weight(size, "glorot_normal", name="up")

    def call(self, x):
        return x @ (self.down @ (ops.transpose(self.up) if self.turns else self.up))


OUT_OF_PROPORTION = {
    "squared": lambda: Squared(16),
    "square of its own": lambda: Custom(
        (16, 16), lambda x, w: ops.matmul(x, ops.matmul(w, ops.transpose(w)))
    ),
    "turned, then plain": lambda: Custom(
        (16, 16), lambda x, w: ops.matmul(ops.matmul(x, ops.transpose(w)), w)
    ),
    "doubled, then plain": lambda: Custom(
        (16, 16), lambda x, w: ops.matmul(ops.matmul(x, w * 2.0), w)
    ),
    "low rank": lambda: LowRank(False),
    "low rank, turned": lambda: LowRank(True),
    "by its value": lambda: Custom((16, 16), lambda x, w: ops.matmul(x, w.value)),
}


@pytest.mark.parametrize("kind", OUT_OF_PROPORTION)
def test_what_does_not_compute_in_proportion_is_left(kind):
    keras.utils.set_random_seed(0)
    layer, last = OUT_OF_PROPORTION[kind](), layers.Dense(4)
    model, x = keras.Sequential([Input((16,)), layer, last]), normal(64, 16)
    before = [numbers(variable) for variable in layer.weights]
    *own, head = keras_initlab.calibrate(model, x)
    for row in own:
        assert not row.is_changed
        assert "is not known" in row.note or "in proportion" in row.note
    for variable, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(numbers(variable), value)
    assert head.is_changed
    products = numbers(layer(x)) @ numbers(last.kernel)
    assert products.std() == pytest.approx(1, rel=1e-3)


def test_threads_calibrate_side_by_side():
    def built():
        return keras.Sequential([Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])

    x, models, errors = normal(64, 6), [built() for _ in range(3)], []

    def run(model):
        try:
            for _ in range(4):
                keras_initlab.calibrate(model, x, overwrite=True)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for model in models:
        z = x @ numbers(model.layers[0].kernel)
        assert z.std() == pytest.approx(1, rel=1e-3)


def test_axes_that_dots_stand_for():
    layer = Custom((4, 6, 3), lambda x, w: ops.einsum("...i,...io->...o", x, w))
    layer.build((None, 4, 6))
    listener = Heard(kernels(layer))
    with listening(layer, listener):
        layer(normal(8, 4, 6))
    assert [product.channels for product in listener.products] == [Channels((), ())]


def run_and_fail(model, listener):
    with listening(model, listener):
        model(normal(4, 6))
        raise KeyError


def test_nothing_is_left_behind():
    model, _ = model_of(VECTOR, (6, 8), lambda x, w: x @ w)
    modules = (keras.src.backend.numpy, keras.src.backend.nn)
    before = [dict(vars(module)) for module in modules]
    tensor = type(ops.zeros(1))
    operator = tensor.__matmul__
    listener = Heard(kernels(model))
    with pytest.raises(KeyError):
        run_and_fail(model, listener)
    assert len(listener.products) == 1
    assert before == [dict(vars(module)) for module in modules]
    assert tensor.__matmul__ is operator or tensor.__matmul__ == operator
    model(normal(4, 6))
    assert len(listener.products) == 1


def test_other_threads_are_not_heard():
    model, _ = model_of(VECTOR, (6, 8), lambda x, w: x @ w)
    listener, results = Heard(kernels(model)), []

    def run():
        results.append(numbers(model(normal(4, 6))))

    with listening(model, listener):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert listener.products == []
    np.testing.assert_allclose(results[0], numbers(model(normal(4, 6))), rtol=1e-6)


def test_an_operation_within_another_is_not_heard():
    layer = layers.SeparableConv2D(8, 3)
    layer.build((None, 9, 9, 4))
    listener = Heard(kernels(layer))
    with listening(layer, listener):
        layer(normal(2, 9, 9, 4))
    names = [product.kernel.name for product in listener.products]
    assert names == ["depthwise_kernel", "pointwise_kernel"]
