import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

USE = """
import keras, pathlib, keras_initlab
from keras_initlab import callbacks
home = pathlib.Path(keras_initlab.__file__).parent
assert str(home).startswith({target!r}), home
assert pathlib.Path(callbacks.__file__).parent == home / "callbacks"
layers = [keras.layers.Dense(8, "relu") for _ in range(5)]
model = keras.Sequential([keras.Input((4,)), *layers])
print(len(keras_initlab.recommend(model).apply(seed=0).changed))
"""


def on_disk():
    """Every folder that is a package of this project, by dotted name."""
    inner = [
        p.parent.relative_to(ROOT) for p in ROOT.glob("keras_initlab/**/__init__.py")
    ]
    names = [".".join(path.parts) for path in inner]
    for path in ROOT.glob("callbacks/**/__init__.py"):
        names.append(".".join(["keras_initlab", *path.parent.relative_to(ROOT).parts]))
    return sorted(names)


def sources():
    """Every file that git tracks, or, in an unpacked sdist, that came with it."""
    if (ROOT / ".git").exists():
        return subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    (listed,) = ROOT.glob("*.egg-info/SOURCES.txt")
    names = listed.read_text(encoding="utf-8").split()
    return [n for n in names if "egg-info" not in n and (ROOT / n).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "tree"
    # `pip wheel` re-uses a `build/` folder that lies in the tree: build from a copy.
    for path in sources():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, source / path)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_every_package_on_disk_is_listed():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == on_disk()


def test_tests_are_no_package():
    of_benchmarks = ROOT / "tests" / "benchmarks" / "networks" / "__init__.py"
    assert list((ROOT / "tests").rglob("__init__.py")) == [of_benchmarks]


@pytest.mark.seconds
def test_the_wheel_holds_every_source_file(wheel):
    expected = {
        f"keras_initlab/{path}" if path.startswith("callbacks/") else path
        for path in sources()
        if path.startswith(("keras_initlab/", "callbacks/"))
    }
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert held == expected


@pytest.mark.slow
def test_the_installed_wheel_works(wheel, tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            target,
            wheel,
        ],
        check=True,
        capture_output=True,
    )
    output = subprocess.check_output(
        [sys.executable, "-c", USE.format(target=str(target))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        text=True,
    )
    assert output.split()[-1] == "10"


def test_nothing_named_plain_callbacks_can_be_imported(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", "import callbacks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr


def test_the_version_is_the_one_in_the_metadata():
    import keras_initlab

    assert PROJECT["project"]["version"] == keras_initlab.__version__
