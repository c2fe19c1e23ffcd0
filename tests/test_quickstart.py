import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "quickstart.py"

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["quickstart"] = module
    spec.loader.exec_module(module)
    return module


def accuracies(runs):
    return [run.history.history["val_accuracy"][-1] for run in runs]


@pytest.mark.slow
def test_a_short_run_shows_everything(quickstart, tmp_path, capsys):
    figure = tmp_path / "out.png"
    options = ["--layers", "20", "--epochs", "3", "--figure", str(figure)]
    default, recommended = accuracies(quickstart.main(options))
    assert recommended >= 0.93
    assert recommended > default + 0.1
    for name in ("out", "out_default", "out_recommended"):
        assert (tmp_path / f"{name}.png").stat().st_size > 20_000
    output = capsys.readouterr().out
    for word in ("MirroredOrthogonal", "grad_norm", "first layer", "After training"):
        assert word in output


@pytest.mark.slow
def test_without_relus_nothing_is_dead(quickstart, tmp_path, capsys):
    options = ["--layers", "5", "--epochs", "1", "--activation", "tanh"]
    quickstart.main([*options, "--figure", str(tmp_path / "out.png")])
    assert "no ReLU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layers", "0"], "at least 1"),
        (["--activation", "relo"], "'relo'"),
        (["--activation", "softmax"], "mixes units"),
    ],
)
def test_bad_options_are_refused(quickstart, capsys, options, said):
    with pytest.raises(SystemExit):
        quickstart.main(options)
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "sigmoid"])
def test_fifty_layers_learn(quickstart, tmp_path, activation):
    options = ["--activation", activation, "--figure", str(tmp_path / "out.png")]
    assert accuracies(quickstart.main(options))[1] >= 0.93


@pytest.mark.slow
def test_help_needs_no_training():
    output = subprocess.check_output(
        [sys.executable, SCRIPT, "--help"],
        text=True,
        env={**os.environ, "COLUMNS": "99"},
    )
    for option in ("--layers", "--activation", "--epochs", "--seed"):
        assert option in output
