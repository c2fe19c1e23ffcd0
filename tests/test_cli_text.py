"""What the command line shows of a file, which must not steer the terminal."""

import io
import re
import sys
import warnings

import hostile
import pytest
from rich.text import Text
from strangers import saved_model, with_config

from keras_initlab._cli import main
from keras_initlab._cli._output import show


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("models") / "saved.keras")


STEERING = "x\x1b]0;mine\x07\x9b31m\u202e"  # a title, a color, the other direction


def hidden(config):
    return config["config"]["layers"][1]


PLANTS = {
    "layer": lambda config: hidden(config)["config"].update(name=STEERING),
    "model": lambda config: config["config"].update(name=STEERING),
    "class": lambda config: hidden(config).update(class_name=STEERING),
    "activation": lambda c: hidden(c)["config"].update(activation=STEERING),
    "dtype": lambda config: hidden(config)["config"].update(dtype=STEERING),
    "units": lambda config: hidden(config)["config"].update(units=STEERING),
    "setting": lambda config: hidden(config)["config"].update({STEERING: STEERING}),
    "other shapes": lambda config: hidden(config)["config"].update(
        name=STEERING, units=9
    ),
}


def is_harmless(text):
    return all(char.isprintable() or char in "\n\t" for char in text)


@pytest.mark.parametrize(
    "command",
    [hostile.case(one, asks=f"cli.{one}", id=one) for one in ("recommend", "audit")],
)
@pytest.mark.parametrize("name", PLANTS)
def test_no_text_in_a_file_steers_the_terminal(capsys, saved, tmp_path, name, command):
    path = with_config(saved, tmp_path / "m.keras", PLANTS[name])
    code = main([command, str(path)])
    out, error = capsys.readouterr()
    assert is_harmless(out)
    assert is_harmless(error)
    assert out if code == 0 else "Received:" in error


def test_nor_does_a_warning(capsys, saved, monkeypatch):
    def recommend(*_):
        sys.stderr.write(warnings.formatwarning(STEERING, UserWarning, "a.py", 1))
        sys.stderr.writelines([STEERING])
        sys.stdout.write(STEERING)
        return STEERING

    monkeypatch.setattr("keras_initlab._cli._recommend.recommend", recommend)
    assert main(["recommend", str(saved)]) == 0
    out, error = capsys.readouterr()
    assert out == "x\\x1b]0;mine\\x07\\x9b31m\\u202e\n"
    assert is_harmless(error)
    assert error.count(out[:-1]) == 3


def test_what_is_colored_is_harmless_too():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    show(Text(STEERING, style="bold"), terminal)
    assert "x\\x1b]0;mine" in terminal.getvalue()
    ours = re.sub(r"\x1b\[\d*m", "", terminal.getvalue())
    assert is_harmless(ours)
