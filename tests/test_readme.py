import re
from pathlib import Path

import keras
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
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


def test_two_commands_do_all_the_setup():
    assert len(COMMANDS) == 2
    assert COMMANDS[0].endswith(".venv/bin/python examples/quickstart.py")
    assert COMMANDS[1].endswith(".venv/bin/pytest")
    assert all(".venv/bin/pip install -q -e" in command for command in COMMANDS)


def test_files_that_it_names_exist():
    root = Path(__file__).parent.parent
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / name).exists()
    for name in re.findall(r"python ((?:examples|tests)/[\w/]+\.py)", README):
        assert (root / name).exists()


def test_every_public_initializer_and_callback_is_listed():
    from keras_initlab import callbacks as watched
    from keras_initlab import initializers

    public = {name for name in vars(initializers) if name[0].isupper()}
    by_hand, watching = README.split("## Watch")
    assert public == named_in_tables(by_hand)
    kinds = ("Logger", "Recycler")
    callbacks = {name for name in vars(watched) if name.endswith(kinds)}
    assert callbacks == named_in_tables(watching)


def named_in_tables(text):
    """The classes that the rows of its tables begin with."""
    return set(re.findall(r"^\| `([A-Z]\w+)` \|", text, flags=re.MULTILINE))
