import inspect
import re
import tomllib
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^    (python3 -m venv .*)$", README, flags=re.MULTILINE)


@pytest.mark.tensorflow
def test_every_block_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    namespace = {}
    for block in BLOCKS:
        exec(block, namespace)
    assert "MirroredOrthogonal" in capsys.readouterr().out
    assert namespace["norms"].history["step"].tolist() == [0, 8, 10]
    assert (tmp_path / "norms.csv").exists()
    compared = namespace["compared"]
    assert compared.labels == ("he_normal", "recommended")
    assert compared.failed == ()
    assert (tmp_path / "runs.jsonl").read_text().count("\n") == 5
    layer = namespace["layer"]
    assert namespace["initlab"].fans(layer)[layer.kernel.path].fan_in == 9
    assert round(namespace["initlab"].gain("gelu"), 3) == 1.534
    gelu = namespace["initlab"].activation_statistics("gelu")
    assert round(gelu.mean, 3) == 0.282
    assert len(vars(gelu)) == 1 + 10
    assert namespace["matched"].std > 0


def test_two_commands_do_all_the_setup():
    assert len(COMMANDS) == 2
    assert COMMANDS[0].endswith(".venv/bin/python examples/quickstart.py")
    assert COMMANDS[1].endswith(".venv/bin/pytest")
    assert all(".venv/bin/pip install -q -e" in command for command in COMMANDS)


def test_files_that_it_names_exist():
    for name in re.findall(r"\]\(((?!https:)[^)]+)\)", README):
        assert (ROOT / name).exists()
    for name in re.findall(r"python ((?:examples|tests)/[\w/]+\.py)", README):
        assert (ROOT / name).exists()


def test_every_public_initializer_and_callback_is_listed():
    from keras_initlab import callbacks as watched
    from keras_initlab import initializers

    public = {name for name in initializers.__all__ if name[0].isupper()}
    by_hand, watching = README.split("## Watch")
    assert public == named_in_tables(by_hand)
    kinds = ("Logger", "Recycler")
    callbacks = {name for name in watched.__all__ if name.endswith(kinds)}
    assert callbacks == named_in_tables(watching)


def functions_of(module):
    return {name for name in module.__all__ if inspect.isfunction(vars(module)[name])}


def test_every_public_function_is_shown():
    import keras_initlab
    from keras_initlab import plots

    named = set(re.findall(r"\b[a-z_]+\b", README))
    assert functions_of(keras_initlab) <= named
    (table,) = re.findall(r"^\| `plots\.` .*?\n\n", README, re.DOTALL | re.MULTILINE)
    pictures = set(re.findall(r"`([a-z_]+)`", table)) - {"fit", "probe", "compare"}
    assert functions_of(plots) == pictures


def test_every_example_is_listed():
    listed = set(re.findall(r"^\| `(\w+)\.py` \|", README, flags=re.MULTILINE))
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert listed == scripts - {"lab", "quickstart"}  # what they share, and the first


def test_versions_and_extras_are_those_of_the_project():
    needed = dict(re.findall(r"(\w+)>=([\d.]+)", " ".join(PROJECT["dependencies"])))
    needed["python"] = PROJECT["requires-python"].removeprefix(">=")
    (line,) = re.findall(r"^Python [\d.]+, Keras .*newer\.", README, flags=re.MULTILINE)
    told = re.findall(r"(\w+) (\d[\d.]*\d)", line)
    assert {name.lower(): version for name, version in told} == needed
    (extras,) = re.findall(r"Extras: (.*?)\.\n", README, flags=re.DOTALL)
    named = set(re.findall(r"`([a-z]+)`", extras))
    assert named == set(PROJECT["optional-dependencies"])


def test_the_changelog_begins_with_this_version():
    import keras_initlab

    first = re.findall(r"^### (.+)$", README.split("## Changelog")[1], re.MULTILINE)[0]
    assert first == PROJECT["version"] == keras_initlab.__version__


def test_thresholds_are_those_of_the_code():
    from zoo import ZOO

    from keras_initlab.recommend._embeddings import EMBEDDED_STD
    from keras_initlab.recommend._stretches import SHALLOW

    text = " ".join(README.split())
    assert SHALLOW == 3
    assert "More than three plain hidden layers" in text
    assert f"start small, at a std of {EMBEDDED_STD}:" in text
    assert f"counted on {len(ZOO)} models" in text


def named_in_tables(text):
    """The classes that the rows of its tables begin with."""
    return set(re.findall(r"^\| `([A-Z]\w+)` \|", text, flags=re.MULTILINE))
