"""Loggers over several fits of a model that changes between them."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from callback_kinds import STEPS, X, fit, new, relu_model
from keras import layers

from keras_initlab import plots
from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    DormantUnitRecycler,
    GradientNormLogger,
)
from keras_initlab.callbacks._phases import in_order, joined


def model_of(*names):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(4, "relu", name=name) for name in names]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(2, name="head")])
    return compiled(model)


def compiled(model):
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def trainable(model, **layers_by_name):
    for name, is_trainable in layers_by_name.items():
        model.get_layer(name).trainable = is_trainable
    return compiled(model)


def known(columns):
    """Which observations have a figure, by the last part of the path."""
    return {
        path.split("/", 1)[1]: np.isfinite(column).tolist()
        for path, column in columns.items()
    }


FROZEN = [True] * STEPS + [False] * STEPS + [True] * STEPS
ALWAYS = [True] * 3 * STEPS


def test_norms_before_while_and_after_layers_are_frozen():
    model = model_of("first", "second")
    norms = GradientNormLogger(1, clipped=True, updates=True)
    twins = [GradientNormLogger(1, clipped=True, updates=True) for _ in range(3)]
    fit(model, norms, twins[0])
    fit(trainable(model, first=False), norms, twins[1])
    fit(trainable(model, first=True), norms, twins[2])
    history = norms.history
    assert history["step"].tolist() == [0, 1] * 3
    for kind in ("layers", "clipped_layers", "update_ratios"):
        found = known(history[kind])
        assert found == {"first": FROZEN, "second": ALWAYS, "head": ALWAYS}
    assert list(history["variables"]) == [v.path for v in model.trainable_variables]
    assert known(history["variables"])["first/kernel"] == FROZEN
    for kind in ("global_norm", "clipped_global_norm", "update_ratio"):
        parts = [twin.history[kind] for twin in twins]
        np.testing.assert_array_equal(history[kind], np.concatenate(parts))
    frame = norms.to_frame()
    assert frame.shape[0] == 3 * STEPS
    assert frame.filter(like="/first").isna().all(axis=1).tolist() == [
        not one for one in FROZEN
    ]


def test_a_head_that_trains_first_and_the_body_after_it():
    model = trainable(model_of("first", "second"), first=False, second=False)
    norms = GradientNormLogger(1)
    fit(model, norms)
    fit(trainable(model, first=True, second=True), norms)
    paths = [path.split("/")[1] for path in norms.history["layers"]]
    assert paths == ["first", "second", "head"]


def test_layers_that_are_named_may_be_frozen():
    model = trainable(model_of("first", "second"), first=False)
    norms = GradientNormLogger(1, layers=["first"], alerts=False)
    fit(model, norms)
    fit(trainable(model, first=True), norms)
    assert known(norms.history["layers"]) == {"first": [False] * STEPS + [True] * STEPS}
    with pytest.raises(ValueError, match=r"`layers` must name .*\['nowhere'\]"):
        fit(model, GradientNormLogger(layers=["nowhere"]))


def test_a_phase_without_anything_to_train_adds_no_rows():
    model = model_of("first")
    norms = GradientNormLogger(1)
    fit(model, norms)
    model.trainable = False
    norms.set_model(compiled(model))
    with pytest.warns(UserWarning, match="needs a model with weights that train"):
        norms.on_train_begin()
    norms.on_train_end()
    model.trainable = True
    fit(compiled(model), norms)
    assert norms.history["step"].tolist() == [0, 1, 0, 1]
    assert np.isfinite(norms.history["global_norm"]).all()


def test_what_is_usual_is_learned_anew_in_every_phase():
    """A thawed body has a larger gradient than its head, which is no leap."""
    model = trainable(model_of("first"), first=False)
    model.get_layer("head").set_weights([np.full((4, 2), 1e4), np.zeros(2)])
    norms = GradientNormLogger(1, alerts=False)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    fit(model, norms, epochs=6)
    model.get_layer("first").trainable = True
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    fit(model, norms, epochs=1)
    assert not [one for one in norms.alerts if one.kind == "gradient leaps"]


@pytest.mark.parametrize("kind", [DeadReLULogger, ActivationStatsLogger])
def test_layers_that_are_added_and_taken_away(kind):
    model, logger = model_of("first"), new(kind)
    fit(model, logger)
    head = model.layers[-1]
    model.pop()
    model.add(layers.Dense(3, "relu", name="second"))
    model.add(head.__class__(2, name="new_head"))
    fit(compiled(model), logger)
    model.pop()
    model.pop()
    model.add(layers.Dense(2, name="last_head"))
    fit(compiled(model), logger)
    history = logger.history
    key = "dead_fraction" if kind is DeadReLULogger else "std"
    found = known(history[key])
    each = 1 if kind is DeadReLULogger else STEPS
    assert found["first"] == [True] * 3 * each
    assert found["second"] == [False] * each + [True] * each + [False] * each
    assert logger.to_frame().shape[0] == 3 * each
    if kind is DeadReLULogger:
        units = next(each for p, each in history["dead_units"].items() if "second" in p)
        assert [len(units[0]), len(units[2])] == [0, 0]
        assert len(units) == 3


def test_a_recycler_over_phases():
    model, recycler = model_of("first", "second"), new(DormantUnitRecycler, seed=0)
    fit(model, recycler)
    fit(trainable(model, first=False), recycler)
    fit(trainable(model, first=True), recycler)
    scores = {p.split("/")[1]: s for p, s in recycler.history["scores"].items()}
    assert np.isfinite(scores["first"]).all(axis=1).tolist() == FROZEN
    assert np.isfinite(scores["second"]).all()
    assert recycler.to_frame().shape[0] == 3 * STEPS
    recycler = new(DormantUnitRecycler, layers=["first"])
    with pytest.warns(UserWarning, match="which is frozen"):
        fit(trainable(model, first=False), recycler)
    fit(trainable(model, first=True), recycler)
    assert recycler.history["step"].tolist() == [0, 1]


@pytest.mark.parametrize("kind", [GradientNormLogger, DeadReLULogger])
def test_pictures_of_several_phases(kind):
    model, logger = model_of("first", "second"), new(kind)
    fit(model, logger)
    if kind is GradientNormLogger:
        fit(trainable(model, first=False), logger)
        figure = plots.gradient_heat_map(logger)
        legend = figure.axes[0].get_legend()  # which marks no first NaN
        assert [text.get_text() for text in legend.get_texts()] == ["not trained"]
    else:
        model.add(layers.Dense(4, "relu", name="more"))
        model.add(layers.Dense(2, name="end"))
        fit(compiled(model), logger)
    assert logger.plot().axes
    stats = new(ActivationStatsLogger, histograms=True)
    fit(model, stats)
    model.add(layers.Dense(2, name="another"))
    fit(compiled(model), stats)
    assert stats.plot().axes


def test_an_empty_history_says_so():
    for kind, draw in (
        (GradientNormLogger, plots.gradient_norms),
        (GradientNormLogger, plots.gradient_heat_map),
        (DeadReLULogger, plots.dead_units),
        (ActivationStatsLogger, plots.activation_statistics),
    ):
        logger = kind()
        assert logger.to_frame().shape[0] == 0
        with pytest.raises(ValueError, match="must have observed training"):
            draw(logger)
    assert DormantUnitRecycler().to_frame().shape[0] == 0
    curves = {"a": {"val_accuracy": [0.1, 0.2]}}
    norms, dead = {"a": GradientNormLogger()}, {"a": DeadReLULogger()}
    assert len(plots.training_comparison(curves, norms, dead).axes) == 3


def test_one_list_of_callbacks_serves_every_model():
    plain = keras.Sequential([keras.Input((3,)), layers.Reshape((3,))])
    smooth = keras.Sequential([keras.Input((3,)), layers.Dense(3, "tanh")])
    kinds = (GradientNormLogger, DeadReLULogger, DormantUnitRecycler)
    callbacks = [new(kind) for kind in (*kinds, ActivationStatsLogger)]
    for model, seen in ((relu_model(), 4), (plain, 0), (smooth, 2), (relu_model(), 4)):
        if seen < 4:
            compiled(model)
        y = X[:, : model.output_shape[-1]]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.fit(X, y, verbose=0, callbacks=callbacks)
        needs = [one for one in told if "Logger` needs" in str(one.message)]
        needs += [one for one in told if "Recycler` needs" in str(one.message)]
        assert len(needs) == 4 - seen
        assert sum(len(c.history["epoch"]) > 0 for c in callbacks) == seen


def test_columns_of_phases():
    """The functions that put phases together."""
    assert in_order([["head"], ["body", "head", "more"]]) == ["body", "head", "more"]
    assert in_order([["a", "c"], ["b", "c"], ["a", "b"]]) == ["b", "a", "c"]
    one, two = {"a": np.ones((2, 3))}, {"a": np.zeros((1, 2)), "b": np.ones(1)}
    found = joined([(2, one), (1, two)])
    np.testing.assert_array_equal(found["a"], [[1, 1, 1], [1, 1, 1], [0, 0, np.nan]])
    np.testing.assert_array_equal(found["b"], [np.nan, np.nan, 1])


class TrainsWithin(keras.callbacks.Callback):
    """Trains a model in the midst of the training of another one."""

    def __init__(self, model, callbacks, at):
        super().__init__()
        self.inner, self.callbacks, self.at = model, callbacks, at

    def on_train_batch_end(self, batch, logs=None):
        self._go("batch")

    def on_epoch_end(self, epoch, logs=None):
        self._go("epoch")

    def _go(self, now):
        if now == self.at:
            self.at = None
            fit(self.inner, *self.callbacks)


@pytest.mark.parametrize("at", ["batch", "epoch"])
def test_a_callback_that_is_passed_to_an_inner_fit_too(at):
    twin, norms = GradientNormLogger(1), GradientNormLogger(1)
    fit(model_of("first"), twin)
    inner = TrainsWithin(model_of("other"), [norms], at)
    match = r"one training at a time\. Received: a training of '.*' within one of "
    with pytest.warns(UserWarning, match=match):
        fit(model_of("first"), norms, inner)
    np.testing.assert_array_equal(
        norms.history["global_norm"], twin.history["global_norm"]
    )
    fit(inner.inner, norms)  # alone it is observed
    assert len(norms.history["step"]) == STEPS


def test_an_inner_fit_that_fails_ends_nothing():
    def fail(*_):
        raise OSError("no disk")

    failing = keras.callbacks.LambdaCallback(on_epoch_begin=fail)
    twin, norms = GradientNormLogger(1), GradientNormLogger(1)
    fit(model_of("first"), twin)
    inner = TrainsWithin(model_of("other"), [norms, failing], "batch")
    go = inner._go

    def caught(now):
        with contextlib.suppress(OSError):
            go(now)

    inner._go = caught
    with pytest.warns(UserWarning, match="one training at a time"):
        fit(model_of("first"), norms, inner)
    np.testing.assert_array_equal(
        norms.history["global_norm"], twin.history["global_norm"]
    )


def test_a_fit_of_the_same_model_within_its_own():
    model, norms = model_of("first"), GradientNormLogger(1)
    inner = TrainsWithin(model, [norms], "batch")
    if keras.backend.backend() == "jax":
        inner.inner = None  # Keras itself must sync the state of the outer fit first
        inner._go = lambda now: now == inner.at and _sync_and_fit(inner, model, norms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, norms, inner)
    assert norms.history["step"].tolist() == [0, *range(STEPS), *range(1, STEPS)]


def _sync_and_fit(inner, model, norms):
    inner.at = None
    model.jax_state_sync()
    fit(model, norms)
