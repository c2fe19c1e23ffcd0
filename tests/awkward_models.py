"""Awkward fits by model and compile: precision, LoRA, optimizers, own train steps."""

import keras
import numpy as np
from awkward import EXAMPLES, WIDTH, alive, awkward, mlp, numbers
from custom_training import Gan, OneOptimizer
from keras import layers, optimizers
from oracles import BACKEND, MODES, USUAL

SUBCLASSED = ("recycler",)  # it needs a graph, which the others do without


# --- Remat, LoRA, quantization, precision -------------------------------------------


@awkward(daily=True)
def remat(trial):
    with keras.RematScope(mode="full"):
        model = mlp(alive(7), layers.Dropout(0.2))
    trial.fit(trial.compile(model))


@awkward()
def remat_of_activations(trial):
    with keras.RematScope(mode="activations"):
        model = mlp(alive(7), layers.Dropout(0.2))
    trial.fit(trial.compile(model))


@awkward()
def remat_of_listed_and_large_layers(trial):
    with keras.RematScope(mode="list_of_layers", layer_names=["once"]):
        model = mlp(alive(7, name="once"))
    with keras.RematScope(mode="larger_than", output_size_threshold=8):
        other = mlp(alive(9))
    trial.fit(trial.compile(model))
    trial.fit(trial.compile(other), watchers=trial.watch())


@awkward(but=SUBCLASSED)
def remat_by_hand(trial):
    class Again(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = alive()

        def call(self, x):
            return keras.remat(lambda x: self.dense(x))(
                x
            )  # JAX keeps what it has traced

    trial.fit(
        trial.compile(
            keras.Sequential([keras.Input((WIDTH,)), Again(), layers.Dense(2)])
        )
    )


@awkward(but=("recycler",))
def lora_before(trial):
    model = mlp()
    for layer in model.layers:
        layer.enable_lora(2)
    trial.fit(trial.compile(model))


@awkward(but=("recycler",), daily=True)
def lora_between(trial):
    model = trial.compile(mlp(alive(7)))
    trial.fit(model)
    for layer in model.layers[:2]:
        layer.enable_lora(2)
    trial.fit(trial.compile(model))


@awkward()
def lora_of_other_layers(trial):
    x = keras.Input((4,), dtype="int32")
    embedding = layers.Embedding(9, 6)
    h = embedding(x)
    dense, conv = layers.EinsumDense("abc,cd->abd", (4, 8)), alive(4, layers.Conv1D, 2)
    model = keras.Model(x, layers.Dense(2)(alive()(layers.Flatten()(conv(dense(h))))))
    for layer in (embedding, dense, conv):
        layer.enable_lora(2)
    trial.fit(
        trial.compile(model), x=np.random.default_rng(1).integers(0, 9, (EXAMPLES, 4))
    )


def quantized(trial, mode, but_first=False):
    model = mlp(alive(8))
    for layer in model.layers[but_first:]:
        layer.quantize(mode)
        if mode != "float8":
            layer.enable_lora(2)
    trial.fit(trial.compile(model, optimizers.SGD(0.01)))


@awkward(but=("recycler",))
def quantized_to_int8(trial):
    quantized(trial, "int8")


@awkward(but=("recycler",))
def quantized_to_int4(trial):
    quantized(trial, "int4")


@awkward(but=("recycler",))
def quantized_to_float8(trial):
    quantized(trial, "float8")


@awkward(but=("recycler",))
def quantized_between(trial):
    model = trial.compile(mlp(alive(8)))
    trial.fit(model)
    model.quantize("int8")
    for layer in model.layers:
        layer.enable_lora(2)
    trial.fit(trial.compile(model))


def in_policy(trial, policy, *arguments, **options):
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        trial.fit(trial.compile(mlp(layers.Dropout(0.2)), *arguments), **options)
    finally:
        keras.config.set_dtype_policy(former)


@awkward(daily=True)
def mixed_float16_whose_scale_falls(trial):
    optimizer = optimizers.LossScaleOptimizer(
        optimizers.SGD(0.01), initial_scale=2.0**24, dynamic_growth_steps=2
    )
    in_policy(trial, "mixed_float16", optimizer, epochs=4)


@awkward()
def mixed_float16(trial):
    in_policy(trial, "mixed_float16")


@awkward()
def mixed_bfloat16(trial):
    in_policy(trial, "mixed_bfloat16")


# --- Optimizers and compile ---------------------------------------------------------


def trained_by(name, make, **options):
    def run(trial):
        trial.fit(trial.compile(mlp(), make()), epochs=3)

    run.__name__ = name
    awkward(**options)(run)


EMA = {"use_ema": True, "ema_momentum": 0.5}
trained_by("averages", lambda: optimizers.Adam(0.001, **EMA, ema_overwrite_frequency=3))
trained_by("averages_at_the_end", lambda: optimizers.SGD(0.01, **EMA))
trained_by(
    "accumulation",
    lambda: optimizers.Adam(0.001, gradient_accumulation_steps=3),
    daily=True,
)
trained_by(
    "accumulation_and_clipping",
    lambda: optimizers.SGD(
        0.01, 0.9, True, clipnorm=0.5, gradient_accumulation_steps=3
    ),
)
trained_by(
    "loss_scaling",
    lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.001), 64.0, 2),
)
trained_by(
    "a_scheduled_rate",
    lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.01, 9)),
)
for kind in ("Adafactor", "AdamW", "Lamb", "Lion", "Muon", "Nadam", "RMSprop"):
    trained_by(kind, lambda kind=kind: getattr(optimizers, kind)(0.002))


@awkward()
def swapped_averages(trial):
    model = trial.compile(mlp(), optimizers.Adam(0.001, **EMA))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    trial.fit(model, swap, validation_split=0.25, epochs=3)


def compiled_with(name, but=(), **options):
    def run(trial):
        model = trial.compile(mlp(layers.Dropout(0.2)), metrics=["mae"], **options)
        trial.fit(model, epochs=3, batch_size=7)

    run.__name__ = name
    awkward(but=but)(run)


WITHOUT_TORCH = {} if BACKEND == "torch" else {"jit_compile": True}
compiled_with("run_eagerly", run_eagerly=True)
compiled_with("jit_compile_off", jit_compile=False)
compiled_with(
    "jit_compile_auto",
    jit_compile="auto",
    **({"run_eagerly": True} if BACKEND == "torch" else {}),
)
compiled_with("steps_per_execution_3", steps_per_execution=3)
compiled_with("auto_scaled_loss", auto_scale_loss=True, **MODES[USUAL])
if BACKEND != "torch":  # whose compiler takes minutes; see test_observe.py
    compiled_with("jit_compile_on", jit_compile=True)
    compiled_with(
        "steps_per_execution_2_under_xla", steps_per_execution=2, jit_compile=True
    )


# --- Train steps of the user's own --------------------------------------------------


@awkward(but=SUBCLASSED, daily=True)
def a_train_step_with_two_optimizers(trial):
    model = Gan()
    model.compile(optimizers.SGD(0.05), **MODES[USUAL])
    trial.fit(model, x=[numbers(EXAMPLES, 3), numbers(EXAMPLES, 6)], y=None)


@awkward(but=SUBCLASSED)
def a_train_step_of_the_users(trial):
    model = OneOptimizer()
    model(numbers(1, WIDTH))
    trial.fit(trial.compile(model, loss=None))


class Relay(keras.Model):
    """Everything that may be overridden, handed on."""

    def __init__(self):
        super().__init__()
        self.body, self.noise = mlp(), layers.GaussianNoise(0.1)

    def call(self, x, training=False):
        return self.body(self.noise(x, training=training), training=training)

    def train_step(self, *arguments):
        return super().train_step(*arguments)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return 2.0 * loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "one": 1.0}


@awkward(but=SUBCLASSED)
def overridden_methods(trial):
    model = Relay()
    trial.fit(trial.compile(model, metrics=["mae"], **MODES[USUAL]))


@awkward(but=SUBCLASSED)
def a_model_that_the_first_step_builds(trial):
    trial.fit(trial.compile(Relay()))


@awkward()
def weights_of_examples_and_classes(trial):
    model = keras.Sequential(
        [keras.Input((WIDTH,)), alive(), layers.Dense(3, "softmax")]
    )
    trial.compile(model, loss="sparse_categorical_crossentropy")
    y = np.arange(EXAMPLES) % 3
    trial.fit(model, y=y, class_weight={0: 1.0, 1: 3.0, 2: 0.0})
    trial.fit(model, y=y, sample_weight=np.linspace(0, 1, EXAMPLES), shuffle=False)
