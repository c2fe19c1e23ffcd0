"""Planted faults are found by path, and sound weights give no alarm."""

import json

import applications
import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits
from zoo import ZOO, built

import keras_initlab as initlab
from keras_initlab import audit, recommend
from keras_initlab.diagnosis import KINDS

pytestmark = pytest.mark.slow_on_jax

WIDTH = 32


def sound(seed=0):
    """A small convolutional network with all initialized rightly."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(WIDTH, 3, activation="relu", name="conv"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.Conv2DTranspose(WIDTH, 3, activation="relu", name="transposed"),
            layers.BatchNormalization(name="norm"),
            layers.Reshape((-1, WIDTH)),
            layers.LSTM(WIDTH, name="lstm"),
            layers.Dense(WIDTH, "relu", name="zeroth"),
            layers.Dense(WIDTH, "relu", name="first"),
            layers.Dense(WIDTH, "relu", name="second"),
            layers.Dense(3, name="head"),
        ],
        name="net",
    )
    recommend(model).apply(seed=seed)
    return model


def attention():
    """Self-attention with all initialized rightly."""
    given = keras.Input((8, WIDTH))
    attend = layers.MultiHeadAttention(4, WIDTH // 4, name="attention")
    out = layers.Dense(3, name="head")(attend(given, given))
    model = keras.Model(given, out, name="net")
    recommend(model).apply(seed=0)
    return model


def written(name, change):
    """A sound model in which one variable of a layer is written over."""

    def make():
        model = sound()
        path, _, part = name.partition("/")
        layer = model.get_layer(path)
        owner = layer.cell if path == "lstm" else layer
        variable = getattr(owner, part)
        variable.assign(change(np.array(keras.ops.convert_to_numpy(variable))))
        return model

    return make


def with_value(value):
    def change(kernel):
        kernel[1, 1] = value
        return kernel

    return change


def copied(kernel):
    kernel[:, 5] = kernel[:, 2]
    return kernel


def spectrum(kernel):
    """Orthogonal as a whole, like Keras's, and not gate by gate."""
    draw = np.random.default_rng(0).normal(size=kernel.shape)
    return np.linalg.qr(draw.T)[0].T


def same_instance():
    model = sound()
    kernel = model.get_layer("first").get_weights()[0]
    model.get_layer("second").kernel.assign(kernel)
    return model


def same_directions():
    wrapper = layers.Bidirectional(layers.GRU(WIDTH, name="gru"), name="both")
    model = keras.Sequential([keras.Input((4, WIDTH)), wrapper], name="net")
    recommend(model).apply(seed=0)
    kernel = wrapper.forward_layer.cell.kernel
    wrapper.backward_layer.cell.kernel.assign(kernel)
    return model


def same_projections():
    model = attention()
    attend = model.get_layer("attention")
    for other in (attend.key_dense, attend.value_dense):
        other.kernel.assign(attend.query_dense.kernel)
    return model


def plain_orthogonal_attention():
    """Keras's orthogonal kernel (inputs, heads, units) is so for each input alone."""
    model = attention()
    attend = model.get_layer("attention")
    attend.query_dense.kernel_initializer = keras.initializers.Orthogonal()
    draw = np.random.default_rng(0).normal(size=(WIDTH * 4, WIDTH // 4))
    kernel = np.linalg.qr(draw)[0].reshape(WIDTH, 4, WIDTH // 4)
    attend.query_dense.kernel.assign(kernel)
    return model


def normal(std):
    return lambda kernel: np.random.default_rng(0).normal(0, std, kernel.shape)


# A name, what plants it, and `kind: path` of what is to be found, nothing else.
FAULTS = {
    "NaN": (
        written("first/kernel", with_value(np.nan)),
        "not finite: net/first/kernel",
    ),
    "infinity": (
        written("second/kernel", with_value(np.inf)),
        "not finite: net/second/kernel",
    ),
    "NaN in a statistic": (
        written("norm/moving_mean", lambda value: value * np.nan),
        "not finite: net/norm/moving_mean",
    ),
    "ones": (written("first/kernel", np.ones_like), "constant: net/first/kernel"),
    "zeros": (written("second/kernel", np.zeros_like), "constant: net/second/kernel"),
    "copied unit": (
        written("first/kernel", copied),
        "symmetric units: net/first/kernel",
    ),
    "one instance": (same_instance, "identical kernels: net/first/kernel"),
    "Q = K = V": (same_projections, "identical kernels: attention/query/kernel"),
    "forward = backward": (
        same_directions,
        "identical kernels: net/both/forward_gru/gru_cell/kernel",
    ),
    "depthwise as Keras starts it": (  # Glorot's uniform by the fans 9·32 and 9
        written("depthwise/kernel", normal(np.sqrt(2 / (9 * 33)))),
        "scale: net/depthwise/kernel",
    ),
    "transposed by swapped fans": (  # unit gain on 3 inputs, read as 32
        lambda: narrowing(),
        "scale: net/transposed/kernel",
    ),
    "far too large": (written("first/kernel", normal(1.0)), "scale: net/first/kernel"),
    "far too small": (
        written("second/kernel", normal(1e-3)),
        "scale: net/second/kernel",
    ),
    "gates as Keras starts them": (
        written("lstm/recurrent_kernel", spectrum),
        "orthogonality: net/lstm/lstm_cell/recurrent_kernel",
    ),
    "attention's orthogonal kernel": (
        plain_orthogonal_attention,
        "orthogonality: attention/query/kernel",
    ),
    "bias": (written("second/bias", np.ones_like), "bias: net/second/bias"),
    "bias of a convolution": (
        written("conv/bias", lambda value: value + 0.1),
        "bias: net/conv/bias",
    ),
}


def narrowing():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 256)),
            layers.Conv2DTranspose(8, 3, name="transposed"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name="net",
    )
    recommend(model).apply(seed=0)
    layer = model.get_layer("transposed")
    layer.kernel.assign(normal(1 / np.sqrt(9 * 8))(np.zeros(layer.kernel.shape)))
    return model


def named(model):
    """What an audit finds, without the automatic numbers of models."""
    return [f"{finding.kind}: {finding.path}" for finding in audit(model)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_path_and_nothing_else(name):
    plant, expected = FAULTS[name]
    (found,) = named(plant())
    assert found == expected or found == expected.replace(": ", ": net/")


def stacked(*parts, shape):
    return keras.Sequential([keras.Input(shape), *parts], name="net")


def attending(initializer):
    given = keras.Input((8, WIDTH))
    attend = layers.MultiHeadAttention(
        4, WIDTH // 4, kernel_initializer=initializer, name="attention"
    )
    return keras.Model(given, attend(given, given), name="net")


def one_for_all():
    shared = keras.initializers.GlorotUniform()
    stack = [layers.Dense(WIDTH, "relu", kernel_initializer=shared) for _ in range(3)]
    return stacked(*stack, shape=(WIDTH,))


def both_ways():
    seeded = keras.initializers.GlorotUniform(seed=1)
    gru = layers.GRU(WIDTH, kernel_initializer=seeded, recurrent_initializer="zeros")
    return stacked(layers.Bidirectional(gru), shape=(4, WIDTH))


# What Keras itself makes of initializers, without any planting.
TRAPS = {
    "depthwise": (
        lambda: stacked(layers.DepthwiseConv2D(3), layers.Dense(3), shape=(6, 6, 64)),
        {"scale": "its fan_in is 9, Keras counts 576"},
    ),
    "separable": (
        lambda: stacked(layers.SeparableConv2D(64, 3), shape=(6, 6, 64)),
        {"scale": "its fan_in is 9, Keras counts 576"},
    ),
    "as many groups as channels": (
        lambda: stacked(
            layers.Conv2D(256, 3, groups=256), layers.Dense(3), shape=(6, 6, 256)
        ),
        {"scale": "its fan_out is 9, Keras counts 2304"},
    ),
    "transposed": (
        lambda: stacked(
            layers.Conv2DTranspose(3, 3, kernel_initializer="lecun_normal"),
            shape=(6, 6, 64),
        ),
        {"scale": "its fan_in is 576, Keras counts 27"},
    ),
    "gates": (
        lambda: stacked(layers.LSTM(WIDTH), shape=(4, WIDTH)),
        {"orthogonality": "its 4 gates"},
    ),
    "Q = K = V": (
        lambda: attending(keras.initializers.GlorotUniform(seed=1)),
        {"identical kernels": "key/kernel"},
    ),
    "orthogonal attention": (
        lambda: attending("orthogonal"),
        {"orthogonality": "its matrix"},
    ),
    "a shared instance": (one_for_all, {"identical kernels": "dense"}),
    "forward = backward": (both_ways, {"identical kernels": "backward_gru"}),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps_of_keras_itself_are_found(name):
    make, expected = TRAPS[name]
    found = [f for f in audit(make()) if f.kind != "constant"]
    assert {finding.kind for finding in found} == set(expected)
    for finding in found:
        assert expected[finding.kind] in finding.text


def test_every_kind_is_planted():
    found = {expected.partition(":")[0] for _, expected in FAULTS.values()}
    assert found == {
        "not finite",
        "constant",
        "symmetric units",
        "identical kernels",
        "scale",
        "orthogonality",
        "bias",
    }
    assert found <= set(KINDS)


def test_what_is_measured():
    (finding,) = audit(FAULTS["depthwise as Keras starts it"][0]())
    # 9 products of variance 2/297; Keras takes the kernel's second axis for inputs.
    assert finding.measured == pytest.approx(np.sqrt(18 / 297), rel=0.15)
    assert finding.expected[0] == pytest.approx(1 / 3)
    assert "fan_in is 9, Keras counts 288" in finding.text
    (finding,) = audit(same_projections())
    assert [path.split("/")[-2] for path in finding.related] == ["key", "value"]
    assert finding.measured == 3
    model = FAULTS["gates as Keras starts them"][0]()
    (finding,) = audit(model)
    kernel = np.array(model.get_layer("lstm").cell.recurrent_kernel)
    singular = [np.linalg.svd(gate)[1] for gate in np.split(kernel, 4, axis=1)]
    worst = min(values[-1] / values[0] for values in singular)
    assert finding.measured == pytest.approx(worst, rel=1e-4)


@pytest.mark.parametrize("name", ["ones", "copied unit", "bias", "far too large"])
def test_the_cure_cures(name):
    model = FAULTS[name][0]()
    (finding,) = audit(model)
    scope = {"recommend": recommend, "model": model}
    exec(finding.cure.partition(", or ")[0], scope)
    assert not audit(model)


def test_a_table_to_read():
    text = repr(audit(same_projections()))
    assert "net: 5 kernels, fresh weights" in text
    for part in ("identical kernels", "cure: "):
        assert part in text
    assert "nothing found" in repr(audit(sound()))


def test_as_json():
    found = json.loads(audit(FAULTS["bias"][0]()).to_json())
    assert (found["trained"], found["kernels"]) == (None, 9)
    (finding,) = found["findings"]
    assert (finding["kind"], finding["path"]) == ("bias", "net/second/bias")
    assert finding["related"] == ["net/second/kernel"]
    assert (finding["measured"], finding["expected"]) == (1.0, [0.0, 0.0])


def test_many_cures_are_cut_short():
    model = keras.Sequential([keras.Input((8,)), *(layers.Dense(8) for _ in range(9))])
    for layer in model.layers:
        layer.kernel.assign(100 * np.random.default_rng(0).normal(size=(8, 8)) * 0 + 7)
    assert len(audit(model)) >= 8
    assert "more: `finding.cure` of each" in repr(audit(model))


SOUND = {"network": sound, "attention": attention}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("seed", [0, 1])
def test_sound_weights_give_no_alarm(name, seed):
    assert named(SOUND[name]()) == []


# Among them a weight for each channel and a convolution over time.
QUICK = {"convnext", "conv_lstm", *[*ZOO][::9]}


@pytest.mark.parametrize("name", sorted(QUICK))
def test_no_alarm_on_a_model_initialized_rightly(name):
    check_sound(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in QUICK])
def test_no_alarm_on_any_model_initialized_rightly(name):
    check_sound(name)


def check_sound(name):
    model = built(name)
    recommend(model).apply(seed=0, overwrite=True)
    assert named(model) == []


def digits():
    data = load_digits()
    return (data.data / 8 - 1).astype("float32"), data.target


def training(name):
    if name == "dense":
        return [layers.Dense(64, "relu"), layers.Dense(64, "relu")]
    if name == "without biases":
        return [layers.Dense(64, "relu", use_bias=False) for _ in range(2)]
    if name == "recurrent":
        return [layers.Reshape((8, 8)), layers.LSTM(24)]
    return [
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.Flatten(),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "without biases",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("dense", "recurrent", "convolutions")
        ),
    ],
)
def test_no_alarm_on_a_trained_model(name):
    x, y = digits()
    bias = name != "without biases"
    head = layers.Dense(10, use_bias=bias)
    model = keras.Sequential([keras.Input((64,)), *training(name), head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(x, y, 64, epochs=6, verbose=0)
    assert audit(model).trained == "its optimizer has taken 174 steps"
    model.optimizer.iterations.assign(0)  # as in a model saved without it
    found = audit(model)
    assert list(found) == []
    assert found.trained or name == "without biases"  # too short to tell


def as_inputs(entry, images):
    """Digits as what a model of the zoo takes: 17 shades of gray as pixels or words."""

    def of(shape):
        resized = np.resize(images, (len(images), *shape))
        if entry.tokens:
            return resized.astype("int32")
        return (resized / 8 - 1).astype("float32")

    return keras.tree.map_shape_structure(of, entry.shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ZOO if ZOO[n].is_called])
def test_no_alarm_on_the_zoo_trained_on_digits(name):
    """Each output learns the digit; biases and scales go where they must."""
    entry = ZOO[name]
    data = load_digits()
    images, labels = data.data[:512], data.target[:512]
    model, x = entry.build(), as_inputs(entry, images)

    def target(output):
        shape = (-1, *[1] * (len(output.shape) - 1))
        return np.broadcast_to(labels.reshape(shape) / 9, output.shape)

    y = keras.tree.map_structure(target, model.predict(x, 128, verbose=0))
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model.fit(x, y, 32, epochs=4, verbose=0)
    assert list(audit(model)) == []
    model.optimizer.iterations.assign(0)  # as in a model saved without it
    found = audit(model)
    assert [f for f in found if f.kind not in ("scale", "orthogonality")] == []
    assert found.trained or not list(found)


def loaded(model):
    """A copy whose weights come from nobody knows where."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def is_depthwise(layer):
    names = ("DepthwiseConv2D", "SeparableConv2D")
    return type(layer).__name__ in names or getattr(layer, "groups", 1) > 1


@pytest.mark.parametrize("policy", ["signal", "calibrated"])
@pytest.mark.parametrize("preprocessing", [None, layers.Rescaling(1 / 2550)])
def test_inputs_that_are_not_standardized(policy, preprocessing):
    x = np.random.default_rng(0).uniform(0, 255, (64, WIDTH)).astype("float32")
    first = [] if preprocessing is None else [preprocessing]
    parts = [layers.Dense(WIDTH, "relu", name=name) for name in ("first", "second")]
    model = stacked(*first, *parts, shape=(WIDTH,))
    recommend(model, policy, data=x).apply(seed=0)
    assert not audit(model)  # that is what it was drawn for
    model = loaded(model)
    (finding,) = audit(model)
    assert (finding.kind, finding.path) == ("scale", "net/first/kernel")
    assert "if the inputs are not standardized, hand them over" in finding.text
    assert not audit(model, x)
    second = model.get_layer("second").kernel
    second.assign(20 * second)
    (finding,) = audit(model, x)
    assert finding.path == "net/second/kernel"
    assert "inputs" not in finding.text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", applications.NAMES)
def test_applications_as_keras_starts_them(name):
    """Found is what is true: depthwise kernels by Glorot on Keras's fans, and narrow
    squeezes by He on fan_out. What `recommend` draws gives no alarm."""
    model = getattr(keras.applications, name)(weights=None)
    for finding in audit(model):
        layer = model.get_layer(finding.path.split("/")[-2])
        assert finding.kind == "scale"
        assert is_depthwise(layer) or "_se_reduce" in layer.name, finding
    recommend(model).apply(seed=0)
    assert named(model) == []


def test_a_broken_weight_is_found_in_a_trained_model_too():
    model = sound()
    model.compile("sgd", "mse")
    model.optimizer.iterations.assign(7)
    model.get_layer("first").kernel.assign(np.full((WIDTH, WIDTH), np.nan))
    model.get_layer("second").kernel.assign(1e6 * np.eye(WIDTH))  # left to training
    assert named(model) == ["not finite: net/first/kernel"]
    assert audit(model).trained == "its optimizer has taken 7 steps"


def test_the_cure_of_a_bias_cures_it():
    constant = keras.initializers.Constant(-2.0)
    for given, cure in ((constant, "build 'first' with bias_init"), ("zeros", "apply")):
        first = layers.Dense(64, "relu", bias_initializer=given, name="first")
        model = keras.Sequential([keras.Input((32,)), first, layers.Dense(10)])
        first.bias.assign(-2 * np.ones(64))
        (finding,) = audit(model)
        assert cure in finding.cure
        if cure == "apply":
            recommend(model).apply(only=[first.kernel.path], overwrite=True)
            assert not audit(model)


@pytest.mark.parametrize(
    "bias",
    [
        initlab.initializers.FanInBias(seed=0),
        keras.initializers.Zeros(),
        keras.initializers.RandomUniform(-0.1, 0.1, seed=0),  # at most 1/√64
    ],
)
def test_known_biases_are_no_fault(bias):
    hidden = [layers.Dense(64, "relu", bias_initializer=bias) for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(3)])
    assert named(model) == []


def test_textbook_initializers_are_no_fault():
    names = ["glorot_uniform", "glorot_normal", "he_normal", "he_uniform"]
    names += ["lecun_normal", "lecun_uniform", "orthogonal"]
    for name in names:
        sizes = (64, 256, 64, 512, 64)
        hidden = [layers.Dense(n, "relu", kernel_initializer=name) for n in sizes]
        model = keras.Sequential([keras.Input((128,)), *hidden, layers.Dense(10)])
        assert named(model) == [], name


def test_zeros_where_they_are_a_choice():
    given = keras.Input((WIDTH,))
    x = layers.Dense(WIDTH, "relu")(given)
    for _ in range(2):
        y = layers.Dense(WIDTH, "relu")(x)
        x = x + layers.Dense(WIDTH, kernel_initializer="zeros")(y)
    model = keras.Model(given, layers.Dense(3, kernel_initializer="zeros")(x))
    assert named(model) == []


def test_equal_frozen_kernels_are_a_choice():
    model = same_instance()
    model.get_layer("second").trainable = False
    assert named(model) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_other_types_of_numbers(dtype):
    hidden = [layers.Dense(WIDTH, "relu", dtype=dtype) for _ in range(2)]
    head = layers.Dense(3, dtype=dtype)
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, head])
    assert named(model) == []
    kernel = hidden[1].kernel
    kernel.assign(np.ones(kernel.shape))
    (found,) = audit(model)
    assert found.kind == "constant"


def test_the_model_is_only_looked_at():
    model = sound()
    before = [np.array(value) for value in model.get_weights()]
    audit(model)
    for former, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(former, now)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (3, TypeError, "Keras layer or model.*model=3"),
        (keras.Sequential([layers.Dense(3)]), initlab.UnbuiltModelError, "not built"),
        (
            keras.Sequential([keras.Input((3,)), layers.ReLU()], name="bare"),
            initlab.NoKernelsError,
            "a layer with a kernel.*model='bare'",
        ),
    ],
)
def test_bad_models(model, error, text):
    with pytest.raises(error, match=text):
        audit(model)


def test_kernels_of_integers_are_not_judged():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8)], name="packed")
    model.layers[0].quantize("int8")
    with pytest.raises(
        initlab.NoKernelsError, match=r"'packed'.*kernels in int8 alone"
    ):
        audit(model)


# --- What authors mean ---------------------------------------------------------------


def controlled():
    """A convolution of zeros that begins to control another network."""
    image, control = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    zeros = layers.Conv2D(4, 1, kernel_initializer="zeros")
    x = layers.Conv2D(4, 3, padding="same")(image) + zeros(
        layers.Conv2D(4, 3, padding="same")(control)
    )
    return keras.Model([image, control], layers.Dense(2)(layers.Flatten()(x)))


def modulated():
    """Adaptive normalization that begins as none."""
    inputs, condition = keras.Input((8, 16)), keras.Input((4,))
    both = layers.Dense(32, kernel_initializer="zeros")(condition)
    scale, shift = keras.ops.split(both[:, None], 2, axis=-1)
    x = layers.LayerNormalization()(layers.Dense(16)(inputs)) * (1 + scale) + shift
    return keras.Model([inputs, condition], layers.Dense(3)(layers.Dense(16)(x)))


def highway():
    """Gates that are shut at first, Srivastava et al. 2015, sec. 3."""
    inputs = keras.Input((16,))
    shut = keras.initializers.Constant(-2.0)
    gate = layers.Dense(16, "sigmoid", bias_initializer=shut)(inputs)
    x = gate * layers.Dense(16, "relu")(inputs) + (1 - gate) * inputs
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("model", [controlled, modulated, highway])
def test_what_authors_mean_is_no_fault(model):
    assert not list(audit(model()))


def test_zeros_alone_are_a_fault():
    zeros = layers.Dense(16, "relu", kernel_initializer="zeros")
    found = audit(keras.Sequential([keras.Input((8,)), zeros, layers.Dense(3)]))
    (finding,) = found
    assert finding.kind == "constant"
    assert "no gradient" in finding.text
