"""Awkward fits by their layers: such as draw, hold a state or are shared."""

import keras
import numpy as np
from awkward import BATCH, EXAMPLES, WIDTH, alive, awkward, mlp, numbers
from keras import layers, ops, optimizers
from oracles import BACKEND, MODES, USUAL

# --- Layers that draw ---------------------------------------------------------------


def images(*hidden):
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            *hidden,
            alive(4, layers.Conv2D, 3),
            layers.SpatialDropout2D(0.3),
            layers.Flatten(),
            alive(),
            layers.Dense(2),
        ]
    )


IMAGES = numbers(EXAMPLES, 6, 6, 3)


@awkward(daily=True)
def dropout(trial):
    noise = [
        layers.GaussianNoise(0.1),
        layers.Dropout(0.3),
        layers.GaussianDropout(0.2),
    ]
    trial.fit(trial.compile(mlp(*noise, layers.AlphaDropout(0.1))), epochs=3)


@awkward()
def augmentation_in_the_model(trial):
    augment = [
        layers.RandomFlip(),
        layers.RandomRotation(0.2),
        layers.RandomZoom(0.2),
        layers.RandomTranslation(0.1, 0.1),
    ]
    trial.fit(trial.compile(images(*augment)), x=IMAGES, epochs=3)


@awkward()
def colors_and_crops_in_the_model(trial):
    augment = [
        layers.RandomCrop(5, 5),
        layers.Resizing(6, 6),
        layers.RandomContrast(0.3),
        layers.RandomBrightness(0.1),
    ]
    trial.fit(trial.compile(images(*augment)), x=IMAGES, epochs=3)


class Augmented(keras.utils.PyDataset):
    def __init__(self, **options):
        super().__init__(**options)
        self.flip = layers.RandomFlip(seed=3)

    def __len__(self):
        return EXAMPLES // BATCH

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        flipped = ops.convert_to_numpy(self.flip(IMAGES[part], training=True))
        return flipped, numbers(EXAMPLES, 2, seed=2)[part]


@awkward()
def augmentation_in_a_py_dataset(trial):
    data = {"x": Augmented(), "y": None, "batch_size": None, "shuffle": True}
    trial.fit(trial.compile(images()), **data, epochs=3)


@awkward()
def augmentation_in_tf_data(trial):
    import tensorflow as tf

    flip = layers.RandomFlip(seed=3)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, numbers(EXAMPLES, 2, seed=2)))
    data = data.shuffle(EXAMPLES, seed=1).batch(BATCH)
    data = data.map(lambda x, y: (flip(x, training=True), y))
    trial.fit(trial.compile(images()), x=data, y=None, batch_size=None, epochs=3)


class Sampling(layers.Layer):
    """Draws as a variational autoencoder does."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + 0.1 * keras.random.normal(ops.shape(x), seed=self.generator)


@awkward()
def a_layer_that_draws(trial):
    trial.fit(trial.compile(mlp(Sampling(), layers.ActivityRegularization(0.01))))


# --- Layers with a state, or called in a way of their own ---------------------------


def sequences(rnn):
    batch = [keras.Input((4, WIDTH), batch_size=BATCH)]
    return keras.Sequential([*batch, rnn, alive(), layers.Dense(2)])


SEQUENCES = numbers(EXAMPLES, 4, WIDTH)


@awkward(daily=True)
def a_stateful_recurrent_layer(trial):
    rnn = layers.LSTM(6, stateful=True, dropout=0.2, recurrent_dropout=0.1)
    model = trial.compile(sequences(rnn))
    reset = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: rnn.reset_states())
    trial.fit(model, reset, x=SEQUENCES, shuffle=False)
    trial.fit(model, x=SEQUENCES, shuffle=False)


@awkward()
def recurrent_layers_both_ways(trial):
    inner = layers.GRU(4, return_sequences=True, activation="relu")
    rnn = layers.Bidirectional(inner)
    last = layers.RNN(layers.LSTMCell(4), unroll=True)
    x = keras.Input((4, WIDTH))
    model = keras.Model(x, layers.Dense(2)(alive()(last(rnn(x)))))
    trial.fit(trial.compile(model), x=SEQUENCES)


@awkward()
def time_distributed(trial):
    x = keras.Input((4, WIDTH))
    each = layers.TimeDistributed(keras.Sequential([alive(), layers.Dropout(0.2)]))(x)
    each = layers.TimeDistributed(alive(4))(each)
    model = keras.Model(x, layers.Dense(2)(alive()(layers.Flatten()(each))))
    trial.fit(trial.compile(model), x=SEQUENCES)


@awkward()
def attention_with_masks(trial):
    x = keras.Input((4,), dtype="int32")
    h = layers.Embedding(9, 6, mask_zero=True)(x)
    h = layers.LayerNormalization()(
        h + layers.MultiHeadAttention(2, 3, dropout=0.1)(h, h)
    )
    h = layers.GlobalAveragePooling1D()(h)
    model = keras.Model(x, layers.Dense(2)(alive()(h)))
    tokens = np.random.default_rng(1).integers(0, 9, (EXAMPLES, 4))
    trial.fit(trial.compile(model), x=tokens)


# TensorFlow's graph optimizer folds the gradient of a scale into the momentum.
@awkward(close=1e-5 if BACKEND == "tensorflow" else 0.0)
def normalizations(trial):
    more = [
        layers.BatchNormalization(),
        layers.GroupNormalization(2),
        layers.UnitNormalization(),
        layers.SpectralNormalization(layers.Dense(8)),
    ]
    trial.fit(trial.compile(mlp(*more), optimizers.SGD(0.01, momentum=0.9)))


@awkward()
def normalizations_under_adam(trial):
    model = mlp(layers.BatchNormalization(), layers.RMSNormalization())
    trial.fit(trial.compile(model), validation_split=0.25)


@awkward(but=("recycler",))
def shared_layers_and_several_outputs(trial):
    a, b = keras.Input((WIDTH,), name="a"), keras.Input((WIDTH,), name="b")
    shared = alive(name="shared")
    both = layers.Concatenate()([shared(a), shared(b)])
    outputs = {"one": layers.Dense(2, name="one")(both), "two": layers.Dense(1)(both)}
    model = keras.Model({"a": a, "b": b}, outputs)
    trial.compile(
        model,
        loss={"one": "mse", "two": "mae"},
        loss_weights={"one": 0.3, "two": 2.0},
        metrics={"one": ["mae", "mse"]},
        weighted_metrics={"two": ["mse"]},
        **MODES[USUAL],
    )
    x = {"a": numbers(EXAMPLES, WIDTH), "b": numbers(EXAMPLES, WIDTH, seed=4)}
    y = {"one": numbers(EXAMPLES, 2), "two": numbers(EXAMPLES, 1)}
    trial.fit(model, x=x, y=y, validation_data=(x, y))


@awkward()
def losses_of_layers_and_constraints(trial):
    class Added(layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * ops.mean(ops.square(x)))
            return x

    tied = {
        "kernel_regularizer": "l2",
        "kernel_constraint": keras.constraints.MaxNorm(1),
    }
    trial.fit(trial.compile(mlp(Added(), alive(**tied), layers.Dense(4, **tied))))
