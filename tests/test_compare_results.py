"""The file of finished runs."""

import json
import os

import pytest

from keras_initlab.compare import _results
from keras_initlab.compare._results import ResultsFile

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

SETTINGS = {"epochs": 3, "batch_size": 8, "data": "abc"}
DESCRIBED = {"a": "HeNormal {}", "b": "Ones {}"}
CURVES = {
    "loss": [1.5, 1.0, float("nan")],
    "test_loss": [1.0, 2, float("inf")],
    "gradient_norm": [1.0, 0.1, 0.0],
}
OUTCOME = {"seconds": 1.5, "curves": CURVES}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def file(path, **changed):
    return ResultsFile(path, {**SETTINGS, **changed}, DESCRIBED)


def filled(path):
    one = file(path)
    one.add("a", 0, OUTCOME)
    one.add("b", 0, {"error": "OSError: x"})
    return path.read_bytes()


def test_a_file_begins_with_what_is_compared(path):
    header, run, failed = map(json.loads, filled(path).splitlines())
    assert header == {"keras_initlab": "compare", "version": 1, **SETTINGS}
    assert (run["label"], run["initializer"], run["seed"]) == ("a", DESCRIBED["a"], 0)
    assert failed["error"] == "OSError: x"


def test_what_finished_is_found_and_what_failed_is_not(path):
    data = filled(path)
    found = file(path).finished
    assert repr(found) == repr({("a", 0): OUTCOME})  # NaN and all digits too
    assert path.read_bytes() == data


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_dropped(path, cut):
    data = filled(path)
    whole = data[: data[:-1].rfind(b"\n") + 1]
    path.write_bytes(data[:-cut])
    assert list(file(path).finished) == [("a", 0)]
    assert path.read_bytes() == whole


def test_every_cut_can_be_gone_on_from(path):
    data = filled(path)
    for length in {*range(0, len(data), 7), *range(80, 90), len(data) - 1}:
        path.write_bytes(data[:length])
        one = file(path)
        one.add("b", 7, OUTCOME)
        assert ("b", 7) in file(path).finished
        assert (("a", 0) in one.finished) == (length > data[:-1].rfind(b"\n"))


def test_others_may_be_in_it(path):
    filled(path)
    other = ResultsFile(path, SETTINGS, {"c": "Zeros {}"})
    other.add("c", 0, OUTCOME)
    assert set(file(path).finished) == {("a", 0), ("c", 0)}


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"epochs": 4}, "with epochs=3, not 4"),
        (
            {"data": "xyz", "batch_size": 9},
            "batch_size=8, not 9, data='abc', not 'xyz'",
        ),
        ({"model": "m"}, "model=None, not 'm'"),
    ],
)
def test_another_comparison_is_refused(path, changed, match):
    data = filled(path)
    with pytest.raises(ValueError, match=rf"`results` must be.*{match}.*Name another"):
        file(path, **changed)
    assert path.read_bytes() == data


def test_another_initializer_of_the_same_label_is_refused(path):
    filled(path)
    with pytest.raises(ValueError, match=r"'a' as HeNormal \{\}, not Zeros"):
        ResultsFile(path, SETTINGS, {"a": "Zeros {}"})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("hello\n", "line 1, which is no JSON"),
        ("hello", "no JSON"),
        ("[1]\n", "something else in its first line"),
        ('{"step": 0}\n', "something else in its first line"),
    ],
)
def test_another_file_is_refused_and_kept(path, text, match):
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"runs.jsonl' with.*{match}"):
        file(path)
    assert path.read_text() == text


def ours(**changed):
    """A line of a run with some of it changed, or with `...` left out."""
    about = {"label": "a", "initializer": DESCRIBED["a"], "seed": 0}
    line = about | OUTCOME | changed
    return json.dumps({key: value for key, value in line.items() if value is not ...})


def curves(**changed):
    changed = {key: value for key, value in changed.items() if value is not ...}
    return ours(curves={k: v for k, v in CURVES.items() if k != "loss"} | changed)


STRANGE = {
    "5": "no run",
    "[]": "no run",
    "null": "no run",
    '"label"': "no run",
    "{}": "'label' is None",
    ours(label=["a"]): r"'label' is \['a'\]",
    ours(label={}): "'label' is {}",
    ours(label=5): "'label' is 5",
    ours(initializer=...): "'initializer' is None",
    ours(initializer=[]): r"'initializer' is \[\]",
    ours(seed=...): "'seed' is None",
    ours(seed="0"): "'seed' is '0'",
    ours(seed=True): "'seed' is True",
    ours(seed=[0]): r"'seed' is \[0\]",
    ours(seconds=...): "'seconds' are None",
    ours(seconds="1"): "'seconds' are '1'",
    ours(seconds=float("nan")): "'seconds' are nan",
    ours(curves=...): "'curves' are None",
    ours(curves=None): "'curves' are None",
    ours(curves={}): "'curves' are {}",
    ours(curves=[]): r"'curves' are \[\]",
    curves(): "'curves' are {'test_loss'",
    curves(loss=[1, 2, 3], more=[1, 2, 3]): "'curves' are {'test_loss'",
    curves(loss=[1, 2, 3], accuracy=[1, 2, 3]): "'curves' are {'test_loss'",
    curves(loss=None): "curve 'loss' is no number an epoch",
    curves(loss="123"): "curve 'loss' is",
    curves(loss=[]): "curve 'loss' is",
    curves(loss=[1, 2]): "curve 'loss' is",
    curves(loss=[1, 2, 3, 4]): "curve 'loss' is",
    curves(loss=[1, 2, None]): "curve 'loss' is",
    curves(loss=[1, 2, "3"]): "curve 'loss' is",
    curves(loss=[1, 2, [3]]): "curve 'loss' is",
    curves(loss=[1, 2, True]): "curve 'loss' is",
    curves(loss=[1, 2, 10**400]): "curve 'loss' is",
    ours(curves={name: [] for name in CURVES}): "curve 'loss' is",
    ours(curves={name: 2 * values for name, values in CURVES.items()}): "'loss' is",
    "[" * 10**5: "no JSON",
    ours()[:-9]: "no JSON",
    "\N{GREEK SMALL LETTER ALPHA}": "no JSON",
}


@pytest.mark.parametrize("line", STRANGE, ids=range(len(STRANGE)))
def test_lines_that_are_no_runs_are_refused_and_kept(path, line):
    filled(path)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n{ours(seed=1)}\n")
    data = path.read_bytes()
    match = (
        rf"be a run of .*runs.jsonl' with line 4, who?.*{STRANGE[line]}.*Delete that"
    )
    with pytest.raises(ValueError, match=match):
        file(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "line",
    [
        "",
        " \r",
        json.dumps({"keras_initlab": "compare", "version": 1, **SETTINGS}),
        ours(label="of another call"),
        ours(error="OSError"),
        ours(error=None),
    ],
)
def test_what_is_no_finished_run_of_ours_does_not_count(path, line):
    filled(path)
    with path.open("a") as lines:
        lines.write(f"{line}\n")
    assert [pair for pair in file(path).finished if pair[0] in DESCRIBED] == [("a", 0)]


def test_a_header_of_another_comparison_between_the_lines(path):
    filled(path)
    file(path.with_name("other.jsonl"), epochs=4)
    joined = path.read_bytes() + path.with_name("other.jsonl").read_bytes()
    path.write_bytes(joined)
    with pytest.raises(ValueError, match=r"with epochs=4, not 3, in line 4\. Name"):
        file(path)


def test_of_two_lines_of_a_run_the_later_counts(path):
    filled(path)
    short = {name: values[:1] for name, values in CURVES.items()}  # stopped early
    file(path).add("a", 0, {"seconds": 2, "curves": short})
    assert file(path).finished["a", 0] == {"seconds": 2, "curves": short}


def test_a_folder_must_exist(tmp_path):
    with pytest.raises(ValueError, match=r"folder of `results`.*none.*x.jsonl"):
        file(tmp_path / "none" / "x.jsonl")


def test_the_file_stays_where_it_was_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = ResultsFile("here.jsonl", SETTINGS, DESCRIBED)
    (tmp_path / "inner").mkdir()
    os.chdir(tmp_path / "inner")
    one.add("a", 0, OUTCOME)
    assert len((tmp_path / "here.jsonl").read_text().splitlines()) == 2


def test_a_full_disk_costs_only_lines(path, monkeypatch):
    one, whole = file(path), _results.append_whole

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_results, "append_whole", full)
    match = r"comparison goes on\. Received: OSError: .*No space left.* at a, seed 0\."
    with pytest.warns(UserWarning, match=match):
        one.add("a", 0, OUTCOME)
    one.add("a", 1, OUTCOME)  # told once
    monkeypatch.setattr(_results, "append_whole", whole)
    one.add("b", 2, OUTCOME)
    assert list(file(path).finished) == [("b", 2)]
