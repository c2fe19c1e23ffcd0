"""Awkward fits by how they are called: within one another, in turn, in phases."""

import keras
import numpy as np
from awkward import BATCH, EXAMPLES, WIDTH, Do, alive, awkward, mlp, numbers, sync
from keras import layers, optimizers
from oracles import BACKEND

X, Y = numbers(EXAMPLES, WIDTH), numbers(EXAMPLES, 2, seed=2)


# --- Within one another -------------------------------------------------------------


def fit_within(trial, moment, inner_watchers, only_at=1):
    outer, inner = (trial.compile(mlp(layers.Dropout(0.2))) for _ in "ab")
    nested = Do(
        moment, lambda _: trial.fit(inner, watchers=inner_watchers), only_at=only_at
    )
    trial.fit(outer, nested, epochs=3)


@awkward(daily=True)
def a_fit_within_an_epochs_end(trial):
    fit_within(trial, "on_epoch_end", trial.watch())


@awkward()
def a_fit_within_a_batchs_end(trial):
    fit_within(trial, "on_train_batch_end", trial.watch())


@awkward()
def a_fit_within_a_fits_begin(trial):
    fit_within(trial, "on_train_begin", trial.watch(), only_at=None)


@awkward()
def an_unobserved_fit_within(trial):
    fit_within(trial, "on_train_batch_end", [])


@awkward(seen=False)
def a_fit_of_the_same_model_within(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    nested = Do(
        "on_epoch_end", lambda _: trial.fit(model, watchers=trial.watch()), only_at=0
    )
    trial.fit(model, nested, epochs=3)


@awkward(seen=False)
def an_unobserved_fit_of_the_same_model_within(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    nested = Do("on_epoch_end", lambda _: trial.fit(model, watchers=[]), only_at=0)
    trial.fit(model, nested, epochs=3)


@awkward(seen=False)
def a_fit_of_the_same_model_and_callbacks_within(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    nested = Do("on_epoch_end", lambda _: trial.fit(model), only_at=0)
    trial.fit(model, nested, epochs=3)


@awkward()
def a_part_trained_within(trial):
    inner = trial.compile(
        keras.Sequential([keras.Input((WIDTH,)), alive(), layers.Dense(2)])
    )
    x = keras.Input((WIDTH,))
    model = trial.compile(keras.Model(x, layers.Dense(2)(alive()(inner(x)))))
    nested = Do("on_epoch_end", lambda _: trial.fit(inner, watchers=trial.watch()), 0)
    trial.fit(model, nested, epochs=3)


def use(model):
    sync(model)
    model.evaluate(X[:5], Y[:5], verbose=0)
    model.predict(X[:5], verbose=0)
    model.train_on_batch(X[:5], Y[:5])


@awkward()
def other_uses_within_an_epochs_end(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model, Do("on_epoch_end", use), epochs=3, validation_data=(X, Y))


@awkward()
def other_uses_within_a_batchs_end(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model, Do("on_train_batch_end", use, 1), epochs=3, validation_data=(X, Y))


# --- In turn ------------------------------------------------------------------------


@awkward(daily=True, but=("recycler",))
def adversaries_in_turn(trial):
    generator = keras.Sequential([keras.Input((3,)), alive(), layers.Dense(WIDTH)])
    critic = keras.Sequential([keras.Input((WIDTH,)), alive(), layers.Dense(1)])
    trial.compile(critic, optimizers.SGD(0.05))
    critic.trainable = False
    noise = keras.Input((3,))
    both = trial.compile(
        keras.Model(noise, critic(generator(noise))), optimizers.SGD(0.05)
    )
    watching = trial.watchers, trial.watch()
    seeds, ones = numbers(EXAMPLES, 3), np.ones((EXAMPLES, 1), "float32")
    for _ in range(2):
        fake = generator.predict(seeds, verbose=0)
        y = np.concatenate([0 * ones, ones])
        critic.trainable = True
        if BACKEND == "jax":  # where Keras goes by what is trainable now
            trial.compile(critic, optimizers.SGD(0.05))
        trial.fit(
            critic, x=np.concatenate([fake, X]), y=y, epochs=1, watchers=watching[0]
        )
        critic.trainable = False
        trial.fit(both, x=seeds, y=ones, epochs=1, watchers=watching[1])
    critic.trainable = True
    if BACKEND == "jax":
        trial.compile(critic, optimizers.SGD(0.05))
    trial.models.remove(both)


@awkward()
def two_models_in_turn_under_the_same_callbacks(trial):
    models = [trial.compile(mlp(layers.Dropout(0.2))) for _ in "ab"]
    for epoch in range(3):
        for model in models:
            trial.fit(model, epochs=epoch + 1, initial_epoch=epoch)


@awkward()
def fits_and_single_batches_in_turn(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    for _ in range(3):
        trial.fit(model, epochs=1)
        trial.note(model.train_on_batch(X[:BATCH], Y[:BATCH]))
        trial.note(model.test_on_batch(X[:BATCH], Y[:BATCH]))


# --- In phases ----------------------------------------------------------------------


@awkward(daily=True)
def compiled_and_frozen_between(trial):
    model = trial.compile(mlp(alive(7), alive(7), alive(7)))
    trial.fit(model)
    model.layers[0].trainable = False
    trial.fit(trial.compile(model, optimizers.RMSprop(0.002)))
    model.layers[0].trainable = True
    model.layers[4].trainable = False
    trial.fit(trial.compile(model))


@awkward(backends=("tensorflow",))
def frozen_within(trial):
    """A schedule that thaws a layer, which the others refuse."""
    model = mlp(alive(7), alive(7), alive(7))
    model.layers[0].trainable = False
    trial.compile(model)

    def thaw(model):
        model.layers[0].trainable = True

    trial.fit(model, Do("on_epoch_end", thaw, 1), epochs=3)


def recompile(model):
    model.compile("sgd", "mse", run_eagerly=True)


@awkward(seen=False)
def compiled_within_an_epochs_end(trial):
    trial.fit(trial.compile(mlp()), Do("on_epoch_end", recompile, 0), epochs=3)


@awkward(seen=False)
def a_train_function_made_within(trial):
    def make(model):
        sync(model)
        model.make_train_function(force=True)

    trial.fit(trial.compile(mlp()), Do("on_epoch_end", make, 0), epochs=3)


@awkward()
def layers_added_between(trial):
    model = trial.compile(mlp())
    trial.fit(model)
    model.pop()
    model.add(alive(7))
    model.add(layers.Dense(2))
    trial.fit(trial.compile(model))


@awkward()
def a_new_head_between(trial):
    body = keras.Sequential(
        [keras.Input((WIDTH,)), alive(), layers.Dropout(0.2), alive(6)]
    )
    model = trial.compile(keras.Sequential([body, layers.Dense(2)]))
    trial.fit(model)
    trial.models.remove(model)  # it would have to be compiled anew
    body.trainable = False
    model = keras.Sequential(
        [keras.Input((WIDTH,)), body, alive(7), alive(6), layers.Dense(2)]
    )
    trial.fit(trial.compile(model))


@awkward()
def another_precision_between(trial):
    model = trial.compile(mlp())
    trial.fit(model)
    model.layers[0].dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    trial.fit(trial.compile(model))


@awkward()
def run_eagerly_between(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model)
    model.run_eagerly = True
    trial.fit(model)
    model.run_eagerly = False
    trial.fit(model)
