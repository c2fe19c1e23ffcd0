"""What one part of the package has done, no other part calls a fault."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_initlab as initlab
from keras_initlab import audit, calibrate, probe, recommend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 64)).astype("float32")


def stack(*activations, width=32, **others):
    hidden = [layers.Dense(width, one, **others) for one in activations]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def images(*parts, channels=16):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(5)]
    return keras.Sequential([keras.Input((12, 12, channels)), *parts, *head])


def loaded(model):
    """A copy whose weights come from nobody knows where."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


# ---- audit ----------------------------------------------------------------------

MODELS = {
    "sigmoid, tanh": lambda: stack("sigmoid", "tanh", "tanh"),
    "sigmoid, relu": lambda: stack("sigmoid", "relu", "relu"),
    "softplus, tanh": lambda: stack("softplus", "tanh"),
    "deep relu": lambda: stack(*["relu"] * 30, width=16),
    "deep sigmoid": lambda: stack(*["sigmoid"] * 12, width=16),
    "orthogonal layers": lambda: stack(*["relu"] * 2, kernel_initializer="orthogonal"),
    "depthwise": lambda: images(
        layers.DepthwiseConv2D(3, activation="sigmoid", depth_multiplier=2),
        layers.Conv2D(32, 1, activation="tanh"),
    ),
    "grouped and transposed": lambda: images(
        layers.Conv2D(32, 3, groups=4, strides=2, activation="relu"),
        layers.Conv2DTranspose(4, 4, strides=3, activation="tanh"),
    ),
}
STARTS = {
    "signal": lambda m, x: recommend(m).apply(seed=0),
    "rules": lambda m, x: recommend(m, "rules").apply(seed=0),
    "calibrated": lambda m, x: recommend(m, "calibrated", data=x).apply(seed=0),
    "calibrate": lambda m, x: calibrate(m, x),
    "by channel": lambda m, x: calibrate(m, x, per_channel=True, center_bias=True),
    "orthogonal": lambda m, x: calibrate(m, 50 * x, 7.0, orthogonal=True, seed=0),
}
DAILY = {("sigmoid, tanh", "signal"), ("orthogonal layers", "signal")}
DAILY |= {("depthwise", "rules"), ("softplus, tanh", "by channel")}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        pytest.param(
            name, start, marks=[] if (name, start) in DAILY else pytest.mark.slow
        )
        for name in MODELS
        for start in STARTS
    ],
)
def test_audit_finds_nothing_in_what_was_just_drawn(name, start):
    model = MODELS[name]()
    x = RNG.normal(size=(32, *model.input_shape[1:])).astype("float32")
    STARTS[start](model, x)
    found = audit(model)
    assert (list(found), found.trained) == ([], None)
    if start in ("signal", "rules"):  # what was loaded is judged by its values
        assert not list(audit(loaded(model)))


def test_a_change_after_the_draw_is_judged():
    model = stack("relu", "relu")
    recommend(model).apply(seed=0)
    layer = model.layers[1]
    layer.kernel.assign(20 * layer.kernel)
    (finding,) = audit(model)
    assert (finding.kind, finding.path) == ("scale", layer.kernel.path)


def test_what_keras_draws_anew_is_judged_as_before():
    model = images(layers.DepthwiseConv2D(3, activation="relu"), channels=64)
    (before,) = audit(model)
    initlab.reinitialize(model, seed=0)
    (after,) = audit(model)
    assert (before.kind, before.path) == (after.kind, after.path)


def test_a_calibrated_model_does_not_count_as_trained():
    model = stack("relu", "relu")
    calibrate(model, X, center_bias=True)
    recommend(model).apply(seed=0)
    calibrate(model, X, center_bias=True)
    bias = model.layers[0].bias
    bias.assign(bias + RNG.normal(size=bias.shape))
    with pytest.raises(initlab.TrainedWeightsError):
        recommend(model).apply(seed=0)
    assert audit(model).trained


# ---- probe ----------------------------------------------------------------------


def said(model, *data):
    return {symptom.kind for symptom in probe(model, *data).findings}


@pytest.mark.parametrize("scale", [1e4, 1e-4])
@pytest.mark.parametrize("start", ["recommend", "calibrate"])
def test_inputs_of_any_scale_reach_the_output(scale, start):
    x = scale * X
    model = stack("relu", "relu")
    model.compile("sgd", "mse")
    if start == "recommend":
        recommend(model, data=x).apply(seed=0)
    else:
        calibrate(model, x)
    assert said(model, x, x[:, :10]) == {"input scale"}


def test_inputs_that_vary_little_about_a_large_mean_are_no_vanishing_signal():
    x = 1e3 + 0.1 * X
    model = stack("relu", "relu")
    recommend(model, data=x).apply(seed=0)
    # Each ReLU is on or off for all examples, and for how many it is so is a draw.
    assert said(model, x) - {"dead units"} == {"input scale"}


@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-4])
def test_a_first_kernel_that_loses_the_signal_is_found(scale):
    model = stack("relu", "relu")
    recommend(model, data=scale * X).apply(seed=0)
    kernel = model.layers[0].kernel
    kernel.assign(1e-4 * kernel)
    assert "vanishing signal" in said(model, scale * X) or scale < 1
    kernel.assign(1e8 * kernel)
    assert "exploding signal" in said(model, scale * X) or scale > 1


def words(dim=64, **others):
    given = keras.Input((16,), dtype="int32")
    x = layers.Embedding(5000, dim, **others)(given)
    return keras.Model(given, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


IDS = RNG.integers(0, 200, (8, 16))


def test_rows_of_a_table_are_not_its_units():
    row = probe(words(), IDS)[0].kernel
    assert (row.symmetric_units, row.units) == (0, 64)


def test_units_of_a_table_are_what_all_rows_hold_at_one_place():
    model = words(dim=4)
    table = np.array(model.layers[1].embeddings)
    table[:, 3] = table[:, 1]
    model.layers[1].embeddings.assign(table)
    readers = np.array(model.layers[-1].kernel)
    readers[3] = readers[1]
    model.layers[-1].kernel.assign(readers)
    assert probe(model, IDS)[0].kernel.symmetric_units == 2
    (finding,) = audit(model)
    assert (finding.kind, finding.measured) == ("symmetric units", 1)


class Start(layers.Layer):
    """A class token and places, as vision transformers learn them."""

    def build(self, shape):
        self.token = self.add_weight((1, 1, shape[-1]), "zeros", name="token")
        self.places = self.add_weight((1, shape[1] + 1, shape[-1]), name="places")

    def call(self, x):
        token = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
        return keras.ops.concatenate([token, x], axis=1) + self.places


def no_twins():
    tokens = keras.Input((6, 768))
    many = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(Start()(tokens)))
    yield keras.Model(tokens, layers.Dense(2)(many))
    yield images(layers.DepthwiseConv2D(3), layers.SeparableConv2D(8, 3))
    for cell in (layers.LSTM, layers.GRU):
        rnn = cell(16, recurrent_initializer="zeros")
        yield keras.Sequential([keras.Input((5, 8)), rnn, layers.Dense(2)])


@pytest.mark.parametrize("number", range(4))
def test_no_units_are_twins_by_chance(number):
    model = list(no_twins())[number]
    shape = keras.tree.flatten(model.inputs)[0].shape[1:]
    assert "symmetric units" not in said(model, RNG.normal(size=(8, *shape)))


# ---- what drew a kernel ---------------------------------------------------------


def kernels_of(model, x=X):
    return [w for layer in probe(model, x) for w in layer.weights if w.is_kernel]


def drawn_by(model):
    return [kernel.initializer for kernel in kernels_of(model)]


def fresh():
    return stack("relu", "relu")


pytestmark = pytest.mark.usefixtures("nothing_is_kept")


def test_a_kernel_is_held_against_what_drew_it():
    model = fresh()
    assert drawn_by(model) == ["GlorotUniform"] * 3
    applied = recommend(model).apply(seed=0)
    assert drawn_by(model) == ["LecunNormal", "HeNormal", "HeNormal"]
    for kernel, std in zip(kernels_of(model), (1 / 8, 1 / 4, 1 / 4), strict=True):
        assert kernel.theory_std == pytest.approx(std)
        assert not kernel.is_off_theory
    again = recommend(model, "rules").apply(seed=1)
    assert drawn_by(model) == ["VarianceScaling"] * 3
    again.undo()
    assert drawn_by(model) == ["LecunNormal", "HeNormal", "HeNormal"]
    applied.undo()
    assert drawn_by(model) == ["GlorotUniform"] * 3
    initlab.reinitialize(model, seed=0)
    assert drawn_by(model) == ["GlorotUniform"] * 3
    assert not any(kernel.is_off_theory for kernel in kernels_of(model))
    calibrate(model, 3 * X)  # of a scale that was measured there is no formula
    assert drawn_by(model) == [None] * 3
    assert {kernel.theory_std for kernel in kernels_of(model)} == {None}


def train(model, tmp_path):
    model.compile("sgd", "mse")
    model.fit(X, X[:, :10], verbose=0)
    return model


def assign(model, tmp_path):
    for layer in model.layers:
        values = np.array(layer.kernel)
        values[-1, -1] += 1e-3
        layer.kernel.assign(values)
    return model


def load_weights(model, tmp_path):
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    other = fresh()
    other.load_weights(path)
    return other


def save_and_load(model, tmp_path):
    path = tmp_path / "net.keras"
    model.save(path)
    return keras.models.load_model(path)


LATER = [train, assign, load_weights, save_and_load, lambda m, path: loaded(m)]


@pytest.mark.parametrize("later", LATER, ids=lambda f: f.__name__.strip("<>"))
@pytest.mark.parametrize("is_applied", [True, False])
def test_no_theory_where_nobody_knows_what_drew(later, is_applied, tmp_path):
    model = fresh()
    if is_applied:
        recommend(model).apply(seed=0)
    model = later(model, tmp_path)
    assert drawn_by(model) == [None] * 3
    assert str(probe(model, X)).count("≠") == 1  # in the legend


def test_the_same_values_are_the_same_draw():
    model = fresh()
    recommend(model).apply(seed=0)
    model.set_weights(model.get_weights())
    assert drawn_by(model) == ["LecunNormal", "HeNormal", "HeNormal"]


class Twice(keras.initializers.HeNormal):
    """Says He's scale, and draws twice as large."""

    def __call__(self, shape, dtype=None):
        return 2 * super().__call__(shape, dtype)


def test_a_wrong_initializer_is_told():
    model = stack("relu", "relu", kernel_initializer=Twice())
    off = [kernel.is_off_theory for kernel in kernels_of(model)]
    assert off == [True, True, False]
    assert str(probe(model, X)).count("≠") > 1  # once in the legend


def test_looking_draws_from_nobody_elses_generator():
    generator = keras.random.SeedGenerator(3)
    normal = keras.initializers.HeNormal(seed=generator)
    model = stack("relu", kernel_initializer=normal)
    state = np.array(generator.state)
    assert drawn_by(model)[0] == "HeNormal"  # by the std of its values alone
    np.testing.assert_array_equal(generator.state, state)


@pytest.mark.parametrize("seed", [None, 5])
def test_our_own_draws_are_known_inside_layers_too(seed):
    given = keras.Input((5, 8))
    own = initlab.initializers.Orthogonal(seed=seed)
    x = layers.MultiHeadAttention(2, 4, kernel_initializer=own)(given, given)
    x = layers.Bidirectional(layers.GRU(4, kernel_initializer=own))(x)
    model = keras.Model(given, layers.Dense(3, kernel_initializer=own)(x))
    names = drawn_by_ours = [
        kernel.initializer
        for kernel in kernels_of(model, RNG.normal(size=(4, 5, 8)))
        if "recurrent" not in kernel.path
    ]
    assert set(names) == {"Orthogonal"}, drawn_by_ours


def test_notes_keep_nothing_alive():
    import gc
    import weakref

    from keras_initlab._weights import origins as _origins

    model = fresh()
    recommend(model).apply(seed=0)
    kernel = weakref.ref(model.layers[0].kernel)
    key = id(kernel())
    assert key in _origins._notes
    del model
    keras.backend.clear_session()
    gc.collect()
    assert kernel() is None
    assert key not in _origins._notes


WITHOUT_US = """
import sys
sys.modules["keras_initlab"] = None  # an import of it fails
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], keras.ops.convert_to_numpy(model(np.ones((2, 64), "float32"))))
"""


@pytest.mark.once_a_day
@pytest.mark.seconds
@pytest.mark.parametrize("start", ["signal", "rules", "calibrated", "calibrate"])
def test_a_model_that_was_started_loads_without_this_package(start, tmp_path):
    model = stack(*["relu"] * 5)  # deep enough for initializers of our own
    before = model.to_json()
    STARTS[start](model, X)
    assert model.to_json() == before
    if start != "signal":
        return
    path, found = tmp_path / "net.keras", tmp_path / "found.npy"
    model.save(path)
    command = [sys.executable, "-c", WITHOUT_US, str(path), str(found)]
    subprocess.run(command, check=True, env={**os.environ}, capture_output=True)
    expected = keras.ops.convert_to_numpy(model(np.ones((2, 64), "float32")))
    np.testing.assert_allclose(np.load(found), expected, rtol=1e-5, atol=1e-6)


# ---- widths ---------------------------------------------------------------------


def attending():
    given = keras.Input((9, 64))
    x = layers.MultiHeadAttention(16, 4)(given, given)
    return keras.Model(given, layers.Dense(10)(layers.Dense(64, "relu")(x)))


def squeezing():
    given = keras.Input((8, 8, 32))
    x = layers.Conv2D(32, 1, activation="relu")(given)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(32, 1, activation="sigmoid")(layers.Conv2D(2, 1)(y))
    x = layers.Conv2D(32, 1)(layers.Multiply()([x, y]))
    return keras.Model(given, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def by_heads():
    given = keras.Input((9, 8, 4))
    x = layers.EinsumDense("bthd,hde->bthe", (None, 8, 4), bias_axes="he")(given)
    return keras.Model(given, layers.Dense(10)(layers.Reshape((9, 32))(x)))


WIDE = {
    "depthwise": lambda: images(
        layers.Conv2D(32, 3), layers.DepthwiseConv2D(3), layers.Conv2D(32, 1)
    ),
    "depthwise first": lambda: images(layers.DepthwiseConv2D(3), layers.Conv2D(32, 1)),
    "separable": lambda: images(layers.SeparableConv2D(32, 3), layers.MaxPooling2D()),
    "grouped": lambda: images(
        layers.Conv2D(32, 3, groups=16), layers.Conv2D(32, 3, groups=32)
    ),
    "transposed": lambda: images(
        layers.Conv2DTranspose(32, 3), layers.AveragePooling2D(2), layers.Conv2D(16, 1)
    ),
    "recurrent": lambda: keras.Sequential(
        [
            keras.Input((5, 16)),
            layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
            layers.GRU(16),
            layers.Dense(10),
        ]
    ),
    "attention": attending,
    "heads": by_heads,
    "squeeze and excite": squeezing,
    "words": lambda: keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(5000, 32),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, "relu"),
            layers.Dense(10),
        ]
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_no_bottleneck_is_invented(name):
    model = WIDE[name]()
    assert recommend(model).issues == ()
    assert recommend(model, "rules").issues == ()


@pytest.mark.parametrize("width", [3, 400])
def test_a_bottleneck_behind_a_depthwise_layer_is_told(width):
    model = images(
        layers.Conv2D(32, 3), layers.DepthwiseConv2D(3), layers.Conv2D(width, 1)
    )
    issue = "narrow_bottleneck" if width < 10 else "irregular_width"
    expected = ("irregular_width",) if width > 10 else (issue, "irregular_width")
    assert recommend(model).issues == expected


# ---- comparing ------------------------------------------------------------------


def test_advice_for_another_model_is_refused():
    one = stack("relu")
    advice = recommend(one)
    for other in (stack("relu"), stack("relu", width=64), stack("relu", "relu")):
        text = r"same model. Received: other for 'sequential.*' \(\d kernels\), and"
        with pytest.raises(ValueError, match=text):
            advice.compare(recommend(other))
    assert len(advice.compare(recommend(one, "rules"))) == 2


def test_a_single_example_does_not_tell_what_varies():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    )
    recommend(model).apply(seed=0)
    assert said(model, np.ones((1, 6))) == set()
