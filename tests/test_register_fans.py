"""Custom layers that say themselves what the axes of their kernels mean."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab import fans, recommend, register_fans
from keras_initlab._core.errors import UnknownLayerWarning
from keras_initlab._keras.kinds import KernelAxes
from keras_initlab.initializers import AdaptiveHe, FanInBias

MIXING = KernelAxes(inputs=(2,), outputs=(1,))


class Mixer(layers.Layer):
    """One matrix (outputs, inputs) a head, so axis 0 counts on neither side."""

    def __init__(self, heads=2, units=48, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.units = heads, units
        self.kernel_initializer = AdaptiveHe(depth=0, activation="linear", seed=5)

    def build(self, input_shape):
        self.mixing = self.add_weight(
            (self.heads, self.units, input_shape[-1]),
            self.kernel_initializer,
            name="mixing",
        )
        self.bias = self.add_weight((self.units,), FanInBias(seed=1), name="bias")

    def call(self, x):
        return ops.einsum("bi,hoi->bo", x, self.mixing) / self.heads**0.5 + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)


class Special(Mixer):
    pass


class Unregistered(layers.Layer):
    def __init__(self, shape=(4, 6), **kwargs):
        super().__init__(**kwargs)
        self.shape = shape

    def build(self, input_shape):
        self.matrix = self.add_weight(self.shape, "zeros", name="matrix")

    def call(self, x):
        return x @ self.matrix


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    from keras_initlab._keras.kinds import _records

    monkeypatch.setattr(_records, "_registered", {})
    monkeypatch.setattr(_records, "_known", {})


def built(layer, width=16):
    layer.build((None, width))
    return layer


def only_fans(layer):
    (found,) = fans(layer).values()
    return tuple(found)


def has_std(kernel, std):
    kernel = ops.convert_to_numpy(kernel)
    return abs(kernel.std() / std - 1) < 5 / (2 * kernel.size) ** 0.5


def test_as_a_function():
    assert register_fans(Mixer, given := lambda layer: {"mixing": MIXING}) is given
    assert only_fans(built(Mixer())) == (16, 48)


def test_as_a_decorator():
    @register_fans(Mixer)
    def mixer_fans(layer):
        return {"mixing": MIXING}

    assert mixer_fans(None) == {"mixing": MIXING}
    assert only_fans(built(Mixer())) == (16, 48)


def test_without_it_keras_rule_holds_with_a_warning():
    layer = built(Mixer())
    with pytest.warns(UnknownLayerWarning, match=r"'.*/mixing' \(2, 48, 16\)"):
        assert only_fans(layer) == (96, 32)
    assert has_std(layer.mixing, 96**-0.5)
    assert not has_std(layer.mixing, 16**-0.5)


def test_the_function_reads_the_settings_of_the_layer():
    register_fans(
        Mixer,
        lambda layer: {
            "mixing": KernelAxes((2,), (1,), upsampling=layer.heads, gates=layer.heads)
        },
    )
    assert only_fans(built(Mixer(heads=2))) == (8, 24)
    assert only_fans(built(Mixer(heads=4))) == (4, 12)


@pytest.mark.parametrize("way", ["build", "data", "Input", "traced"])
def test_initializers_in_the_layer_follow_it(way):
    register_fans(Mixer, lambda layer: {"mixing": MIXING})
    layer = Mixer()
    x = np.ones((2, 16), "float32")
    if way == "build":
        built(layer)
    elif way == "traced":
        keras.layers.TimeDistributed(layer)(x[None])
    else:
        layer(x if way == "data" else keras.Input((16,)))
    assert has_std(layer.mixing, 16**-0.5)
    assert not has_std(layer.mixing, 96**-0.5)
    bias = ops.convert_to_numpy(layer.bias)
    assert 0.125 < abs(bias).max() <= 0.25


def test_recommend_knows_the_layer():
    register_fans(Mixer, lambda layer: {"mixing": MIXING})
    model = keras.Sequential(
        [keras.Input((16,)), Mixer(), layers.ReLU(), layers.Dense(8)]
    )
    advice = recommend(model)
    (row,) = (row for row in advice if row.path.endswith("mixing"))
    applied = advice.apply(seed=0)
    assert row.path in applied.changed
    kernel = ops.convert_to_numpy(model.layers[0].mixing)
    assert has_std(kernel, 16**-0.5)  # LeCun's scale, for a first kernel


def test_subclasses_inherit_it_and_may_override_it():
    register_fans(Mixer, lambda layer: {"mixing": MIXING})
    assert only_fans(built(Special())) == (16, 48)
    register_fans(Special, lambda layer: {"mixing": KernelAxes((1,), (2,))})
    assert only_fans(built(Special())) == (48, 16)
    assert only_fans(built(Mixer())) == (16, 48)


def test_the_last_registration_counts():
    register_fans(Mixer, lambda layer: {"mixing": MIXING})
    register_fans(Mixer, lambda layer: {"mixing": KernelAxes((1,), (2,))})
    assert only_fans(built(Mixer())) == (48, 16)


def test_it_wins_over_the_rule_for_a_class_of_keras():
    class Flipped(layers.Dense):
        pass

    register_fans(Flipped, lambda layer: {"kernel": KernelAxes((1,), (0,))})
    assert only_fans(built(Flipped(8))) == (8, 16)
    assert only_fans(built(layers.Dense(8))) == (16, 8)


def test_a_layer_may_have_no_kernels():
    layer = built(Mixer())
    register_fans(Mixer, lambda layer: {})
    assert fans(layer) == {}


def test_names_that_are_not_there_count_for_nothing():
    register_fans(Mixer, lambda layer: {"mixing": MIXING, "optional": MIXING})
    assert only_fans(built(Mixer())) == (16, 48)


@pytest.mark.parametrize(
    ("returned", "received"),
    [
        (None, "None for Mixer"),
        ([("mixing", MIXING)], r"\[\('mixing', KernelAxes"),
        ({"mixing": (16, 48)}, r"\{'mixing': \(16, 48\)\} for Mixer"),
        ({0: MIXING}, r"\{0: KernelAxes"),
    ],
)
def test_bad_returns(returned, received):
    layer = built(Mixer())
    register_fans(Mixer, lambda layer: returned)
    with pytest.raises(TypeError, match=f"must return a dict.*Received: {received}"):
        fans(layer)
    with pytest.raises(TypeError, match=received):
        built(Mixer())


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ((Mixer(), len), "`layer_class` must .*layer_class=<Mixer name="),
        ((int, len), "layer_class=<class 'int'>"),
        (("Mixer",), "layer_class='Mixer'"),
        ((Mixer, 3), "`function` must be callable. Received: function=3"),
        ((Mixer, {"mixing": MIXING}), "function={'mixing'"),
    ],
)
def test_bad_arguments(arguments, received):
    with pytest.raises(TypeError, match=received):
        register_fans(*arguments)


def test_an_error_of_the_function_is_told_as_it_is():
    layer = built(Mixer())

    @register_fans(Mixer)
    def failing(layer):
        raise ZeroDivisionError("no such luck")

    for ask in (fans, recommend_alone, lambda layer: built(Mixer())):
        with pytest.raises(ZeroDivisionError, match="no such luck"):
            ask(layer)
    # Nothing of it stays behind.
    assert has_std(built(layers.Dense(64, kernel_initializer="he_normal")).kernel, 0.35)


def recommend_alone(layer):
    recommend(keras.Sequential([keras.Input((16,)), layer]))


def test_axes_beyond_the_kernel_are_refused():
    register_fans(Mixer, lambda layer: {"mixing": KernelAxes((3,), (1,))})
    with pytest.raises(IndexError):
        built(Mixer())


def test_one_warning_names_all_unknown_kernels():
    model = keras.Sequential(
        [keras.Input((4,)), Unregistered(), layers.Dense(3), Unregistered((3, 2))]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fans(model)
    assert len(found) == 3
    (warning,) = caught
    assert warning.category is UnknownLayerWarning
    text = str(warning.message)
    assert text.count("/matrix'") == 2
    assert "(4, 6) in a Unregistered" in text
    assert "(3, 2) in a Unregistered" in text
    assert "register_fans" in text
    assert "dense" not in text
    assert warning.filename == __file__


def test_every_call_warns():
    layer = built(Unregistered(), 4)
    for _ in range(2):
        with pytest.warns(UnknownLayerWarning, match="matrix"):
            fans(layer)


def test_no_warning_for_known_layers():
    register_fans(Unregistered, lambda layer: {"matrix": KernelAxes((0,), (1,))})
    image = keras.Input((8, 8, 4))
    x = layers.SeparableConv2D(6, 3)(image)
    x = layers.BatchNormalization()(x)
    x = layers.PReLU(shared_axes=(1, 2))(x)
    x = layers.Reshape((-1, 6))(x)
    x = layers.LayerNormalization()(x)
    x = layers.Bidirectional(layers.GRU(2))(x)
    model = keras.Model(image, Unregistered()(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fans(model)) == 7
