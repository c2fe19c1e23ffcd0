"""Model files as strangers could send them."""

import json
import zipfile

import keras
from keras import Input, layers

from keras_initlab._cli import main


def saved_model(path):
    """A file without fault."""
    hidden = [layers.Dense(4, "relu", name=name) for name in ("one", "two")]
    model = keras.Sequential([Input((4,)), *hidden, layers.Dense(2)], name="harmless")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(path)
    return path


def never_opened(monkeypatch):
    """Keras must not even be asked to load a file."""

    def load_model(*_, **__):
        raise AssertionError("the file was opened")

    monkeypatch.setattr(keras.saving, "load_model", load_model)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return path


def with_config(harmless, path, plant):
    """A copy of a file, in whose config something is planted."""
    parts = members(harmless)
    config = json.loads(parts["config.json"])
    plant(config)
    parts["config.json"] = json.dumps(config).encode()
    return write(path, parts.items())


def replace_all(config, name, value):
    """Gives every entry of this name in a config another value."""
    for one in config.values() if isinstance(config, dict) else config:
        if isinstance(one, (dict, list)):
            replace_all(one, name, value)
    if isinstance(config, dict) and name in config:
        config[name] = value


def refusal(capsys, command, path):
    capsys.readouterr()
    assert main([command, str(path)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert str(path) in error
    assert "Traceback" not in error
    return error
