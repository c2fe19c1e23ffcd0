"""The file of finished runs."""

import json
import os

import pytest

from keras_initlab.compare._results import ResultsFile

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

SETTINGS = {"epochs": 3, "batch_size": 8, "data": "abc"}
DESCRIBED = {"a": "HeNormal {}", "b": "Ones {}"}
OUTCOME = {"seconds": 1.5, "curves": {"loss": [1.0, float("nan")]}}


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
        ("hello\n", "no JSON"),
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
