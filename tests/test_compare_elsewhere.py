"""`compare` where it trains in other processes, and where it is killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import keras
import pytest
import studies

import keras_initlab
from keras_initlab.compare import _executors
from keras_initlab.compare._training import Task, carry_out, check_backend

LABELS = ["he_normal", "recommended", "zeros"]
HERE = Path(__file__).parent
SOME = {"epochs": 3, "batch_size": 8, "verbose": 0}


def spawning(workers=1):
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context)


def study(executor=None, build=studies.build_dropping, **more):
    some = {"initializers": LABELS, "data": studies.data, "seeds": (0, 1)} | SOME
    return keras_initlab.compare(build, executor=executor, **(some | more))


def plain(compared):
    """All that a comparison holds but times."""
    found = json.loads(compared.to_json())
    found["rankings"].pop("seconds")
    for run in found["runs"]:
        run.pop("seconds", None)
        run.get("metrics", {}).pop("seconds", None)
    return found


@pytest.mark.slow
def test_a_spawned_process_gives_the_same_table():
    some = {"initializers": ["he_normal"], "seeds": (0,)}
    here = study(**some)
    with spawning() as executor:
        there = study(executor, **some)
        # What cannot be sent is told.
        with pytest.raises(
            RuntimeError, match=r"Received: he_normal, seed 0: .*pickle"
        ):
            study(executor, build=lambda: studies.build(), **some)
    assert plain(there) == plain(here)


@pytest.mark.slow
def test_spawned_processes_give_the_same_table(tmp_path):
    here = study()
    with spawning(2) as executor:
        there = study(executor, results=tmp_path / "runs.jsonl")
        arrays = study(executor, data=studies.data())
    assert plain(there) == plain(arrays) == plain(here)
    assert plain(study(results=tmp_path / "runs.jsonl")) == plain(here)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table():
    distributed = pytest.importorskip("distributed")
    some = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**some) as cluster, distributed.Client(cluster) as c:
        there = study(c.get_executor())
    assert plain(there) == plain(study())


@pytest.mark.slow
def test_dask_threads_are_refused():
    distributed = pytest.importorskip("distributed")
    some = {"n_workers": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**some) as cluster, distributed.Client(cluster) as c:
        executor = c.get_executor()
        with pytest.raises(ValueError, match="ClientExecutor that runs in this one"):
            study(executor)


@pytest.mark.slow
def test_a_worker_that_dies_is_told():
    with spawning() as executor, pytest.raises(RuntimeError, match="BrokenProcessPool"):
        study(executor, build=die)


def die():
    os._exit(1)


def when_finished(path, runs, act):
    """Acts as soon as so many runs are in a file."""

    def wait():
        for _ in range(6000):
            if count(path) > runs:
                act()
                return
            time.sleep(0.05)

    threading.Thread(target=wait, daemon=True).start()


def kill(process):
    os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_process_costs_the_runs_that_are_left(tmp_path):
    path, some = tmp_path / "runs.jsonl", {"initializers": ["ones"], "seeds": range(9)}
    with spawning(2) as executor:
        when_finished(path, 1, lambda: kill(next(iter(executor._processes))))
        first = study(executor, results=path, **some)
        with pytest.raises(RuntimeError, match=r"run a task.*BrokenProcess.*new one"):
            study(executor, results=path, **some)
    assert all("BrokenProcessPool" in str(run.error) for run in first.failed)
    assert 1 <= len(first.runs) - len(first.failed) < len(first.runs)
    assert plain(study(results=path, **some)) == plain(study(**some))


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_costs_nothing(tmp_path):
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "runs.jsonl"
    some = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**some) as cluster, distributed.Client(cluster) as c:
        worker = next(iter(c.run(os.getpid).values()))
        when_finished(path, 1, lambda: kill(worker))
        there = study(c.get_executor(), results=path, initializers=["ones"])
    assert not there.failed
    assert count(path) == 1 + len(there.runs)  # none twice
    assert plain(there) == plain(study(initializers=["ones"]))


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["client", "cluster"])
def test_a_dask_client_or_cluster_that_is_closed(tmp_path, ends):
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "runs.jsonl"
    some = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**some) as cluster:
        client = distributed.Client(cluster)
        when_finished(path, 1, {"client": client, "cluster": cluster}[ends].close)
        more = {"results": path, "initializers": ["ones"], "seeds": range(9)}
        errors = ended(client.get_executor(), **more)
    assert set(errors) == {None, "CancelledError"}


class Elsewhere:
    """Says that it runs in another process, then does with tasks what it is told."""

    def __init__(self, take):
        self._take = take

    def submit(self, function, *args):
        future = Future()
        if function is carry_out:
            self._take(future, *args)
        else:
            future.set_result((("token", 1), keras.config.backend()))
        return future


def ended(executor, **more):
    """The errors of a study, which must come to an end."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(study(executor, **more)), daemon=True
    )
    thread.start()
    thread.join(timeout=120)
    assert found, "it waits for what never comes"
    return [run.error for run in found[0].runs]


@pytest.mark.seconds
def test_what_an_executor_cancels_is_told(tmp_path):
    def take(future, task):
        if task.label == "zeros":
            future.cancel()  # as a process pool does that is shut down
        else:
            future.set_result(carry_out(task))

    path, some = tmp_path / "runs.jsonl", {"initializers": ["zeros", "ones"]}
    errors = ended(Elsewhere(take), results=path, **some)
    assert errors == ["CancelledError", "CancelledError", None, None]
    assert study(results=path, **some).failed == ()


def test_an_executor_that_ends_in_between():
    def take(future, task):
        if task.seed:
            raise RuntimeError("cannot schedule new futures")
        future.set_result(carry_out(task))

    errors = ended(Elsewhere(take), initializers=["zeros"])
    assert errors == [None, "RuntimeError: cannot schedule new futures"]


def test_an_executor_that_has_ended():
    executor = spawning()
    executor.shutdown()
    match = r"be able to run a task\. Received: ProcessPoolExecutor with RuntimeErr"
    with pytest.raises(RuntimeError, match=match):
        study(executor)


KILLED = """
import sys, studies, keras_initlab
keras_initlab.compare(studies.build_dropping, {labels}, studies.data, seeds=(0, 1),
                      results=sys.argv[1], **{some})
"""


@pytest.mark.slow
def test_killing_it_twice_and_going_on_gives_the_same_table(tmp_path):
    path = tmp_path / "runs.jsonl"
    code = KILLED.format(labels=LABELS, some=SOME)
    root = str(HERE.parent)
    paths = os.pathsep.join([str(HERE), root, os.environ.get("PYTHONPATH", "")])
    for lines in (2, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", code, path],
            cwd=root,
            env={**os.environ, "PYTHONPATH": paths},
        )
        for _ in range(2400):
            if process.poll() is not None or count(path) >= lines:
                break
            time.sleep(0.05)
        process.kill()
        process.wait()
        with path.open("ab") as file:  # as if it had been at its next line
            file.write(b'{"label": "he_')
    kept = count(path)
    assert 5 <= kept <= 7
    whole = study()
    assert plain(study(results=path)) == plain(whole)
    labels = [json.loads(line).get("label") for line in path.read_text().splitlines()]
    assert sorted(labels[1:]) == sorted(2 * LABELS)  # none twice


def count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_threads_are_refused():
    rule = r"share Keras's global seed.*ThreadPool"
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=rule):
        study(executor)


def test_what_runs_here_is_refused_whatever_its_type():
    class Here:
        def submit(self, function, *args):
            future = Future()
            future.set_result(function(*args))
            return future

    with pytest.raises(ValueError, match=r"other processes.*Received: Here that runs"):
        study(Here())


def test_forked_processes_are_refused():
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with executor, pytest.raises(ValueError, match="ProcessPoolExecutor that forks"):
        study(executor)


def test_another_backend_is_refused():
    with pytest.raises(
        RuntimeError, match=r"'jax' in a worker, 'torch' here.*KERAS_BA"
    ):
        check_backend("jax", "torch")
    task = Task("x", "ones", 0, studies.build, studies.data, "other", 1, 8, None)
    assert "'other' here" in carry_out(task)["error"]


def test_a_worker_with_another_backend_is_refused(monkeypatch):
    class There:
        def submit(self, function):
            future = Future()
            future.set_result((("token", 1), "another"))
            return future

    with pytest.raises(RuntimeError, match=f"'another' in.*'{keras.config.backend()}'"):
        _executors.check_executor(There())
