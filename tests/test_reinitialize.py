"""Starting a model over: every variable drawn anew by its own initializer."""

import hashlib

import applications
import keras
import numpy as np
import pytest
from keras import layers, ops
from zoo import ZOO

from keras_initlab import UnbuiltModelError, recommend, reinitialize
from keras_initlab._core.errors import StructureChangedError
from keras_initlab.initializers import AdaptiveHe, FanInBias, ForgetGateBias


def values(layer):
    # A model on the JAX backend may be asked between two epochs only.
    return {w.path: to_numpy(w) for w in layer.weights}


def to_numpy(variable):
    return np.array(ops.convert_to_numpy(ops.cast(variable, "float32")))


def listed(layer):
    return [to_numpy(weight) for weight in layer.weights]


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )


def unchanged(before, layer):
    now = values(layer)
    return {path for path in now if np.array_equal(before[path], now[path])}


def ending(layer, name):
    (found,) = (w for w in layer.weights if f"/{w.path}".endswith(f"/{name}"))
    return to_numpy(found)


def disturb(layer):
    """Moves every float variable off what any initializer draws."""
    for variable in layer.weights:
        if "float" in variable.dtype:
            variable.assign(variable + 3.0)


def built(layer, *shapes):
    layer.build(*shapes)
    return layer


class Scale(layers.Layer):
    """A custom layer that names its initializer."""

    def __init__(self, gain_initializer="random_normal", **kwargs):
        super().__init__(**kwargs)
        self.gain_initializer = keras.initializers.get(gain_initializer)

    def build(self, input_shape):
        self.gain = self.add_weight((16,), self.gain_initializer, name="gain")

    def call(self, x):
        return x * self.gain


@keras.saving.register_keras_serializable("test_reinitialize")
class Unnamed(layers.Layer):
    """A custom layer whose initializers only `build` knows."""

    def build(self, input_shape):
        self.first = self.add_weight((64, 64), "he_normal", name="first")
        self.state = self.add_weight((3,), "ones", trainable=False, name="state")
        self.second = self.add_weight((64, 64), name="second")  # Keras's default
        self.third = self.add_weight((64,), AdaptiveHe(seed=1), name="third")

    def call(self, x):
        return x @ self.first @ self.second * self.third


class Lost(layers.Layer):
    """A custom layer that cannot be made again."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.a = self.add_weight((16, self.units), "zeros", name="a")
        self.b = self.add_weight((16, self.units), "zeros", name="b")

    def call(self, x):
        return x @ (self.a + self.b)

    def get_config(self):
        raise NotImplementedError


class Residual(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.branch = [layers.Dense(16, "relu"), layers.Dense(16)]

    def call(self, x):
        return x + self.branch[1](self.branch[0](x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = {"a": Residual(), "b": Residual()}
        self.head = layers.Dense(4)

    def call(self, x):
        return self.head(self.blocks["b"](self.blocks["a"](x)))


def sequential():
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(16, "relu"), Scale(), layers.Dense(4)]
    )


def functional():
    x = keras.Input((16,))
    shared = layers.Dense(16)
    y = shared(layers.ReLU()(shared(x)))
    return keras.Model(x, layers.Dense(4)(layers.Add()([x, y])))


def nested():
    x = keras.Input((16,))
    y = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(16)])(x)
    return keras.Model(x, sequential()(y))


def subclassed():
    model = Subclassed()
    model(np.ones((2, 16), "float32"))
    return model


def image_model():
    image = keras.Input((6, 6, 16))
    x = layers.SeparableConv2D(16, 3, bias_initializer=FanInBias())(image)
    x = layers.BatchNormalization()(x)
    x = layers.PReLU("random_normal", shared_axes=(1, 2))(x)
    x = layers.Conv2DTranspose(16, 2, strides=2)(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def sequence_model():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(60, 16)(tokens)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 8)(x, x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(tokens, layers.Dense(4)(x))


MODELS = {
    "Sequential": sequential,
    "Functional": functional,
    "nested": nested,
    "subclassed": subclassed,
    "images": image_model,
    "sequences": sequence_model,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_variable_is_drawn_anew_and_undo_brings_it_back(name):
    model = MODELS[name]()
    disturb(model)
    before = values(model)
    applied = reinitialize(model, seed=0)
    assert not unchanged(before, model)
    assert sorted(applied.changed) == sorted(before)
    assert applied.seed == 0
    applied.undo()
    assert unchanged(before, model) == set(before)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_two_models_the_same_weights(name):
    one = MODELS[name]()
    keras.Sequential([keras.Input((16,)), layers.Dense(3)])  # shifts the names
    other = MODELS[name]()
    disturb(other)
    reinitialize(one, seed=5)
    reinitialize(other, seed=5)
    assert set(values(one)) != set(values(other)) or name == "subclassed"
    assert same(listed(one), listed(other))
    reinitialize(other, seed=6)
    assert not same(listed(one), listed(other))


@pytest.mark.parametrize("name", ["Sequential", "images", "sequences"])
def test_no_two_variables_share_values(name):
    model = MODELS[name]()
    reinitialize(model, seed=0)
    starts = [value.ravel()[:8] for value in listed(model) if value.size >= 8]
    heads = [start / abs(start).max() for start in starts if start.std() > 0]
    assert len(heads) >= 3
    for number, head in enumerate(heads):
        for other in heads[:number]:
            assert not np.allclose(head, other, atol=1e-4)


@pytest.mark.parametrize("start_over", ["reinitialize", "recommend"])
def test_kernels_that_a_layer_holds_together_differ(start_over):
    model = sequence_model()
    if start_over == "reinitialize":
        reinitialize(model, seed=0)
    else:
        recommend(model).apply(seed=0)
    query, key, value = (
        ending(model, f"{n}/kernel") for n in ("query", "key", "value")
    )
    for one, other in ((query, key), (key, value), (query, value)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.4
    forward, backward = (
        next(to_numpy(w) for w in model.weights if way in w.path and w.ndim == 2)
        for way in ("/forward_", "/backward_")
    )
    assert abs(np.corrcoef(forward.ravel(), backward.ravel())[0, 1]) < 0.4


def test_layers_that_share_one_initializer_differ():
    shared = keras.initializers.GlorotNormal(seed=7)
    model = keras.Sequential(
        [keras.Input((16,))]
        + [layers.Dense(16, kernel_initializer=shared) for _ in range(3)]
    )
    kernels = [to_numpy(layer.kernel) for layer in model.layers]
    assert same(kernels[:1], kernels[1:2])  # as Keras would have it
    reinitialize(model, seed=0)
    kernels = [to_numpy(layer.kernel) for layer in model.layers]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs(np.corrcoef(kernels[a].ravel(), kernels[b].ravel())[0, 1]) < 0.4


DISTRIBUTIONS = {
    "Dense": (lambda: layers.Dense(128), (None, 64), "kernel"),
    "EinsumDense": (
        lambda: layers.EinsumDense("abd,dhk->abhk", (None, 8, 16)),
        (None, 3, 64),
        "kernel",
    ),
    "LSTM": (lambda: layers.LSTM(32), (None, 3, 64), "kernel"),
    "Embedding": (lambda: layers.Embedding(128, 64), (None, 3), "embeddings"),
    "depthwise": (
        lambda: layers.DepthwiseConv2D(3, depthwise_initializer="he_uniform"),
        (None, 4, 4, 512),
        "kernel",
    ),
    "ours": (
        lambda: layers.Dense(128, kernel_initializer=AdaptiveHe()),
        (None, 64),
        "kernel",
    ),
    "a copy tells": (Unnamed, (None, 64), "first"),
    "a copy tells the default": (Unnamed, (None, 64), "second"),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_values_are_distributed_as_in_a_fresh_layer(name):
    make, shape, variable = DISTRIBUTIONS[name]
    fresh = np.sort(ending(built(make(), shape), variable).ravel())
    layer = built(make(), shape)
    disturb(layer)
    reinitialize(layer, seed=1)
    drawn = np.sort(ending(layer, variable).ravel())
    # Kolmogorov and Smirnov's distance of two samples, at a level of 1e-4.
    assert distance(fresh, drawn) < 2.2 * (2 / fresh.size) ** 0.5
    assert distance(fresh, 1.15 * drawn) > 1.1 * (2 / fresh.size) ** 0.5
    assert not np.array_equal(fresh, drawn)


def distance(first, second):
    points = np.concatenate([first, second])
    shares = [
        np.searchsorted(s, points, side="right") / s.size for s in (first, second)
    ]
    return abs(shares[0] - shares[1]).max()


def test_constant_starts():
    layer = built(layers.BatchNormalization(), (None, 16))
    disturb(layer)
    reinitialize(layer, seed=0)
    for name, value in {
        "gamma": 1,
        "beta": 0,
        "moving_mean": 0,
        "moving_variance": 1,
    }.items():
        np.testing.assert_array_equal(ending(layer, name), [value] * 16)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: layers.LSTM(4), [0] * 4 + [1] * 4 + [0] * 8),
        (lambda: layers.LSTM(4, unit_forget_bias=False), [0] * 16),
        (
            lambda: layers.LSTM(
                4, unit_forget_bias=False, bias_initializer=ForgetGateBias(2.0)
            ),
            [0] * 4 + [2] * 4 + [0] * 8,
        ),
        (lambda: layers.GRU(4), [[0] * 12] * 2),
        (
            lambda: layers.GRU(
                4, bias_initializer=ForgetGateBias(2.0, gates=3, gate=0)
            ),
            [[2] * 4 + [0] * 8] * 2,
        ),
    ],
)
def test_biases_of_recurrent_layers(make, expected):
    layer = built(make(), (None, 3, 16))
    disturb(layer)
    reinitialize(layer, seed=0)
    np.testing.assert_array_equal(ending(layer, "bias"), expected)


def test_the_forget_gate_of_a_convolutional_lstm():
    layer = built(layers.ConvLSTM1D(4, 3), (None, 3, 5, 8))
    disturb(layer)
    reinitialize(layer, seed=0)
    expected = [0] * 4 + [1] * 4 + [0] * 8
    np.testing.assert_array_equal(ending(layer, "bias"), expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_dtypes_are_kept(policy):
    layer = layers.LSTM(4, dtype=policy, recurrent_initializer="glorot_uniform")
    built(layer, (None, 3, 16))
    dtypes = [weight.dtype for weight in layer.weights]
    before = values(layer)
    applied = reinitialize(layer, seed=0)
    assert [weight.dtype for weight in layer.weights] == dtypes
    assert unchanged(before, layer) == {layer.weights[2].path}
    applied.undo()
    assert unchanged(before, layer) == set(before)


def test_what_a_preprocessing_layer_adapted_to_is_kept():
    normalization = layers.Normalization()
    normalization.adapt(np.arange(48, dtype="float32").reshape(3, 16))
    model = keras.Sequential(
        [keras.Input((16,)), normalization, layers.Dense(4), layers.Dropout(0.5)]
    )
    before = values(model)
    applied = reinitialize(model, seed=0)
    assert len(applied.changed) == 2
    assert {path for path in before if "normalization" in path} < (
        unchanged(before, model)
    )


def test_frozen_layers_are_kept_unless_named():
    model = image_model()
    frozen = (model.layers[1], model.layers[2])
    for layer in frozen:
        layer.trainable = False
    disturb(model)
    before = values(model)
    reinitialize(model, seed=0)
    kept = {weight.path for layer in frozen for weight in layer.weights}
    assert unchanged(before, model) == kept
    applied = reinitialize(model, seed=0, only=[layer.path for layer in frozen])
    assert set(applied.changed) == kept
    assert not unchanged(before, model)


def test_a_frozen_weight_is_kept():
    model = sequential()
    model.layers[0].kernel.trainable = False
    disturb(model)
    before = values(model)
    reinitialize(model, seed=0)
    assert unchanged(before, model) == {model.layers[0].kernel.path}


@pytest.mark.parametrize("kind", ["Dense", "EinsumDense", "Embedding"])
def test_low_rank_updates_start_over_on_a_frozen_kernel(kind):
    layer = {
        "Dense": lambda: layers.Dense(16),
        "EinsumDense": lambda: layers.EinsumDense("ab,bc->ac", 16),
        "Embedding": lambda: layers.Embedding(60, 16),
    }[kind]()
    built(layer, (None, 16))
    layer.enable_lora(4)
    disturb(layer)
    before = values(layer)
    reinitialize(layer, seed=0)
    (kept,) = unchanged(before, layer)
    assert "lora" not in kept
    first, second = (
        next(to_numpy(w) for w in layer.weights if w.name.endswith(end))
        for end in ("_a", "_b")
    )
    assert 0 < abs(first).max() < 2
    assert not second.any()


def test_quantized_kernels_are_kept():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4)])
    for layer in model.layers:
        layer.quantize("int8")
        layer.bias.assign(layer.bias + 1)
    before = values(model)
    applied = reinitialize(model, seed=0)
    assert set(applied.changed) == {layer.bias.path for layer in model.layers}
    assert unchanged(before, model) == set(before) - set(applied.changed)


def test_spectral_normalization_starts_over_with_its_vector():
    models = []
    for _ in range(2):
        layer = layers.SpectralNormalization(layers.Dense(16))
        built(layer, (None, 16))
        disturb(layer)
        applied = reinitialize(layer, seed=0)
        models.append(layer)
    assert len(applied.changed) == 3
    assert same(*map(listed, models))
    # Where one turn of the power iteration finds a norm of 1, and leaves both alone.
    kernel, vector = (ending(models[0], name) for name in ("kernel", "vector_u"))
    np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vector @ kernel.T), 1, rtol=1e-5)


ONLY = {
    "a path": (["block/second/kernel"], {"block/second/kernel"}),
    "one string": ("block/second/kernel", {"block/second/kernel"}),
    "a layer": (["second"], {"block/second/kernel", "block/second/bias"}),
    "two": (
        ["first/bias", "second/bias"],
        {"block/first/bias", "block/second/bias"},
    ),
    "a model": (
        ["block"],
        {f"block/{n}/{w}" for n in ("first", "second") for w in ("kernel", "bias")},
    ),
    "a function": (
        lambda variable: variable.name == "bias",
        {"block/first/bias", "block/second/bias"},
    ),
    "nothing": ([], set()),
}


@pytest.mark.parametrize("name", ONLY)
def test_only(name):
    only, expected = ONLY[name]
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(16, name="first"),
            layers.Dense(16, name="second"),
        ],
        name="block",
    )
    disturb(model)
    before = values(model)
    applied = reinitialize(model, seed=0, only=only)
    assert set(applied.changed) == expected
    assert set(before) - unchanged(before, model) == expected
    drawn = values(model)
    reinitialize(model, seed=0)  # the others' seeds do not depend on `only`
    assert expected <= unchanged(drawn, model)


def test_a_name_that_is_nowhere():
    model = sequential()
    before = values(model)
    with pytest.raises(ValueError, match=r"only=\['cond', 'missing'\].*first var"):
        reinitialize(model, seed=0, only=["cond", model.layers[0].path, "missing"])
    assert unchanged(before, model) == set(before)


def test_a_custom_layer_without_a_copy_is_named():
    model = keras.Sequential([keras.Input((16,)), Lost(16), layers.Dense(16), Lost(16)])
    before = values(model)
    with pytest.raises(ValueError, match="initializer that can be found") as error:
        reinitialize(model, seed=0)
    assert str(error.value).count("(Lost)") == 4
    assert all(
        weight.path in str(error.value)
        for layer in (model.layers[0], model.layers[2])
        for weight in layer.weights
    )
    assert unchanged(before, model) == set(before)
    applied = reinitialize(model, seed=0, only=[model.layers[1].path])
    assert len(applied.changed) == 2


class WithUnits(keras.Model):
    """A subclassed model without a config, and with weights of its own."""

    def __init__(self, units):
        super().__init__()
        self.units = units
        self.head = layers.Dense(4)

    def build(self, input_shape):
        self.mixing = self.add_weight(
            (input_shape[-1], self.units), "he_normal", name="mixing"
        )
        self.head.build((None, self.units))

    def call(self, x):
        return self.head(x @ self.mixing)


class ByHand(WithUnits):
    """One that takes no arguments."""

    def __init__(self):
        super().__init__(16)


def test_a_model_without_a_config_is_made_again_without_arguments():
    model = ByHand()
    model(np.ones((2, 64), "float32"))
    disturb(model)
    before = values(model)
    reinitialize(model, seed=0)
    assert not unchanged(before, model)
    drawn = to_numpy(model.mixing)
    assert drawn.std() == pytest.approx((2 / 64) ** 0.5, rel=0.1)  # Glorot's: 0.158


def test_a_model_with_arguments_but_no_config_is_named():
    model = WithUnits(16)
    model(np.ones((2, 64), "float32"))
    before = values(model)
    with pytest.raises(
        ValueError, match=r"Received: \S*mixing \(WithUnits\)\. Give its"
    ):
        reinitialize(model, seed=0)
    assert unchanged(before, model) == set(before)


def test_the_states_of_a_custom_layer_are_kept():
    layer = built(Unnamed(), (None, 64))
    disturb(layer)
    before = values(layer)
    reinitialize(layer, seed=0)
    assert unchanged(before, layer) == {layer.state.path}


class Broken(keras.initializers.Initializer):
    """Zeros, until it is told to fail."""

    mode = "zeros"

    def __call__(self, shape, dtype=None):
        if self.mode == "raise":
            raise RuntimeError("out of numbers")
        if self.mode == "shape":
            return ops.zeros((*shape, 1), dtype)
        value = float("nan") if self.mode == "nan" else 0.0
        return ops.full(shape, value, dtype=dtype)


@pytest.mark.parametrize(
    ("mode", "error", "received"),
    [
        ("raise", RuntimeError, "out of numbers"),
        ("nan", ValueError, r"Received: 64 NaN or Inf .* Broken for '.*/kernel'"),
        ("shape", ValueError, r"shape \(16, 4, 1\) from Broken"),
    ],
)
def test_nothing_changes_if_one_initializer_fails(mode, error, received):
    broken = Broken()
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(16),
            layers.Dense(4, kernel_initializer=broken),
        ]
    )
    before = values(model)
    broken.mode = mode
    with pytest.raises(error, match=received):
        reinitialize(model, seed=0)
    assert unchanged(before, model) == set(before)


def test_nothing_changes_if_a_variable_cannot_be_written(monkeypatch):
    model = sequential()
    before = values(model)
    last = model.weights[-1]
    assign, calls = last.assign, []

    def failing(value):
        calls.append(value)
        if len(calls) == 1:
            raise MemoryError("no room")
        return assign(value)

    monkeypatch.setattr(last, "assign", failing)
    with pytest.raises(MemoryError, match="no room"):
        reinitialize(model, seed=0)
    assert unchanged(before, model) == set(before)


@pytest.mark.parametrize("model", [None, "model", keras.Sequential, np.ones(3)])
def test_what_is_no_model(model):
    with pytest.raises(TypeError, match=r"`model` must be a Keras layer .*model="):
        reinitialize(model, seed=0)


def test_an_unbuilt_model():
    model = keras.Sequential([layers.Dense(3)], name="bare")
    with pytest.raises(
        UnbuiltModelError, match=r"model='bare' \(Sequential\), not built"
    ):
        reinitialize(model, seed=0)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", float("nan"), True])
def test_bad_seeds(seed):
    model = sequential()
    before = values(model)
    with pytest.raises(ValueError, match=f"`seed` must .*seed={seed!r}"):
        reinitialize(model, seed=seed)
    assert unchanged(before, model) == set(before)


def test_without_a_seed_the_global_one_decides():
    models = [sequential() for _ in range(3)]
    keras.utils.set_random_seed(1)
    first = reinitialize(models[0])
    keras.utils.set_random_seed(1)
    assert reinitialize(models[1]).seed == first.seed
    assert same(*map(listed, models[:2]))
    reinitialize(models[2])
    assert not same(*map(listed, models[1:]))
    again = reinitialize(models[2], seed=first.seed)
    assert same(*map(listed, models[1:]))
    again.undo()


def fit(model, epochs=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 16)).astype("float32")
    history = model.fit(x, x[:, :4], 16, epochs, verbose=0, shuffle=False)
    return history.history["loss"]


def test_a_compiled_model_trains_on_and_undo_works_after_it():
    model = sequential()
    model.compile("adam", "mse")
    fit(model)
    trained, slots = listed(model), [to_numpy(v) for v in model.optimizer.variables]
    applied = reinitialize(model, seed=0, reset_optimizer=True)
    assert int(model.optimizer.iterations) == 0
    started = listed(model)
    losses = fit(model, epochs=3)
    assert losses[-1] < losses[0]
    applied.undo()
    assert same(listed(model), trained)
    assert same([to_numpy(v) for v in model.optimizer.variables], slots)
    reinitialize(model, seed=0, reset_optimizer=True)
    assert same(listed(model), started)
    np.testing.assert_allclose(fit(model, epochs=3), losses, rtol=1e-4)


def test_training_in_between_changes_nothing():
    trained, fresh = sequential(), sequential()
    trained.compile("sgd", "mse")
    fit(trained)
    reinitialize(trained, seed=3)
    reinitialize(fresh, seed=3)
    assert same(listed(trained), listed(fresh))


def test_the_optimizer_is_kept_unless_asked():
    model = sequential()
    model.compile("adam", "mse")
    fit(model)
    slots = [to_numpy(v) for v in model.optimizer.variables]
    reinitialize(model, seed=0)
    assert same([to_numpy(v) for v in model.optimizer.variables], slots)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(use_ema=True),
        lambda: keras.optimizers.SGD(momentum=0.9),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ],
)
def test_an_optimizer_is_reset_although_a_layer_was_frozen_since(make):
    model = sequential()
    model.compile(make(), "mse")
    fit(model)
    model.layers[0].trainable = False
    reinitialize(model, seed=0, reset_optimizer=True)
    assert int(model.optimizer.iterations) == 0
    moments = [v for v in model.optimizer.variables if "kernel" in v.path]
    assert moments
    assert not any(to_numpy(moment).any() for moment in moments)


def test_resetting_an_optimizer_that_is_not_there_does_nothing():
    assert len(reinitialize(sequential(), 0, reset_optimizer=True).changed) == 5


def test_undo_refuses_another_structure():
    model = sequential()
    applied = reinitialize(model, seed=0)
    model.layers[0].enable_lora(2)
    with pytest.raises(StructureChangedError, match="other variables"):
        applied.undo()


def digests(model):
    """What tells values apart, without a copy of a large model."""
    hashes = []
    for weight in model.trainable_weights:
        value = to_numpy(weight)
        is_drawn = value.ndim > 1 and np.ptp(value) > 0  # not as an LSTM's bias
        hashes.append((hashlib.sha1(value.tobytes()).hexdigest(), is_drawn))
    return hashes


def check_starts_over(build, train):
    """A trained model and a fresh one get the same weights, and none is an old one."""
    model = build()
    train(model)
    paths, before = [w.path for w in model.trainable_weights], digests(model)
    reinitialize(model, seed=0)
    drawn = digests(model)
    pairs = zip(paths, before, drawn, strict=True)
    assert [path for path, old, new in pairs if old[0] == new[0]] == []
    random = [value for value, is_drawn in drawn if is_drawn]
    assert len(set(random)) == len(random)
    del model
    fresh = build()
    reinitialize(fresh, seed=0)
    assert digests(fresh) == drawn


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ZOO if ZOO[n].is_called])
def test_the_whole_zoo(name):
    check_starts_over(ZOO[name].build, disturb)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep_relu_cnn", "transformer_encoder", "lstm_stack"])
def test_a_model_that_was_trained(name):
    entry = ZOO[name]

    def train(model):
        x = entry.example(16)
        disturb(model)  # so that a bias of a dead unit is not at its start either
        model.compile("adam", "mse")
        model.fit(x, np.ones(model(x).shape), epochs=2, verbose=0)

    check_starts_over(entry.build, train)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", applications.NAMES)
def test_every_application(name):
    def build():
        keras.backend.clear_session()
        return applications.build(name, 96)

    check_starts_over(build, disturb)
