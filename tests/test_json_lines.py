import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_initlab.callbacks import JSONLinesLog

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

FOREVER = """
import itertools, sys
from keras_initlab.callbacks import JSONLinesLog
log = JSONLinesLog(sys.argv[1])
for step in itertools.count():
    log({"x": step / 7}, step)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def read(path):
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_exact_content(path):
    log = JSONLinesLog(path)
    log({"loss": 0.5, "norm/a b": np.float32(0.25)}, 0)
    log({"norm": 1e-30}, np.int64(10))
    assert path.read_text() == (
        '{"step": 0, "loss": 0.5, "norm/a b": 0.25}\n{"step": 10, "norm": 1e-30}\n'
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e-45, np.pi])
def test_values_come_back(path, value):
    JSONLinesLog(path)({"x": value}, 3)
    assert read(path) == [{"step": 3, "x": value}]


def test_nan_comes_back(path):
    JSONLinesLog(path)({"x": math.nan}, 3)
    assert math.isnan(read(path)[0]["x"])


def test_nothing_is_written_before_the_first_call(path):
    path.write_text("old\n")
    log = JSONLinesLog(path)
    assert path.read_text() == "old\n"
    log({"x": 1.0}, 0)
    assert read(path) == [{"step": 0, "x": 1.0}]


@pytest.mark.parametrize("old", ["", '{"step": 0}\n', '{"step": 0}'])
def test_append_adds_whole_lines(path, old):
    path.write_text(old)
    JSONLinesLog(path, append=True)({"x": 1.0}, 1)
    assert read(path) == [*([{"step": 0}] if old else []), {"step": 1, "x": 1.0}]


@pytest.mark.filterwarnings("ignore:Every line of a log must be ended")
def test_every_cut_can_be_gone_on_from(path):
    log = JSONLinesLog(path)
    log({"x": 0.125}, 10)
    log({"x": 0.25}, 11)
    data = path.read_bytes()
    whole = read(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        JSONLinesLog(path, append=True)({"x": 0.5}, 12)
        *rows, last = read(path)
        assert rows == whole[: len(rows)]
        assert last == {"step": 12, "x": 0.5}


def test_a_torn_line_is_taken_out(path):
    path.write_text('{"step": 0}\n{"step": 1, "x": 0.1')
    log = JSONLinesLog(path, append=True)
    with pytest.warns(UserWarning, match=r"Received: b'\{\"step\": 1, \"x\": 0\.1' at"):
        log({"x": 1.0}, 2)
    assert read(path) == [{"step": 0}, {"step": 2, "x": 1.0}]


def test_a_file_of_others_is_not_cut(path):
    path.write_text("notes\nmore")
    JSONLinesLog(path, append=True)({"x": 1.0}, 2)
    assert path.read_text() == 'notes\nmore\n{"step": 2, "x": 1.0}\n'


@pytest.mark.parametrize(
    "name",
    [
        "a,b",
        'quoted "name"',
        "two\nlines",
        "old\rMac",
        "line\u2028separator",
        " spaces ",
        "",
        "größe/é",
        "../../outside",
        "/absolute",
        "nul\0",
        "half of a pair \ud800",
        "x" * 20_000,
    ],
)
def test_any_metric_name_stays_on_its_line(path, name):
    log = JSONLinesLog(path)
    log({name: 1.0, "last": 2.0}, 0)
    log({"last": 3.0}, 1)
    assert read(path) == [{"step": 0, name: 1.0, "last": 2.0}, {"step": 1, "last": 3.0}]
    assert path.read_bytes().count(b"\n") == 2
    assert list(path.parent.iterdir()) == [path]


def test_missing_folder(tmp_path):
    path = tmp_path / "none" / "log.jsonl"
    with pytest.raises(ValueError, match=r"folder of `path` .*Received: path='.*none"):
        JSONLinesLog(path)


def test_a_metric_named_step_is_refused(path):
    with pytest.raises(ValueError, match=r"Received: metrics=\{'step': 1.0\}"):
        JSONLinesLog(path)({"step": 1.0}, 0)


@pytest.mark.slow
def test_a_killed_process_leaves_every_line_whole(path):
    child = subprocess.Popen([sys.executable, "-c", FOREVER, str(path)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > 1000:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    rows = read(path)
    assert rows == [{"step": n, "x": n / 7} for n in range(len(rows))]
    assert len(rows) > 20
