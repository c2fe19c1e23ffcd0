"""Model files from strangers: what they ask for is bounded by what they hold."""

import copy
import json
import zipfile

import h5py
import hostile
import keras
import numpy as np
import pytest
import zoo
from keras import Input, layers, ops
from strangers import (
    members,
    never_opened,
    refusal,
    replace_all,
    saved_model,
    with_config,
    write,
)

from keras_initlab._cli import _allowance, main
from keras_initlab._cli._allowance import Allowance
from keras_initlab._cli._screening import screened

MANY = 10**7
FEW_BYTES = 2**24


def dense(*metrics):
    model = keras.Sequential([Input((4,)), layers.Dense(4, "relu"), layers.Dense(2)])
    if metrics:
        model.compile("adam", "mse", metrics=list(metrics))
    return model


def one(layer, *shape, dtype="float32"):
    """A model of one layer and a head."""
    middle = [layer, layers.Flatten(), layers.Dense(1)]
    return keras.Sequential([Input(shape, dtype=dtype), *middle])


def attention():
    tokens = Input((4, 8))
    attended = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    return keras.Model(tokens, layers.Dense(1)(attended))


def of_parts(split):
    inputs = Input((4, 2))
    return keras.Model(inputs, layers.Dense(1)(split(inputs)[0]))


def setting(name, value):
    return lambda config: replace_all(config, name, value)


def shapes(old, new):
    """Puts one shape in place of another, wherever it stands."""

    def plant(config):
        for key in config if isinstance(config, dict) else range(len(config)):
            if config[key] == [None, *old]:
                config[key] = [None, *new]
            elif isinstance(config[key], (dict, list)):
                plant(config[key])

    return plant


def repeated(config):
    stack = config["config"]["layers"]
    for index in range(200):
        stack.insert(1, copy.deepcopy(stack[1]))
        stack[1]["config"] |= {"name": f"more{index}", "units": 300}
        stack[1].pop("build_config", None)


def adapted(config):
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Dense":
            layer["config"]["lora_rank"] = MANY


def split_in(many):
    def plant(config):
        shapes((4, 2), (many, 2))(config)
        replace_all(config, "indices_or_sections", many)

    return plant


SCALED = layers.Normalization
ASKS = {
    "units": (dense, setting("units", MANY)),
    "inputs": (dense, shapes((4,), (MANY,))),
    "words": (lambda: one(layers.Embedding(5, 4), 4), setting("input_dim", MANY)),
    "a window": (
        lambda: one(layers.Conv2D(3, 3, padding="same"), 8, 8, 2),
        setting("kernel_size", [4000, 4000]),
    ),
    "channels": (
        lambda: one(layers.DepthwiseConv2D(3), 8, 8, 2),
        setting("depth_multiplier", MANY),
    ),
    "gates": (lambda: one(layers.LSTM(3), 4, 2), setting("units", 4000)),
    "heads": (attention, setting("num_heads", MANY)),
    "key_dim": (attention, setting("key_dim", MANY)),
    "statistics": (lambda: one(layers.BatchNormalization(), 4), shapes((4,), (MANY,))),
    "layers": (dense, repeated),
    "adapters": (dense, adapted),
    "constants": (
        lambda: one(SCALED(axis=(1, 2), mean=0.0, variance=1.0), 4, 2),
        shapes((4, 2), (MANY, 2)),
    ),
    "outputs": (lambda: of_parts(lambda x: ops.split(x, 2, axis=1)), split_in(MANY)),
    "steps": (
        lambda: of_parts(lambda x: ops.unstack(x, axis=1)),
        shapes((4, 2), (MANY, 2)),
    ),
}
METRICS = {
    "a confusion matrix": (
        lambda: dense(keras.metrics.MeanIoU(3)),
        setting("num_classes", 4000),
    )
}


@pytest.fixture
def drawn(monkeypatch):
    """The sizes of all initial values that Keras draws."""
    sizes = []
    names = ("GlorotUniform", "Orthogonal", "RandomUniform", "VarianceScaling")
    for name in (*names, "Ones", "Zeros"):
        plain = getattr(keras.initializers, name).__call__

        def call(self, shape, dtype=None, _plain=plain, **options):
            sizes.append(int(np.prod(shape, dtype="float64")))
            return _plain(self, shape, dtype, **options)

        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", call)
    return sizes


def asking(path, build, plant):
    build().save(path)
    return with_config(path, path.with_name("m.keras"), plant)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        hostile.case(name, command, asks=f"cli.{command}", id=f"{name}, {command}")
        for command, table in (("recommend", ASKS), ("audit", ASKS | METRICS))
        for name in table
    ],
)
def test_more_than_a_file_holds_is_not_made(capsys, tmp_path, drawn, name, command):
    path = asking(tmp_path / "x.keras", *(ASKS | METRICS)[name])
    drawn.clear()
    error = refusal(capsys, command, path)
    assert "must not ask for more than its file stores. Received:" in error
    assert 4 * sum(drawn) < FEW_BYTES + 8 * path.stat().st_size


LISTS = {
    "thresholds": (lambda: dense(keras.metrics.AUC()), "num_thresholds"),
    "classes": (lambda: dense(keras.metrics.OneHotMeanIoU(3)), "num_classes"),
    "attempts": (
        lambda: one(layers.SpectralNormalization(layers.Dense(2)), 4),
        "power_iterations",
    ),
}


@hostile.asks("cli.audit")
@pytest.mark.parametrize("name", LISTS)
def test_lists_without_end_are_not_made(capsys, tmp_path, monkeypatch, name):
    build, count = LISTS[name]
    path = asking(tmp_path / "x.keras", build, setting(count, MANY))
    never_opened(monkeypatch)
    assert f"with {count}={MANY}" in refusal(capsys, "audit", path)


@pytest.mark.tensorflow
@hostile.asks("cli.audit")
@pytest.mark.parametrize("count", ["max_tokens", "num_oov_indices"])
def test_tables_without_end_are_not_made(capsys, tmp_path, monkeypatch, count):
    weights = {"output_mode": "tf_idf", "idf_weights": [1.0, 2.0]}
    padded = {"max_tokens": 10, "pad_to_max_tokens": True}
    lookup = layers.StringLookup(vocabulary=["a", "b"], **weights, **padded)
    path = asking(
        tmp_path / "x.keras",
        lambda: one(lookup, 1, dtype="string"),
        setting(count, MANY),
    )
    never_opened(monkeypatch)
    assert f"with {count}={MANY}" in refusal(capsys, "audit", path)


VALUE = {"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}
HIDING = copy.deepcopy(VALUE)
HIDING["config"]["more"] = {"class_name": "__keras_tensor__", "config": {}}
CARRIED_OUT = {
    "a layer": {
        "module": "keras.layers",
        "class_name": "RepeatVector",
        "config": {"name": "planted", "n": MANY},
    },
    "an operation": {
        "module": "keras.src.ops.numpy",
        "class_name": "Tile",
        "config": {"name": "planted", "repeats": MANY},
        "registered_name": "Tile",
    },
}


@hostile.asks("cli.audit")
@pytest.mark.parametrize("arguments", [[VALUE], [], [VALUE, ["x", 0, 0]], [HIDING]])
@pytest.mark.parametrize("name", CARRIED_OUT)
def test_nothing_is_computed_on_a_files_values(
    capsys, tmp_path, monkeypatch, name, arguments
):
    call = {"args": arguments, "kwargs": {}}
    planted = {**CARRIED_OUT[name], "name": "planted", "inbound_nodes": [call]}
    path = asking(
        tmp_path / "x.keras",
        lambda: of_parts(lambda x: [x]),
        lambda config: config["config"]["layers"].append(planted),
    )
    never_opened(monkeypatch)
    assert "a call on values" in refusal(capsys, "audit", path)


# --- What a model may take up --------------------------------------------------------


def heaviest():
    """An optimizer with as many values for each weight as Keras has."""
    slots = {"amsgrad": True, "use_ema": True, "gradient_accumulation_steps": 2}
    return keras.optimizers.Adam(**slots)


EVERY_DAY = ("mlp", "mobilenet", "transformer")


@hostile.asks("cli.audit")
@pytest.mark.filterwarnings(
    "ignore:Skipping variable loading:UserWarning",
    "ignore:You are saving a model that has not yet been built:UserWarning",
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in EVERY_DAY else pytest.mark.slow)
        for name in zoo.ZOO
    ],
)
def test_models_as_people_write_them_may_be_loaded(tmp_path, monkeypatch, name):
    model, path = zoo.ZOO[name].build(), tmp_path / "m.keras"
    model.compile(heaviest(), "mse")  # which the file says, but holds no values for
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        found = screened(archive, with_compile=True)
    assert not found  # foreign classes aside
    weights = [v for v in model.variables if "seed" not in v.path]
    size = sum(hostile.to_array(variable).nbytes for variable in weights)
    assert found.stored >= size
    monkeypatch.setattr(_allowance, "_LEAST", 2**12)
    allowance = Allowance(found.stored)
    with allowance.watched():
        try:
            keras.saving.load_model(path)
        except (TypeError, ValueError) as error:
            assert found.foreign, error  # noqa: PT017
    assert not allowance.exceeded


def test_watching_leaves_nothing_behind():
    before = keras.Variable.__init__, keras.KerasTensor.__init__
    build = keras.layers.Normalization.build
    allowance = Allowance(0)
    with pytest.raises(ValueError, match=r"\(9999, 9999\)"), allowance.watched():
        keras.Variable("zeros", shape=(9999, 9999))
    assert (keras.Variable.__init__, keras.KerasTensor.__init__) == before
    assert keras.layers.Normalization.build is build
    assert "9999" in allowance.exceeded
    assert keras.Variable("zeros", shape=(2**13, 2**10)).shape == (2**13, 2**10)


# --- Weights -------------------------------------------------------------------------


def nested(file):
    for _ in range(1200):
        file = file.create_group("g")


def wide(file):
    for index in range(4000):
        file.create_group(f"w/{index}")


def split_up(file):
    for index in range(4000):
        file[f"w/{index}"] = np.zeros(1, "float32")


def circular(file):
    file["layers/dense/again"] = file["layers"]


def circular_at_the_top(file):
    file["again"] = file["/"]


def shared(file):
    file["large"] = np.zeros(2**10, "float32")
    for index in range(50):
        file[f"same{index}"] = file["large"]


def unwritten(file):
    for index in range(50):
        file.create_dataset(f"u{index}", (2**16,), "float32", chunks=(2**16,))


def text(file):
    file.create_dataset("text", data=["x"] * 3, dtype=h5py.string_dtype())


def kind(file):
    file["kind"] = np.dtype("float32")


HELD = {
    nested: "more groups of weights than the model has use for",
    wide: "more groups of weights than the model has use for, in 'w'",
    split_up: "more groups of weights than the model has use for, in 'w'",
    circular: "a link 'layers",
    circular_at_the_top: "a link 'again'",
    shared: "a link 'large'",
    unwritten: "of 262144 bytes, stored in almost none",
    text: "'text', which is no weight",
    kind: "'kind', which is no weight",
}


@hostile.asks("cli.audit")
@pytest.mark.parametrize("plant", HELD)
def test_weights_that_take_long_or_pretend(capsys, tmp_path, monkeypatch, plant):
    parts = members(saved_model(tmp_path / "x.keras"))
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        plant(file)
    parts["model.weights.h5"] = weights.read_bytes()
    path = write(tmp_path / "m.keras", parts.items())
    never_opened(monkeypatch)
    assert HELD[plant] in refusal(capsys, "audit", path)


@hostile.asks("cli.audit")
def test_groups_are_looked_at_once(capsys, tmp_path, monkeypatch):
    looked = []
    plain = h5py.Group.get

    def get(self, name, *arguments, **options):
        looked.append(name)
        return plain(self, name, *arguments, **options)

    path = saved_model(tmp_path / "x.keras")
    monkeypatch.setattr(h5py.Group, "get", get)
    with zipfile.ZipFile(path) as archive:
        assert not screened(archive, with_compile=True)
    assert 10 < len(looked) < 100


# --- Archives and configurations ------------------------------------------------------


def with_many_files(parts):
    return [*parts.items(), *((f"assets/{index}", b"") for index in range(2000))]


def with_packed_files(parts):
    return [*parts.items(), *((f"assets/{i}", bytes(2**19)) for i in range(8))]


def with_a_long_configuration(parts):
    config = parts["config.json"][:-1] + b', "x": [' + b"[],\n" * 2**23 + b"[]]}"
    return (parts | {"config.json": config}).items()


ARCHIVES = {
    with_many_files: "with 2003 files",
    with_packed_files: "of 524288 bytes, packed in almost none",
    with_a_long_configuration: "a configuration of 335",
}


@hostile.asks("cli.audit")
@pytest.mark.parametrize("plant", ARCHIVES)
def test_archives_that_grow(capsys, tmp_path, monkeypatch, plant):
    parts = members(saved_model(tmp_path / "x.keras"))
    path = write(tmp_path / "m.keras", plant(parts), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("it was read"))
    assert ARCHIVES[plant] in refusal(capsys, "audit", path)


@hostile.asks("cli.audit", "cli.recommend")
@pytest.mark.parametrize("command", ["recommend", "audit"])
def test_nested_models_are_read(capsys, tmp_path, command):
    model = keras.Sequential([Input((4,)), layers.Dense(4)])
    for _ in range(20):
        model = keras.Sequential([Input((4,)), model])
    model.save(tmp_path / "m.keras")
    assert main([command, str(tmp_path / "m.keras")]) == 0
    assert "1 kernel" in capsys.readouterr().out
