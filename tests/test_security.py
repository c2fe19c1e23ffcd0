"""Model files from strangers: nothing in them is run, nothing outside them is read.

Each of these has been a hole in Keras's safe mode; the lowest Keras that is admitted,
3.14.1, is the first without all that are numbered here: CVE-2025-1550, -8747, -9905,
-9906, -12058, -49655; CVE-2026-0897, -1462, -1669, -12480.
"""

import base64
import marshal
import sys
import zipfile

import h5py
import hostile
import keras
import numpy as np
import pytest
from keras import Input, layers
from strangers import (
    members,
    never_opened,
    refusal,
    saved_model,
    with_config,
    write,
)

from keras_initlab._cli import main

COMMANDS = ("recommend", "audit")


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("models") / "harmless.keras")


@pytest.fixture
def _unopened(monkeypatch):
    never_opened(monkeypatch)


both = pytest.mark.parametrize(
    "command", [hostile.case(name, asks=f"cli.{name}", id=name) for name in COMMANDS]
)


@both
def test_a_harmless_file_is_read(capsys, harmless, command):
    assert main([command, str(harmless)]) == 0
    assert "harmless" in capsys.readouterr().out


# --- Code ----------------------------------------------------------------------------


def code_that_writes(path):
    code = compile(f"open({str(path)!r}, 'w').close()", "planted", "exec")
    return base64.b64encode(marshal.dumps(code)).decode()


def node(module, name, config=None, **others):
    return {"module": module, "class_name": name, "config": config or {}, **others}


def function(module, name):
    return node(module, "function", name, registered_name=name)


def layer(config):
    return config["config"]["layers"]


def planted_lambda(config, mark):
    code = {"class_name": "__lambda__", "config": {"value": code_that_writes(mark)}}
    layer(config).append(node("keras.layers", "Lambda", {"function": code}))


def planted_legacy_lambda(config, mark):
    code = [code_that_writes(mark), None, None]
    given = {"function": code, "function_type": "lambda", "name": "planted"}
    layer(config).append({"class_name": "Lambda", "config": given})


def planted_lambda_inside(config, mark):
    inner = {"name": "inner", "layers": []}
    layer(config).append(node("keras", "Sequential", inner))
    planted_lambda(layer(config)[-1], mark)


def planted_initializer(config, mark):
    code = {"class_name": "__lambda__", "config": {"value": code_that_writes(mark)}}
    layer(config)[1]["config"]["kernel_initializer"] = code


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.parametrize(
    "plant",
    [
        planted_lambda,
        planted_legacy_lambda,
        planted_lambda_inside,
        planted_initializer,
    ],
)
def test_code_is_refused_and_not_run(capsys, harmless, tmp_path, plant, command):
    mark = tmp_path / "mark"
    path = with_config(harmless, tmp_path / "m.keras", lambda c: plant(c, mark))
    assert "must not hold Python code" in refusal(capsys, command, path)
    assert not mark.exists()


@both
def test_a_lambda_that_keras_saved(capsys, tmp_path, command):
    inner = [layers.Lambda(lambda x: 2 * x), layers.Dense(2)]
    model = keras.Sequential([Input((4,)), *inner])
    model.save(tmp_path / "m.keras")
    error = refusal(capsys, command, tmp_path / "m.keras")
    assert "with a Lambda layer" in error


# --- Classes and functions that are no part of a model -------------------------------


SWITCH = {"args": [0, [function("keras.utils", "pad_sequences")], [[1]], 10**9]}
FOREIGN = {
    "a class of its own": node("planted", "Planted", registered_name="my>Planted"),
    "a system call": node("os", "system", {"command": "true"}),
    "eval": node("builtins", "eval", {"source": "1"}),
    "no module": {"class_name": "Dense", "config": {"units": 2}},
    "a module that is no text": node(["keras", "layers"], "Dense"),
    "a name that is no text": node("keras.layers", {"a": "Dense"}),
    "a file loader": function("keras.saving", "load_model"),
    "a download": function("keras.utils", "get_file"),
    "a data set": function("keras.datasets.mnist", "load_data"),
    "safe mode off": function("keras.config", "enable_unsafe_deserialization"),
    "a setting": function("keras.config", "set_dtype_policy"),
    "a list that grows": function("keras.utils", "pad_sequences"),
    "what reads any config": function("keras.activations", "deserialize"),
    "a function as a class": node("keras.utils", "get_file"),
    "a saved model": node("keras.layers", "TFSMLayer", {"filepath": "/tmp/x"}),
    "a torch module": node("keras.layers", "TorchModuleWrapper", {"module": "x"}),
    "a jax function": node("keras.layers", "JaxLayer", {"call_fn": "x"}),
    "a pretrained model": node("keras.applications", "MobileNetV2"),
    "no optimizer": node("keras.src.backend.torch.optimizers.x", "get"),
    "a callback": node("keras.callbacks", "CSVLogger", {"filename": "/tmp/x"}),
    "a module of Keras's that is not loaded": node("keras.src.layers.x_test", "X"),
    "a dead operation": node("keras.src.ops.core", "Switch", inbound_nodes=[SWITCH]),
    "another's registered name": node("os", "system", registered_name="system"),
}


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.parametrize("name", FOREIGN)
def test_what_models_are_not_made_of_is_refused(
    capsys, harmless, tmp_path, monkeypatch, name, command
):
    (tmp_path / "planted.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    plant = FOREIGN[name]
    path = with_config(harmless, tmp_path / "m.keras", lambda c: layer(c).append(plant))
    error = refusal(capsys, command, path)
    assert "must be made of Keras's own classes. Received:" in error
    named = "pad_sequences" if "inbound_nodes" in plant else plant["class_name"]
    assert str(plant["config"] if named == "function" else named) in error
    assert "planted" not in sys.modules


@hostile.asks("cli.recommend", "cli.audit")
def test_a_planted_loss_is_refused_where_it_would_be_read(capsys, harmless, tmp_path):
    def plant(config):
        config["compile_config"]["loss"] = function("keras.utils", "get_file")

    path = with_config(harmless, tmp_path / "m.keras", plant)
    assert "'get_file' of 'keras.utils'" in refusal(capsys, "audit", path)
    assert main(["recommend", str(path)]) == 0  # which leaves it out


@pytest.mark.usefixtures("_unopened")
@both
def test_files_named_in_a_layer_are_not_read(capsys, harmless, tmp_path, command):
    secret = tmp_path / "secret"
    secret.write_text("password\n")
    lookup = node("keras.layers", "StringLookup", {"vocabulary": str(secret)})
    path = with_config(
        harmless, tmp_path / "m.keras", lambda c: layer(c).append(lookup)
    )
    error = refusal(capsys, command, path)
    assert f"the path of a vocabulary, '{secret}'" in error
    assert "password" not in error


# --- Archives and weights that reach out, or claim to be huge -------------------------

ARCHIVES = {
    "out of it": ([("../planted", b"")], "'../planted', a path out of"),
    "absolute": ([("/tmp/planted", b"")], "'/tmp/planted', a path out of"),
    "a drive": ([("C:/planted", b"")], "'C:/planted', a path out of"),
    "inside, and out": ([("assets/../../x", b"")], "a path out of the archive"),
    "a pickle": ([("model.weights.npz", b"")], "which Keras does not write"),
    "other weights": ([("x.h5", b"")], "which Keras does not write"),
    "a bomb": ([("assets/x", bytes(2**23))], "of 8388608 bytes, packed in almost none"),
}


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_reach_out(capsys, harmless, tmp_path, name, command):
    parts, expected = ARCHIVES[name]
    everything = [*members(harmless).items(), *parts]
    path = write(tmp_path / "m.keras", everything, zipfile.ZIP_DEFLATED)
    assert expected in refusal(capsys, command, path)


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_members_of_one_name(capsys, harmless, tmp_path, command):
    parts = [*members(harmless).items(), ("config.json", b"{}")]
    path = write(tmp_path / "m.keras", parts)
    assert "'config.json' twice" in refusal(capsys, command, path)


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b"\xff"])
def test_configs_that_are_none(capsys, harmless, tmp_path, content, command):
    parts = members(harmless) | {"config.json": content}
    path = write(tmp_path / "m.keras", parts.items())
    error = refusal(capsys, command, path)
    assert "holds a model. Received:" in error


def external_link(file, group, secret):
    group["0"] = h5py.ExternalLink(secret, "/x")


def soft_link(file, group, secret):
    group["0"] = h5py.SoftLink("/layers")


def external_values(file, group, secret):
    group.create_dataset("0", (4, 4), "float32", external=[(secret, 0, 64)])


def virtual_values(file, group, secret):
    layout = h5py.VirtualLayout(shape=(4, 4), dtype="float32")
    layout[:] = h5py.VirtualSource(secret, "x", shape=(4, 4))
    group.create_virtual_dataset("0", layout)


def huge_values(file, group, secret):
    group.create_dataset("0", (2**40, 2**20), "float32", chunks=(1, 2**20))


HELD = {
    external_link: "a link 'layers/dense/vars/0'",
    soft_link: "a link 'layers/dense/vars/0'",
    external_values: "weights 'layers/dense/vars/0' in another file",
    virtual_values: "weights 'layers/dense/vars/0' in another file",
    huge_values: "bytes, stored in almost none",
}


@pytest.mark.usefixtures("_unopened")
@both
@pytest.mark.parametrize("plant", HELD)
def test_weights_that_reach_out(capsys, harmless, tmp_path, plant, command):
    weights, secret = tmp_path / "model.weights.h5", tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((4, 4), "float32")
    parts = members(harmless)
    weights.write_bytes(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        plant(file, group, str(secret))
    parts["model.weights.h5"] = weights.read_bytes()
    path = write(tmp_path / "m.keras", parts.items())
    assert HELD[plant] in refusal(capsys, command, path)


@both
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_of_the_old_format(capsys, harmless, tmp_path, suffix, command):
    # Safe mode did not hold for them before Keras 3.11.3.
    path = tmp_path / f"m{suffix}"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = members(harmless)["config.json"]
    assert "a file of another kind" in refusal(capsys, command, path)
