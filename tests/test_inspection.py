"""Golden tables of small models: what inspection says about each kernel."""

import functools
import time

import keras
import pytest
from keras import Input, layers, ops

from keras_initlab import NoKernelsError, UnbuiltModelError, UnsupportedModelError
from keras_initlab.inspection import Effect, KernelRecord, inspect, layer_paths
from keras_initlab.inspection._records import ROLES


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    """Weights do not matter here, and JAX compiles a draw for every new shape."""

    def zeros(self, shape, dtype=None, **options):
        return ops.zeros(shape, dtype)

    for name in ("GlorotUniform", "Orthogonal", "RandomUniform", "VarianceScaling"):
        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", zeros)


def sequential(*stack, name="model"):
    return keras.Sequential(list(stack), name=name)


def dense_chain():
    return sequential(
        Input((8,)),
        layers.Dense(16, "relu", name="a"),
        layers.Dense(12, "tanh", name="b"),
        layers.Dense(3, name="c"),
    )


def conv_chain():
    return sequential(
        Input((8, 8, 3)),
        layers.Conv2D(16, 3, use_bias=False, name="first"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Conv2D(8, 3, name="second"),
        layers.LayerNormalization(),
        layers.Dropout(0.1),
        layers.Activation("gelu"),
        layers.Flatten(),
        layers.Dense(5, "softmax", name="out"),
    )


def activation_layers():
    between = [
        layers.Activation("tanh"),
        layers.ReLU(),
        layers.LeakyReLU(),
        layers.PReLU(),
        layers.ELU(),
        layers.Softmax(),
    ]
    stack = [Input((8,))]
    for name, activation in zip("abcdef", between, strict=True):
        stack += [layers.Dense(8, name=name), layers.Dropout(0.1), activation]
    return sequential(*stack)


def raw_activations():
    x = inputs = Input((8,))
    for name, operation in zip(
        "abcd", (ops.relu, ops.gelu, ops.silu, ops.tanh), strict=True
    ):
        x = operation(layers.Dense(8, name=name)(x))
    x = 2 * layers.Dense(8, name="scaled")(x)
    return keras.Model(inputs, layers.Dense(8, name="out")(x), name="model")


def post_activation_resnet():
    def block(x, name, projects):
        y = layers.Conv2D(8, 3, padding="same", name=f"{name}1")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(8, 3, padding="same", name=f"{name}2")(y)
        y = layers.BatchNormalization()(y)
        if projects:
            x = layers.BatchNormalization()(layers.Conv2D(8, 1, name=f"{name}0")(x))
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = block(block(x, "p", projects=True), "q", projects=False)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="model")


def pre_activation_resnet():
    def block(x, name, projects):
        y = layers.Activation("relu")(layers.LayerNormalization()(x))
        x = layers.Dense(6, name=f"{name}0")(y) if projects else x
        y = layers.Dense(12, "relu", name=f"{name}1")(y)
        return x + layers.Dense(6, name=f"{name}2")(y)

    inputs = Input((5,))
    x = layers.Dense(4, name="stem")(inputs)
    x = block(block(block(x, "p", projects=True), "q", False), "r", False)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="model")


def inner_functional(name):
    inputs = Input((8,))
    x = layers.Dense(8, "relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(8, name="inner")(x), name=name)


def inner_sequential(name):
    return sequential(
        Input((8,)),
        layers.Dense(8, "relu", name="hidden"),
        layers.Dense(8, name="inner"),
        name=name,
    )


def nested(inner):
    inputs = Input((8,))
    x = layers.Activation("tanh")(inner("left")(inputs))
    x = inner("right")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="model")


def equal_names():
    """Two nested models, and layers inside them, of the same names."""
    wrapped = sequential(Input((8,)), inner_functional("inside"), name="wrap")
    inputs = Input((8,))
    x = wrapped(inner_functional("inside")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="model")


def shared_layer():
    inputs = Input((8,))
    shared = layers.Dense(8, "relu", name="shared")
    x = layers.Dense(8, "tanh", name="middle")(shared(inputs))
    return keras.Model(inputs, layers.Dense(2, name="out")(shared(x)), name="model")


def two_inputs_two_outputs():
    a, b = Input((4,)), Input((6,))
    left = layers.Dense(8, "relu", name="left")(a)
    right = layers.Dense(10, "relu", name="right")(b)
    x = layers.Concatenate()([left, right])
    x = layers.Dense(8, "relu", name="joint")(x)
    head = layers.Dense(5, "elu", name="head")(x)
    outputs = [
        layers.Dense(2, name="one")(x),
        layers.Dense(3, "softmax", name="two")(head),
    ]
    return keras.Model([a, b], outputs, name="model")


def parallel_towers():
    """An addition whose operands have no ancestor in common."""
    a, b = Input((4,)), Input((6,))
    left = layers.Dense(8, "relu", name="left")(a)
    right = layers.Dense(8, "relu", name="right1")(b)
    right = layers.Dense(8, "relu", name="right2")(right)
    x = layers.Add()([left, right])
    return keras.Model([a, b], layers.Dense(3, name="out")(x), name="model")


def equal_towers():
    """An addition of equally deep ways, so that none of them is the shortcut."""
    inputs = Input((4,))
    x = layers.Dense(8, "relu", name="left")(inputs)
    x = x + layers.Dense(8, "relu", name="right")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="out")(x), name="model")


def embedding_and_lstm():
    return sequential(
        Input((6,), dtype="int32"),
        layers.Embedding(50, 8, name="words"),
        layers.Bidirectional(layers.LSTM(5, name="lstm"), name="both"),
        layers.Dense(2, "sigmoid", name="out"),
    )


def gru_and_simple_rnn():
    return sequential(
        Input((6, 4)),
        layers.GRU(5, name="gru", return_sequences=True),
        layers.SimpleRNN(3, name="rnn"),
        layers.Dense(2, name="out"),
    )


def transformer_block():
    inputs = Input((6, 8))
    y = layers.LayerNormalization()(inputs)
    x = inputs + layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = layers.Dense(16, "gelu", name="up")(layers.LayerNormalization()(x))
    x = x + layers.Dense(8, name="down")(y)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="model")


def special_convolutions():
    return sequential(
        Input((8, 8, 4)),
        layers.SeparableConv2D(
            6, 3, depth_multiplier=2, activation="relu", name="separable"
        ),
        layers.DepthwiseConv2D(3, depth_multiplier=3, name="depthwise"),
        layers.ReLU(),
        layers.Conv2DTranspose(5, 4, strides=2, activation="elu", name="transposed"),
        layers.Conv2D(10, 3, groups=5, name="grouped"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, name="out"),
    )


def time_distributed():
    return sequential(
        Input((5, 8)),
        layers.TimeDistributed(layers.Dense(6, "relu", name="dense"), name="each"),
        layers.TimeDistributed(layers.Dense(4, name="dense"), name="again"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(3, name="out"),
    )


def einsum_dense():
    return sequential(
        Input((5, 8)),
        layers.EinsumDense("btd,dhe->bthe", (5, 2, 3), activation="relu", name="heads"),
        layers.Flatten(),
        layers.Dense(3, name="out"),
    )


# Columns: path, role, activation, normalization, depth, branches, fan_in, fan_out.
GOLDEN = {
    dense_chain: """
        a | hidden | relu   | - | 1 | 0 | 8  | 16
        b | hidden | tanh   | - | 2 | 0 | 16 | 12
        c | output | linear | - | 3 | 0 | 12 | 3
    """,
    conv_chain: """
        first  | hidden | relu    | BatchNormalization | 1 | 0 | 27  | 144
        second | hidden | gelu    | LayerNormalization | 2 | 0 | 144 | 72
        out    | output | softmax | -                  | 3 | 0 | 8   | 5
    """,
    activation_layers: """
        a | hidden | tanh       | - | 1 | 0 | 8 | 8
        b | hidden | relu       | - | 2 | 0 | 8 | 8
        c | hidden | leaky_relu | - | 3 | 0 | 8 | 8
        d | hidden | prelu      | - | 4 | 0 | 8 | 8
        e | hidden | elu        | - | 5 | 0 | 8 | 8
        f | output | softmax    | - | 6 | 0 | 8 | 8
    """,
    raw_activations: """
        a      | hidden | relu   | - | 1 | 0 | 8 | 8
        b      | hidden | gelu   | - | 2 | 0 | 8 | 8
        c      | hidden | silu   | - | 3 | 0 | 8 | 8
        d      | hidden | tanh   | - | 4 | 0 | 8 | 8
        scaled | hidden | linear | - | 5 | 0 | 8 | 8
        out    | output | linear | - | 6 | 0 | 8 | 8
    """,
    post_activation_resnet: """
        stem | hidden          | linear | -                  | 1 | 0 | 27 | 36
        p1   | hidden          | relu   | BatchNormalization | 2 | 0 | 36 | 72
        p0   | shortcut        | relu   | BatchNormalization | 2 | 0 | 4  | 8
        p2   | residual branch | relu   | BatchNormalization | 3 | 2 | 72 | 72
        q1   | hidden          | relu   | BatchNormalization | 4 | 0 | 72 | 72
        q2   | residual branch | relu   | BatchNormalization | 5 | 2 | 72 | 72
        out  | output          | linear | -                  | 6 | 0 | 8  | 2
    """,
    pre_activation_resnet: """
        stem | hidden          | relu   | LayerNormalization | 1 | 0 | 5  | 4
        p0   | shortcut        | relu   | -                  | 2 | 0 | 4  | 6
        p1   | hidden          | relu   | -                  | 2 | 0 | 4  | 12
        p2   | residual branch | relu   | -                  | 3 | 3 | 12 | 6
        q1   | hidden          | relu   | -                  | 4 | 0 | 6  | 12
        q2   | residual branch | relu   | -                  | 5 | 3 | 12 | 6
        r1   | hidden          | relu   | -                  | 6 | 0 | 6  | 12
        r2   | residual branch | linear | -                  | 7 | 3 | 12 | 6
        out  | output          | linear | -                  | 8 | 0 | 6  | 2
    """,
    shared_layer: """
        shared | hidden | relu   | - | 1 | 0 | 8 | 8
        middle | hidden | tanh   | - | 2 | 0 | 8 | 8
        out    | output | linear | - | 4 | 0 | 8 | 2
    """,
    two_inputs_two_outputs: """
        left  | hidden | relu    | - | 1 | 0 | 4  | 8
        right | hidden | relu    | - | 1 | 0 | 6  | 10
        joint | hidden | relu    | - | 2 | 0 | 18 | 8
        one   | output | linear  | - | 3 | 0 | 8  | 2
        head  | hidden | elu     | - | 3 | 0 | 8  | 5
        two   | output | softmax | - | 4 | 0 | 5  | 3
    """,
    parallel_towers: """
        left   | hidden | relu   | - | 1 | 0 | 4 | 8
        right1 | hidden | relu   | - | 1 | 0 | 6 | 8
        right2 | hidden | relu   | - | 2 | 0 | 8 | 8
        out    | output | linear | - | 3 | 0 | 8 | 3
    """,
    equal_towers: """
        left  | hidden | relu   | - | 1 | 0 | 4 | 8
        right | hidden | relu   | - | 1 | 0 | 4 | 8
        out   | output | linear | - | 2 | 0 | 8 | 3
    """,
    embedding_and_lstm: """
        words/embeddings | embedding | linear | - | 1 | 0 | 1 | 8
        both/forward_lstm/lstm_cell            | recurrent input | tanh |-|2|0|8|5
        both/forward_lstm/lstm_cell/recurrent_kernel  | recurrent | tanh|-|2|0|5|5
        both/backward_lstm/lstm_cell           | recurrent input | tanh |-|2|0|8|5
        both/backward_lstm/lstm_cell/recurrent_kernel | recurrent | tanh|-|2|0|5|5
        out | output | sigmoid | - | 3 | 0 | 10 | 2
    """,
    gru_and_simple_rnn: """
        gru/gru_cell                         | recurrent input | tanh | - |1|0|4|5
        gru/gru_cell/recurrent_kernel        | recurrent       | tanh | - |1|0|5|5
        rnn/simple_rnn_cell                  | recurrent input | tanh | - |2|0|5|3
        rnn/simple_rnn_cell/recurrent_kernel | recurrent       | tanh | - |2|0|3|3
        out                                  | output          | linear | - |3|0|3|2
    """,
    transformer_block: """
        attention/query            | query            | linear | - | 1 | 0 | 8  | 6
        attention/key              | key              | linear | - | 1 | 0 | 8  | 6
        attention/value            | value            | linear | - | 1 | 0 | 8  | 6
        attention/attention_output | attention output | linear | - | 1 | 2 | 6  | 8
        up                         | hidden           | gelu   | - | 2 | 0 | 8  | 16
        down                       | residual branch  | linear | - | 3 | 2 | 16 | 8
        out                        | output           | linear | - | 4 | 0 | 8  | 2
    """,
    special_convolutions: """
        separable/depthwise_kernel | hidden | linear | - | 1 | 0 | 9  | 18
        separable/pointwise_kernel | hidden | relu   | - | 1 | 0 | 8  | 6
        depthwise                  | hidden | relu   | - | 2 | 0 | 9  | 27
        transposed                 | hidden | elu    | - | 3 | 0 | 72 | 80
        grouped                    | hidden | linear | - | 4 | 0 | 9  | 18
        out                        | output | linear | - | 5 | 0 | 10 | 3
    """,
    time_distributed: """
        each/dense  | hidden | relu   | -                  | 1 | 0 | 8  | 6
        again/dense | hidden | relu   | BatchNormalization | 2 | 0 | 6  | 4
        out         | output | linear | -                  | 3 | 0 | 20 | 3
    """,
    einsum_dense: """
        heads | hidden | relu   | - | 1 | 0 | 8  | 6
        out   | output | linear | - | 2 | 0 | 30 | 3
    """,
}
NESTED = """
    left/hidden  | hidden | relu   | - | 1 | 0 | 8 | 8
    left/inner   | hidden | tanh   | - | 2 | 0 | 8 | 8
    right/hidden | hidden | relu   | - | 3 | 0 | 8 | 8
    right/inner  | hidden | linear | - | 4 | 0 | 8 | 8
    out          | output | linear | - | 5 | 0 | 8 | 2
"""


@functools.cache
def built(build):
    return build()


def short(path):
    return path.removeprefix("model/").removesuffix("/kernel")


def table(model):
    return [
        (
            short(kernel.path),
            kernel.role,
            kernel.activation_name,
            kernel.normalization or "-",
            *map(str, (kernel.depth, kernel.branches, *kernel.fans)),
        )
        for kernel in inspect(model).kernels
    ]


def rows(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


@pytest.mark.parametrize("build", GOLDEN, ids=lambda build: build.__name__)
def test_golden_table(build):
    # Which of two parallel kernels comes first is nothing to rely on.
    assert sorted(table(built(build))) == sorted(rows(GOLDEN[build]))


@pytest.mark.parametrize("build", [two_inputs_two_outputs, pre_activation_resnet])
def test_the_order_is_always_the_same(build):
    assert table(build()) == table(built(build))


@pytest.mark.parametrize("build", GOLDEN, ids=lambda build: build.__name__)
def test_records_hold_together(build):
    inspection = inspect(built(build))
    kernels = inspection.kernels
    assert [kernel.position for kernel in kernels] == list(range(len(kernels)))
    assert len({kernel.path for kernel in kernels}) == len(kernels)
    assert {kernel.role for kernel in kernels} <= set(ROLES)
    for kernel in kernels:
        assert kernel.path.endswith(kernel.variable.path)
        assert kernel.shape == tuple(kernel.variable.shape)
        assert kernel.calls == (2 if kernel.layer.name == "shared" else 1)
        if kernel.upstream is not None:
            assert kernel.upstream < kernel.position
            assert kernels[kernel.upstream].depth < kernel.depth


@pytest.mark.parametrize("inner", [inner_functional, inner_sequential])
def test_nested_models_are_opened(inner):
    assert table(nested(inner)) == rows(NESTED)


def test_a_nested_model_that_sequential_builds_is_opened():
    def inner(name):
        deferred = [layers.Dense(8, "relu", name="hidden")]
        return sequential(*deferred, layers.Dense(8, name="inner"), name=name)

    model = sequential(
        Input((8,)),
        inner("left"),
        layers.Activation("tanh"),
        inner("right"),
        layers.Dense(2, name="out"),
    )
    assert table(model) == rows(NESTED)


def test_equal_names_get_paths_of_their_own():
    model = equal_names()
    paths = [kernel.path for kernel in inspect(model).kernels]
    assert [path.split("/")[-2] for path in paths] == ["hidden", "inner"] * 2 + ["out"]
    assert len(set(paths)) == 5
    assert paths == [kernel.path for kernel in inspect(equal_names()).kernels]
    assert paths[2] == f"wrap/{paths[0]}"
    every_layer = [path for path, _ in layer_paths(model)]
    assert len(set(every_layer)) == len(every_layer) == len(layer_paths(model))


def test_a_model_inside_itself_twice_shares_its_kernels():
    inputs, inner = Input((8,)), inner_functional("inner")
    model = keras.Model(inputs, inner(layers.ReLU()(inner(inputs))))
    kernels = inspect(model).kernels
    assert [(kernel.layer.name, kernel.calls) for kernel in kernels] == [
        ("hidden", 2),
        ("inner", 2),
    ]
    # The second call of the last one ends the model, the first one does not.
    assert kernels[1].role == "hidden"


def test_frozen_kernels_are_marked():
    model = dense_chain()
    model.get_layer("b").trainable = False
    assert [kernel.trainable for kernel in inspect(model).kernels] == [
        True,
        False,
        True,
    ]


def test_links_tell_what_is_passed():
    _, second, out = inspect(built(conv_chain)).kernels
    assert [transform.effect for transform in second.edges[0].transforms] == [
        Effect.NORMALIZATION,
        Effect.ACTIVATION,
        Effect.POOL,
    ]
    assert [transform.effect for transform in out.edges[0].transforms] == [
        Effect.NORMALIZATION,
        Effect.SAME_UNITS,
        Effect.ACTIVATION,
        Effect.REARRANGE,
    ]
    assert (second.edges[0].source, out.edges[0].source) == (0, 1)


def test_merges_and_kernels_read_kernels():
    inspection = inspect(built(two_inputs_two_outputs))
    by_name = {kernel.layer.name: kernel for kernel in inspection.kernels}
    (merge,) = inspection.merges
    assert merge.effect is Effect.CONCATENATE
    assert [edge.source for edge in merge.edges] == [
        by_name["left"].position,
        by_name["right"].position,
    ]
    assert [edge.source for edge in by_name["joint"].edges] == [merge]
    readers = {
        name: {
            reader.layer.name if isinstance(reader, KernelRecord) else reader
            for reader in group
        }
        for name, kernel in by_name.items()
        for group in [inspection.readers[kernel.position]]
    }
    assert readers == {
        "left": {merge},
        "right": {merge},
        "joint": {"one", "head"},
        "head": {"two"},
        "one": set(),
        "two": set(),
    }


def paths_of(model):
    return [short(kernel.path) for kernel in inspect(model).kernels]


def trunk(inputs):
    x = layers.Dense(8, "relu", name="a")(inputs)
    y = layers.Dense(8, "relu", name="b")(x)
    x = x + layers.Dense(8, name="c")(y)
    return x, layers.Dense(8, "relu", name="d")(x)


def test_layers_added_after_the_end_leave_positions_alone():
    inputs = Input((8,))
    _, end = trunk(inputs)
    before = paths_of(keras.Model(inputs, end))
    longer = layers.Dense(3, name="out")(layers.Dense(8, "relu", name="e")(end))
    assert paths_of(keras.Model(inputs, longer)) == [*before, "e", "out"]
    head = layers.Dense(3, name="head")(end)
    for outputs in ([end, head], [head, end]):
        assert paths_of(keras.Model(inputs, outputs)) == [*before, "head"]


def test_a_head_added_in_the_middle_leaves_positions_alone():
    def positions(with_head):
        inputs = Input((8,))
        middle, end = trunk(inputs)
        outputs = [layers.Dense(3, name="out")(layers.Dense(8, name="e")(end))]
        if with_head:
            outputs.append(layers.Dense(3, name="head")(middle))
        model = keras.Model(inputs, outputs)
        return {short(k.path): k.key for k in inspect(model).kernels}

    assert positions(with_head=True).items() >= positions(with_head=False).items()


def test_models_built_before_leave_positions_alone():
    inputs = Input((8,))
    _, end = trunk(inputs)
    expected = paths_of(keras.Model(inputs, end))
    for _ in range(3):
        dense_chain()
        equal_towers()
    inputs = Input((8,))
    _, end = trunk(inputs)
    assert paths_of(keras.Model(inputs, end)) == expected


def test_layers_called_outside_the_model_leave_it_alone():
    inputs = Input((8,))
    _, end = trunk(inputs)
    model = keras.Model(inputs, end)
    expected = table(model)
    layers.Dense(4, name="elsewhere")(model.get_layer("a").output)
    assert table(model) == expected


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def built_layer():
    layer = layers.Dense(3, name="alone")
    layer.build((None, 2))
    return layer


@pytest.mark.parametrize(
    ("build", "error", "received"),
    [
        (
            lambda: keras.Sequential([layers.Dense(3)], name="later"),
            UnbuiltModelError,
            r"Received: model='later' \(Sequential\), not built\. Start it with",
        ),
        (
            lambda: keras.Sequential(name="empty"),
            UnbuiltModelError,
            r"Received: model='empty' \(Sequential\), not built",
        ),
        (
            Subclassed,
            UnbuiltModelError,
            r"Received: model='subclassed' \(Subclassed\), not built",
        ),
        (built_layer, UnsupportedModelError, r"Received: model='alone' \(Dense\)"),
        (lambda: None, UnsupportedModelError, r"Received: model=\(NoneType\)"),
        (lambda: "model", UnsupportedModelError, r"Received: model=\(str\)"),
        (
            lambda: sequential(Input((3,)), layers.ReLU()),
            NoKernelsError,
            r"at least one kernel\. Received: model='model', 1 layer",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(build, error, received):
    with pytest.raises(error, match=received):
        inspect(build())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kernels", "branches", "shortcuts"),
    [
        ("ResNet50", 54, 16, 4),
        ("MobileNetV2", 53, 10, 0),
        ("EfficientNetB0", 82, 9, 0),
        ("DenseNet121", 121, 0, 0),
        ("InceptionResNetV2", 245, 40, 0),
    ],
)
def test_applications(name, kernels, branches, shortcuts):
    application = getattr(keras.applications, name)
    model = application(weights=None, input_shape=(75, 75, 3), classes=10)
    records = inspect(model).kernels
    roles = [record.role for record in records]
    assert set(roles) <= set(ROLES)
    assert len({record.path for record in records}) == len(records) == kernels
    assert roles.count("residual branch") == branches
    assert {record.branches for record in records} <= {0, branches}
    assert roles.count("shortcut") == shortcuts
    assert roles.count("output") == 1
    normalized = [record for record in records if record.normalization]
    assert len(normalized) >= kernels // 2


@pytest.mark.slow
def test_the_time_per_layer_hardly_grows_with_the_number_of_layers():
    def hundred(name):  # Keras's own recursion ends near 1,000 layers in one model
        stack = [layers.Dense(2) for _ in range(100)]
        return sequential(Input((2,)), *stack, name=name)

    short_model = hundred("short")
    long_model = sequential(Input((2,)), *[hundred(f"part{i}") for i in range(10)])
    assert len(inspect(long_model).kernels) == 10 * len(inspect(short_model).kernels)
    rounds = [(_seconds(short_model), _seconds(long_model)) for _ in range(5)]
    short_time, long_time = (min(times) for times in zip(*rounds, strict=True))
    assert long_time / 1000 < 3 * short_time / 100


def _seconds(model):
    start = time.perf_counter()
    inspect(model)
    return time.perf_counter() - start
