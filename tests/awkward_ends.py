"""Awkward fits by what is beside them and after: callbacks, interrupts, copies."""

import copy
import pickle

import keras
import numpy as np
from awkward import BATCH, EXAMPLES, WIDTH, Do, awkward, mlp, numbers, sync
from keras import callbacks as others
from keras import layers, ops, optimizers

X, Y = numbers(EXAMPLES, WIDTH), numbers(EXAMPLES, 2, seed=2)


# --- Beside Keras's own callbacks ---------------------------------------------------


def beside(name, make, **options):
    def run(trial):
        model = trial.compile(mlp(layers.Dropout(0.2)), optimizers.SGD(0.02))
        made = make(trial)
        made = made if isinstance(made, list) else [made]
        trial.fit(
            model, *made, **{"epochs": 4, "validation_data": (X[:9], Y[:9]), **options}
        )

    run.__name__ = name
    awkward()(run)


def fall(epoch, rate):
    return rate * 0.7


beside(
    "a_rate_on_a_plateau",
    lambda _: others.ReduceLROnPlateau("val_loss", 0.1, 0, min_delta=9.0),
)
beside("a_rate_by_schedule", lambda _: others.LearningRateScheduler(fall))
beside(
    "the_best_weights",
    lambda _: others.EarlyStopping(
        "val_loss", 9.0, 1, restore_best_weights=True, start_from_epoch=1
    ),
)
beside(
    "an_end_within_an_epoch",
    lambda _: Do("on_train_batch_end", lambda m: setattr(m, "stop_training", True), 2),
)
beside("terminate_on_nan", lambda _: others.TerminateOnNaN())
beside("a_file_of_losses", lambda t: others.CSVLogger(t.folder / "losses.csv"))
beside("a_bar", lambda _: [], verbose=2)
beside("validation_now_and_then", lambda _: [], validation_freq=2)
beside("batches_without_order", lambda _: [], shuffle=True, batch_size=7)
beside("few_steps_an_epoch", lambda _: [], steps_per_epoch=2)
beside(
    "checkpoints",
    lambda t: [
        others.ModelCheckpoint(t.folder / "{epoch}.keras"),
        others.ModelCheckpoint(
            t.folder / "{batch}.weights.h5", save_weights_only=True, save_freq=3
        ),
        others.ModelCheckpoint(
            t.folder / "best.keras", "val_loss", save_best_only=True
        ),
    ],
)


def write(model):
    sync(model)
    for variable in (*model.trainable_variables, model.optimizer.learning_rate):
        variable.assign(variable * 0.9)


beside(
    "weights_written_at_a_batchs_begin", lambda _: Do("on_train_batch_begin", write, 2)
)
beside("weights_written_at_a_batchs_end", lambda _: Do("on_train_batch_end", write, 2))
beside("weights_written_at_an_epochs_end", lambda _: Do("on_epoch_end", write))


# --- Cut short, and what comes after ------------------------------------------------


class Cut(BaseException):
    """Stands for a machine that is switched off."""


def stop_by(error):
    def stop(model):
        raise error

    return Do("on_train_batch_end", stop, 2)


@awkward(daily=True, seen=False)
def interrupted_and_saved(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    try:
        trial.fit(model, stop_by(KeyboardInterrupt()), epochs=3)
    except KeyboardInterrupt:
        model.save(trial.folder / "model.keras")
    loaded = keras.models.load_model(trial.folder / "model.keras")
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    trial.fit(loaded, watchers=trial.watch())
    trial.fit(model, watchers=trial.watch())


def resumed(trial, freq, stop_at):
    def build():
        keras.utils.set_random_seed(7)
        model = trial.compile(mlp(layers.Dropout(0.2)))
        return model, others.BackupAndRestore(trial.folder / "kept", save_freq=freq)

    def stop(model):
        raise Cut

    model, backup = build()
    cut = Do(stop_at, stop, 1)
    try:
        trial.fit(model, backup, cut, epochs=4, shuffle=False)
    except Cut:
        model, backup = build()
    trial.fit(model, backup, epochs=4, shuffle=False, watchers=trial.watch())


@awkward(daily=True)
def resumed_from_an_epochs_backup(trial):
    resumed(trial, "epoch", "on_epoch_begin")


@awkward()
def resumed_from_a_batchs_backup(trial):
    resumed(trial, 2, "on_epoch_begin")


@awkward()
def resumed_by_the_same_model_and_callbacks(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    backup = others.BackupAndRestore(trial.folder / "kept")

    def stop(model):
        raise Cut

    try:
        trial.fit(model, backup, Do("on_epoch_begin", stop, 2), epochs=4)
    except Cut:
        trial.fit(model, backup, epochs=4)


# A graph of TensorFlow may drop a NaN where nobody reads it, and train on: there the
# observed fit, which keeps it, is another one.
@awkward(backends=("jax", "torch"))
def numbers_that_end_training(trial):
    x = X.copy()
    x[12] = np.nan
    model = trial.compile(mlp())
    trial.fit(model, others.TerminateOnNaN(), x=x, shuffle=False)


@awkward(seen=False)
def data_that_fail(trial):
    def source():
        yield X[:BATCH], Y[:BATCH]
        raise ValueError("on purpose")

    model = trial.compile(mlp())
    try:
        trial.fit(model, x=source(), y=None, batch_size=None, steps_per_epoch=3)
    except Exception as error:
        trial.note(type(error).__name__)
    trial.fit(model)


# --- Copies and files ---------------------------------------------------------------


@awkward(daily=True)
def copies_after(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for one in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        trial.compile(clone),
    ):
        trial.fit(one, watchers=trial.watch())


@awkward()
def copies_within(trial):
    made = []

    def keep(model):
        sync(model)
        made.extend([pickle.loads(pickle.dumps(model)), copy.deepcopy(model)])

    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model, Do("on_train_batch_end", keep, 1), epochs=1)
    for one in made:
        trial.fit(one, watchers=trial.watch())


@awkward()
def files_after(trial):
    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model)
    for name in ("model.keras", "model.h5"):
        model.save(trial.folder / name)
        loaded = keras.models.load_model(trial.folder / name, compile=False)
        trial.fit(trial.compile(loaded), watchers=trial.watch())
    model.save_weights(trial.folder / "some.weights.h5")
    other = trial.compile(mlp(layers.Dropout(0.2)))
    other.load_weights(trial.folder / "some.weights.h5")
    trial.fit(other, watchers=trial.watch())


@awkward(backends=("tensorflow", "jax"))
def exported_after(trial):
    import tensorflow as tf

    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model)
    model.export(trial.folder / "saved", verbose=False)
    loaded = tf.saved_model.load(str(trial.folder / "saved"))
    served = np.asarray(loaded.serve(X))
    trial.note(served)
    np.testing.assert_allclose(served, ops.convert_to_numpy(model(X)), 1e-5, 1e-6)
    trial.fit(model)


@awkward(backends=("torch",))
def exported_by_pytorch_after(trial):
    import torch

    model = trial.compile(mlp(layers.Dropout(0.2)))
    trial.fit(model)
    trial.note(sorted(model.state_dict()))
    example = torch.from_numpy(X)
    exported = torch.export.export(model, (example,))
    trial.note(ops.convert_to_numpy(exported.module()(example)))
    trial.fit(model)
