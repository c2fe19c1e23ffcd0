"""Logs of processes that are killed, and on disks that are full."""

import contextlib
import csv
import json
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from keras_initlab.callbacks import CSVLog, JSONLinesLog, TensorBoardLog

# The first and the last log note, where a kill cannot undo it, what came how far.
TRAIN = """
import mmap, struct, sys
import keras
from keras_initlab.callbacks import (
    CSVLog, GradientNormLogger, JSONLinesLog, TensorBoardLog,
)

folder = sys.argv[1]
progress = open(folder + "/progress", "w+b")
progress.write(bytes(16))
progress.flush()
shared = mmap.mmap(progress.fileno(), 16)
wide = CSVLog(folder + "/wide.csv")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="last")])
model.compile("sgd", "mse")
norms = GradientNormLogger(every=1, log_to=[
    lambda metrics, step: struct.pack_into("<q", shared, 0, step + 1),
    CSVLog(folder + "/plain.csv"),
    lambda metrics, step: wide({**metrics, f"new, {step // 10}": 1.0}, step),
    JSONLinesLog(folder + "/lines.jsonl"),
    TensorBoardLog(folder + "/board"),
    lambda metrics, step: struct.pack_into("<q", shared, 8, step + 1),
])
x = keras.random.normal((64, 4), seed=0)
model.fit(x, x[:, :1], batch_size=8, epochs=10**6, verbose=0, callbacks=[norms])
"""


def read_csv(path):
    """`{step: {column: text}}` of a file whose lines must all be whole."""
    assert path.read_bytes()[-1:] in (b"", b"\n")
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    assert {len(row) for row in rows} <= {len(header)}
    found = [dict(zip(header, row, strict=True)) for row in rows]
    return {int(row.pop("step")): row for row in found}


def read_json(path):
    text = path.read_text()
    assert text[-1:] in ("", "\n")
    rows = [json.loads(line) for line in text.splitlines()]
    return {row.pop("step"): row for row in rows}


def read_events(directory):
    """`{step: {name: value}}` of event files that must hold whole records only."""
    found = {}
    for file in sorted(directory.glob("events*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            at += struct.unpack_from("<Q", content, at)[0] + 16
        assert at == len(content), f"{file} ends in the middle of a record"
        # This one checks the sums.
        records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        for number, record in enumerate(records):
            event = tf.compat.v1.Event.FromString(record)
            assert event.HasField("file_version") == (number == 0)
            if event.HasField("summary"):
                values = {v.tag: v.simple_value for v in event.summary.value}
                found[event.step] = values
    return found


LOGS = {
    "csv": (CSVLog, read_csv),
    "json": (JSONLinesLog, read_json),
    "events": (TensorBoardLog, read_events),
}


# --- Killed while training ------------------------------------------------------------


def train_and_kill(folder, delay):
    folder.mkdir()
    lines = folder / "lines.jsonl"
    child = subprocess.Popen([sys.executable, "-c", TRAIN, str(folder)])
    try:
        deadline = time.monotonic() + 200
        while not (lines.exists() and lines.stat().st_size):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(delay)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def check_whole(folder):
    begun, done = struct.unpack("<qq", (folder / "progress").read_bytes())
    plain, wide = read_csv(folder / "plain.csv"), read_csv(folder / "wide.csv")
    lines, board = read_json(folder / "lines.jsonl"), read_events(folder / "board")
    assert 0 <= begun - done <= 1
    assert done >= 1
    lengths = [len(log) for log in (plain, wide, lines, board)]
    assert lengths == sorted(lengths, reverse=True)
    assert {done, begun} >= set(lengths)
    for log in (plain, wide, lines, board):
        assert list(log) == list(range(len(log)))
    for step, expected in lines.items():
        assert {name: float(text) for name, text in plain[step].items()} == expected
        new = {name for name, text in wide[step].items() if text} - expected.keys()
        assert new == {f"new, {step // 10}"}
        assert all(float(wide[step][name]) == expected[name] for name in expected)
    for step, values in board.items():
        assert values == {k: float(np.float32(v)) for k, v in lines[step].items()}
    return len(lines)


def check_kills(folder, count, seconds):
    uniform = random.Random(count).uniform
    delays = [seconds * (n + uniform(0, 1)) / count for n in range(count)]
    folders = [folder / str(n) for n in range(count)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train_and_kill, folders, delays))
    return [check_whole(one) for one in folders]


@pytest.mark.slow
def test_training_killed_twice(tmp_path):
    assert max(check_kills(tmp_path, count=2, seconds=1)) > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_killed_at_twenty_moments(tmp_path):
    steps = check_kills(tmp_path, count=20, seconds=4)
    assert len(set(steps)) > 4  # a busy machine comes less far
    assert max(steps) > 20


def test_the_check_can_fail(tmp_path):
    write = {
        "csv": lambda file: file.write_text("step,a\n0,1.0\n1\n"),
        "json": lambda file: file.write_text('{"step": 0}\n{"ste'),
        "events": lambda file: cut_events(file),
    }
    for name, (_, read) in LOGS.items():
        write[name](tmp_path / name)
        with pytest.raises(AssertionError):
            read(tmp_path / name)


def cut_events(directory):
    TensorBoardLog(directory)({"a": 1.0}, 0)
    (file,) = directory.iterdir()
    os.truncate(file, file.stat().st_size - 1)


# --- Killed before every single system call -------------------------------------------

CALLS = ("open", "write", "ftruncate", "close", "replace", "unlink", "mkdir")


def metrics_at(step):
    """A new metric at every third step, whose name fills more than one buffer."""
    wider = {f"new, {n}\n" + "x" * 9000: float(n) for n in range(step // 3)}
    return {"a": step / 4, **wider}


def write_until_killed(log_class, path, calls, done):
    left = iter(range(calls))

    def counted(call):
        def run(*arguments, **options):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return run

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    log = log_class(path)
    for step in range(8):
        log(metrics_at(step), step)
        done.value = step + 1
    os._exit(0)


@pytest.mark.once_a_day
@pytest.mark.tensorflow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Python 3.12 and later say so; the child only writes a file.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", LOGS)
def test_killed_before_any_system_call(tmp_path, name):
    log_class, read = LOGS[name]
    context = multiprocessing.get_context("fork")
    for calls in range(200):
        path = tmp_path / str(calls)
        done = context.Value("q", 0, lock=False)
        arguments = (log_class, path, calls, done)
        child = context.Process(target=write_until_killed, args=arguments)
        child.start()
        child.join()
        rows = read(path) if path.exists() else {}
        assert list(rows) == list(range(len(rows)))
        assert len(rows) - done.value in (0, 1)
        for step, row in rows.items():
            values = {key: float(v) for key, v in row.items() if v != ""}
            assert values == metrics_at(step)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        append = {} if name == "events" else {"append": True}
        log_class(path, **append)({"a": 0.5, "newest": 1.0}, len(rows))
        assert list(read(path)) == list(range(len(rows) + 1))
    assert done.value == 8
    assert calls >= 24
    whole = [file for file in tmp_path.iterdir() if file.suffix != ".tmp"]
    assert len(whole) == calls + 1


# --- Full disks -----------------------------------------------------------------------


@contextlib.contextmanager
def largest_file(size):
    """Makes the system write files up to a size only, as on a disk with that room."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def file_of(path):
    return next(path.iterdir()) if path.is_dir() else path


@pytest.mark.tensorflow
@pytest.mark.parametrize("room", [0, 1, 7, 12])
@pytest.mark.parametrize("name", LOGS)
def test_a_line_that_finds_no_room_is_taken_back(tmp_path, name, room):
    log_class, read = LOGS[name]
    path = tmp_path / "log"
    log = log_class(path)
    log({"a": 1.0}, 0)
    before = file_of(path).read_bytes()
    with largest_file(len(before) + room), pytest.raises(OSError, match="too large"):
        log({"a": 1 / 3}, 1)
    assert file_of(path).read_bytes() == before
    log({"a": 2.0}, 1)
    assert {step: float(row["a"]) for step, row in read(path).items()} == {0: 1, 1: 2}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", LOGS)
def test_a_first_line_that_finds_no_room(tmp_path, name):
    log_class, read = LOGS[name]
    path = tmp_path / "log"
    log = log_class(path)
    with largest_file(5), pytest.raises(OSError, match="too large"):
        log({"a": 1.0}, 0)
    assert file_of(path).read_bytes() == b""
    log({"b": 2.0}, 1)
    assert {step: [*row] for step, row in read(path).items()} == {1: ["b"]}


@pytest.mark.tensorflow
@pytest.mark.parametrize("room", [0, 5, 20])
def test_a_wider_file_that_finds_no_room(tmp_path, room):
    path = tmp_path / "log"
    log = CSVLog(path)
    log({"a": 1.0}, 0)
    with largest_file(room), pytest.raises(OSError, match="too large"):
        log({"a": 2.0, "b": 3.0}, 1)
    assert path.read_text() == "step,a\n0,1.0\n"
    assert list(tmp_path.iterdir()) == [path]
    log({"a": 4.0}, 1)
    log({"b": 5.0}, 2)
    assert path.read_text() == "step,a,b\n0,1.0,\n1,4.0,\n2,,5.0\n"


@pytest.mark.tensorflow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("log_class", [CSVLog, JSONLinesLog])
def test_the_full_device(log_class):
    with pytest.raises(OSError, match="No space left"):
        log_class("/dev/full")({"a": 1.0}, 0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", LOGS)
def test_writes_in_part_are_continued(tmp_path, name, monkeypatch):
    log_class, read = LOGS[name]
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    log = log_class(tmp_path / "log")
    for step in range(7):
        log(metrics_at(step), step)
    monkeypatch.undo()
    for step, row in read(tmp_path / "log").items():
        values = {key: float(v) for key, v in row.items() if v != ""}
        assert values == metrics_at(step)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", LOGS)
def test_a_call_is_one_write_however_long(tmp_path, name, monkeypatch):
    sizes = []
    write = os.write

    def noted(file, data):
        sizes.append(len(data))
        return write(file, data)

    monkeypatch.setattr(os, "write", noted)
    log = LOGS[name][0](tmp_path / "log")
    for step in range(4):
        log({"x" * 70_000: 1.0, **metrics_at(step)}, step)
        assert len(sizes) == step + 1
    monkeypatch.undo()
    assert sizes[0] > 70_000


@pytest.mark.tensorflow
def test_an_interrupted_write_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "log"
    log = JSONLinesLog(path)
    log({"a": 1.0}, 0)
    write = os.write

    def interrupted(file, data):
        write(file, data[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log({"a": 2.0}, 1)
    monkeypatch.undo()
    assert read_json(path) == {0: {"a": 1.0}}
