import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_initlab.callbacks import GradientNormLogger, TensorBoardLog

pytestmark = pytest.mark.slow_on_jax

NAMES = [
    "a,b",
    'quoted "name"',
    "two\nlines",
    "old\rMac",
    " spaces ",
    "größe/é",
    "../../outside",
    "/absolute",
    "nul\0",
    "",
    "x" * 300,
]


def events(directory):
    """Every event, read by TensorFlow, which checks every record's checksums."""
    files = sorted(str(file) for file in directory.glob("events*"))
    records = tf.data.TFRecordDataset(files).as_numpy_iterator()
    return [tf.compat.v1.Event.FromString(record) for record in records]


def scalars(directory):
    """`{name: {step: value}}`."""
    found = {}
    for event in events(directory):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def histograms(directory):
    """`{name: {step: rows}}`."""
    found = {}
    for event in events(directory):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "histograms":
                rows = tf.make_ndarray(value.tensor)
                found.setdefault(value.tag, {})[event.step] = rows
    return found


def test_scalars_are_written(tmp_path):
    log = TensorBoardLog(tmp_path / "run")
    log({"grad_norm": 0.5, "grad_norm/block/dense_1": np.float32(0.25)}, 0)
    log({"grad_norm": keras.ops.convert_to_tensor(2.0)}, np.int64(10))
    assert scalars(tmp_path / "run") == {
        "grad_norm": {0: 0.5, 10: 2.0},
        "grad_norm/block/dense_1": {0: 0.25},
    }


def test_an_event_says_when_it_was_written(tmp_path):
    before = time.time()
    TensorBoardLog(tmp_path)({"a": 1.0}, 0)
    version, event = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert before <= version.wall_time
    assert before <= event.wall_time <= time.time()


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**31, 2**62, -1, -(2**40)])
def test_any_step(tmp_path, step):
    log = TensorBoardLog(tmp_path)
    log({"a": 1.0}, step)
    log.log_histograms({"h": ([1], [0, 1])}, step)
    assert [event.step for event in events(tmp_path)] == [0, step, step]


@pytest.mark.parametrize("value", [0.1, -0.0, 3, np.pi, np.inf, -np.inf, 1e-45])
def test_values_come_back_as_float32(tmp_path, value):
    TensorBoardLog(tmp_path)({"x": value}, 0)
    found = scalars(tmp_path)["x"][0]
    assert np.float32(found).tobytes() == np.float32(value).tobytes()


@pytest.mark.parametrize(
    ("value", "expected"), [(1e300, np.inf), (-1e300, -np.inf), (1e-300, 0.0)]
)
def test_values_beyond_float32(tmp_path, value, expected):
    TensorBoardLog(tmp_path)({"x": value}, 0)
    assert scalars(tmp_path)["x"][0] == expected


def test_nan_comes_back(tmp_path):
    TensorBoardLog(tmp_path)({"x": np.nan}, 0)
    assert np.isnan(scalars(tmp_path)["x"][0])


def test_any_name_comes_back_and_nothing_lies_elsewhere(tmp_path):
    log = TensorBoardLog(tmp_path / "run")
    log({name: n for n, name in enumerate(NAMES)}, 0)
    log.log_histograms({name + "!": ([1], [0, 1]) for name in NAMES}, 0)
    assert scalars(tmp_path / "run") == {name: {0: n} for n, name in enumerate(NAMES)}
    assert list(histograms(tmp_path / "run")) == [name + "!" for name in NAMES]
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_many_metrics_of_one_step_are_one_record(tmp_path):
    metrics = {f"layer_{n}/{'x' * n}": n / 7 for n in range(500)}
    TensorBoardLog(tmp_path)(metrics, 3)
    assert len(events(tmp_path)) == 2
    expected = {name: {3: float(np.float32(v))} for name, v in metrics.items()}
    assert scalars(tmp_path) == expected


@pytest.mark.parametrize("dtype", ["int32", "float32", "float16", "bfloat16"])
def test_histograms_are_written(tmp_path, dtype):
    counts, edges = [3, 0, 5], [-1.0, 0.5, 2.0, 2.0]
    log = TensorBoardLog(tmp_path)
    as_tensors = [
        keras.ops.convert_to_tensor(a, d)
        for a, d in ((counts, dtype), (edges, "float32"))
    ]
    log.log_histograms({"lists": (counts, edges), "tensors": tuple(as_tensors)}, 7)
    rows = [[-1.0, 0.5, 3.0], [0.5, 2.0, 0.0], [2.0, 2.0, 5.0]]
    found = histograms(tmp_path)
    assert found.keys() == {"lists", "tensors"}
    for by_step in found.values():
        assert by_step.keys() == {7}
        assert by_step[7].dtype == "float64"
        np.testing.assert_array_equal(by_step[7], rows)


def test_what_numpy_returns_is_a_histogram(tmp_path, rng):
    counts, edges = np.histogram(rng.normal(size=1000), bins=30)
    TensorBoardLog(tmp_path).log_histograms({"h": (counts, edges)}, 0)
    rows = histograms(tmp_path)["h"][0]
    np.testing.assert_array_equal(rows, np.stack([edges[:-1], edges[1:], counts], 1))


@pytest.mark.parametrize(
    ("counts", "edges", "received"),
    [
        ([1, 2], [0, 1], r"'h' with arrays of shapes \[\(2,\), \(2,\)\]"),
        ([[1]], [0, 1], r"'h' with arrays of shapes \[\(1, 1\), \(2,\)\]"),
        ([], [0], r"'h' with arrays of shapes \[\(0,\), \(1,\)\]"),
        ([1, -2], [0, 1, 2], "'h' with a count of -2.0"),
        ([1, np.nan], [0, 1, 2], "'h' with a count of nan"),
        ([1, 2], [0, 1, np.inf], "'h' with an edge at inf"),
        ([1, 2], [-np.inf, 1, 2], "'h' with an edge at -inf"),
        ([1, 2], [0, 2, 1], "'h' with an edge at 1.0 after 2.0"),
    ],
)
def test_bad_histograms(tmp_path, counts, edges, received):
    log = TensorBoardLog(tmp_path)
    good = ([1], [0, 1])
    with pytest.raises(ValueError, match=rf"(?s)counts \(bins,\).*: {received}\."):
        log.log_histograms({"good": good, "h": (counts, edges)}, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [(), ([1],), ([1], [0, 1], [2])])
def test_a_histogram_is_a_pair(tmp_path, value):
    with pytest.raises(ValueError, match=r"Received: 'h' with arrays of shapes \["):
        TensorBoardLog(tmp_path).log_histograms({"h": value}, 0)


def test_all_bad_histograms_are_named_at_once(tmp_path):
    bad = {"a": ([-1], [0, 1]), "b": ([1], [1, 0])}
    with pytest.raises(
        ValueError, match=r"'a' with a count of -1\.0; 'b' with an edge at 0\.0 after"
    ):
        TensorBoardLog(tmp_path).log_histograms(bad, 0)


def test_every_call_can_be_read_at_once(tmp_path):
    log = TensorBoardLog(tmp_path)
    for step in range(3):
        log({"a": step}, step)
        assert scalars(tmp_path)["a"] == {n: n for n in range(step + 1)}


def test_it_goes_on_after_close(tmp_path):
    log = TensorBoardLog(tmp_path)
    log({"a": 1.0}, 0)
    log.close()
    log({"a": 2.0}, 1)
    log.close()
    log.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path) == {"a": {0: 1.0, 1: 2.0}}


def remove(directory):
    for file in directory.iterdir():
        file.unlink()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_deleted_is_made_anew(tmp_path, what):
    log = TensorBoardLog(tmp_path / "run")
    log({"a": 1.0}, 0)
    remove(tmp_path / "run")
    if what == "directory":
        (tmp_path / "run").rmdir()
    log({"a": 2.0}, 1)
    log({"a": 3.0}, 2)
    assert [e.file_version for e in events(tmp_path / "run")] == [
        "brain.Event:2",
        "",
        "",
    ]
    assert scalars(tmp_path / "run") == {"a": {1: 2.0, 2: 3.0}}


def test_two_logs_write_two_files(tmp_path, monkeypatch):
    now = iter(np.repeat(np.arange(1e9, 1e9 + 50), 7))  # a slow clock
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for n in range(5):
        TensorBoardLog(tmp_path)({"a": n}, n)
    assert len(list(tmp_path.iterdir())) == 5
    assert scalars(tmp_path) == {"a": {n: n for n in range(5)}}


def test_nothing_is_written_before_the_first_call(tmp_path):
    TensorBoardLog(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_a_directory_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    log = TensorBoardLog("run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    log({"a": 1.0}, 0)
    assert scalars(tmp_path / "run") == {"a": {0: 1.0}}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"of `directory` .*: directory='.*none/run'"):
        TensorBoardLog(tmp_path / "none" / "run")


def test_norms_of_a_fit(tmp_path, rng):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="last")])
    model.compile("sgd", "mse")
    norms = GradientNormLogger(every=1, log_to=TensorBoardLog(tmp_path))
    x = rng.normal(size=(32, 4)).astype("float32")
    model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=[norms])
    found = scalars(tmp_path)
    assert found.keys() == {"grad_norm", f"grad_norm/{model.layers[-1].path}"}
    expected = norms.history["global_norm"].astype("float32")
    assert found["grad_norm"] == dict(enumerate(expected.tolist()))


# --- What TensorBoard itself makes of it ----------------------------------------------

WITHOUT_TENSORFLOW = """
import sys
import keras
before = set(sys.modules)
from keras_initlab.callbacks import TensorBoardLog
log = TensorBoardLog(sys.argv[1])
log({"a": 1.5}, 3)
log.log_histograms({"h": ([1, 2], [0, 1, 2])}, 3)
print({name.split(".")[0] for name in set(sys.modules) - before} & {"tensorflow"})
"""


def written(directory):
    log = TensorBoardLog(directory)
    log({"loss": 0.25, "norm/dense": 3.0}, 0)
    log({"loss": 0.125, 'odd, "name"\n': np.nan}, 5)
    log.log_histograms({"kernel": ([1, 2, 3], [-1, 0, 1, 4])}, 5)
    return directory


def test_tensorboards_accumulator_reads_it(tmp_path):
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    read = module.EventAccumulator(str(written(tmp_path))).Reload()
    assert sorted(read.Tags()["scalars"]) == ["loss", "norm/dense", 'odd, "name"\n']
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(0, 0.25), (5, 0.125)]
    (event,) = read.Tensors("kernel")
    assert event.step == 5
    rows = tf.make_ndarray(event.tensor_proto)
    np.testing.assert_array_equal(rows, [[-1, 0, 1], [0, 1, 2], [1, 4, 3]])
    metadata = read.SummaryMetadata("kernel")
    assert metadata.plugin_data.plugin_name == "histograms"
    assert metadata.data_class == tf.compat.v1.SummaryMetadata(data_class=2).data_class


@pytest.mark.parametrize("cut", [1, 4, 13, 60])
def test_tensorboard_reads_a_truncated_file(tmp_path, cut):
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    log = TensorBoardLog(tmp_path)
    log({"a": 1.0}, 0)
    log({"a" * 60: 2.0}, 1)
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - cut)
    read = module.EventAccumulator(str(tmp_path)).Reload()
    assert read.Tags()["scalars"] == ["a"]
    log.close()
    log({"a": 3.0}, 2)  # what a process that goes on writes
    assert [event.value for event in read.Reload().Scalars("a")] == [1.0, 3.0]


@pytest.mark.tensorflow
@pytest.mark.slow
def test_writing_does_not_start_tensorflow(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    pytest.importorskip("jax")
    output = subprocess.check_output(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path)],
        env=environment,
        text=True,
    )
    assert output.split() == ["set()"]
    assert scalars(tmp_path) == {"a": {3: 1.5}}
    np.testing.assert_array_equal(histograms(tmp_path)["h"][3][:, 2], [1, 2])


def test_tensorboard_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    rule = r"needs TensorBoard.*without it.*pip install \"keras_initlab\[tensorboard\]"
    with pytest.raises(ImportError, match=rule):
        TensorBoardLog(tmp_path)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("fast", ["true", "false"], ids=["Rust", "Python"])
def test_a_tensorboard_server_shows_it(tmp_path, fast):
    pytest.importorskip("tensorboard")
    written(tmp_path / "run")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = ["-m", "tensorboard.main", "--logdir", str(tmp_path)]
    options = ["--port", str(port), "--load_fast", fast]
    server = subprocess.Popen([sys.executable, *command, *options])

    def ask(path):
        url = f"http://localhost:{port}/data/plugin/{path}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    found = json.loads(answer.read())
            except (urllib.error.URLError, ConnectionError):
                found = None
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"no answer to {path}")

    try:
        assert ask("scalars/tags")["run"].keys() == {
            "loss",
            "norm/dense",
            'odd, "name"\n',
        }
        loss = ask("scalars/scalars?run=run&tag=loss")
        assert [row[1:] for row in loss] == [[0, 0.25], [5, 0.125]]
        ((_, step, rows),) = ask("histograms/histograms?run=run&tag=kernel")
        assert (step, rows) == (5, [[-1, 0, 1], [0, 1, 2], [1, 4, 3]])
    finally:
        server.terminate()
        server.wait()
