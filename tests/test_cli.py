"""The command line, in this process and, where that matters, in one of its own."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import Input, layers

from keras_initlab import audit, recommend
from keras_initlab._cli import main
from keras_initlab._cli._commands import COMMANDS

pytestmark = pytest.mark.slow_on_jax

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def small():
    hidden = [layers.Dense(16, "relu", name=f"hidden{i}") for i in range(5)]
    return keras.Sequential(
        [Input((16,)), *hidden, layers.Dense(4, name="out")], name="small"
    )


@pytest.fixture(scope="module")
def saved(folder):
    path = folder / "small.keras"
    small().save(path)
    return path


def run(capsys, *arguments):
    """The exit code, the standard output and the error output of a call."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse's way
        code = exit_.code
    return code, *capsys.readouterr()


def refused(capsys, *arguments):
    """The one line that a call with bad input ends with."""
    code, out, error = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    lines = [line for line in error.splitlines() if line]
    assert "Traceback" not in error
    assert len([line for line in lines if "Received:" in line]) == 1
    return lines[-1]


def advice_on(path, *arguments, **options):
    return recommend(keras.saving.load_model(path), *arguments, **options)


def arrays(model):
    return [
        np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables
    ]


def assert_equal(one, other):
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


# --- What it shows -------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["signal", "rules"])
def test_it_prints_the_table(capsys, saved, policy):
    code, out, error = run(capsys, "recommend", saved, "--policy", policy)
    assert code == 0
    assert out == f"{advice_on(saved, policy)!r}\n"
    assert error == ""


@pytest.mark.parametrize("policy", ["signal", "rules"])
def test_json_is_all_that_it_prints(capsys, saved, policy):
    code, out, _ = run(capsys, "recommend", saved, "--json", "--policy", policy)
    assert code == 0
    assert json.loads(out) == advice_on(saved, policy).to_dict()


def test_both_policies_side_by_side(capsys, saved):
    code, out, _ = run(capsys, "recommend", saved, "--policy", "both")
    assert code == 0
    assert "policies 'signal' and 'rules', alike for 0 of 6 kernels" in out
    assert "MirroredOrthogonal(" in out
    assert "AdaptiveHe(" in out
    _, out, _ = run(capsys, "recommend", saved, "--policy", "both", "--json")
    kernels = json.loads(out)["kernels"]
    assert [kernel["path"] for kernel in kernels] == [
        row.path for row in advice_on(saved)
    ]
    assert all(" / " in kernel["why"] for kernel in kernels)


def test_input_std_is_handed_on(capsys, saved):
    _, out, _ = run(capsys, "recommend", saved, "--json", "--input-std", "4")
    assert json.loads(out) == advice_on(saved, input_std=4.0).to_dict()
    assert json.loads(out) != advice_on(saved).to_dict()


def test_help_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert command.name in out
        assert run(capsys, command.name, "--help")[0] == 0


# --- Applying ------------------------------------------------------------------------


def test_audit(capsys, tmp_path):
    depthwise = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")
    model = keras.Sequential([Input((8, 8, 64)), depthwise, layers.Dense(3)])
    model.save(tmp_path / "model.keras")
    code, out, _ = run(capsys, "audit", tmp_path / "model.keras", "--json")
    (finding,) = json.loads(out)["findings"]
    assert code == 0
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert finding == audit(loaded)[0].to_dict()
    _, out, _ = run(capsys, "audit", tmp_path / "model.keras")
    assert "scale: a signal of" in out


def test_apply_writes_another_file(capsys, saved, tmp_path):
    before, out = saved.read_bytes(), tmp_path / "out.keras"
    arguments = ["recommend", saved, "--apply", out, "--seed", "3"]
    code, shown, _ = run(capsys, *arguments)
    assert code == 0
    line = f"{out}: 12 variables drawn with seed 3"  # as wide as the folder's name
    assert "".join(line.split()) in "".join(shown.split())
    assert saved.read_bytes() == before
    model = keras.saving.load_model(saved)
    recommend(model).apply(seed=3)
    assert_equal(arrays(keras.saving.load_model(out)), arrays(model))
    assert list(tmp_path.iterdir()) == [out]


def test_apply_with_json_prints_json(capsys, saved, tmp_path):
    out = tmp_path / "out.keras"
    code, shown, _ = run(capsys, "recommend", saved, "--json", "--apply", out)
    assert code == 0
    assert json.loads(shown) == advice_on(saved).to_dict()
    assert out.exists()


def trained():
    model = small()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 16)), np.ones((4, 4)), verbose=0)
    return model


def test_trained_weights_need_overwrite(capsys, tmp_path):
    path, out = tmp_path / "trained.keras", tmp_path / "out.keras"
    model = trained()
    model.save(path)
    line = refused(capsys, "recommend", path, "--apply", out)
    assert "has taken 1 steps" in line
    assert "overwrite" in line
    assert not out.exists()
    arguments = ["recommend", path, "--apply", out, "--overwrite", "--seed", "0"]
    assert run(capsys, *arguments)[0] == 0
    loaded = keras.saving.load_model(out)
    assert loaded.compiled
    assert int(loaded.optimizer.iterations) == 1


def test_a_failing_save_leaves_nothing(capsys, saved, tmp_path, monkeypatch):
    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(keras.Model, "save", fail)
    out = tmp_path / "out.keras"
    line = refused(capsys, "recommend", saved, "--apply", out)
    assert "out.keras, disk full" in line
    assert list(tmp_path.iterdir()) == []


# --- What it refuses -----------------------------------------------------------------


def with_lambda():
    return keras.Sequential(
        [Input((4,)), layers.Lambda(lambda x: 2 * x), layers.Dense(2)]
    )


class Unheard(layers.Layer):
    def call(self, inputs):
        return inputs


def custom():
    return keras.Sequential([Input((4,)), Unheard(), layers.Dense(2)])


BAD_MODELS = {
    "lambda": (
        with_lambda,
        r"no `safe_mode=False` is offered\. Received: .*bad\.keras with a Lambda "
        r"layer.*safe_mode=False\)` and call `keras_initlab\.recommend",
    ),
    "custom": (custom, r"Keras's own classes\. Received: .*bad\.keras, .* Import your"),
    "no kernels": (
        lambda: keras.Sequential([Input((4,)), layers.ReLU()]),
        r"at least one kernel\. Received: model='sequential",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_are_refused(capsys, tmp_path, name):
    build, expected = BAD_MODELS[name]
    build().save(tmp_path / "bad.keras")
    assert re.search(expected, refused(capsys, "recommend", tmp_path / "bad.keras"))


def test_an_unbuilt_model(capsys, tmp_path):
    path = tmp_path / "unbuilt.keras"
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([layers.Dense(2)]).save(path)
    line = refused(capsys, "recommend", path)
    assert re.search(r"must be built\. Received: model='sequential.*not built", line)


def no_file(path):
    return path, "not found"


def text_file(path):
    path.write_text("no model")
    return path, "another kind"


def other_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no model")
    return path, "KeyError|ValueError|Error: "


def broken_archive(path):
    small().save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path, "another kind"


def a_folder(path):
    path.mkdir()
    return path, "a folder"


def other_suffix(path):
    small().save(path)
    return path.rename(path.with_suffix(".h5")), "another kind"


def only_a_layer(path):
    with zipfile.ZipFile(path, "w") as archive:
        config = keras.saving.serialize_keras_object(layers.Dense(2))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
    return path, "Received: .*a Dense|Received: .*Error"


FILES = [
    no_file,
    text_file,
    other_archive,
    broken_archive,
    a_folder,
    other_suffix,
    only_a_layer,
]


@pytest.mark.parametrize("make", FILES)
def test_files_that_are_refused(capsys, tmp_path, make):
    path, expected = make(tmp_path / "x.keras")
    line = refused(capsys, "recommend", path)
    assert str(path) in line
    assert re.search(expected, line)


def test_the_output_must_be_a_new_file(capsys, saved, tmp_path):
    existing = tmp_path / "there.keras"
    existing.write_text("mine")
    for path, expected in (
        (existing, "which exists"),
        (tmp_path / "out.h5", "whose name does not end with it"),
        (tmp_path / "none" / "out.keras", "in a folder that does not exist"),
    ):
        line = refused(capsys, "recommend", saved, "--apply", path)
        assert f"Received: {path}, {expected}" in line
    assert existing.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (["--input-std", "0"], "'0'"),
        (["--input-std", "-1"], "'-1'"),
        (["--input-std", "nan"], "'nan'"),
        (["--input-std", "one"], "'one'"),
        (["--seed", "-1"], "'-1'"),
        (["--seed", "1.5"], "'1.5'"),
        (["--seed", "1"], "--seed alone"),
        (["--overwrite"], "--overwrite alone"),
        (["--apply", "new.keras", "--policy", "both"], "--policy both"),
    ],
)
def test_arguments_that_are_refused(capsys, saved, arguments, received):
    line = refused(capsys, "recommend", saved, *arguments)
    assert f"Received: {received}" in line


@pytest.mark.parametrize(
    "arguments", [[], ["recommend"], ["draw"], ["recommend", "x", "--policy", "best"]]
)
def test_a_wrong_call_shows_the_usage(capsys, arguments):
    code, out, error = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert error.startswith("usage: python -m keras_initlab")


def test_our_own_mistakes_keep_their_traceback(capsys, saved, monkeypatch):
    def fail(*_):
        raise KeyError("\x1b[31m")

    monkeypatch.setattr("keras_initlab._cli._recommend.recommend", fail)
    code, out, error = run(capsys, "recommend", saved)
    assert code == 1
    assert out == ""
    assert "Traceback" in error
    assert error.endswith("KeyError: '\\x1b[31m'\n")


def test_the_readme_shows_what_it_prints(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    hidden = [layers.Dense(128, "relu", name=f"hidden{i}") for i in range(6)]
    last = layers.Dense(10, name="out")
    model = keras.Sequential([Input((64,)), *hidden, last], name="deep")
    model.save("model.keras")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    call, *shown = re.search(r"```\n\$ (.*?)```", text, re.DOTALL)[1].splitlines()
    code, out, _ = run(capsys, *call.split()[3:])
    assert code == 0
    assert len(shown) > 10
    assert out.splitlines()[: len(shown)] == shown


# --- A process of its own ------------------------------------------------------------


def in_a_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "keras_initlab", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.slow
def test_the_module_runs(saved):
    result = in_a_process("recommend", saved, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == advice_on(saved).to_dict()


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_terminal_without_arrows(saved):
    result = in_a_process("recommend", saved, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "gain ?" in result.stdout


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_refusal_ends_the_process_with_2(tmp_path):
    result = in_a_process("recommend", tmp_path / "none.keras")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "not found" in result.stderr
