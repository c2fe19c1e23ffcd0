"""What the first kernels read is measured where a model preprocesses its inputs.

The oracle is NumPy: the features are computed by hand, and a kernel that keeps the
signal's variance has the std 1/sqrt(fan_in · mean square of what it reads).
"""

import math
import sys

import keras
import numpy as np
import pytest
from keras import Input, layers, ops
from test_signal_policy import by_role, std_of

from keras_initlab import recommend
from keras_initlab.recommend._choice import MEASURED

pytestmark = pytest.mark.usefixtures("nothing_is_kept")

SCALE = 90.0


def images(examples=64):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (examples, 6, 6, 3)).astype("float32")


def rows(examples=64):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(examples, 8)) * SCALE + 40).astype("float32")


def standardizing(x):
    layer = layers.Normalization()
    layer.adapt(x)
    return layer


def standardized(x):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / x.std(axes)


def std_for(features, fan_in):
    return 1 / math.sqrt(fan_in * np.mean(np.square(features, dtype="float64")))


class Own(layers.Layer):
    def call(self, x):
        return x / 127.5 - 1


class Wave(layers.Layer):
    """The features of a Fourier network, with frequencies that no training changes."""

    def call(self, x):
        phase = x / SCALE
        return ops.concatenate([ops.sin(phase), ops.cos(2 * phase)], axis=-1)


def waves(x):
    phase = x / SCALE
    return np.concatenate([np.sin(phase), np.cos(2 * phase)], axis=-1)


class Subclassed(keras.Model):
    """Its `call` computes by itself, and never gets to its last layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(5, "relu"), layers.Dense(2)

    def call(self, x):
        return self.last(self.first(ops.log1p(ops.abs(x))))


PREPROCESSING = {
    "rescaled": (lambda x: layers.Rescaling(1 / 255), lambda x: x / 255),
    "shifted": (lambda x: layers.Rescaling(1 / 127.5, -1), lambda x: x / 127.5 - 1),
    "standardized": (standardizing, standardized),
    "by an operation": (lambda x: lambda t: t / 255.0, lambda x: x / 255),
    "by a layer of one's own": (lambda x: Own(), lambda x: x / 127.5 - 1),
    "in a model": (
        lambda x: keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)]),
        lambda x: x / 255,
    ),
    "twice": (
        lambda x: keras.Sequential([layers.Rescaling(1 / 255), standardizing(x / 255)]),
        standardized,
    ),
    "averaged": (
        lambda x: layers.AveragePooling2D(2),
        lambda x: x.reshape(-1, 3, 2, 3, 2, 3).mean((2, 4)),
    ),
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_the_first_kernel_fits_the_preprocessed_input(name):
    make, oracle = PREPROCESSING[name]
    x = images()
    inputs = Input((6, 6, 3))
    outputs = layers.Conv2D(8, 3, activation="relu")(make(x)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(outputs)))
    first, last = recommend(model, data=x)
    assert std_of(first) == pytest.approx(std_for(oracle(x), 27), rel=1e-3)
    assert "the preprocessed input of mean square" in first.reason
    assert first.confidence == MEASURED
    assert std_of(last) == pytest.approx(std_of(recommend(model)[1]), rel=0.5)


def test_the_signal_keeps_its_variance_in_truth():
    x = images(256)
    flat = [layers.Rescaling(1 / 255), layers.Flatten()]
    model = keras.Sequential(
        [Input((6, 6, 3)), *flat, layers.Dense(400, "relu"), layers.Dense(3)]
    )
    recommend(model, data=x).apply(seed=0)
    kernel = ops.convert_to_numpy(model.layers[2].kernel)
    assert np.std((x / 255).reshape(256, -1) @ kernel) == pytest.approx(1, rel=0.2)


def test_a_subclassed_model_that_computes_before_its_first_layer():
    x = rows()
    model = Subclassed()
    model(x[:2])
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(std_for(np.log1p(np.abs(x)), 8), rel=1e-3)


def test_features_that_are_joined():
    x = rows()
    inputs = Input((8,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(4)(Wave()(inputs))))
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(std_for(waves(x), 16), rel=1e-3)


def test_columns_beside_embedded_categories():
    """No kernel reads the columns alone; each signal counts by its width."""
    x, kinds = rows(), np.arange(64) % 5
    numbers, categories = Input((8,)), Input((), dtype="int32")
    embedded = layers.Embedding(5, 4)(categories)
    joined = layers.Concatenate()([standardizing(x)(numbers), embedded])
    model = keras.Model([numbers, categories], layers.Dense(2)(layers.Dense(3)(joined)))
    advice = recommend(model, data=[x, kinds])
    (table,) = by_role(advice, "embedding")
    square = (8 * 1.0 + 4 * std_of(table) ** 2) / 12
    (hidden,) = by_role(advice, "hidden")
    assert std_of(hidden) == pytest.approx(1 / math.sqrt(12 * square), rel=1e-3)


def test_inputs_that_are_joined_at_once():
    x, other = rows(), 3 * np.ones((64, 2), "float32")
    inputs = [Input((8,)), Input((2,))]
    joined = layers.Concatenate()([layers.Rescaling(1 / SCALE)(inputs[0]), inputs[1]])
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(joined)))
    first = recommend(model, data=[x, other])[0]
    features = np.concatenate([x / SCALE, other], axis=-1)
    assert std_of(first) == pytest.approx(std_for(features, 10), rel=1e-3)


def test_a_shared_layer_fits_the_mean_of_what_it_reads():
    x, other = rows(), 1000 * rows()
    inputs, shared = [Input((8,)), Input((8,))], layers.Dense(4, "relu")
    scaled = [layers.Rescaling(s)(i) for s, i in zip((0.01, 1e-4), inputs, strict=True)]
    branches = [shared(one) for one in scaled]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()(branches)))
    first = recommend(model, data=[x, other])[0]
    features = np.concatenate([0.01 * x, 1e-4 * other])
    assert std_of(first) == pytest.approx(std_for(features, 8), rel=1e-3)


def test_one_layer_that_preprocesses_twice():
    """Of several calls of a layer, each is another signal."""
    x, other = rows(), 1000 * rows()
    inputs, shared = [Input((8,)), Input((8,))], layers.Rescaling(1 / SCALE)
    names = ["small", "large"]
    branches = [
        layers.Dense(4, "relu", name=name)(shared(one))
        for name, one in zip(names, inputs, strict=True)
    ]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()(branches)))
    found = {row.path.split("/")[0]: row for row in recommend(model, data=[x, other])}
    for name, given in zip(names, (x, other), strict=True):
        wanted = std_for(given / SCALE, 8)
        assert std_of(found[name]) == pytest.approx(wanted, rel=1e-3)


def test_what_a_layer_returns_at_one_call_says_nothing_of_another():
    """No kernel reads the rescaled alone: they count by their inputs' scales."""
    x = np.ones((64, 8), "float32")
    numbers, others, categories = Input((8,)), Input((8,)), Input((), dtype="int32")
    shared, table = layers.Rescaling(100.0), layers.Embedding(5, 8)
    joined = [
        layers.Concatenate()([shared(one), table(categories)])
        for one in (numbers, others)
    ]
    branches = [
        layers.Dense(4, name=name)(one) for name, one in zip("ab", joined, strict=True)
    ]
    model = keras.Model(
        [numbers, others, categories], layers.Dense(2)(layers.Add()(branches))
    )
    advice = recommend(model, data=[x, 1000 * x, np.arange(64) % 5])
    found = {row.path.split("/")[0]: std_of(row) for row in advice}
    assert found["a"] / found["b"] == pytest.approx(1000, rel=1e-2)


def test_a_frozen_batch_normalization_goes_by_its_own_averages():
    x = rows()
    normalization = layers.BatchNormalization(trainable=False)
    stack = [layers.Rescaling(1 / 3), normalization, layers.Dense(4, "relu")]
    model = keras.Sequential([Input((8,)), *stack, layers.Dense(2)])
    normalization.moving_variance.assign(np.full(8, 25.0, "float32"))
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(std_for(x / 3 / 5, 8), rel=1e-3)


STEPS = {
    "lstm": lambda: layers.LSTM(5),
    "both ways": lambda: layers.Bidirectional(layers.GRU(5)),
    "stacked": lambda: layers.RNN([layers.LSTMCell(5), layers.LSTMCell(5)]),
}


@pytest.mark.parametrize("name", STEPS)
def test_recurrent_layers(name):
    x = rows(320).reshape(64, 5, 8)
    model = keras.Sequential(
        [Input((5, 8)), standardizing(x), STEPS[name](), layers.Dense(2)]
    )
    plain = keras.Sequential([Input((5, 8)), STEPS[name](), layers.Dense(2)])
    found = by_role(recommend(model, data=x), "recurrent input")
    wanted = by_role(recommend(plain, data=standardized(x)), "recurrent input")
    assert len(found) == len(wanted) >= 1
    for one, other in zip(found, wanted, strict=True):
        # The second cell of a stack reads what the first one gives.
        assert std_of(one) == pytest.approx(std_of(other), rel=0.1)


def test_a_layer_at_each_step():
    x = rows(320).reshape(64, 5, 8)
    stack = [layers.Rescaling(1 / SCALE), layers.TimeDistributed(layers.Dense(4))]
    model = keras.Sequential([Input((5, 8)), *stack, layers.Dense(2)])
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(std_for(x / SCALE, 8), rel=1e-3)


def test_attention_reads_what_is_preprocessed():
    x = rows(320).reshape(64, 5, 8)
    inputs = Input((5, 8))
    scaled = layers.Rescaling(1 / SCALE)(inputs)
    attended = layers.MultiHeadAttention(2, 4)(scaled, scaled)
    model = keras.Model(inputs, layers.Dense(2)(attended))
    advice = recommend(model, data=x)
    for role in ("query", "key", "value"):
        (row,) = by_role(advice, role)
        assert std_of(row) == pytest.approx(std_for(x / SCALE, 8), rel=1e-3)


def test_batch_normalization_that_trains_goes_by_the_batch():
    x = rows()
    stack = [layers.Rescaling(1 / 3), layers.BatchNormalization(epsilon=1e-7)]
    model = keras.Sequential(
        [Input((8,)), *stack, layers.Dense(4, "relu"), layers.Dense(2)]
    )
    before = [ops.convert_to_numpy(v).copy() for v in model.variables]
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(1 / math.sqrt(8), rel=1e-3)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_a_head_fits_what_a_frozen_body_gives():
    x = images()
    conv = layers.Conv2D(16, 3, activation="relu")
    stack = [layers.Rescaling(1 / 255), conv, layers.GlobalAveragePooling2D()]
    body = keras.Sequential([Input((6, 6, 3)), *stack])
    body.trainable = False
    model = keras.Sequential(
        [Input((6, 6, 3)), body, layers.Dense(4, "relu"), layers.Dense(2)]
    )
    features = ops.convert_to_numpy(body(x))
    head = next(row for row in recommend(model, data=x) if row.shape == (16, 4))
    assert std_of(head) == pytest.approx(std_for(features, 16), rel=1e-3)


@pytest.mark.parametrize(
    "given",
    [
        lambda x: [x],
        lambda x: iter([x]),
        lambda x: {"pixels": x},
    ],
    ids=["one", "batches", "by name"],
)
def test_forms_of_data(given):
    x = rows()
    x[32:] = x[:32]
    inputs = Input((8,), name="pixels")
    scaled = layers.Rescaling(1 / SCALE)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(scaled)))
    first = recommend(model, data=given(x))[0]
    assert std_of(first) == pytest.approx(std_for(x / SCALE, 8), rel=1e-3)


@pytest.mark.parametrize("wrap", [tuple, list])
def test_targets_in_a_batch_do_not_count(wrap):
    """A `DataLoader` of PyTorch gives lists."""
    x = rows()
    for first in ([], [layers.Rescaling(1 / SCALE)]):
        model = keras.Sequential([Input((8,)), *first, layers.Dense(3)])
        batches = (wrap((x, np.full(64, 1e6, "float32"))) for _ in range(2))
        expected = recommend(model, data=x).to_dict()
        assert recommend(model, data=batches).to_dict() == expected


def test_a_data_loader():
    torch = pytest.importorskip("torch")
    x = rows()
    examples = [(torch.tensor(row), number) for number, row in enumerate(x)]
    loader = torch.utils.data.DataLoader(examples, batch_size=64)
    scaled = layers.Rescaling(1 / SCALE)
    model = keras.Sequential([Input((8,)), scaled, layers.Dense(3), layers.Dense(2)])
    first = recommend(model, data=loader)[0]
    assert std_of(first) == pytest.approx(std_for(x / SCALE, 8), rel=1e-3)


def test_a_model_that_theory_knows_is_not_run(monkeypatch):
    def run(*given):
        raise AssertionError("the model was run")

    module = sys.modules["keras_initlab.recommend._recommend"]
    monkeypatch.setattr(module, "measure", run)
    model = keras.Sequential([Input((8,)), layers.Dense(4, "relu"), layers.Dense(2)])
    assert std_of(recommend(model, data=rows())[1]) == pytest.approx(0.5**0.5, 1e-3)
    with pytest.raises(AssertionError, match="was run"):
        recommend(max_pooled(), data=images())


def max_pooled():
    pooling = layers.GlobalMaxPooling2D()
    return keras.Sequential(
        [Input((6, 6, 3)), layers.Conv2D(4, 3), pooling, layers.Dense(2)]
    )


def test_what_is_zero_says_nothing():
    x = rows()
    model = keras.Sequential(
        [Input((8,)), layers.Rescaling(0.0), layers.Dense(4), layers.Dense(2)]
    )
    first = recommend(model, data=x)[0]
    assert std_of(first) == pytest.approx(std_for(x, 8), rel=1e-3)


def test_an_error_on_the_way_is_the_users_own():
    class Failing(layers.Layer):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor) and len(x) > 2:
                raise RuntimeError("not today")
            return 2 * x

        def compute_output_shape(self, input_shape):
            return input_shape

    model = keras.Sequential([Input((8,)), Failing(), layers.Dense(4)])
    dense = model.layers[-1]
    with pytest.raises(RuntimeError, match="not today"):
        recommend(model, data=rows())
    assert "call" not in vars(dense)


class OwnCell(layers.Layer):
    """A cell that keeps a weight of a usual name in an attribute of another."""

    def __init__(self, units):
        super().__init__()
        self.units = self.state_size = units

    def build(self, shape):
        self.k = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.r = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, x, states):
        state = ops.tanh(ops.matmul(x, self.k) + ops.matmul(states[0], self.r))
        return state, [state]


def test_a_cell_whose_kernel_has_another_attribute():
    model = keras.Sequential(
        [keras.Input((10, 4)), layers.RNN(OwnCell(16)), layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(32, 10, 4)).astype("float32")
    recommend(model, data=x).apply(seed=0)
    assert recommend(model, data=x).verify(x)
