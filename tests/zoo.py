"""Small models of every common architecture, as people write them.

`ZOO` maps a name to an `Entry`: a function that builds the model, and what to call it
on. The structure is the real one, the widths are tiny. Sequential, Functional and
subclassed models mix, with custom layers of their own inside.
"""

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import Input, layers, ops

VOCABULARY = 20


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        build: makes a new, built model.
        shapes: the shape of an example without its batch axis, or a list or dict of
            them for several inputs.
        tokens: whether the inputs are word numbers.
        is_called: whether the model itself can be called.
    """

    build: Any
    shapes: Any
    tokens: bool = False
    is_called: bool = True

    def example(self, batch=2):
        """Inputs to call the model on."""
        return example(self.shapes, self.tokens, batch)


ZOO: dict[str, Entry] = {}


@functools.cache
def built(name):
    """A model that is built once, for tests that only look at it."""
    return ZOO[name].build()


def without_draws(monkeypatch):
    """Weights start at zero: JAX compiles a draw for every new shape."""

    def zeros(self, shape, dtype=None, **options):
        return ops.zeros(shape, dtype)

    for name in ("GlorotUniform", "Orthogonal", "RandomUniform", "VarianceScaling"):
        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", zeros)


def example(shapes, tokens=False, batch=2, seed=0):
    if isinstance(shapes, dict):
        values = example(list(shapes.values()), tokens, batch)
        return dict(zip(shapes, values, strict=True))
    if isinstance(shapes, list):
        return [example(one, tokens, batch, seed) for seed, one in enumerate(shapes)]
    rng = np.random.default_rng(seed)
    if tokens:
        return rng.integers(1, VOCABULARY, (batch, *shapes)).astype("int32")
    return rng.normal(size=(batch, *shapes)).astype("float32")


def _symbolic(array):
    return keras.KerasTensor(array.shape, str(array.dtype))


def entry(shapes, tokens=False, is_called=True):
    """Registers a function that builds a model, or a class that is called to be built.

    A subclassed model is built by one call on symbolic inputs.
    """

    def register(make):
        def build():
            model = make()
            if not model.built and is_called:
                model(keras.tree.map_structure(_symbolic, example(shapes, tokens)))
            return model

        ZOO[make.__name__] = Entry(build, shapes, tokens, is_called)
        return make

    return register


def dense(x, units, activation=None, name=None):
    return layers.Dense(units, activation, name=name)(x)


def conv(x, filters, size=3, activation=None, name=None, **others):
    return layers.Conv2D(
        filters, size, padding="same", activation=activation, name=name, **others
    )(x)


def conv_bn_relu(x, filters, size=3, name=None, **others):
    x = conv(x, filters, size, use_bias=False, name=name, **others)
    return layers.ReLU()(layers.BatchNormalization()(x))


# ---- dense networks -------------------------------------------------------------


@entry((12,))
def mlp():
    return keras.Sequential(
        [
            Input((12,)),
            layers.Dense(16, "relu"),
            layers.Dropout(0.1),
            layers.Dense(8, "relu"),
            layers.Dense(3, "softmax"),
        ]
    )


@entry((12,))
def deep_selu_mlp():
    hidden = [
        layers.Dense(8, "selu", kernel_initializer="lecun_normal") for _ in range(6)
    ]
    return keras.Sequential([Input((12,)), *hidden, layers.Dense(1, "sigmoid")])


@entry({"wide": (6,), "deep": (8,)})
def wide_and_deep():
    wide, deep = Input((6,), name="wide"), Input((8,), name="deep")
    x = dense(dense(deep, 8, "relu", "up"), 4, "relu", "down")
    x = layers.Concatenate()([wide, x])
    return keras.Model({"wide": wide, "deep": deep}, dense(x, 1, name="out"))


@entry([(8,), (8,)])
def siamese():
    tower = keras.Sequential(
        [Input((8,)), layers.Dense(8, "relu"), layers.Dense(4)], name="tower"
    )
    left, right = Input((8,)), Input((8,))
    distance = ops.abs(tower(left) - tower(right))
    return keras.Model([left, right], dense(distance, 1, "sigmoid", "same"))


@entry((10,))
def multi_task():
    inputs = Input((10,))
    x = dense(dense(inputs, 8, "relu", "trunk1"), 8, "relu", "trunk2")
    one = dense(dense(x, 4, "relu", "hidden1"), 3, "softmax", "class")
    two = dense(dense(x, 4, "tanh", "hidden2"), 1, None, "value")
    return keras.Model(inputs, {"class": one, "value": two})


@entry((10,))
class GatedResidualNetwork(keras.Model):
    """The block of the temporal fusion transformer: a gated linear unit, a skip."""

    def __init__(self):
        super().__init__()
        self.up = layers.Dense(8, "elu")
        self.down = layers.Dense(8)
        self.value = layers.Dense(8)
        self.gate = layers.Dense(8, "sigmoid")
        self.skip = layers.Dense(8)
        self.norm = layers.LayerNormalization()
        self.head = layers.Dense(2)

    def call(self, inputs):
        x = self.down(self.up(inputs))
        x = self.skip(inputs) + self.value(x) * self.gate(x)
        return self.head(self.norm(x))


@entry([(6,), (4,)])
class NeuralCollaborativeFilter(keras.Model):
    """Two embeddings, their product, and a tower beside it."""

    def __init__(self):
        super().__init__()
        self.users = layers.Dense(4, use_bias=False)
        self.items = layers.Dense(4, use_bias=False)
        self.hidden = layers.Dense(8, "relu")
        self.score = layers.Dense(1, "sigmoid")

    def call(self, inputs):
        user, item = self.users(inputs[0]), self.items(inputs[1])
        deep = self.hidden(ops.concatenate([user, item], axis=-1))
        return self.score(ops.concatenate([user * item, deep], axis=-1))


@entry((16,))
def deep_relu_mlp():
    hidden = [layers.Dense(16, "relu") for _ in range(20)]
    return keras.Sequential([Input((16,)), *hidden, layers.Dense(4, "softmax")])


@entry((16,))
def deep_sigmoid_mlp():
    hidden = [layers.Dense(16, "sigmoid") for _ in range(10)]
    return keras.Sequential([Input((16,)), *hidden, layers.Dense(4)])


@entry((16,))
def residual_mlp():
    """Residual blocks without normalization."""
    inputs = Input((16,))
    x = dense(inputs, 16, name="stem")
    for number in range(6):
        y = dense(ops.relu(x), 16, "relu", f"in{number}")
        x = x + dense(y, 16, name=f"out{number}")
    return keras.Model(inputs, dense(ops.relu(x), 3, name="head"))


@entry((10, 3))
def point_set():
    """Every point by itself, then the largest of each feature."""
    return keras.Sequential(
        [
            Input((10, 3)),
            layers.Dense(16, "relu"),
            layers.Dense(16, "relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(8, "relu"),
            layers.Dense(2),
        ]
    )


@entry((3,), tokens=True)
def categories():
    """A row of three categories, each with a table of its own."""
    inputs = Input((3,), dtype="int32")
    tables = [layers.Embedding(VOCABULARY, 8)(inputs[:, n]) for n in range(3)]
    x = dense(layers.Concatenate()(tables), 16, "silu", "hidden1")
    return keras.Model(inputs, dense(dense(x, 16, "silu", "hidden2"), 1, name="out"))


# ---- convolutions ---------------------------------------------------------------


@entry((16, 16, 3))
def vgg():
    return keras.Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(8, "relu"),
            layers.Dense(5, "softmax"),
        ]
    )


@entry((16, 16, 3))
def unet():
    inputs = Input((16, 16, 3))
    skips, x = [], inputs
    for number, filters in enumerate((4, 8)):
        x = conv(x, filters, activation="relu", name=f"down{number}a")
        x = conv(x, filters, activation="relu", name=f"down{number}b")
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = conv(x, 16, activation="relu", name="bottom")
    for number, filters in reversed(list(enumerate((4, 8)))):
        up = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up{number}")
        x = layers.Concatenate()([skips.pop(), up(x)])
        x = conv(x, filters, activation="relu", name=f"up{number}a")
    return keras.Model(inputs, conv(x, 2, 1, "softmax", "mask"))


@entry((16, 16, 3))
def deeplab():
    inputs = Input((16, 16, 3))
    low = conv_bn_relu(inputs, 4, name="stem", strides=2)
    x = conv_bn_relu(low, 8, name="body", strides=2)
    rates = [
        conv_bn_relu(x, 4, name=f"rate{rate}", dilation_rate=rate) for rate in (1, 2)
    ]
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = layers.UpSampling2D(4)(conv_bn_relu(pooled, 4, 1, name="pooled"))
    x = layers.Concatenate()([*rates, pooled])
    x = layers.UpSampling2D(2)(conv_bn_relu(x, 4, 1, name="joined"))
    x = layers.Concatenate()([x, conv_bn_relu(low, 2, 1, name="low")])
    x = conv(conv_bn_relu(x, 4, name="refined"), 3, 1, name="mask")
    return keras.Model(inputs, layers.UpSampling2D(2, interpolation="bilinear")(x))


@entry((16, 16, 3))
def mobile_inverted_residual():
    inputs = Input((16, 16, 3))
    x = conv_bn_relu(inputs, 4, name="stem", strides=2)
    for number in range(2):
        y = conv_bn_relu(x, 8, 1, name=f"expand{number}")
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{number}")(y)
        y = layers.Activation("relu6")(layers.BatchNormalization()(y))
        squeeze = layers.GlobalAveragePooling2D(keepdims=True)(y)
        squeeze = conv(squeeze, 2, 1, "silu", f"squeeze{number}")
        y = layers.Multiply()([y, conv(squeeze, 8, 1, "sigmoid", f"excite{number}")])
        y = layers.BatchNormalization()(conv(y, 4, 1, name=f"project{number}"))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, dense(x, 3, name="out"))


@entry((16, 16, 3))
def dense_blocks():
    inputs = Input((16, 16, 3))
    x = conv(inputs, 4, name="stem")
    for number in range(3):
        y = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(y, 4, name=f"grow{number}")])
    x = conv(layers.ReLU()(layers.BatchNormalization()(x)), 6, 1, name="transition")
    x = layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, dense(x, 3, name="out"))


@entry((16, 16, 3))
def inception():
    inputs = Input((16, 16, 3))
    ways = [
        conv(inputs, 4, 1, "relu", "one"),
        conv(conv(inputs, 2, 1, "relu", "three_in"), 4, 3, "relu", "three"),
        conv(conv(inputs, 2, 1, "relu", "five_in"), 4, 5, "relu", "five"),
        conv(layers.MaxPooling2D(3, 1, "same")(inputs), 4, 1, "relu", "pooled"),
    ]
    x = layers.GlobalMaxPooling2D()(layers.Concatenate()(ways))
    return keras.Model(inputs, dense(x, 3, "softmax", "out"))


@entry((16, 16, 3))
def deep_relu_cnn():
    hidden = [layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(8)]
    ending = [layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
    return keras.Sequential([Input((16, 16, 3)), *hidden, *ending])


@entry((16, 16, 3))
def pre_activation_resnet():
    """Blocks that normalize first and close by a bare convolution."""
    inputs = Input((16, 16, 3))
    x = conv(inputs, 8, name="stem")
    for number in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = conv(y, 8, use_bias=False, name=f"in{number}")
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.Add()([x, conv(y, 8, name=f"out{number}")])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, dense(x, 3, name="head"))


class BasicBlock(layers.Layer):
    """A residual block, its shortcut projected where the shape changes."""

    def __init__(self, filters, strides=1, **others):
        super().__init__(**others)
        self.first = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)
        self.norm1 = layers.BatchNormalization()
        self.second = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.norm2 = layers.BatchNormalization()
        self.project = None
        if strides > 1:
            self.project = layers.Conv2D(filters, 1, strides, use_bias=False)

    def call(self, inputs, training=None):
        x = ops.relu(self.norm1(self.first(inputs), training=training))
        x = self.norm2(self.second(x), training=training)
        shortcut = inputs if self.project is None else self.project(inputs)
        return ops.relu(x + shortcut)


@entry((16, 16, 3))
class SubclassedResNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(4, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()
        self.blocks = [BasicBlock(4), BasicBlock(8, strides=2), BasicBlock(8)]
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(5)

    def call(self, inputs, training=None):
        x = ops.relu(self.norm(self.stem(inputs), training=training))
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.pool(x))


@entry((24, 2))
def wavenet():
    inputs = Input((24, 2))
    x = layers.Conv1D(4, 2, padding="causal", name="stem")(inputs)
    skips = []
    for rate in (1, 2, 4):
        options = {"padding": "causal", "dilation_rate": rate}
        value = layers.Conv1D(4, 2, activation="tanh", name=f"value{rate}", **options)(
            x
        )
        gate = layers.Conv1D(4, 2, activation="sigmoid", name=f"gate{rate}", **options)(
            x
        )
        y = layers.Multiply()([value, gate])
        skips.append(layers.Conv1D(4, 1, name=f"skip{rate}")(y))
        x = layers.Add()([x, layers.Conv1D(4, 1, name=f"residual{rate}")(y)])
    x = layers.ReLU()(layers.Add()(skips))
    x = layers.Conv1D(4, 1, activation="relu", name="post")(x)
    return keras.Model(inputs, layers.Conv1D(6, 1, name="out")(x))


@entry((4, 8, 8, 2))
def video_net():
    return keras.Sequential(
        [
            Input((4, 8, 8, 2)),
            layers.Conv3D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling3D((1, 2, 2)),
            layers.Conv3D(4, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(3),
        ]
    )


class LayerScaledBlock(layers.Layer):
    """ConvNeXt's block: a branch scaled by a weight per channel."""

    def __init__(self, units, **others):
        super().__init__(**others)
        self.depthwise = layers.DepthwiseConv2D(5, padding="same")
        self.norm = layers.LayerNormalization()
        self.up = layers.Dense(4 * units, activation="gelu")
        self.down = layers.Dense(units)

    def build(self, input_shape):
        self.depthwise.build(input_shape)
        self.norm.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.up.units))
        self.scale = self.add_weight(
            shape=(1, 1, 1, input_shape[-1]), initializer="ones", name="scale"
        )

    def call(self, inputs):
        x = self.down(self.up(self.norm(self.depthwise(inputs))))
        return inputs + x * self.scale


@entry((8, 8, 3))
def convnext():
    inputs = Input((8, 8, 3))
    x = layers.Conv2D(4, 2, strides=2, name="stem")(inputs)
    x = LayerScaledBlock(4, name="block1")(layers.LayerNormalization()(x))
    x = LayerScaledBlock(4, name="block2")(x)
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, dense(x, 3, name="out"))


# ---- autoencoders and generators ------------------------------------------------


@entry((12,))
class TiedAutoencoder(keras.Model):
    """Decodes by the encoder's own kernels, transposed."""

    def __init__(self):
        super().__init__()
        self.outer = layers.Dense(8, "tanh")
        self.inner = layers.Dense(4, "tanh")

    def call(self, inputs):
        code = self.inner(self.outer(inputs))
        x = ops.tanh(ops.matmul(code, ops.transpose(self.inner.kernel)))
        return ops.matmul(x, ops.transpose(self.outer.kernel))


@entry((16, 16, 3))
def convolutional_autoencoder():
    """The decoder mirrors the encoder."""
    inputs = Input((16, 16, 3))
    x = conv(inputs, 8, activation="relu", name="in1", strides=2)
    x = conv(x, 8, activation="relu", name="in2", strides=2)
    x = dense(layers.Flatten()(x), 16, name="code")
    x = layers.Reshape((4, 4, 8))(dense(x, 128, "relu", "spread"))
    for number in (2, 1):
        options = {"strides": 2, "padding": "same", "activation": "relu"}
        x = layers.Conv2DTranspose(8, 4, name=f"out{number}", **options)(x)
    return keras.Model(inputs, conv(x, 3, name="image"))


class Sampling(layers.Layer):
    """Draws from N(mean, exp(log variance))."""

    def __init__(self, **others):
        super().__init__(**others)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(0.5 * log_variance) * noise


@entry((8, 8, 1))
class VAE(keras.Model):
    """Encoder and decoder are Functional; the loss is added in `call`."""

    def __init__(self):
        super().__init__()
        inputs = Input((8, 8, 1))
        x = conv(inputs, 4, activation="relu", name="in1", strides=2)
        x = dense(layers.Flatten()(x), 8, "relu", "hidden")
        moments = [dense(x, 2, name="mean"), dense(x, 2, name="log_variance")]
        self.encoder = keras.Model(inputs, [*moments, Sampling()(moments)])
        code = Input((2,))
        x = layers.Reshape((4, 4, 4))(dense(code, 64, "relu", "spread"))
        x = layers.Conv2DTranspose(4, 3, 2, "same", activation="relu", name="up")(x)
        self.decoder = keras.Model(code, conv(x, 1, 3, "sigmoid", "image"))

    def call(self, inputs):
        mean, log_variance, code = self.encoder(inputs)
        divergence = ops.mean(ops.square(mean) + ops.exp(log_variance) - log_variance)
        self.add_loss(0.5 * divergence)
        return self.decoder(code)


@entry((4,), is_called=False)
class GAN(keras.Model):
    """A pair without a `call` of its own: only its train step uses both."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [
                Input((4,)),
                layers.Dense(4 * 4 * 4, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Reshape((4, 4, 4)),
                layers.Conv2DTranspose(4, 4, 2, "same", activation="relu"),
                layers.Conv2D(1, 3, padding="same", activation="tanh"),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                Input((8, 8, 1)),
                layers.Conv2D(4, 4, 2, "same"),
                layers.LeakyReLU(negative_slope=0.2),
                layers.Conv2D(8, 4, 2, "same"),
                layers.LeakyReLU(negative_slope=0.2),
                layers.Flatten(),
                layers.Dense(1),
            ],
            name="discriminator",
        )

    def train_step(self, data):
        raise NotImplementedError


@entry((16, 16, 3))
def denoising_diffusion():
    """A U-Net with residual blocks, told the time by an addition."""

    def block(x, time, filters, name):
        skip = conv(x, filters, 1, name=f"{name}_skip")
        y = conv(ops.silu(layers.GroupNormalization(1)(x)), filters, name=f"{name}_in")
        y = y + ops.reshape(
            dense(time, filters, name=f"{name}_time"), (-1, 1, 1, filters)
        )
        y = ops.silu(layers.GroupNormalization(1)(y))
        return skip + conv(y, filters, name=f"{name}_out")

    inputs = Input((16, 16, 3))
    level = layers.GlobalAveragePooling2D()(inputs)
    time = dense(
        ops.concatenate([ops.sin(level), ops.cos(level)], axis=-1), 8, "silu", "time"
    )
    x = first = conv(inputs, 4, name="stem")
    x = block(layers.AveragePooling2D(2)(x), time, 8, "low")
    x = layers.Concatenate()([layers.UpSampling2D()(x), first])
    x = block(x, time, 4, "high")
    return keras.Model(inputs, conv(x, 3, name="noise"))


# ---- sequences ------------------------------------------------------------------


@entry((7,), tokens=True)
def lstm_stack():
    return keras.Sequential(
        [
            Input((7,), dtype="int32"),
            layers.Embedding(VOCABULARY, 6, mask_zero=True),
            layers.LSTM(5, return_sequences=True),
            layers.LSTM(4),
            layers.Dense(2, "softmax"),
        ]
    )


@entry((7,), tokens=True)
def tagger():
    """A label for every word."""
    inputs = Input((7,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 6)(inputs)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(8, "relu", name="hidden"))(x)
    return keras.Model(inputs, dense(x, 4, "softmax", "labels"))


@entry((12,), tokens=True)
def text_cnn():
    inputs = Input((12,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 8)(inputs)
    ways = [layers.Conv1D(8, size, activation="relu")(x) for size in (2, 3, 4)]
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(way) for way in ways])
    return keras.Model(inputs, dense(dense(x, 8, "relu", "hidden"), 2, name="out"))


@entry((7, 3))
def gru_stack():
    return keras.Sequential(
        [
            Input((7, 3)),
            layers.GRU(5, return_sequences=True),
            layers.Dropout(0.1),
            layers.GRU(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )


@entry((7,), tokens=True)
def bidirectional():
    return keras.Sequential(
        [
            Input((7,), dtype="int32"),
            layers.Embedding(VOCABULARY, 6),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(3)),
            layers.Dense(1, "sigmoid"),
        ]
    )


@entry((7, 3))
def stacked_cells():
    cells = [layers.LSTMCell(5), layers.GRUCell(4), layers.SimpleRNNCell(3)]
    inputs = Input((7, 3))
    x = layers.RNN(cells, return_sequences=True)(inputs)
    return keras.Model(inputs, dense(layers.Flatten()(x), 2, name="out"))


@entry((4, 8, 8, 2))
def conv_lstm():
    return keras.Sequential(
        [
            Input((4, 8, 8, 2)),
            layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True),
            layers.BatchNormalization(),
            layers.ConvLSTM2D(3, 3, padding="same"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


@entry((4, 8, 8, 2))
def cnn_lstm():
    """A convolution network on every frame, a recurrent layer over the frames."""
    frames = keras.Sequential(
        [
            Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    inputs = Input((4, 8, 8, 2))
    x = layers.LSTM(4, name="memory")(
        layers.TimeDistributed(frames, name="frames")(inputs)
    )
    return keras.Model(inputs, dense(x, 2, "softmax", "out"))


@entry([(7,), (5,)], tokens=True)
def encoder_decoder_rnn():
    source, target = Input((7,), dtype="int32"), Input((5,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 6, name="source_words")(source)
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(x)
    y = layers.Embedding(VOCABULARY, 6, name="target_words")(target)
    y = layers.LSTM(4, return_sequences=True, name="decoder")(y, initial_state=[h, c])
    return keras.Model([source, target], dense(y, VOCABULARY, "softmax", "out"))


@entry((12, 3))
def temporal_convolution_with_attention():
    inputs = Input((12, 3))
    x = layers.SeparableConv1D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv1D(4, 3, padding="same", activation="relu", name="conv")(x)
    scores = layers.Softmax(axis=1)(dense(x, 1, "tanh", "scores"))
    x = ops.sum(x * scores, axis=1)
    return keras.Model(inputs, dense(x, 2, name="out"))


# ---- transformers ---------------------------------------------------------------


class TransformerBlock(layers.Layer):
    """The block of many tutorials: attention and a small network, both with skips."""

    def __init__(self, units, heads=2, is_first=False, **others):
        super().__init__(**others)
        self.is_first = is_first
        self.attention = layers.MultiHeadAttention(heads, units // heads)
        self.network = keras.Sequential(
            [layers.Dense(2 * units, "gelu"), layers.Dense(units)]
        )
        self.norm1 = layers.LayerNormalization()
        self.norm2 = layers.LayerNormalization()
        self.dropout = layers.Dropout(0.1)

    def call(self, inputs, training=None):
        if self.is_first:
            y = self.norm1(inputs)
            x = inputs + self.dropout(self.attention(y, y), training=training)
            return x + self.network(self.norm2(x))
        y = self.attention(inputs, inputs)
        x = self.norm1(inputs + self.dropout(y, training=training))
        return self.norm2(x + self.network(x))


class PositionalEmbedding(layers.Layer):
    """Embeddings of words and of places, added."""

    def __init__(self, length, units, **others):
        super().__init__(**others)
        self.words = layers.Embedding(VOCABULARY, units)
        self.places = layers.Embedding(length, units)

    def call(self, inputs):
        places = ops.arange(ops.shape(inputs)[-1])
        return self.words(inputs) + self.places(places)


@entry((7,), tokens=True)
def transformer_encoder():
    inputs = Input((7,), dtype="int32")
    x = PositionalEmbedding(7, 8, name="embedding")(inputs)
    x = TransformerBlock(8, name="block1")(x)
    x = TransformerBlock(8, name="block2")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, dense(x, 2, "softmax", "out"))


@entry((7,), tokens=True)
class SubclassedGPT(keras.Model):
    """Pre-normalized causal blocks; the words' embedding closes the model too."""

    def __init__(self):
        super().__init__()
        self.words = layers.ReversibleEmbedding(VOCABULARY, 8)
        self.places = layers.Embedding(7, 8)
        self.blocks = [CausalBlock(8) for _ in range(2)]
        self.norm = layers.LayerNormalization()

    def call(self, inputs):
        x = self.words(inputs) + self.places(ops.arange(inputs.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return self.words(self.norm(x), reverse=True)


class CausalBlock(layers.Layer):
    def __init__(self, units, **others):
        super().__init__(**others)
        self.norm1 = layers.LayerNormalization()
        self.attention = layers.GroupQueryAttention(units // 4, 4, 1)
        self.norm2 = layers.RMSNormalization()
        self.up = layers.Dense(2 * units)
        self.gate = layers.Dense(2 * units, "silu")
        self.down = layers.Dense(units)

    def call(self, inputs):
        x = self.norm1(inputs)
        x = inputs + self.attention(x, x, use_causal_mask=True)
        y = self.norm2(x)
        return x + self.down(self.up(y) * self.gate(y))


@entry((7,), tokens=True)
def transformer_decoder():
    """Pre-normalized blocks; the logits have a kernel of their own."""
    inputs = Input((7,), dtype="int32")
    x = PositionalEmbedding(7, 16, name="embedding")(inputs)
    for number in range(3):
        x = TransformerBlock(16, is_first=True, name=f"block{number}")(x)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, dense(x, VOCABULARY, name="out"))


@entry([(7,), (5,)], tokens=True)
def sequence_to_sequence_transformer():
    source, target = Input((7,), dtype="int32"), Input((5,), dtype="int32")
    x = PositionalEmbedding(7, 8, name="source")(source)
    x = TransformerBlock(8, is_first=True, name="encoder")(x)
    y = PositionalEmbedding(5, 8, name="target")(target)
    own = layers.MultiHeadAttention(2, 4, name="self")(y, y, use_causal_mask=True)
    y = layers.LayerNormalization()(y + own)
    cross = layers.MultiHeadAttention(2, 4, name="cross")(query=y, value=x, key=x)
    y = layers.LayerNormalization()(y + cross)
    y = layers.LayerNormalization()(
        y + dense(dense(y, 16, "relu", "up"), 8, name="down")
    )
    return keras.Model([source, target], dense(y, VOCABULARY, name="out"))


class Patches(layers.Layer):
    """Cuts an image into patches, puts a token before them and adds their places."""

    def __init__(self, size, units, **others):
        super().__init__(**others)
        self.size = size
        self.project = layers.Dense(units)

    def build(self, input_shape):
        count = (input_shape[1] // self.size) * (input_shape[2] // self.size)
        self.project.build((None, count, self.size**2 * input_shape[3]))
        units = self.project.units
        self.token = self.add_weight(shape=(1, 1, units), name="token")
        self.places = self.add_weight(shape=(1, count + 1, units), name="places")

    def call(self, images):
        batch, height, width, channels = ops.shape(images)
        rows, columns = height // self.size, width // self.size
        x = ops.reshape(images, (batch, rows, self.size, columns, self.size, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (batch, rows * columns, self.size**2 * channels))
        token = ops.broadcast_to(self.token, (batch, 1, self.project.units))
        return ops.concatenate([token, self.project(x)], axis=1) + self.places


@entry((8, 8, 3))
def vision_transformer():
    inputs = Input((8, 8, 3))
    x = Patches(4, 8, name="patches")(inputs)
    for number in range(2):
        x = TransformerBlock(8, is_first=True, name=f"block{number}")(x)
    x = layers.LayerNormalization()(x)[:, 0]
    return keras.Model(inputs, dense(x, 3, name="out"))


@entry((8, 8, 3))
class MLPMixer(keras.Model):
    def __init__(self):
        super().__init__()
        self.patches = layers.Conv2D(8, 4, strides=4)
        self.flat = layers.Reshape((4, 8))
        self.blocks = [MixerBlock(4, 8) for _ in range(2)]
        self.norm = layers.LayerNormalization()
        self.head = layers.Dense(3)

    def call(self, inputs):
        x = self.flat(self.patches(inputs))
        for block in self.blocks:
            x = block(x)
        return self.head(ops.mean(self.norm(x), axis=1))


class MixerBlock(layers.Layer):
    def __init__(self, tokens, channels, **others):
        super().__init__(**others)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.tokens = [layers.Dense(8, "gelu"), layers.Dense(tokens)]
        self.channels = [layers.Dense(16, "gelu"), layers.Dense(channels)]

    def call(self, inputs):
        y = ops.transpose(self.norms[0](inputs), (0, 2, 1))
        for layer in self.tokens:
            y = layer(y)
        x = inputs + ops.transpose(y, (0, 2, 1))
        y = self.norms[1](x)
        for layer in self.channels:
            y = layer(y)
        return x + y


@entry((5, 8))
def mixture_of_experts():
    inputs = Input((5, 8))
    gates = dense(inputs, 3, "softmax", "router")
    x = layers.EinsumDense(
        "btd,edh->bteh", (None, 3, 16), activation="relu", name="experts_in"
    )(inputs)
    x = layers.EinsumDense("bteh,ehd->bted", (None, 3, 8), name="experts_out")(x)
    x = ops.einsum("bted,bte->btd", x, gates)
    x = layers.LayerNormalization()(layers.Add()([inputs, x]))
    return keras.Model(inputs, dense(x, 2, name="out"))


@entry((5, 8))
class RawExperts(keras.Model):
    """Experts as one weight each for all of them, multiplied by hand."""

    def __init__(self):
        super().__init__()
        self.router = layers.Dense(3, "softmax")
        self.head = layers.Dense(2)

    def build(self, input_shape):
        self.up = self.add_weight(shape=(3, input_shape[-1], 16), name="up")
        self.down = self.add_weight(shape=(3, 16, input_shape[-1]), name="down")
        self.router.build(input_shape)
        self.head.build(input_shape)

    def call(self, inputs):
        x = ops.relu(ops.einsum("btd,edh->bteh", inputs, self.up))
        x = ops.einsum("bteh,ehd->bted", x, self.down)
        return self.head(ops.einsum("bted,bte->btd", x, self.router(inputs)))


class GraphConvolution(layers.Layer):
    """Averages over neighbors, then a matrix of its own."""

    def __init__(self, units, activation=None, **others):
        super().__init__(**others)
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[0][-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

    def call(self, inputs):
        nodes, adjacency = inputs
        x = ops.matmul(adjacency, ops.matmul(nodes, self.w)) + self.b
        return self.activation(x)


@entry({"nodes": (6, 3), "adjacency": (6, 6)})
def graph_network():
    nodes, adjacency = Input((6, 3), name="nodes"), Input((6, 6), name="adjacency")
    x = GraphConvolution(8, "relu", name="graph1")([nodes, adjacency])
    x = GraphConvolution(4, "relu", name="graph2")([x, adjacency])
    x = layers.GlobalAveragePooling1D()(x)
    inputs = {"nodes": nodes, "adjacency": adjacency}
    return keras.Model(inputs, dense(x, 2, name="out"))
