import csv
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_initlab.callbacks import CSVLog, JSONLinesLog

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.csv"


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(path, *calls, **arguments):
    log = CSVLog(path, **arguments)
    for metrics, step in calls:
        log(metrics, step)
    return log


def test_exact_content(path):
    write(path, ({"loss": 0.5, "norm": 2.0}, 0), ({"norm": 1e-30, "loss": 3.0}, 10))
    assert path.read_bytes() == b"step,loss,norm\n0,0.5,2.0\n10,3.0,1e-30\n"


@pytest.mark.parametrize(
    "value", [0.1, 1e-45, -0.0, 1e300, np.pi, np.float64(1 / 3), float("inf")]
)
def test_floats_are_written_in_full(path, value):
    write(path, ({"x": value}, 0))
    assert float(read(path)[1][1]) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("nan"), "nan"), (np.float32(0.25), "0.25"), (3, "3"), (np.int64(3), "3")],
)
def test_values_of_other_kinds(path, value, text):
    write(path, ({"x": value}, np.int64(7)))
    assert read(path)[1] == ["7", text]


def test_nothing_is_written_before_the_first_call(path):
    path.write_text("step,old\n0,1.0\n")
    log = CSVLog(path)
    assert path.read_text() == "step,old\n0,1.0\n"
    log({"new": 2.0}, 0)
    assert path.read_text() == "step,new\n0,2.0\n"


def test_new_metrics_widen_the_file_and_keep_its_rows(path):
    write(
        path,
        ({"a": 1.0}, 0),
        ({"a": 2.0, "b": 3.0}, 1),
        ({"c": 4.0}, 2),
        ({"a": 5.0, "b": 6.0, "c": 7.0}, 3),
    )
    assert read(path) == [
        ["step", "a", "b", "c"],
        ["0", "1.0", "", ""],
        ["1", "2.0", "3.0", ""],
        ["2", "", "", "4.0"],
        ["3", "5.0", "6.0", "7.0"],
    ]
    assert list(path.parent.iterdir()) == [path]


def test_every_line_is_on_disk_at_once(path):
    log = CSVLog(path)
    for step in range(3):
        log({"a": 1.0}, step)
        assert len(read(path)) == step + 2


def test_append_adds_to_a_file_of_an_earlier_process(path):
    write(path, ({"a": 1.0, "b": 2.0}, 0))
    write(path, ({"b": 3.0, "a": 4.0}, 1), ({"c": 5.0}, 2), append=True)
    assert read(path) == [
        ["step", "a", "b", "c"],
        ["0", "1.0", "2.0", ""],
        ["1", "4.0", "3.0", ""],
        ["2", "", "", "5.0"],
    ]


@pytest.mark.parametrize("content", [None, ""], ids=["no file", "empty file"])
def test_append_to_nothing(path, content):
    if content is not None:
        path.write_text(content)
    write(path, ({"a": 1.0}, 0), append=True)
    assert path.read_text() == "step,a\n0,1.0\n"


def test_a_last_line_that_was_not_ended_becomes_no_value(path):
    path.write_text("step,a\n0,1.0\n1,0.12")  # of 0.125, perhaps
    with pytest.warns(UserWarning, match=r"must be ended.*Received: b'1,0\.12' at the"):
        write(path, ({"a": 2.0}, 2), append=True)
    assert read(path) == [["step", "a"], ["0", "1.0"], ["2", "2.0"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch,loss", "epoch,loss,step,a\n,,2,2.0\n"),
        ("epoch,loss\n1,0.1", "epoch,loss,step,a\n1,0.1,,\n,,2,2.0\n"),
        ("notes", "notes,step,a\n,2,2.0\n"),
    ],
)
def test_a_file_of_others_is_not_cut(path, text, expected):
    path.write_text(text)
    write(path, ({"a": 2.0}, 2), append=True)
    assert path.read_text() == expected


@pytest.mark.parametrize("name", ["a", 'two\n"lines", quoted', "old\rMac"])
@pytest.mark.filterwarnings("ignore:Every line of a log must be ended")
def test_every_cut_can_be_gone_on_from(path, name):
    write(path, ({name: 0.125}, 10), ({name: 0.25, "b": 0.75}, 11))
    data = path.read_bytes()
    whole = read(path)[1:]
    # Behind a line end within a name the file looks whole, and nothing can be told.
    within = data.find(b"two\n") + 4
    for length in {*range(len(data))} - {within}:
        path.write_bytes(data[:length])
        write(path, ({name: 0.5}, 12), append=True)
        header, *rows, last = read(path)
        assert header[:2] == ["step", name]
        assert rows == [row[: len(header)] for row in whole[: len(rows)]]
        assert last == ["12", "0.5", ""][: len(header)]


def test_without_append_the_file_is_made_anew(path):
    write(path, ({"a": 1.0}, 0))
    write(path, ({"b": 2.0}, 0))
    assert path.read_text() == "step,b\n0,2.0\n"


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "a,b",
        'quoted "name"',
        '"',
        "two\nlines",
        "\n",
        "old\rMac",
        "Windows\r\nline",
        " spaces ",
        "",
        "größe/é",
        "'",
        "tab\there",
        "../../outside",
        "/absolute",
        "nul\0",
        "x" * 20_000,
    ],
)
def test_any_metric_name_stays_one_column(path, name, append):
    log = write(path, ({name: 1.0, "last": 2.0}, 0))
    if append:
        log = CSVLog(path, append=True)
    log({"last": 3.0, name: 4.0}, 1)
    log({"wider": 5.0}, 2)
    assert read(path) == [
        ["step", name, "last", "wider"],
        ["0", "1.0", "2.0", ""],
        ["1", "4.0", "3.0", ""],
        ["2", "", "", "5.0"],
    ]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", [str, Path])
def test_missing_folder(tmp_path, kind):
    path = tmp_path / "missing" / "log.csv"
    with pytest.raises(ValueError, match=r"folder of `path` must exist.*missing"):
        CSVLog(kind(path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Received: path='.*log\.csv'"):
        CSVLog(tmp_path / "file" / "log.csv")


def test_a_path_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("log.csv", ({"a": 1.0}, 0))
    assert (tmp_path / "log.csv").read_text() == "step,a\n0,1.0\n"


@pytest.mark.parametrize("log_class", [CSVLog, JSONLinesLog])
def test_the_file_stays_where_it_is_when_the_working_folder_moves(
    tmp_path, monkeypatch, log_class
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    log = log_class("log")
    monkeypatch.chdir(tmp_path / "elsewhere")
    log({"a": 1.0}, 0)
    log({"a": 2.0, "b": 3.0}, 1)
    assert len((tmp_path / "log").read_text().split()) >= 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_a_file_stays_one(tmp_path):
    (tmp_path / "data").mkdir()
    link, target = tmp_path / "log.csv", tmp_path / "data" / "log.csv"
    link.symlink_to(target)
    write(link, ({"a": 1.0}, 0), ({"b": 2.0}, 1))
    assert link.is_symlink()
    assert target.read_text() == "step,a,b\n0,1.0,\n1,,2.0\n"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("log_class", [CSVLog, JSONLinesLog])
def test_append_touches_nothing_before_the_first_call(path, log_class):
    path.write_text("step,a\n0,1.0")
    log_class(path, append=True)
    assert path.read_text() == "step,a\n0,1.0"


def write_forever(path, written, widening):
    log = CSVLog(path)
    step = 0
    while True:
        metrics = {"layer/with a long, quoted path": step / 7, "b": 1.0}
        if widening:
            metrics[f"new {step // 40}"] = 2.0
        log(metrics, step)
        written.value = step
        step += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Python 3.12 and later say so; the child only writes a file.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("widening", [False, True])
def test_a_killed_process_leaves_every_line_and_none_in_part(path, widening):
    context = multiprocessing.get_context("fork")
    for attempt in range(6):
        path.unlink(missing_ok=True)
        written = context.Value("q", -1, lock=False)
        child = context.Process(target=write_forever, args=(path, written, widening))
        child.start()
        deadline = time.monotonic() + 30
        while written.value < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.Random(attempt).uniform(0, 0.05))
        child.kill()
        child.join()
        header, *rows = read(path)
        assert path.read_bytes().endswith(b"\n")
        assert {len(row) for row in rows} == {len(header)}
        assert [int(row[0]) for row in rows] == list(range(len(rows)))
        assert [float(row[1]) for row in rows] == [n / 7 for n in range(len(rows))]
        assert len(rows) - 1 - written.value in (0, 1)


@pytest.mark.parametrize("statement", ["import callbacks", "from callbacks import *"])
def test_the_source_folder_is_not_importable_by_its_plain_name(statement):
    done = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "`keras_initlab.callbacks`" in last
    assert "Received: an import as 'callbacks'" in last


def test_a_metric_named_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Received: metrics=\{'step': 1.0\}"):
        CSVLog(tmp_path / "x.csv")({"step": 1.0}, 0)
