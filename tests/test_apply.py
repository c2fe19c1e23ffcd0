"""Writing recommended weights into models: repeatable, all or nothing, undoable."""

import math

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from keras_initlab import (
    Recommendation,
    StructureChangedError,
    TrainedWeightsError,
    calibrate,
    recommend,
    reinitialize,
)
from keras_initlab.recommend import _apply


def to_numpy(variable):
    return np.array(ops.convert_to_numpy(ops.cast(variable, "float32")))


def weights(model):
    return {id(variable): to_numpy(variable) for variable in model.variables}


def assert_same(model, before, changed=()):
    """All variables are bit for bit what they were, but for those named."""
    for variable in model.variables:
        if variable.path not in changed:
            np.testing.assert_array_equal(to_numpy(variable), before[id(variable)])


def kernels(model):
    return [to_numpy(row.kernel.variable) for row in recommend(model)]


def mlp(activation="relu", hidden=5, width=16, **dense):
    stack = [layers.Dense(width, activation, **dense) for _ in range(hidden)]
    return keras.Sequential([Input((16,)), *stack, layers.Dense(4, **dense)])


def convnet():
    return keras.Sequential(
        [
            Input((6, 6, 3)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.BatchNormalization(name="normalization"),
            layers.PReLU(name="prelu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Dropout(0.5, seed=0, name="dropout"),
            layers.Conv2D(4, 3, activation="relu", name="second"),
            layers.Flatten(name="flatten"),
            layers.Dense(4, name="last"),
        ],
        name="convnet",
    )


def attention():
    inputs = Input((5, 16))
    x = layers.MultiHeadAttention(2, 8, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(4)(x))


def recurrent():
    inputs = Input((5,), dtype="int32")
    x = layers.Embedding(20, 16)(inputs)
    x = layers.Bidirectional(layers.GRU(16, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GRU(16)(x)))


BUILDERS = [mlp, lambda: mlp("tanh"), lambda: mlp("sigmoid"), convnet, attention]
BUILDERS = [*BUILDERS, recurrent]


def data_for(model, rng, examples=32):
    x = rng.normal(size=(examples, *model.input_shape[1:])).astype("float32")
    return x, rng.normal(size=(examples, 4)).astype("float32")


def compiled(model, optimizer="sgd"):
    model.compile(keras.optimizers.get(optimizer), "mse")
    return model


def fitted(model, rng, optimizer="sgd", epochs=1):
    if not model.compiled:
        compiled(model, optimizer)
    model.fit(*data_for(model, rng), batch_size=16, epochs=epochs, verbose=0)
    return model


# --- Seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize("build", BUILDERS)
def test_same_seed_same_weights_whatever_the_names(build):
    first = build()
    recommend(first).apply(seed=3)
    for _ in range(2):
        mlp(hidden=2)  # other models move Keras's counters and its random state
    second = build()
    recommend(second).apply(seed=3)
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_the_rules_policy_draws_the_same_weights_from_the_same_seed():
    models = [mlp("tanh"), mlp("tanh")]
    for model in models:
        recommend(model, policy="rules").apply(seed=3)
    for one, other in zip(*map(kernels, models), strict=True):
        np.testing.assert_array_equal(one, other)
    recommend(models[0], policy="rules").apply(seed=4)
    assert not np.array_equal(kernels(models[0])[0], kernels(models[1])[0])


def test_automatic_names_differ_in_the_test_above():
    one, other = ([layer.name for layer in mlp().layers] for _ in range(2))
    assert one != other


def test_another_seed_gives_other_weights():
    model = mlp()
    recommend(model).apply(seed=0)
    before = kernels(model)
    recommend(model).apply(seed=1)
    for one, other in zip(before, kernels(model), strict=True):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("build", BUILDERS)
def test_every_kernel_gets_weights_of_its_own(build):
    model = build()
    recommend(model).apply(seed=0)
    drawn = kernels(model)
    for index, kernel in enumerate(drawn):
        for other in drawn[:index]:
            if kernel.shape == other.shape:
                sizes = np.linalg.norm(kernel) * np.linalg.norm(other)
                assert abs(np.vdot(kernel, other)) < 0.4 * sizes


def test_query_key_and_value_differ():
    model = attention()
    recommend(model).apply(seed=0)
    query, key, value = kernels(model)[:3]
    for one, other in ((query, key), (query, value), (key, value)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


def normalized(*ending):
    inputs = Input((16,))
    x = inputs
    for _ in range(3):
        x = layers.ReLU()(layers.LayerNormalization()(layers.Dense(16)(x)))
    for layer in ending:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("build", "count"), [(normalized, 3), (lambda *ending: longer(*ending), 5)]
)
def test_layers_added_after_the_end_leave_earlier_kernels_alone(build, count):
    endings = [
        [layers.Dense(4)],
        [layers.Dense(4), layers.LayerNormalization(), layers.Dense(16)],
        [layers.LayerNormalization(), layers.Dense(8, "relu"), layers.Dense(3)],
    ]
    drawn = []
    for ending in endings:
        model = build(*ending)
        recommend(model).apply(seed=0)
        drawn.append(kernels(model)[: count - 1])
    for other in drawn[1:]:
        for one, two in zip(drawn[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def longer(*ending):
    return keras.Sequential([Input((16,)), *mlp(hidden=5).layers[:-1], *ending])


def test_without_a_seed_weights_vary_and_follow_the_global_seed():
    def draw():
        model = mlp(hidden=1)
        applied = recommend(model).apply()
        return kernels(model)[0], applied.seed

    keras.utils.set_random_seed(5)
    (first, seed), (second, other_seed) = draw(), draw()
    assert not np.array_equal(first, second)
    assert seed != other_seed
    keras.utils.set_random_seed(5)
    again, same_seed = draw()
    np.testing.assert_array_equal(first, again)
    assert seed == same_seed
    model = mlp(hidden=1)
    recommend(model).apply(seed=seed)
    np.testing.assert_array_equal(first, kernels(model)[0])


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, math.nan, [0]])
def test_bad_seeds_are_refused(seed):
    model = mlp(hidden=1)
    before = weights(model)
    with pytest.raises(
        ValueError, match=r"whole number of at least 0\. Received: seed="
    ):
        recommend(model).apply(seed=seed)
    assert_same(model, before)


def test_large_seeds_are_fine():
    recommend(mlp(hidden=1)).apply(seed=2**40)


# --- What changes and what does not --------------------------------------------------


def test_only_kernels_and_biases_change():
    model = convnet()
    for layer in ("normalization", "prelu"):
        for variable in model.get_layer(layer).variables:
            variable.assign(variable + 0.25)
    before = weights(model)
    applied = recommend(model).apply(seed=0, overwrite=True)
    names = ("first", "depthwise", "second", "last")
    changed = {v.path for name in names for v in model.get_layer(name).variables}
    assert set(applied.changed) == changed
    assert_same(model, before, changed)
    for variable in model.variables:
        if variable.name == "kernel":
            assert not np.array_equal(to_numpy(variable), before[id(variable)])


def test_frozen_layers_stay():
    model = mlp()
    frozen = model.layers[2]
    frozen.bias.assign(np.ones(16))
    frozen.trainable = False
    before = weights(model)
    applied = recommend(model).apply(seed=0)
    assert not {v.path for v in frozen.variables} & set(applied.changed)
    assert_same(model, before, applied.changed)
    assert len(applied.changed) == len(model.variables) - 2


def test_compile_state_and_optimizer_stay(rng):
    model = fitted(mlp(), rng, "adam")
    optimizer, loss = model.optimizer, model.loss
    slots = [to_numpy(variable) for variable in optimizer.variables]
    assert any(np.any(slot) for slot in slots)
    recommend(model).apply(seed=0, overwrite=True)
    assert model.compiled
    assert model.optimizer is optimizer
    assert model.loss is loss
    for variable, slot in zip(optimizer.variables, slots, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), slot)
    fitted(model, rng)


def test_the_next_fit_starts_from_the_new_weights(rng):
    model, twin = fitted(mlp(), rng), compiled(mlp())
    x, y = data_for(model, rng)
    for one in (model, twin):
        recommend(one).apply(seed=0, overwrite=True)
    losses = [one.fit(x, y, verbose=0).history["loss"] for one in (model, twin)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_biases_are_drawn_by_their_layers_initializer():
    model = keras.Sequential(
        [
            Input((16,)),
            layers.Dense(16, "relu", bias_initializer=keras.initializers.Constant(0.5)),
            layers.Dense(16, "relu", bias_initializer="random_normal"),
            layers.Dense(4),
        ]
    )
    before = to_numpy(model.layers[1].bias)
    recommend(model).apply(seed=0)
    np.testing.assert_array_equal(to_numpy(model.layers[0].bias), 0.5)
    assert not np.array_equal(to_numpy(model.layers[1].bias), before)
    assert np.any(to_numpy(model.layers[1].bias))
    np.testing.assert_array_equal(to_numpy(model.layers[2].bias), 0)


@pytest.mark.parametrize("forget", [True, False])
def test_the_forget_bias_of_an_lstm_stays(forget):
    inputs = Input((5, 16))
    lstm = layers.LSTM(16, unit_forget_bias=forget)
    model = keras.Model(inputs, layers.Dense(4)(lstm(inputs)))
    before = to_numpy(lstm.cell.bias)
    assert before.sum() == 16 * forget
    recommend(model).apply(seed=0, overwrite=True)
    np.testing.assert_array_equal(to_numpy(lstm.cell.bias), before)


def separable():
    convolution = layers.SeparableConv2D(4, 3, activation="relu")
    return keras.Sequential([Input((6, 6, 3)), convolution, layers.Conv2D(4, 1)])


@pytest.mark.parametrize("build", [*BUILDERS, separable])
def test_no_variable_is_written_twice(build):
    model = build()
    changed = recommend(model).apply(seed=0, overwrite=True).changed
    assert len(set(changed)) == len(changed)
    assert set(changed) <= {variable.path for variable in model.variables}


def test_applied_tells_what_changed():
    model = mlp(hidden=1)
    applied = recommend(model).apply(seed=7)
    assert applied.changed == tuple(v.path for v in model.variables)
    assert applied.nbytes == 4 * (16 * 16 + 16 + 16 * 4 + 4)
    assert applied.seed == 7
    assert "4 variables" in repr(applied)
    assert "MiB" in repr(applied)
    assert "seed 7" in " ".join(repr(applied).split())


# --- Undo ----------------------------------------------------------------------------


@pytest.mark.parametrize("build", BUILDERS)
def test_undo_is_exact(build):
    model = build()
    before = weights(model)
    applied = recommend(model).apply(seed=0)
    applied.undo()
    assert_same(model, before)


def test_undo_after_training(rng):
    model = compiled(convnet(), "adam")
    before = weights(model)
    applied = recommend(model).apply(seed=0)
    fitted(model, rng)
    after = weights(model)
    applied.undo()
    for variable in model.variables:
        source = before if variable.path in applied.changed else after
        np.testing.assert_array_equal(to_numpy(variable), source[id(variable)])


def test_undo_twice_and_nested():
    model = mlp()
    before = weights(model)
    outer = recommend(model).apply(seed=0)
    middle = weights(model)
    inner = recommend(model).apply(seed=1)
    for _ in range(2):
        inner.undo()
        assert_same(model, middle)
    outer.undo()
    assert_same(model, before)


def test_undo_refuses_a_model_with_another_layer():
    model = mlp()
    applied = recommend(model).apply(seed=0)
    model.add(layers.Dense(2))
    before = weights(model)
    with pytest.raises(StructureChangedError, match=f"Received: model='{model.name}'"):
        applied.undo()
    assert_same(model, before)


@pytest.mark.parametrize(
    "change", [lambda m: m.pop(), lambda m: m.add(layers.Dense(2))]
)
def test_apply_refuses_a_model_that_was_changed(change):
    model = mlp()
    advice = recommend(model)
    change(model)
    before = weights(model)
    with pytest.raises(
        StructureChangedError, match=r"Received: model=.*with other variables"
    ):
        advice.apply(seed=0)
    assert_same(model, before)


# --- A part of the model -------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("second", ["second"]),
        (["second"], ["second"]),
        (["convnet/second"], ["second"]),
        (["convnet/second/kernel"], ["second"]),
        (("last", "first"), ["first", "normalization", "last"]),
        (lambda row: row.shape == (3, 3, 4, 1), ["depthwise"]),
        (lambda row: row.role == "output", ["last"]),
        (lambda row: False, []),
        ([], []),
        (["convnet"], ["first", "normalization", "depthwise", "second", "last"]),
    ],
)
def test_only_some_kernels(only, expected):
    model = convnet()
    before = weights(model)
    applied = recommend(model).apply(seed=0, only=only)
    assert list(dict.fromkeys(p.split("/")[1] for p in applied.changed)) == expected
    assert_same(model, before, applied.changed)
    whole = convnet()
    recommend(whole).apply(seed=0)
    for name in expected:
        for one, other in zip(
            model.get_layer(name).variables,
            whole.get_layer(name).variables,
            strict=True,
        ):
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_layers_may_be_named_by_themselves():
    for function in (
        lambda model, only: recommend(model).apply(seed=0, only=only),
        lambda model, only: reinitialize(model, seed=0, only=only),
        lambda model, only: calibrate(model, np.eye(16), only=only),
    ):
        for as_given in (lambda layer: layer, lambda layer: [layer]):
            hidden = layers.Dense(16, name="hidden")
            model = keras.Sequential([Input((16,)), hidden, layers.Dense(4)])
            changed = function(model, as_given(hidden)).changed
            assert changed
            assert all("/hidden/" in path for path in changed)
    other = layers.Dense(3, name="other")
    other.build((None, 16))
    with pytest.raises(ValueError, match=r"Received: only=\['other'\]"):
        recommend(model).apply(seed=0, only=[other])


def test_names_that_are_part_of_a_name_do_not_count():
    model = keras.Sequential(
        [Input((16,)), layers.Dense(16, name="dense"), layers.Dense(4, name="dense_1")]
    )
    applied = recommend(model).apply(seed=0, only=["dense"])
    assert len(applied.changed) == 2


def test_unknown_names_are_refused():
    model = convnet()
    before = weights(model)
    with pytest.raises(ValueError, match=r"Received: only=\['third', 'sec'\]") as error:
        recommend(model).apply(seed=0, only=["second", "third", "sec"])
    assert "convnet/first/kernel" in str(error.value)
    assert_same(model, before)


# --- Weights that look trained -------------------------------------------------------


def assert_refused(model, received):
    before = weights(model)
    with pytest.raises(TrainedWeightsError, match=received):
        recommend(model).apply(seed=0)
    assert_same(model, before)
    recommend(model).apply(seed=0, overwrite=True)
    assert any(not np.array_equal(to_numpy(v), before[id(v)]) for v in model.variables)


def test_after_fit(rng):
    assert_refused(fitted(mlp(), rng), "Received: model=.* has taken 2 steps")


@pytest.mark.parametrize("value", [0.01, -3.0])
def test_after_a_bias_has_moved(value):
    model = mlp()
    bias = model.layers[1].bias
    bias.assign(np.r_[value, np.zeros(15)])
    assert_refused(model, f"'{bias.path}' started at 0 and has moved")


def test_after_a_normalization_has_moved():
    model = convnet()
    gamma = model.get_layer("normalization").gamma
    gamma.assign(1.5 * gamma)
    assert_refused(model, f"'{gamma.path}' started at 1 and has moved")


def test_weights_without_an_optimizer_still_look_trained(rng):
    trained, fresh = fitted(mlp("sigmoid"), rng, epochs=20), mlp("sigmoid")
    fresh.set_weights(trained.get_weights())
    assert_refused(fresh, "started at 0 and has moved")


@pytest.mark.parametrize("build", BUILDERS)
def test_fresh_models_do_not_look_trained(build):
    model = compiled(build())
    for seed in (0, 1):
        recommend(model).apply(seed=seed)


def test_a_fresh_lstm_does_not_look_trained():
    model = keras.Sequential([Input((5, 16)), layers.LSTM(16), layers.Dense(4)])
    recommend(model).apply(seed=0)


def test_a_trained_part_that_stays_is_no_reason_to_refuse():
    model = mlp()
    model.layers[0].bias.assign(np.ones(16))
    applied = recommend(model).apply(seed=0, only=[model.layers[-1].name])
    assert len(applied.changed) == 2


def test_a_trained_frozen_part_is_no_reason_to_refuse():
    model = mlp()
    model.layers[0].bias.assign(np.ones(16))
    model.layers[0].trainable = False
    recommend(model).apply(seed=0)


# --- All or nothing ------------------------------------------------------------------


def raising(self, shape, dtype=None, **options):
    raise RuntimeError("no weights today")


def not_a_number(self, shape, dtype=None, **options):
    return math.nan * ops.ones(shape, dtype)


def infinite_once(self, shape, dtype=None, **options):
    return ops.full(shape, math.inf, dtype)


@pytest.mark.parametrize(
    ("call", "error", "received"),
    [
        (raising, RuntimeError, "no weights today"),
        (
            not_a_number,
            ValueError,
            "36 NaN or Inf .* RandomNormal for .*depthwise/kernel",
        ),
        (infinite_once, ValueError, "finite values of .* Received: 36 NaN or Inf"),
    ],
)
def test_a_failing_initializer_changes_nothing(monkeypatch, call, error, received):
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")  # float32 kernels are drawn by NumPy
    try:
        model = convnet()
    finally:
        keras.config.set_dtype_policy(usual)
    before = weights(model)
    advice = recommend(model)
    # Only the depthwise kernel, the second of four, is drawn by this class.
    monkeypatch.setattr(keras.initializers.RandomNormal, "__call__", call)
    with pytest.raises(error, match=received):
        advice.apply(seed=0)
    assert_same(model, before)


def test_a_failing_assignment_changes_nothing(monkeypatch):
    model = convnet()
    before = weights(model)
    advice = recommend(model)
    assign, calls = keras.Variable.assign, []

    def fail_once(self, value):
        calls.append(self)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return assign(self, value)

    monkeypatch.setattr(keras.Variable, "assign", fail_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        advice.apply(seed=0)
    assert len(calls) > 3
    assert_same(model, before)


def test_new_values_are_written_before_the_next_are_drawn(monkeypatch):
    """A large model's new values would else all be held at once."""
    model = convnet()
    kernels = [row.kernel.variable for row in recommend(model)]
    before = [to_numpy(kernel) for kernel in kernels]
    drawn, written = _apply.drawn, []

    def noting(row, *args, **kwargs):
        written.append(
            [np.any(to_numpy(k) != b) for k, b in zip(kernels, before, strict=True)]
        )
        return drawn(row, *args, **kwargs)

    monkeypatch.setattr(_apply, "drawn", noting)
    recommend(model).apply(seed=0)
    count = len(kernels)
    assert written[-count:] == [[k < now for k in range(count)] for now in range(count)]


# --- The optimizer -------------------------------------------------------------------

OPTIMIZERS = [
    lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    lambda: keras.optimizers.Nadam(0.01),
    lambda: keras.optimizers.Adagrad(0.01),
    lambda: keras.optimizers.RMSprop(0.01, centered=True),
    lambda: keras.optimizers.Ftrl(0.01),
    lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
]


@pytest.mark.parametrize(
    "optimizer", OPTIMIZERS, ids=lambda make: type(make()).__name__
)
def test_reset_optimizer_brings_it_back_to_its_start(optimizer, rng):
    model = mlp(hidden=1)
    model.compile(optimizer(), "mse")
    model.optimizer.build(model.trainable_variables)
    start = [to_numpy(variable) for variable in model.optimizer.variables]
    fitted(model, rng)
    trained = [to_numpy(variable) for variable in model.optimizer.variables]
    applied = recommend(model).apply(seed=0, overwrite=True, reset_optimizer=True)
    assert int(model.optimizer.iterations) == 0
    for variable, value in zip(model.optimizer.variables, start, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value, variable.path)
    applied.undo()
    for variable, value in zip(model.optimizer.variables, trained, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value, variable.path)


def test_reset_optimizer_keeps_a_learning_rate_that_was_set(rng):
    model = fitted(mlp(hidden=1), rng, keras.optimizers.Adam(0.01))
    model.optimizer.learning_rate = 0.125
    recommend(model).apply(seed=0, overwrite=True, reset_optimizer=True)
    assert float(model.optimizer.learning_rate) == 0.125


def test_after_a_reset_weights_no_longer_look_trained(rng):
    model = fitted(mlp(), rng, "adam")
    recommend(model).apply(seed=0, overwrite=True, reset_optimizer=True)
    recommend(model).apply(seed=0)


def test_reset_without_an_optimizer_does_nothing():
    assert (
        len(recommend(mlp(hidden=1)).apply(seed=0, reset_optimizer=True).changed) == 4
    )


# --- Precision -----------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_low_precision(policy, activation):
    model = mlp(activation, dtype=policy)
    before = weights(model)
    applied = recommend(model).apply(seed=0)
    reference = mlp(activation)
    recommend(reference).apply(seed=0)
    tolerance = 2**-7 if policy == "bfloat16" else 0
    for variable, exact in zip(model.variables, reference.variables, strict=True):
        assert keras.backend.standardize_dtype(variable.dtype) == (
            "bfloat16" if policy == "bfloat16" else "float32"
        )
        values = to_numpy(exact)
        atol = tolerance * np.abs(values).max()
        np.testing.assert_allclose(to_numpy(variable), values, atol=4 * atol, rtol=0)
    recommend(model).apply(seed=1)  # centered biases are no sign of training
    recommend(model).apply(seed=0)
    applied.undo()
    assert_same(model, before)


def test_double_precision():
    if keras.backend.backend() == "jax":
        pytest.skip("JAX keeps float64 only where it was told so at its start")
    model = mlp(dtype="float64")
    recommend(model).apply(seed=0)
    kernel = ops.convert_to_numpy(model.layers[1].kernel)
    assert kernel.dtype == np.float64
    half = kernel[:8, :8]
    np.testing.assert_allclose(half.T @ half, np.eye(8), atol=1e-12)


def test_the_recommendation_is_its_public_type():
    assert isinstance(recommend(mlp(hidden=1)), Recommendation)


def test_a_dry_run_moves_no_generator():
    model = keras.Sequential([Input((8,)), layers.Dense(4)])
    advice = recommend(model)
    keras.utils.set_random_seed(5)
    expected = ops.convert_to_numpy(keras.random.normal((4,)))
    keras.utils.set_random_seed(5)
    advice.apply(dry_run=True)
    found = ops.convert_to_numpy(keras.random.normal((4,)))
    np.testing.assert_array_equal(found, expected)
