"""Whole recommendations, as JSON that is the same on every backend, and as text.

After a change of the policy, write them anew and look at what git says has changed:

    python tests/test_golden_reports.py --write
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

sys.path.insert(0, str(Path(__file__).parent))

import zoo

from keras_initlab import recommend
from keras_initlab.recommend import _comparison

FOLDER = Path(__file__).parent / "golden"


def quickstart():
    """The README's first model, which is the quickstart's too."""
    hidden = [layers.Dense(128, "relu") for _ in range(50)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def deep_tanh():
    hidden = [layers.Dense(32, "tanh") for _ in range(6)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def deep_sigmoid():
    hidden = [layers.Dense(32, "sigmoid") for _ in range(6)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def part_frozen():
    """New layers after pretrained ones."""
    model = zoo.ZOO["vgg"].build()
    rng = np.random.default_rng(0)
    for layer in model.layers[:4]:
        layer.trainable = False
        # What comes after them rests on their values.
        layer.set_weights([rng.normal(0, 0.1, w.shape) for w in layer.get_weights()])
    return model


OWN = [deep_sigmoid, deep_tanh, part_frozen, quickstart]
FROM_THE_ZOO = [
    "GAN",
    "SubclassedResNet",
    "VAE",
    "bidirectional",
    "conv_lstm",
    "convnext",
    "dense_blocks",
    "lstm_stack",
    "mixture_of_experts",
    "mlp",
    "transformer_encoder",
    "unet",
]
MODELS = {
    **{name: zoo.ZOO[name].build for name in FROM_THE_ZOO},
    **{build.__name__: build for build in OWN},
}
# Models whose tables are kept too.
TABLES = ["convnext", "quickstart", "transformer_encoder", "unet"]


def both(name):
    """Both policies' recommendations for a model."""
    keras.backend.clear_session()  # automatic names count what was built before
    model = MODELS[name]()
    return recommend(model), recommend(model, "rules")


def found(name):
    """Both recommendations as plain values."""
    signal, rules = both(name)
    return {"signal": signal.to_dict(), "rules": rules.to_dict()}


def without_later_options(values: Any) -> Any:
    """Leaves out what Keras's initializers could not be told before 3.15."""
    if isinstance(values, list):
        return [without_later_options(value) for value in values]
    if not isinstance(values, dict):
        return values
    later = {"input_axes", "output_axes"}
    return {
        key: without_later_options(value)
        for key, value in values.items()
        if value is not None or key not in later
    }


def table(name):
    return "\n\n".join(map(repr, both(name))) + "\n"


def as_json(values):
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def write():
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    for name in MODELS:
        text = as_json(found(name))
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
    for name in TABLES:
        (FOLDER / f"{name}.txt").write_text(table(name), encoding="utf-8")


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    zoo.without_draws(monkeypatch)
    # The size of what is drawn depends on the backend's random numbers.
    monkeypatch.setattr(_comparison, "kernel_values", lambda row, seed: np.ones(2))


def test_there_are_a_dozen():
    assert len(MODELS) >= 12
    files = {f"{name}.json" for name in MODELS} | {f"{name}.txt" for name in TABLES}
    assert {path.name for path in FOLDER.iterdir()} == files


@pytest.mark.whole_on_jax
@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
def test_every_backend_recommends_what_the_file_says(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    one, other = without_later_options(found(name)), without_later_options(expected)
    assert one["rules"] == other["rules"]
    if "measured" in str((one, other)):  # which depends on a draw by the backend
        one, other = structure(one), structure(other)
    assert one == other


def structure(values):
    """What is told of each kernel before anything is measured."""
    names = ("path", "role", "activation", "shape", "fan_in", "fan_out", "depth")
    return [{name: row[name] for name in names} for row in values["signal"]["kernels"]]


@pytest.mark.parametrize("name", MODELS)
def test_numbers_have_four_digits(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    numbers = re.findall(r": (-?\d+\.\d+(?:e-?\d+)?),?$", text, flags=re.MULTILINE)
    assert numbers
    for number in numbers:
        assert float(number) == float(f"{float(number):.4g}")


@pytest.mark.seconds
@pytest.mark.parametrize("name", TABLES)
def test_every_backend_shows_the_table_that_the_file_holds(name):
    shown, expected = table(name), (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    if "measured" in shown + expected:  # which depends on a draw by the backend
        shown, expected = shown[: shown.index("\n")], expected[: expected.index("\n")]
    assert shown == expected


@pytest.mark.seconds
@pytest.mark.parametrize("name", MODELS)
def test_tables_hold_together(name):
    """What must be true of any table, whatever the policy says."""
    signal, rules = both(name)
    for shown in (signal, rules, signal.compare(rules)):
        lines = repr(shown).splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) < 30 + 6 * len(signal)
        assert all(line == line.rstrip() for line in lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    import os

    os.environ["COLUMNS"] = "80"
    write()
