"""Every figure of the probe, held to a second computation in NumPy.

The oracles are forward passes written out in float64. Gradients are central differences
of them: no automatic differentiation, no formula of ours.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initlab as initlab

RNG = np.random.default_rng(0)
STEP = 1e-5


def relu(z):
    return np.maximum(z, 0)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    shifted = np.exp(z - z.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Seen:
    """What an oracle's layers did: `{name: [array, one a call]}`."""

    def __init__(self, shifts=None):
        self.inputs, self.before, self.after = {}, {}, {}
        self.shifts = shifts or {}

    def layer(self, name, given, before, activation=lambda z: z):
        """Notes a layer; what it returns is shifted, to differentiate by it."""
        index = len(self.after.setdefault(name, []))
        out = activation(before) + self.shifts.get((name, index), 0)
        for found, value in ((self.inputs, given), (self.before, before)):
            found.setdefault(name, []).append(value)
        self.after[name].append(out)
        return out


def dense(seen, name, x, w, activation=lambda z: z):
    return seen.layer(name, x, x @ w[0] + w[1], activation)


# ---- the networks: a model, its data, and the same thing in NumPy ---------------


def mlp():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "relu", name="one"),
            layers.Dense(4, "tanh", name="two"),
            layers.Dense(3, name="out"),
        ]
    )

    def forward(w, x, seen):
        h = dense(seen, "one", x, w[0:2], relu)
        h = dense(seen, "two", h, w[2:4], np.tanh)
        return dense(seen, "out", h, w[4:6])

    return model, RNG.normal(size=(7, 4)), RNG.normal(size=(7, 3)), forward


def convolution():
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(2, "sigmoid", name="out"),
        ]
    )

    def forward(w, x, seen):
        z = np.zeros((len(x), 3, 3, 3))
        for i in range(3):
            for j in range(3):
                patch = x[:, i : i + 3, j : j + 3]
                z[:, i, j] = np.tensordot(patch, w[0], 3) + w[1]
        h = seen.layer("conv", x, z, relu).reshape(len(x), -1)
        return dense(seen, "out", h, w[2:4], sigmoid)

    return model, RNG.normal(size=(6, 5, 5, 2)), RNG.normal(size=(6, 2)), forward


def recurrent():
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.SimpleRNN(3, return_sequences=True, name="rnn"),
            layers.Dense(2, name="out"),
        ]
    )

    def forward(w, x, seen):
        state, states = np.zeros((len(x), 3)), []
        for t in range(4):
            state = np.tanh(x[:, t] @ w[0] + w[2] + state @ w[1])
            states.append(state)
        h = np.stack(states, axis=1)
        h = seen.layer("rnn", x, h)
        return dense(seen, "out", h, w[3:5])

    return model, RNG.normal(size=(5, 4, 3)), RNG.normal(size=(5, 4, 2)), forward


def attention():
    inputs = keras.Input((3, 4))
    attended = layers.MultiHeadAttention(2, 3, flash_attention=False, name="mha")
    model = keras.Model(inputs, layers.Dense(2, name="out")(attended(inputs, inputs)))

    def forward(w, x, seen):
        q, k, v = (
            seen.layer(name, x, np.einsum("btd,dhe->bthe", x, w[i]) + w[i + 1])
            for i, name in ((0, "query"), (2, "key"), (4, "value"))
        )
        scores = np.einsum("bthe,bshe->bhts", q / np.sqrt(3), k)
        h = np.einsum("bhts,bshe->bthe", softmax(scores), v)
        z = np.einsum("bthe,hed->btd", h, w[6]) + w[7]
        h = seen.layer("attention_output", h, z)
        return dense(seen, "out", h, w[8:10])

    return model, RNG.normal(size=(4, 3, 4)), RNG.normal(size=(4, 3, 2)), forward


class Shared(keras.Model):
    """Subclassed: one layer twice, raw operations, a weight of its own."""

    def __init__(self, has_spare=False):
        super().__init__(name="user")
        self.shared = layers.Dense(4, "tanh", name="shared")
        self.head = layers.Dense(2, name="head")
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
        self.spare = layers.Dense(3, name="spare") if has_spare else None

    def call(self, x):
        h = self.shared(x)
        h = self.shared(h * self.scale) + ops.sin(h)
        return self.head(h)


def subclassed():
    model = Shared()
    model(np.zeros((1, 4), "float32"))

    def forward(w, x, seen):
        by_path = dict(zip([v.path for v in model.trainable_variables], w, strict=True))

        def named(end):
            return next(value for path, value in by_path.items() if end in path)

        pair = [named("shared/kernel"), named("shared/bias")]
        h = dense(seen, "shared", x, pair, np.tanh)
        h = dense(seen, "shared", h * named("scale"), pair, np.tanh) + np.sin(h)
        head = [named("head/kernel"), named("head/bias")]
        return dense(seen, "head", h, head)

    return model, RNG.normal(size=(5, 4)), RNG.normal(size=(5, 2)), forward


# Without `jit`, JAX compiles every operation of a model by itself.
SLOW_ON_JAX = [pytest.mark.slow] if keras.backend.backend() == "jax" else []
slow_on_jax = pytest.mark.slow if SLOW_ON_JAX else lambda test: test
OTHERS = [convolution, recurrent, attention, subclassed]
NETWORKS = [mlp, *(pytest.param(one, marks=SLOW_ON_JAX) for one in OTHERS)]
OUT_OF_SIGHT = {"rnn"}


def squared_error(out, y):
    return np.mean((out - y) ** 2)


def slopes(function, array):
    """Central differences of a scalar function by an array, in place."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        high = function()
        array[index] = kept - STEP
        found[index] = (high - function()) / (2 * STEP)
        array[index] = kept
    return found


def moments(arrays):
    values = np.concatenate([array.ravel() for array in arrays])
    return values.mean(), values.std(), values.min(), values.max()


def close(found, expected, relative, scale=1.0):
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * scale)


def assert_spread(found, arrays):
    mean, std, low, high = moments(arrays)
    close([found.mean, found.std, found.min, found.max], [mean, std, low, high], 1e-5)
    values = np.concatenate([array.ravel() for array in arrays])
    assert found.count == values.size
    assert found.zero_share == np.mean(values == 0)
    between = [np.mean(array.var(axis=0)) for array in arrays]
    sizes = [array.size for array in arrays]
    close(found.example_std, np.sqrt(np.average(between, weights=sizes)), 1e-5)


def randomized(model):
    """Biases that are not 0, so that a mistake about them shows."""
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(RNG.normal(size=variable.shape) * 0.3 + 0.2)
    return [
        ops.convert_to_numpy(v).astype("float64") for v in model.trainable_variables
    ]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_figure_is_that_of_numpy(network):
    model, x, y, forward = network()
    weights = randomized(model)
    model.compile(loss="mse")
    x, y = x.astype("float32"), y.astype("float32")
    report = initlab.probe(model, x, y)
    x, y = x.astype("float64"), y.astype("float64")

    plain = Seen()
    close(report.loss, squared_error(forward(weights, x, plain), y), 1e-5)
    shifts = {
        (name, i): np.zeros(array.shape)
        for name, arrays in plain.after.items()
        for i, array in enumerate(arrays)
    }

    def loss():
        return squared_error(forward(weights, x, Seen(shifts)), y)

    rows = {row.path.split("/")[-1]: row for row in report}
    assert set(plain.after) <= set(rows)
    for name, arrays in plain.after.items():
        row = rows[name]
        assert row.calls == len(arrays)
        assert_spread(row.input, plain.inputs[name])
        assert_spread(row.output, arrays)
        gradient = [slopes(loss, shifts[name, i]) for i in range(len(arrays))]
        mean, std, *_ = moments(gradient)
        norm = np.sqrt(sum(np.sum(part**2) for part in gradient))
        found = [row.gradient.mean, row.gradient.std, row.gradient.norm]
        close(found, [mean, std, norm], 1e-4, scale=norm)
        units = np.any([np.any(a, axis=tuple(range(a.ndim - 1))) for a in arrays], 0)
        assert list(row.dead_units) == np.flatnonzero(~units).tolist()
        if name in OUT_OF_SIGHT:
            assert row.preactivation is None
            assert row.variance_preservation is None
            continue
        assert_spread(row.preactivation, plain.before[name])
        previous = moments(plain.inputs[name])[1]
        is_first = all(np.shares_memory(a, x) for a in plain.inputs[name])
        is_first |= name == next(iter(plain.after))
        kept = moments(plain.before[name])[1] / (1.0 if is_first else previous)
        close(row.variance_preservation, kept, 1e-5)

    found = {weight.path: weight for row in report for weight in row.weights}
    norms = []
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        weight, slope = found[variable.path], slopes(loss, value)
        mean, std, low, high = moments([value])
        close(
            [weight.mean, weight.std, weight.min, weight.max],
            [mean, std, low, high],
            1e-5,
        )
        norms.append(np.linalg.norm(slope))
        close(weight.gradient_norm, norms[-1], 1e-4, 1e-2)
        close(weight.gradient_std, slope.std(), 1e-4, 1e-2)
    close(report.gradient_norm, np.linalg.norm(norms), 1e-4)


@slow_on_jax
def test_several_inputs_and_outputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    one = layers.Dense(2, name="one")(left)
    two = layers.Dense(4, name="two")(right)
    two = layers.Dense(2, "sigmoid", name="last")(two)
    model = keras.Model({"left": left, "right": right}, {"a": one, "b": two})
    x = {"left": RNG.normal(size=(6, 3)), "right": RNG.normal(size=(6, 2))}
    x = {key: value.astype("float32") for key, value in x.items()}
    y = {key: RNG.normal(size=(6, 2)).astype("float32") for key in ("a", "b")}
    weights = randomized(model)
    values = dict(
        zip([v.path for v in model.trainable_variables], weights, strict=True)
    )
    report = initlab.probe(model, x, y, loss={"a": "mse", "b": "mae"})
    a = x["left"] @ values["one/kernel"] + values["one/bias"]
    b = x["right"] @ values["two/kernel"] + values["two/bias"]
    b = sigmoid(b @ values["last/kernel"] + values["last/bias"])
    close(report.loss, np.mean((a - y["a"]) ** 2) + np.mean(np.abs(b - y["b"])), 1e-5)
    rows = {row.path: row for row in report}
    slope = 2 * (a - y["a"]) / a.size
    close(rows["one"].gradient.norm, np.linalg.norm(slope), 1e-4)
    slope = np.sign(b - y["b"]) / b.size
    close(rows["last"].gradient.norm, np.linalg.norm(slope), 1e-4)
    kernel = slope * b * (1 - b) @ values["last/kernel"].T
    close(rows["two"].kernel.gradient_norm, np.linalg.norm(x["right"].T @ kernel), 1e-4)
    # Both read an input of the model.
    for name in ("one", "two"):
        row = rows[name]
        assert row.variance_preservation == row.preactivation.std


def test_the_synthetic_loss_sends_normal_numbers_back():
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(30, use_bias=False, name="only")]
    )
    x = RNG.normal(size=(40, 16)).astype("float32")
    report = initlab.probe(model, x)
    assert report.is_synthetic
    assert report.loss_name == "synthetic"
    sent = np.random.default_rng(0).normal(size=(40, 30))
    row = report[0]
    close([row.gradient.mean, row.gradient.std], [sent.mean(), sent.std()], 1e-5)
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    close(report.loss, np.sum(sent * (x @ kernel)), 1e-4)
    close(row.kernel.gradient_norm, np.linalg.norm(x.T @ sent), 1e-5)


@slow_on_jax
def test_regularizers_count():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(2, kernel_regularizer=keras.regularizers.L2(1)),
        ]
    )
    x, y = np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32")
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    model.compile(loss="mse")
    for report in (initlab.probe(model, x, y), initlab.probe(model, x, y, "mse")):
        close(report.loss, np.sum(kernel**2), 1e-5)
        close(report[0].kernel.gradient_norm, 2 * np.linalg.norm(kernel), 1e-5)


@slow_on_jax
def test_masked_positions_do_not_count():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(9, 3, mask_zero=True, name="words"),
            layers.Dense(2, "tanh", name="out"),
        ]
    )
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 0]], "int32")
    weights = randomized(model)
    report = initlab.probe(model, x)
    words = weights[0][x]
    seen = words[x > 0]
    assert report[0].input is None
    assert report[0].output.example_std is None
    close(report[0].output.std, seen.std(), 1e-5)
    assert report[0].output.count == seen.size
    close(report[0].variance_preservation, seen.std(), 1e-5)
    z = seen @ weights[1] + weights[2]
    close(report[1].preactivation.std, z.std(), 1e-5)
    close(report[1].variance_preservation, z.std() / seen.std(), 1e-5)


@slow_on_jax
def test_batch_normalization_in_both_modes():
    model = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(epsilon=0.0, name="norm")]
    )
    x = (RNG.normal(size=(32, 3)) * 5 + 2).astype("float32")
    close(initlab.probe(model, x)[0].output.std, 1.0, 1e-4)
    close(initlab.probe(model, x, training=False)[0].output.std, x.std(), 1e-4)


@slow_on_jax
def test_frozen_layers_have_no_gradient_but_pass_it_on():
    model = mlp()[0]
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    x = RNG.normal(size=(8, 4)).astype("float32")
    frozen = initlab.probe(model, x)
    for layer in model.layers:
        layer.trainable = True
    free = initlab.probe(model, x)
    assert [row.weight_gradient_norm is None for row in frozen] == [True, True, False]
    for one, other in zip(frozen, free, strict=True):
        close(one.gradient.norm, other.gradient.norm, 1e-5)


def test_all_layers_frozen():
    model = mlp()[0]
    model.trainable = False
    report = initlab.probe(model, RNG.normal(size=(8, 4)).astype("float32"))
    assert report.gradient_norm == 0
    assert report[0].gradient.norm > 0


@slow_on_jax
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    def build(dtype):
        hidden = [layers.Dense(32, "tanh", dtype=dtype) for _ in range(2)]
        return keras.Sequential([keras.Input((16,)), *hidden])

    half, full = build(policy), build("float32")
    full.set_weights(half.get_weights())
    x, y = (RNG.normal(size=(64, n)).astype("float32") for n in (16, 32))
    for labels, loss in ((None, None), (y, "mse")):
        one, other = (initlab.probe(model, x, labels, loss) for model in (half, full))
        close(one.loss, other.loss, 5e-2, scale=abs(other.loss) + 10)
        for a, b in zip(one, other, strict=True):
            close(a.preactivation.std, b.preactivation.std, 2e-2)
            close(a.gradient.norm, b.gradient.norm, 5e-2)
            close(a.kernel.gradient_norm, b.kernel.gradient_norm, 5e-2)
            close(a.variance_preservation, b.variance_preservation, 2e-2)


@slow_on_jax
def test_tiny_gradients_in_float16_are_not_lost():
    """Their squares, and the mean over examples, leave the range of float16."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, dtype="mixed_float16")]
    )
    x = RNG.normal(size=(256, 8)).astype("float32")
    y = ops.convert_to_numpy(model(x)).astype("float32") + 1e-2
    row = initlab.probe(model, x, y, "mse")[0]
    expected = 2 * 1e-2 / (256 * 8)  # 1e-5, of which float16 keeps 8 bits
    close(row.gradient.mean, -expected, 0.1, scale=expected)


def test_an_output_without_influence_gets_no_gradient():
    inputs = keras.Input((3,))
    used = layers.Dense(2, name="used")(inputs)
    unused = layers.Dense(2, name="unused")(inputs)
    model = keras.Model(inputs, [used, unused])
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 2), "float32")
    report = initlab.probe(model, x, [y, y], loss=["mse", None])
    rows = {row.path: row for row in report}
    assert rows["unused"].gradient.norm == 0
    assert rows["unused"].weight_gradient_norm == 0
    assert rows["used"].gradient.norm > 0


@slow_on_jax
def test_layers_that_do_not_run_come_last():
    model = Shared(has_spare=True)
    model.spare.build((None, 4))
    model(np.zeros((1, 4), "float32"))
    report = initlab.probe(model, np.ones((4, 4), "float32"))
    assert report[-1].path.endswith("spare")
    assert report[-1].output is None
    assert report[-1].calls == 0
    assert report[-1].weights[0].gradient_norm == 0
    assert "spare" in repr(report)


def test_labels_of_another_shape_are_refused():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 6), "float32"), np.zeros((8, 4), "float32")
    with pytest.raises(ValueError, match=r"`y` must .*\(8, 4\).* outputs .*\(8, 3\)"):
        initlab.probe(model, x, y)
