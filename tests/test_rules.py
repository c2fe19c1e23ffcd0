"""The rule table, against conditions of its own for each method, and by hand."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import layers

import keras_initlab

SHALLOW, DEEP, VERY_DEEP = "shallow", "deep", "very_deep"
ALTERNATIVES = {
    "he_normal": ("he_uniform", "adaptive_he"),
    "xavier_normal": ("xavier_uniform", "lecun_normal"),
    "adaptive_he": ("he_normal", "spectral_norm"),
}
ISSUES = ("wide_layers", "narrow_bottleneck", "very_deep", "irregular_width")
ADVICE = {  # in the order of the advice, with words that each must hold
    "wide_layers": "batch normalization",
    "narrow_bottleneck": "lose information",
    "irregular_width": "initialize by layer",
    "very_deep": "residual connections",
}


class Network:
    """What the rules ask of a network."""

    def __init__(self, widths, activation):
        ratios = [after / before for before, after in itertools.pairwise(widths)]
        self.name, self.hidden = activation.lower(), len(widths) - 2
        self.issues = {
            "wide_layers": max(widths) > 1000,
            "narrow_bottleneck": any(width < 10 for width in widths[1:-1]),
            "very_deep": self.hidden > 20,
            "irregular_width": any(not 0.1 <= ratio <= 10 for ratio in ratios),
        }
        self.params = sum((a + 1) * b for a, b in itertools.pairwise(widths))

    def is_one_of(self, *names):
        return self.name in names

    @property
    def starts_from_he(self):
        """Whether the table says He's plain rule."""
        most = {"relu": 3, "leaky_relu": 10}.get(self.name, math.inf)
        others = self.is_one_of("sigmoid", "tanh", "selu")
        return not others and self.hidden <= most

    @property
    def starts_from_xavier(self):
        return self.is_one_of("sigmoid", "tanh") and self.hidden <= 10


# The first whose condition holds is the method.
METHODS = {
    "spectral_norm": lambda one: (
        one.hidden > 20 or (one.is_one_of("relu") and one.hidden > 10)
    ),
    "width_aware": lambda one: (
        one.issues["irregular_width"] and (one.starts_from_he or one.starts_from_xavier)
    ),
    "adaptive_he": lambda one: (
        (one.is_one_of("relu") and one.hidden > 3)
        or (one.is_one_of("leaky_relu") and one.hidden > 10)
        or (one.issues["wide_layers"] and one.starts_from_he)
    ),
    "layer_sequential": lambda one: (
        one.is_one_of("sigmoid", "tanh") and one.hidden > 10
    ),
    "xavier_normal": lambda one: one.starts_from_xavier,
    "lecun_normal": lambda one: one.is_one_of("selu"),
    "he_normal": lambda one: True,
}


def oracle(widths, activation):
    one = Network(widths, activation)
    issues = tuple(name for name in ISSUES if one.issues[name])
    method = next(name for name, holds in METHODS.items() if holds(one))
    confidence = 0.9 if one.is_one_of("relu", "sigmoid", "tanh") else 0.8
    if len(issues) > 2:
        confidence -= 0.2
    return {
        "method": method,
        "confidence": round(confidence, 12),
        "alternatives": ALTERNATIVES.get(method, ("he_normal", "xavier_normal")),
        "issues": issues,
        "advice": tuple(words for name, words in ADVICE.items() if name in issues),
        "depth_category": (SHALLOW, DEEP, VERY_DEEP)[
            (one.hidden > 3) + (one.hidden > 10)
        ],
        "hidden": one.hidden,
        "params": one.params,
    }


def found_by_package(widths, activation="relu"):
    """The package's record, each advice reduced to the words that tell it."""
    record = keras_initlab.recommend_widths(widths, activation)
    return {
        "method": record.method,
        "confidence": round(record.confidence, 12),
        "alternatives": tuple(record.alternatives),
        "issues": tuple(record.issues),
        "advice": tuple(_telling_words(sentence) for sentence in record.advice),
        "depth_category": record.depth_category,
        "hidden": record.hidden,
        "params": record.params,
    }


def _telling_words(sentence):
    return next((words for words in ADVICE.values() if words in sentence), sentence)


NAMES = [
    *("relu", "ReLU", "RELU", "leaky_relu", "Leaky_ReLU", "sigmoid", "SIGMOID"),
    *("tanh", "Tanh", "selu", "SeLU", "gelu", "softmax", "no such activation"),
]
BOUNDS = [(1, 3000), (1, 1000), (10, 3000), (10, 1000)]


def random_network(rng):
    """Widths that walk by at most a factor 8 a layer, or jump about."""
    low, high = BOUNDS[rng.integers(len(BOUNDS))]
    count = rng.integers(2, 31)
    if rng.random() < 0.5:
        logs = np.cumsum(rng.uniform(-math.log(8), math.log(8), count))
        logs += rng.uniform(math.log(low), math.log(high))
    else:
        logs = rng.uniform(math.log(low), math.log(high), count)
    widths = np.clip(np.rint(np.exp(logs)), low, high).astype(int).tolist()
    return widths, NAMES[rng.integers(len(NAMES))]


def test_ten_thousand_random_networks_agree_with_the_conditions(rng):
    combinations, methods = set(), set()
    for _ in range(10_000):
        widths, activation = random_network(rng)
        expected = oracle(widths, activation)
        found = found_by_package(widths, activation)
        assert found == expected, (widths, activation)
        combinations.add(expected["issues"])
        methods.add((activation.lower(), expected["depth_category"], found["method"]))
    assert len(combinations) == 2 ** len(ISSUES)
    assert len(methods) == 59  # every reachable one: 5 + 8 + 6 + 6 + 4 + 3 * 10


SAMPLES = [
    (
        [784, 128, 64, 10],
        "relu",
        {
            "method": "he_normal",
            "confidence": 0.9,
            "alternatives": ("he_uniform", "adaptive_he"),
            "issues": (),
            "advice": (),
            "depth_category": "shallow",
            "hidden": 2,
            "params": 109_386,
        },
    ),
    (
        [100, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1],
        "relu",
        {
            "method": "adaptive_he",
            "confidence": 0.9,
            "alternatives": ("he_normal", "spectral_norm"),
            "issues": ("narrow_bottleneck",),
            "advice": ("lose information",),
            "depth_category": "deep",
            "hidden": 9,
            "params": 226_985,
        },
    ),
    (
        [1000, 2000, 1000, 1],
        "relu",
        {
            "method": "width_aware",
            "confidence": 0.9,
            "alternatives": ("he_normal", "xavier_normal"),
            "issues": ("wide_layers", "irregular_width"),
            "advice": ("batch normalization", "initialize by layer"),
            "depth_category": "shallow",
            "hidden": 2,
            "params": 4_004_001,
        },
    ),
    (
        [50, 100, 50, 25, 1],
        "sigmoid",
        {
            "method": "width_aware",
            "confidence": 0.9,
            "alternatives": ("he_normal", "xavier_normal"),
            "issues": ("irregular_width",),
            "advice": ("initialize by layer",),
            "depth_category": "shallow",
            "hidden": 3,
            "params": 11_451,
        },
    ),
    (
        [10, 1000, 5, 500, 1],
        "relu",
        {
            "method": "width_aware",
            "confidence": 0.9,
            "alternatives": ("he_normal", "xavier_normal"),
            "issues": ("narrow_bottleneck", "irregular_width"),
            "advice": ("lose information", "initialize by layer"),
            "depth_category": "shallow",
            "hidden": 3,
            "params": 19_506,
        },
    ),
]


@pytest.mark.parametrize(("widths", "activation", "expected"), SAMPLES)
def test_sample_networks(widths, activation, expected):
    assert expected == found_by_package(widths, activation)
    assert expected == oracle(widths, activation)


CORNERS = [
    # widths, issues
    ([5, 5], ()),
    ([3, 30], ()),
    ([20, 1000, 100], ("irregular_width",)),
    ([100, 1000, 100], ()),
    ([100, 1001, 200], ("wide_layers", "irregular_width")),
    ([200, 1001, 200], ("wide_layers",)),
    ([1001, 500, 1000], ("wide_layers",)),
    ([10, 20, 1001], ("wide_layers", "irregular_width")),
    ([20, 10, 20], ()),
    ([20, 9, 20], ("narrow_bottleneck",)),
    ([9, 20, 9], ()),
    ([10, 100, 10], ()),
    ([10, 101, 101], ("irregular_width",)),
    ([100, 100, 9], ("irregular_width",)),
    ([70, 7], ()),
    ([71, 7], ("irregular_width",)),
    ([50] * 22, ()),
    ([50] * 23, ("very_deep",)),
    ([2000] + [500] * 20 + [9, 500], ("wide_layers", *ISSUES[1:])),
]


@pytest.mark.parametrize(("widths", "issues"), CORNERS)
def test_issues_at_their_limits(widths, issues):
    assert keras_initlab.recommend_widths(widths).issues == issues


@pytest.mark.parametrize(
    ("hidden", "category", "relu", "tanh"),
    [
        (0, SHALLOW, "he_normal", "xavier_normal"),
        (1, SHALLOW, "he_normal", "xavier_normal"),
        (3, SHALLOW, "he_normal", "xavier_normal"),
        (4, DEEP, "adaptive_he", "xavier_normal"),
        (10, DEEP, "adaptive_he", "xavier_normal"),
        (11, VERY_DEEP, "spectral_norm", "layer_sequential"),
        (20, VERY_DEEP, "spectral_norm", "layer_sequential"),
        (21, VERY_DEEP, "spectral_norm", "spectral_norm"),
    ],
)
def test_depth_at_its_limits(hidden, category, relu, tanh):
    for activation, method in (("relu", relu), ("TANH", tanh)):
        record = keras_initlab.recommend_widths([50] * (hidden + 2), activation)
        assert (record.hidden, record.depth_category) == (hidden, category)
        assert record.method == method


@pytest.mark.parametrize(
    ("issue_count", "activation", "confidence"),
    [(2, "relu", 0.9), (2, "gelu", 0.8), (3, "relu", 0.7), (3, "gelu", 0.6)],
)
def test_confidence_falls_with_more_than_two_issues(
    issue_count, activation, confidence
):
    widths = {2: [50, 1001, 50], 3: [50, 1001, 9, 50]}[issue_count]
    record = keras_initlab.recommend_widths(widths, activation)
    assert len(record.issues) == issue_count
    assert record.confidence == pytest.approx(confidence)


def test_widths_of_any_sequence_and_integer_type():
    expected = keras_initlab.recommend_widths([784, 128, 10])
    assert keras_initlab.recommend_widths((784, 128, 10)) == expected
    assert keras_initlab.recommend_widths(np.array([784, 128, 10])) == expected


@pytest.mark.parametrize(
    ("widths", "received"),
    [
        ([], r"Received: widths=\[\]"),
        ([5], r"Received: widths=\[5\]"),
        ([5, 0, 3], "Received: widths=.*0"),
        ([5, -3], "Received: widths=.*-3"),
        ([5, 2.5], "Received: widths=.*2.5"),
        ([5, True], "Received: widths=.*True"),
        ([5, "7"], "Received: widths=.*7"),
        ([5, None], "Received: widths=.*None"),
        ([5, float("nan")], "Received: widths=.*nan"),
        (784, "Received: widths=784"),
        (None, "Received: widths=None"),
    ],
)
def test_what_is_no_list_of_widths_is_refused(widths, received):
    with pytest.raises(ValueError, match=received):
        keras_initlab.recommend_widths(widths)


@pytest.mark.parametrize("activation", [None, 5, ["relu"]])
def test_an_activation_that_is_no_name_is_refused(activation):
    with pytest.raises(ValueError, match=r"`activation` must be a name\. Received: "):
        keras_initlab.recommend_widths([5, 5], activation)


def dense_model(widths, activation):
    # What it starts with does not matter, and zeros need no compiling on JAX.
    hidden = [
        layers.Dense(width, activation, kernel_initializer="zeros")
        for width in widths[1:-1]
    ]
    output = layers.Dense(widths[-1], kernel_initializer="zeros")
    return keras.Sequential([keras.Input((widths[0],)), *hidden, output])


STD = {
    "he_normal": lambda n_in, n_out, layer: math.sqrt(2 / n_in),
    "xavier_normal": lambda n_in, n_out, layer: math.sqrt(2 / (n_in + n_out)),
    "lecun_normal": lambda n_in, n_out, layer: math.sqrt(1 / n_in),
    "adaptive_he": lambda n_in, n_out, layer: math.sqrt(2 / n_in / (1 + 0.1 * layer)),
    "layer_sequential": lambda n_in, n_out, layer: (
        math.sqrt(1 / n_in) * 0.95 ** (layer - 1)
    ),
    "width_aware": lambda n_in, n_out, layer: math.sqrt(n_out / (n_in + n_out) / n_in),
}
MODELS = [
    # widths, activation, method
    ([200, 260, 160, 120], "relu", "he_normal"),
    ([200, 260, 160, 120], "gelu", "he_normal"),
    ([200, 260, 160, 120], "tanh", "xavier_normal"),
    ([200, 260, 160, 120], "sigmoid", "xavier_normal"),
    ([200, 260, 160, 120], "selu", "lecun_normal"),
    ([150] * 7, "relu", "adaptive_he"),
    ([200, 1010, 200], "relu", "adaptive_he"),
    ([150] * 13, "tanh", "layer_sequential"),
    ([150] * 13, "selu", "lecun_normal"),
    ([20, 300, 400], "relu", "width_aware"),
    ([20, 300, 400], "sigmoid", "width_aware"),
    ([150] * 14, "leaky_relu", "adaptive_he"),
    ([60] * 14, "relu", "spectral_norm"),
    ([60] * 24, "tanh", "spectral_norm"),
]


@pytest.mark.parametrize(("widths", "activation", "method"), MODELS)
def test_the_policy_draws_what_the_table_says(widths, activation, method):
    model = dense_model(widths, activation)
    advice = keras_initlab.recommend(model, policy="rules")
    record = keras_initlab.recommend_widths(widths, activation)
    assert record.method == method
    assert (advice.issues, advice.advice) == (record.issues, record.advice)
    assert [row.confidence for row in advice] == [record.confidence] * len(advice)
    assert {row.alternatives for row in advice} == {record.alternatives}
    advice.apply(seed=0)
    pairs = itertools.pairwise(widths)
    for number, (layer, fans) in enumerate(zip(model.layers, pairs, strict=True), 1):
        kernel = keras.ops.convert_to_numpy(layer.kernel).astype("float64")
        if method == "spectral_norm":
            assert np.linalg.norm(kernel, 2) == pytest.approx(0.9, rel=1e-4)
            continue
        std = STD[method](*fans, number)
        error = std / math.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(std, abs=5 * error)
        assert abs(kernel.mean()) < 5 * std / math.sqrt(kernel.size)
        # Keras's own normals are truncated here, at 2.27 standard deviations.
        assert np.mean(np.abs(kernel) > 2.3 * std) == pytest.approx(0.0214, abs=0.008)


@pytest.mark.parametrize(
    ("widths", "activation", "nearest"),
    [
        ([200, 260, 160, 120], "relu", "xavier_normal"),
        ([200, 260, 160, 120], "tanh", "lecun_normal"),
        ([150] * 13, "tanh", "lecun_normal"),
    ],
)
def test_the_check_tells_methods_apart(widths, activation, nearest):
    model = dense_model(widths, activation)
    keras_initlab.recommend(model, policy="rules").apply(seed=0)
    kernel = keras.ops.convert_to_numpy(model.layers[2].kernel)
    std = STD[nearest](widths[2], widths[3], 3)
    assert abs(kernel.std() - std) > 5 * std / math.sqrt(2 * kernel.size)


def test_neighboring_layers_of_depth_dependent_methods_can_be_told_apart():
    for method, size in (("adaptive_he", 200 * 150), ("layer_sequential", 150**2)):
        stds = [STD[method](150, 150, number) for number in (1, 2)]
        assert stds[0] - stds[1] > 5 * stds[1] / math.sqrt(2 * size), method


def test_the_policy_follows_activations_given_as_layers():
    model = keras.Sequential([keras.Input((40,))])
    for _ in range(5):
        model.add(layers.Dense(40))
        model.add(layers.ReLU())
    model.add(layers.Dense(40))
    advice = keras_initlab.recommend(model, policy="rules")
    assert [row.initializer.depth for row in advice] == [1, 2, 3, 4, 5, 6]
    assert {type(row.initializer) for row in advice} == {
        keras_initlab.initializers.AdaptiveHe
    }


def test_the_policy_keeps_frozen_kernels():
    model = dense_model([20, 20, 20, 20], "relu")
    model.layers[1].trainable = False
    before = keras.ops.convert_to_numpy(model.layers[1].kernel)
    advice = keras_initlab.recommend(model, policy="rules")
    advice.apply(seed=0)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.layers[1].kernel), before
    )
    assert [row.initializer is None for row in advice] == [False, True, False]
