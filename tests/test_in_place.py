"""In place means in place: what `apply` was not asked to change stays, bit for bit."""

import warnings

import applications
import keras
import numpy as np
import pytest
import zoo
from keras import Input, layers, ops

from keras_initlab import TrainedWeightsError, recommend
from keras_initlab.recommend._normal import from_pool, normal, truncated_normal


def to_numpy(variable):
    return np.array(ops.convert_to_numpy(variable.value))


def values(variables):
    return {id(variable): to_numpy(variable) for variable in variables}


def assert_same(variables, before):
    for variable in variables:
        np.testing.assert_array_equal(to_numpy(variable), before[id(variable)])


def mlp(hidden=3):
    stack = [layers.Dense(8, "relu") for _ in range(hidden)]
    return keras.Sequential([Input((8,)), *stack, layers.Dense(2)])


def convnet():
    return keras.Sequential(
        [
            Input((6, 6, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def fitted(model):
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (16, *model.input_shape[1:])).astype("float32")
    model.fit(x, np.ones((16, 2), "float32"), batch_size=8, verbose=0)
    return model


def unchanged_but(model, applied):
    return [v for v in model.variables if v.path not in applied.changed]


# --- What belongs to training --------------------------------------------------------


def test_compile_state_slots_and_statistics_stay():
    model = fitted(convnet())
    optimizer = model.optimizer
    statistics = [v for v in model.variables if "moving" in v.path]
    assert any(np.any(to_numpy(v) > 0.01) for v in statistics)
    assert any(np.any(to_numpy(v)) for v in optimizer.variables[2:])
    before = values([*model.variables, *optimizer.variables])
    applied = recommend(model).apply(seed=0, overwrite=True)
    assert not any("normalization" in path for path in applied.changed)
    assert_same([*unchanged_but(model, applied), *optimizer.variables], before)
    assert model.optimizer is optimizer
    fitted_again = model.fit(np.ones((8, 6, 6, 2)), np.ones((8, 2)), verbose=0)
    assert np.isfinite(fitted_again.history["loss"][0])


def test_shared_layers_stay_shared():
    shared, inputs = layers.Dense(8, "relu", name="shared"), Input((8,))
    outputs = layers.Dense(2)(shared(shared(inputs)))
    model = keras.Model(inputs, outputs)
    kernel = shared.kernel
    applied = recommend(model).apply(seed=0)
    assert shared.kernel is kernel
    assert len(applied.changed) == 4
    x = np.ones((2, 8), "float32")
    hidden = np.maximum(x @ to_numpy(kernel) + to_numpy(shared.bias), 0)
    hidden = np.maximum(hidden @ to_numpy(kernel) + to_numpy(shared.bias), 0)
    last = model.layers[-1]
    expected = hidden @ to_numpy(last.kernel) + to_numpy(last.bias)
    found = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pretrained_frozen_layers_stay():
    model = fitted(convnet())
    for layer in model.layers[:4]:
        layer.trainable = False
    before = values(model.variables)
    # A new head beside it: what is frozen may well look trained.
    inputs = Input((6, 6, 2))
    head = layers.Dense(3)
    whole = keras.Model(inputs, head(model(inputs)))
    model.layers[-1].trainable = False
    applied = recommend(whole).apply(seed=0)
    assert set(applied.changed) == {v.path for v in head.variables}
    assert_same(model.variables, before)


# --- LoRA and quantized layers -------------------------------------------------------


def with_lora_dense():
    model = mlp()
    model.layers[1].enable_lora(2)
    return model, model.layers[1]


def with_lora_convolution():
    model = convnet()
    model.layers[3].enable_lora(2)
    return model, model.layers[3]


def with_lora_embedding():
    words = [Input((4,), dtype="int32"), layers.Embedding(9, 4)]
    model = keras.Sequential([*words, layers.Flatten(), layers.Dense(2)])
    model.layers[0].enable_lora(2)
    return model, model.layers[0]


def with_lora_attention():
    inputs, attention = Input((3, 8)), layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, layers.Dense(2)(attention(inputs, inputs)))
    attention.query_dense.enable_lora(2)
    return model, attention.query_dense


def with_one_quantized_layer():
    model = mlp()
    model.layers[1].quantize("int8")
    return model, model.layers[1]


def quantized_with_lora():
    model = mlp()
    model.layers[1].quantize("int8")
    model.layers[1].enable_lora(2)
    return model, model.layers[1]


SPECIAL = [
    with_lora_attention,
    with_lora_convolution,
    with_lora_dense,
    with_lora_embedding,
    with_one_quantized_layer,
    quantized_with_lora,
]


@pytest.mark.parametrize("build", SPECIAL)
def test_lora_and_quantized_layers_stay(build):
    model, layer = build()
    before = values(model.variables)
    advice = recommend(model)
    applied = advice.apply(seed=0, overwrite=True)
    assert applied.changed
    own = [variable for variable in layer.variables if variable.name != "bias"]
    assert len(own) >= 2
    assert not {variable.path for variable in own} & set(applied.changed)
    assert_same(own, before)
    assert_same(unchanged_but(model, applied), before)
    kept = [row for row in advice if row.initializer is None]
    assert [row.kernel.layer for row in kept] == [layer]
    applied.undo()
    assert_same(model.variables, before)


def test_a_quantized_model_has_nothing_to_draw():
    model = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers without kernels cannot be quantized
        model.quantize("int8")
    before = values(model.variables)
    assert recommend(model).apply(seed=0).changed == ()
    assert_same(model.variables, before)


# --- Dry runs ------------------------------------------------------------------------


def test_a_dry_run_tells_and_writes_nothing():
    model = mlp()
    before = values(model.variables)
    advice = recommend(model)
    dry = advice.apply(seed=5, dry_run=True)
    assert_same(model.variables, before)
    assert dry.is_dry_run
    assert dry.nbytes == 0
    text = " ".join(repr(dry).split())
    assert "8 variables would be changed, seed 5" in text
    wet = advice.apply(seed=5)
    assert not wet.is_dry_run
    assert (dry.changed, dry.seed) == (wet.changed, wet.seed)
    assert dry.magnitudes == wet.magnitudes
    written = values(model.variables)
    dry.undo()
    assert_same(model.variables, written)


def test_a_dry_run_without_a_seed_can_be_done_in_earnest():
    model = mlp()
    advice = recommend(model)
    dry = advice.apply(dry_run=True)
    assert advice.apply(seed=dry.seed).magnitudes == dry.magnitudes


def test_a_dry_run_checks_as_the_real_one_does():
    model = fitted(mlp())
    with pytest.raises(TrainedWeightsError, match=r"Received: model=.* taken 2 steps"):
        recommend(model).apply(seed=0, dry_run=True)
    with pytest.raises(ValueError, match=r"Received: only=\['nothing'\]"):
        recommend(model).apply(only=["nothing"], overwrite=True, dry_run=True)


def test_magnitudes_are_root_mean_squares():
    model = mlp()
    kernel = model.layers[0].kernel
    before = to_numpy(kernel)
    applied = recommend(model).apply(seed=0)
    expected = [np.sqrt(np.mean(one**2)) for one in (before, to_numpy(kernel))]
    np.testing.assert_allclose(applied.magnitudes[kernel.path], expected, rtol=1e-5)
    assert tuple(applied.magnitudes) == applied.changed


# --- All or nothing ------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("call", [1, 3, 8])
def test_whatever_stops_the_writing_nothing_stays(monkeypatch, error, call):
    model = mlp()
    before, advice = values(model.variables), recommend(model)
    assign, calls = keras.Variable.assign, []

    def stop_once(self, value):
        calls.append(self)
        if len(calls) == call:
            raise error("stop")
        return assign(self, value)

    monkeypatch.setattr(keras.Variable, "assign", stop_once)
    with pytest.raises(error, match="stop"):
        advice.apply(seed=0)
    assert len(calls) > call - 1
    assert_same(model.variables, before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_stops_the_drawing_nothing_was_written(monkeypatch, error):
    model = mlp(hidden=6)
    before, advice = values(model.variables), recommend(model)
    draw, drawn = type(advice[3].initializer)._draw, []

    def stop_at_third(self, *arguments):
        drawn.append(self)
        if len(drawn) == 3:
            raise error("stop")
        return draw(self, *arguments)

    monkeypatch.setattr(type(advice[3].initializer), "_draw", stop_at_third)
    with pytest.raises(error, match="stop"):
        advice.apply(seed=0)
    assert len(drawn) == 3
    assert_same(model.variables, before)


# --- The fast draw -------------------------------------------------------------------


def test_truncated_kernels_are_keras_in_distribution():
    """Cut at two uncut standard deviations, of the std that is asked for."""
    from scipy import stats

    found = truncated_normal((1000, 400), 0.5, seed=1).ravel().astype("float64")
    uncut = 0.5 / np.sqrt(stats.truncnorm(-2, 2).var())
    assert np.abs(found).max() <= 2 * uncut * (1 + 1e-6)
    assert np.abs(found).max() > 1.999 * uncut
    # Five standard errors; an uncut draw of this std, or a cut one that is not
    # rescaled (0.44), is far outside.
    assert abs(found.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * found.size)
    test = stats.kstest(found[:100000], stats.truncnorm(-2, 2, scale=uncut).cdf)
    assert test.pvalue > 1e-4
    wrong = stats.kstest(found[:100000], stats.norm(scale=0.5).cdf)
    assert wrong.pvalue < 1e-4


@pytest.mark.parametrize("draw", [normal, from_pool])
def test_normal_kernels_have_the_std_that_is_asked_for(draw):
    # More numbers than the pool has.
    found = draw((1500, 800), 0.5, seed=1).astype("float64")
    assert abs(found.std() - 0.5) < 0.002
    assert abs(found.mean()) < 0.002
    near = np.corrcoef(found[:100])  # of rows, and of what lies a pool further on
    assert np.abs(near - np.eye(100)).max() < 0.2
    assert np.abs(np.corrcoef(found[:, ::40].T) - np.eye(20)).max() < 0.2


def test_normal_kernels_are_normal():
    from scipy import stats

    found = normal((100_000,), 0.5, seed=1)
    assert stats.kstest(found, stats.norm(scale=0.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize("draw", [truncated_normal, normal, from_pool])
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (2, 3, 4, 5), (300, 300), (0, 3)])
def test_drawn_kernels_have_any_shape_and_a_seed(shape, draw):
    one, same, other = (draw(shape, 1.0, seed) for seed in (1, 1, 2))
    assert one.shape == shape
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, same)
    assert not one.size or not np.array_equal(one, other)


def test_applied_kernels_have_the_std_of_their_initializer():
    inputs = Input((200,))
    x = layers.LayerNormalization()(layers.Dense(300, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(250)(x))
    advice = recommend(model)
    advice.apply(seed=0)
    for row in advice:
        kernel, drawn = to_numpy(row.kernel.variable), row.initializer(row.shape)
        expected = np.std(ops.convert_to_numpy(drawn))
        assert abs(kernel.std() / expected - 1) < 5 / np.sqrt(kernel.size)


# --- Fresh weights never look trained ------------------------------------------------


@pytest.mark.parametrize("name", ["conv_lstm", "convnext", "GAN", "unet", "MLPMixer"])
def test_no_false_alarm_on_some_of_the_zoo(name):
    recommend(zoo.ZOO[name].build()).apply(seed=0, dry_run=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.ZOO)
def test_no_false_alarm_on_the_zoo(name):
    model = zoo.ZOO[name].build()
    for seed in (0, 1):
        recommend(model).apply(seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", applications.NAMES)
def test_no_false_alarm_on_an_application(name, monkeypatch):
    zoo.without_draws(monkeypatch)
    model = getattr(keras.applications, name)(weights=None)
    recommend(model).apply(seed=0, dry_run=True)
