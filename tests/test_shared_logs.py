"""Logs whose files are other people's too: links, modes, threads, processes."""

import csv
import errno
import json
import multiprocessing
import os
import signal
import stat
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_initlab._core import files as _files
from keras_initlab.callbacks import CSVLog, JSONLinesLog, TensorBoardLog

# Nothing here depends on the backend: once is enough.
pytestmark = [
    pytest.mark.tensorflow,
    # Python 3.12 and later say so; the children only write files.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

WIDE = [["step", "a", "b"], ["0", "1.0", ""], ["1", "", "2.0"]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.csv"


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def widen(log):
    log({"a": 1.0}, 0)
    log({"b": 2.0}, 1)


# --- What a wider file keeps ----------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666])
def test_the_mode(path, mode):
    path.touch()
    path.chmod(mode)
    widen(CSVLog(path))
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert read(path) == WIDE


def test_the_content_is_never_open_to_more_people(path, monkeypatch):
    path.touch()
    path.chmod(0o600)
    modes = []
    write = os.write

    def noted(file, data):
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        return write(file, data)

    monkeypatch.setattr(os, "write", noted)
    widen(CSVLog(path))
    assert set(modes) == {0o600}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"
)
def test_the_owner(path):
    path.touch()
    os.chown(path, 12345, 54321)
    widen(CSVLog(path))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
    assert read(path) == WIDE


def test_an_owner_that_cannot_be_given(path, monkeypatch):
    """Then the file is overwritten: another one would be of another owner."""

    def refuse(*_):
        raise PermissionError(errno.EPERM, "not yours")

    path.touch()
    number = path.stat().st_ino
    path.chmod(0o640)
    monkeypatch.setattr(os, "chown", refuse)
    widen(CSVLog(path))
    assert (path.stat().st_ino, read(path)) == (number, WIDE)
    assert list(path.parent.iterdir()) == [path]


def test_extended_attributes(path):
    path.touch()
    try:
        os.setxattr(path, "user.origin", b"run 7")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")
    widen(CSVLog(path))
    assert os.getxattr(path, "user.origin") == b"run 7"


def test_the_time_is_that_of_the_last_row(path):
    path.touch()
    os.utime(path, (0, 0))
    widen(CSVLog(path, append=True))
    assert path.stat().st_mtime > 1e9


def test_hard_links(path):
    path.touch()
    other = path.with_name("other.csv")
    os.link(path, other)
    log = CSVLog(path)
    widen(log)
    log({"c": 3.0}, 2)
    assert path.samefile(other)
    assert read(other) == [
        ["step", "a", "b", "c"],
        ["0", "1.0", "", ""],
        ["1", "", "2.0", ""],
        ["2", "", "", "3.0"],
    ]
    assert {*path.parent.iterdir()} == {path, other}


@pytest.mark.parametrize("links", [1, 2])
def test_symbolic_links(path, tmp_path, links):
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "target.csv"
    target.touch()
    if links == 2:
        os.link(target, tmp_path / "data" / "other.csv")
    path.symlink_to(target)
    widen(CSVLog(path))
    assert path.is_symlink()
    assert read(target) == WIDE
    assert len(list(target.parent.iterdir())) == links


@pytest.mark.parametrize("code", ["EACCES", "EPERM", "EROFS"])
def test_a_folder_that_takes_no_file(path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(getattr(errno, code), "no file here")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    widen(CSVLog(path))
    assert read(path) == WIDE


def test_a_file_that_cannot_be_replaced(path, monkeypatch):
    """As one that is mounted into a container is."""

    def refuse(*_):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "replace", refuse)
    widen(CSVLog(path))
    assert read(path) == WIDE
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["log.csv.new", "log.csv.tmp", ".log.csv"])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
def test_other_files_stay(path, kind, name):
    victim, other = path.with_name("victim"), path.with_name(name)
    victim.write_text("mine")
    if kind == "file":
        other.write_text("mine")
    elif kind == "folder":
        other.mkdir()
    else:
        other.symlink_to(victim if kind == "link" else path.with_name("none"))
    widen(CSVLog(path))
    assert victim.read_text() == "mine"
    assert other.is_symlink() == ("link" in kind)
    assert kind != "file" or other.read_text() == "mine"
    assert {*path.parent.iterdir()} == {path, victim, other}


def test_a_long_name(tmp_path):
    path = tmp_path / ("ß" * 120 + ".csv")
    widen(CSVLog(path))
    assert read(path) == WIDE


def test_bytes_of_another_encoding(path):
    path.write_bytes(b"step,gr\xf6\xdfe\n0,1.0\n")
    CSVLog(path, append=True)({"b": 2.0}, 1)
    assert path.read_bytes() == b"step,gr\xf6\xdfe,b\n0,1.0,\n1,,2.0\n"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_pipe_gets_a_new_header():
    out, into = os.pipe()
    log = CSVLog(f"/dev/fd/{into}")
    widen(log)
    log({"a": 3.0}, 2)
    assert os.read(out, 1000) == b"step,a\n0,1.0\nstep,a,b\n1,,2.0\n2,3.0,\n"
    os.close(out)
    os.close(into)


# --- Overwriting that fails -----------------------------------------------------------


def linked(path):
    """A file with two names, of which one holds a row."""
    log = CSVLog(path)
    log({"a": 1.0}, 0)
    os.link(path, path.with_name("other"))
    return log


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_overwriting_that_fails_is_taken_back(path, monkeypatch, error):
    log = linked(path)
    write, calls = os.write, iter(range(99))

    def fails_once(file, data):
        if next(calls) != 2:  # the copy, a part of the file, and here it ends
            return write(file, data[:9] if len(data) > 16 else data)
        raise error

    monkeypatch.setattr(os, "write", fails_once)
    monkeypatch.setattr(_files, "append_whole", lambda *_: next(calls))
    with pytest.raises(type(error)):
        log({"b": 2.0}, 1)
    monkeypatch.undo()
    assert path.read_text() == "step,a\n0,1.0\n"
    assert len(list(path.parent.iterdir())) == 2
    log({"b": 2.0}, 1)
    assert read(path) == WIDE


def test_where_it_cannot_be_taken_back_the_copy_stays(path, monkeypatch):
    log = linked(path)
    write, calls = os.write, iter(range(99))

    def fails(file, data):
        if next(calls):
            raise OSError(errno.EIO, "broken")
        return write(file, data)

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(OSError, match="broken"):
        log({"b": 2.0}, 1)
    monkeypatch.undo()
    (copy,) = path.parent.glob("log.csv.*.tmp")
    assert read(copy) == WIDE


CALLS = ("open", "write", "ftruncate", "close", "replace", "unlink")


def widen_until_killed(path, calls):
    left = iter(range(calls))

    def counted(call):
        def run(*arguments, **options):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return run

    log = linked(path)
    write = os.write  # a kill may find a part of a long write done
    os.write = lambda file, data: write(file, bytes(data)[:5])
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    log({"b": 2.0}, 1)
    os._exit(0)


@needs_fork
def test_a_kill_while_overwriting_leaves_a_whole_file(tmp_path):
    context = multiprocessing.get_context("fork")
    torn = 0
    for calls in range(60):
        path = tmp_path / str(calls) / "log.csv"
        path.parent.mkdir()
        child = context.Process(target=widen_until_killed, args=(path, calls))
        child.start()
        child.join()
        copies = [read(copy) for copy in path.parent.glob("*.tmp")]
        is_torn = read(path) not in (WIDE, [["step", "a"], ["0", "1.0"]])
        assert not is_torn or copies == [WIDE]
        torn += is_torn
        if child.exitcode == 0:
            break
    assert child.exitcode == 0
    assert not copies
    assert torn  # else nothing was asked


# --- Files that go away ---------------------------------------------------------------


def test_a_deleted_file_comes_back_with_its_header(path):
    log = CSVLog(path)
    widen(log)
    path.unlink()
    log({"b": 3.0}, 2)
    assert read(path) == [["step", "a", "b"], ["2", "", "3.0"]]
    path.unlink()
    log({"b": 3.0, "c": 4.0}, 3)
    assert read(path) == [["step", "a", "b", "c"], ["3", "", "3.0", "4.0"]]


def test_an_emptied_file_gets_its_header_again(path):
    log = CSVLog(path)
    widen(log)
    path.write_text("")
    log({"b": 3.0}, 2)
    assert read(path) == [["step", "a", "b"], ["2", "", "3.0"]]


def test_a_file_that_others_changed(path):
    log = CSVLog(path)
    widen(log)
    path.write_text("step,b\n1,2.0\n")  # somebody took a column out
    log({"b": 3.0}, 2)
    log({"a": 4.0}, 3)
    assert read(path) == [
        ["step", "b", "a"],
        ["1", "2.0", ""],
        ["2", "3.0", ""],
        ["3", "", "4.0"],
    ]


def test_a_deleted_file_of_json_lines(path):
    log = JSONLinesLog(path)
    log({"a": 1.0}, 0)
    path.unlink()
    log({"a": 2.0}, 1)
    assert path.read_text() == '{"step": 1, "a": 2.0}\n'


@pytest.mark.parametrize("log_class", [CSVLog, JSONLinesLog])
def test_a_folder_that_comes_back(tmp_path, log_class):
    path = tmp_path / "run" / "log"
    path.parent.mkdir()
    log = log_class(path)
    log({"a": 1.0}, 0)
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        log({"a": 1.0}, 1)
    path.parent.mkdir()
    log({"a": 1.0}, 2)
    assert "2" in path.read_text()


# --- Several writers ------------------------------------------------------------------

WRITERS, ROWS = 4, 120


def write_rows(log, writer):
    for row in range(ROWS):
        step = row * WRITERS + writer
        log({"a": step / 7, f"new {writer}, {row // 10}": 1.0}, step)


def check_rows(path):
    header, *rows = read(path)
    assert header[:2] == ["step", "a"]
    assert len(header) == len(set(header)) == 2 + WRITERS * ROWS // 10
    assert sorted(int(row[0]) for row in rows) == list(range(WRITERS * ROWS))
    for line in rows:
        assert len(line) == len(header)
        step = int(line[0])
        row, writer = divmod(step, WRITERS)
        found = {n: cell for n, cell in zip(header, line, strict=True) if cell}
        new = f"new {writer}, {row // 10}"
        assert found == {"step": str(step), "a": str(step / 7), new: "1.0"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("logs", ["one log", "a log each"])
def test_threads(path, logs):
    log = CSVLog(path)
    each = [log] * WRITERS
    if logs == "a log each":
        each = [CSVLog(path, append=True) for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write_rows, each, range(WRITERS)))
    check_rows(path)


def test_threads_of_other_logs(tmp_path):
    lines, board = JSONLinesLog(tmp_path / "lines"), TensorBoardLog(tmp_path / "board")
    with ThreadPoolExecutor(WRITERS) as pool:
        for log in (lines, board):
            list(pool.map(write_rows, [log] * WRITERS, range(WRITERS)))
    rows = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert sorted(row["step"] for row in rows) == list(range(WRITERS * ROWS))
    (file,) = (tmp_path / "board").iterdir()
    assert file.read_bytes().count(b"brain.Event:2") == 1
    assert file.read_bytes().count(b"new 3, ") == ROWS


@needs_fork
def test_processes(path):
    pytest.importorskip("fcntl")
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=write_rows, args=(CSVLog(path, append=True), n))
        for n in range(WRITERS)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    check_rows(path)


@pytest.mark.parametrize("content", [None, ""], ids=["no file", "empty file"])
def test_two_logs_on_one_file_write_one_header(path, content):
    if content is not None:
        path.write_text(content)
    first, second = CSVLog(path, append=True), CSVLog(path, append=True)
    first({"a": 1.0}, 0)
    second({"a": 2.0}, 1)
    second({"b": 3.0, "a": 4.0}, 2)
    first({"a": 5.0}, 3)
    assert read(path) == [
        ["step", "a", "b"],
        ["0", "1.0", ""],
        ["1", "2.0", ""],
        ["2", "4.0", "3.0"],
        ["3", "5.0", ""],
    ]


def test_a_log_goes_on_behind_the_torn_line_of_another(path):
    log = CSVLog(path)
    log({"a": 1.0}, 0)
    with path.open("a") as file:
        file.write("1,0.1")  # another process was killed
    with pytest.warns(UserWarning, match=r"b'1,0\.1' at the end of"):
        log({"a": 2.0}, 2)
    assert path.read_text() == "step,a\n0,1.0\n2,2.0\n"


def test_whoever_hears_the_warning_may_log_it(path, monkeypatch):
    path.write_text("step,a\n0,1.0\n1,0.1")
    log, other = CSVLog(path, append=True), CSVLog(path, append=True)
    monkeypatch.setattr("warnings.warn", lambda *_, **__: other({"warnings": 1.0}, 2))
    log({"a": 2.0}, 1)
    assert [row[0] for row in read(path)] == ["step", "0", "1", "2"]


@needs_fork
def test_a_child_forked_while_a_thread_writes_can_write(path):
    with _files.writing:
        child = multiprocessing.get_context("fork").Process(
            target=widen, args=(CSVLog(path),)
        )
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
    assert child.exitcode == 0
    assert read(path) == WIDE


@needs_fork
def test_a_child_forked_while_a_file_is_locked_does_not_keep_it_so(path):
    pytest.importorskip("fcntl")
    with _files.locked(path):
        child = multiprocessing.get_context("fork").Process(
            target=time.sleep, args=(600,)
        )
        child.start()
    done = threading.Thread(target=widen, args=(CSVLog(path),), daemon=True)
    done.start()
    done.join(60)
    child.kill()
    child.join()
    done.join()
    assert child.exitcode == -signal.SIGKILL
    assert read(path) == WIDE


def test_a_file_that_is_replaced_while_a_log_waits_for_it(path, monkeypatch):
    """The row goes into the file that is there once it is locked."""
    log = CSVLog(path)
    log({"a": 1.0}, 0)
    is_at = _files._is_at
    waits = iter([True])

    def replaced(*arguments):
        if next(waits, False):
            path.with_name("new").write_text("step,b\n7,8.0\n")
            path.with_name("new").replace(path)
        return is_at(*arguments)

    monkeypatch.setattr(_files, "_is_at", replaced)
    log({"b": 2.0}, 1)
    assert read(path) == [["step", "b"], ["7", "8.0"], ["1", "2.0"]]
