"""`compare` where it trains in this process."""

import json
import random

import keras
import numpy as np
import pytest
import studies
from rich.console import Console

import keras_initlab
from keras_initlab.compare import Run, _training
from keras_initlab.compare._progress import Reporter
from keras_initlab.compare._starts import start
from keras_initlab.compare._training import Task

pytestmark = pytest.mark.slow_on_jax

EPOCHS, RATE = 4, 0.3
LABELS = ["he_normal", "zeros"]


def compare(build=studies.build, compared=("ones",), data=None, epochs=1, **more):
    more = {"batch_size": 40, "verbose": 0} | more
    return keras_initlab.compare(
        build, list(compared), data or studies.data(), epochs, **more
    )


def plain(compared):
    """All that a comparison holds but times."""
    found = json.loads(compared.to_json())
    found["rankings"].pop("seconds")
    for run in found["runs"]:
        run.pop("seconds", None)
        run.get("metrics", {}).pop("seconds", None)
    return found


@pytest.fixture(scope="module")
def studied():
    """Two seeds, trained on the whole data at every step."""
    return compare(compared=["he_normal"], epochs=EPOCHS, seeds=(0, 1))


@pytest.fixture
def untrained(monkeypatch):
    """Makes every training cheap: its curves tell the weights that it starts from."""

    def fitted(model, data, task, on_epoch):
        mean = float(np.mean(np.abs(model.get_weights()[0])))
        names = ("loss", "accuracy", "test_loss", "test_accuracy", "gradient_norm")
        curve = [mean + epoch for epoch in range(task.epochs)]
        for _ in curve:
            on_epoch()
        return {"seconds": 0.25, "curves": dict.fromkeys(names, curve)}

    monkeypatch.setattr(_training, "_fitted", fitted)


def softmax(z):
    power = np.exp(z - z.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def by_hand(weights):
    """Full-batch training of the study's network in NumPy, in double precision."""
    (x, y), (x_test, y_test) = studies.data()
    w1, b1, w2, b2 = (np.array(w, "float64") for w in weights)
    curves = {name: [] for name in ("loss", "accuracy", "gradient_norm")}
    curves |= {"test_loss": [], "test_accuracy": []}

    def forward(x, y):
        hidden = np.maximum(x @ w1 + b1, 0)
        p = softmax(hidden @ w2 + b2)
        loss = -np.mean(np.log(p[np.arange(len(y)), y]))
        return hidden, p, loss, 100 * np.mean(p.argmax(axis=1) == y)

    for _ in range(EPOCHS):
        hidden, p, loss, accuracy = forward(x, y)
        dz = (p - np.eye(3)[y]) / len(y)
        dh = (dz @ w2.T) * (hidden > 0)
        gradients = [x.T @ dh, dh.sum(axis=0), hidden.T @ dz, dz.sum(axis=0)]
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        w1, b1, w2, b2 = (
            w - RATE * g for w, g in zip((w1, b1, w2, b2), gradients, strict=True)
        )
        _, _, test_loss, test_accuracy = forward(x_test, y_test)
        for name, value in zip(
            curves, (loss, accuracy, norm, test_loss, test_accuracy), strict=True
        ):
            curves[name].append(value)
    return curves


@pytest.mark.parametrize("index", [0, 1])
def test_curves_are_those_of_training_by_hand(studied, index):
    run = studied.runs[index]
    model = studies.build()
    start(model, "he_normal", run.seed, None, is_handed=False)
    expected = by_hand(model.get_weights())
    assert (run.label, run.seed, run.error) == ("he_normal", index, None)
    assert set(run.curves) == set(expected)
    for name, curve in expected.items():
        np.testing.assert_allclose(run.curves[name], curve, rtol=2e-5, err_msg=name)
    # Neither the norm after the update nor that of the kernels alone would do.
    norms = run.curves["gradient_norm"]
    assert np.all(np.abs(norms[1:] / norms[:-1] - 1) > 1e-3)


@pytest.mark.usefixtures("untrained")
def test_labels_seeds_and_runs_are_in_order():
    studied = compare(compared=LABELS, epochs=EPOCHS, seeds=(0, 1))
    assert studied.labels == tuple(LABELS)
    assert [(run.label, run.seed) for run in studied.runs] == [
        (label, seed) for label in LABELS for seed in (0, 1)
    ]
    assert studied.best == "he_normal"
    assert "2 initializers, 2 seeds, 4 epochs in batches of 40" in repr(studied)


def test_a_build_of_the_initializer_trains_the_same(studied):
    found = compare(studies.build_from, ["he_normal"], epochs=EPOCHS)
    for name, curve in studied.runs[0].curves.items():
        np.testing.assert_array_equal(found.runs[0].curves[name], curve)


def test_one_seed_means_one_order_of_batches():
    def times(y, prediction):
        return y * prediction  # whose gradient is that of the batch, at any weights

    def build(initializer):
        if initializer == "he_normal":
            keras.random.normal((100,))  # draws what the other does not
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        sgd = keras.optimizers.SGD(0.1)
        model.compile(sgd, times, run_eagerly=studies.EAGER)
        return model

    (x, _), _ = studies.data()
    data = (x, x[:, :1]), (x, x[:, :1])
    found = compare(build, ["he_normal", "ones"], data, 2, batch_size=8)
    he, ones = (run.curves["gradient_norm"] for run in found.runs)
    np.testing.assert_allclose(he, ones, rtol=1e-6)
    # And every epoch its own: on TensorFlow, Keras's are all the same.
    assert abs(he[0] - he[1]) > 1e-4


@pytest.mark.usefixtures("untrained")
def test_a_failed_run_is_told_and_not_fatal():
    def build(initializer):
        return studies.build_failing() if initializer == "ones" else studies.build()

    def nan(shape, dtype=None):
        return keras.ops.full(shape, float("nan"), dtype=dtype)

    def worse(shape, dtype=None):
        raise ArithmeticError("cannot draw")

    found = compare(compared=["zeros", nan, worse])
    assert [one.label for one in found.failed] == ["nan", "worse"]
    assert found.runs[1].error.startswith("ValueError: An initializer must draw finite")
    assert found.runs[2].error == "ArithmeticError: cannot draw"
    found = compare(build, ["ones", "zeros"])
    assert [one.error for one in found.runs] == ["OSError: no such weights", None]


def test_if_all_fail_the_first_reasons_are_told_once():
    match = r"finish\. Received: ones, seed 0: OSError: no such weights\.$"
    with pytest.raises(RuntimeError, match=match):
        compare(studies.build_failing, ["ones", "zeros"], seeds=(0, 1))


def test_a_loss_that_is_nan_is_a_result():
    def build():
        model = studies.build()
        model.compile(
            keras.optimizers.SGD(1e30),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            run_eagerly=studies.EAGER,
        )
        return model

    (run,) = compare(build, ["he_normal"], epochs=3).runs
    assert run.error is None
    assert not np.isfinite(run.curves["test_loss"][-1])
    assert 0 <= run.metrics["final_accuracy"] <= 100


def test_without_an_accuracy_the_loss_ranks():
    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        sgd = keras.optimizers.SGD(0.05)
        model.compile(sgd, "mse", metrics=["mae"], run_eagerly=studies.EAGER)
        return model

    (x, _), (x_test, _) = studies.data()
    data = (x, x[:, :1]), (x_test, x_test[:, :1])
    found = compare(build, ["default"], data, epochs=2, batch_size=10)
    assert found.metrics[0] == "final_loss"
    assert set(found.runs[0].curves) == {"loss", "test_loss", "gradient_norm"}
    assert "Ranked by test loss" in repr(found)


def test_another_thread_that_draws_changes_nothing():
    def build():
        random.random()  # as a thread of a Dask worker does at any time
        return studies.build_dropping()

    some = {"epochs": 2, "batch_size": 8}
    one = compare(studies.build_dropping, ["default"], **some)
    other = compare(build, ["default"], **some)
    assert plain(one) == plain(other)


def test_any_metric_can_count():
    def build():
        model = studies.build()
        top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_two")
        loss = "sparse_categorical_crossentropy"
        model.compile("sgd", loss, metrics=[top], run_eagerly=studies.EAGER)
        return model

    assert compare(build).metrics[0] == "final_loss"
    found = compare(build, accuracy="top_two")
    assert 0 < found.runs[0].metrics["final_accuracy"] <= 100
    with pytest.raises(
        RuntimeError, match=r"accuracy='nope'.*It has \['loss', 'top_two"
    ):
        compare(build, accuracy="nope")


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"batch_size": 1.5}, ValueError, "batch_size=1.5"),
        ({"accuracy": 3}, ValueError, "name of a metric.*accuracy=3"),
        ({"seeds": 3}, ValueError, r"`seeds` must be.*seeds=3.*range\(5\)"),
        ({"seeds": ()}, ValueError, r"seeds=\(\)"),
        ({"seeds": (1, 1)}, ValueError, r"different.*seeds=\(1, 1\)"),
        ({"seeds": (0, -1)}, ValueError, r"seeds=\(0, -1\)"),
        ({"verbose": 3}, ValueError, "0, 1, 2 or 'auto'.*verbose=3"),
        ({"data": 3}, ValueError, "data of type int"),
        ({"data": ([1, 2], [3, 4])}, TypeError, r"`data\[0\]\[0\]` must be an array"),
        ({"data": lambda: 5}, ValueError, "data of type int"),
        ({"executor": 5}, TypeError, r"executor=5.*get_executor\(\)"),
    ],
)
def test_arguments_out_of_range_are_named(changed, error, match):
    with pytest.raises(error, match=match):
        compare(**changed)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ((5, 4, 3, 3), r"data\[0\]\[1\] of shape \(4, 4\) for 5 examples"),
        ((5, 5, 0, 0), r"at least one example.*data\[1\]\[0\] of shape \(0, 4\)"),
    ],
)
def test_arrays_of_other_lengths_are_refused(rows, text):
    a, b, c, d = (np.zeros((n, 4), "float32") for n in rows)
    with pytest.raises(ValueError, match=text):
        compare(data=((a, b), (c, d)))


def test_tensors_and_nests_are_data():
    inputs = {name: keras.Input((2,), name=name) for name in "ab"}

    def build():
        hidden = keras.layers.Concatenate()(list(inputs.values()))
        model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(hidden))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    def halves(x):
        tensor = keras.ops.convert_to_tensor(x)
        return {"a": tensor[:, :2], "b": tensor[:, 2:]}

    (x, y), (x_test, y_test) = studies.data()
    found = compare(build, ["recommended"], ((halves(x), y), (halves(x_test), y_test)))
    assert found.failed == ()


@pytest.mark.usefixtures("untrained")
def test_finished_runs_are_not_repeated(tmp_path):
    studied = compare(compared=LABELS, epochs=EPOCHS, seeds=(0, 1))
    path = tmp_path / "runs.jsonl"
    built = []

    def build():
        built.append(1)
        return studies.build()

    some = {"epochs": EPOCHS, "results": path}
    compare(build, LABELS[:1], **some)
    assert len(built) == 2  # one for the name of the model
    compare(build, LABELS[:1], seeds=(0, 1), **some)
    assert len(built) == 4
    found = compare(build, LABELS, seeds=(0, 1), **some)
    assert len(built) == 7
    compare(build, LABELS, seeds=(0, 1), **some)
    assert len(built) == 8
    assert plain(found) == plain(studied)
    with pytest.raises(ValueError, match="epochs=4, not 5"):
        compare(build, LABELS, epochs=5, results=path)
    (x, y), test = studies.data()
    with pytest.raises(ValueError, match="with data='"):
        compare(build, LABELS, ((2 * x, y), test), **some)
    with pytest.raises(ValueError, match="with model='"):
        compare(studies.build_dropping, LABELS, **some)


@pytest.mark.usefixtures("untrained")
def test_what_failed_is_tried_again(tmp_path):
    broken = [1]

    def build(initializer):
        if broken and initializer == "ones":
            raise OSError("no room")
        return studies.build()

    path = tmp_path / "runs.jsonl"
    first = compare(build, ["zeros", "ones"], results=path)
    assert [run.error for run in first.runs] == [None, "OSError: no room"]
    broken.clear()
    again = compare(build, ["zeros", "ones"], results=path)
    assert again.failed == ()
    assert again.runs[0].seconds == first.runs[0].seconds


@pytest.mark.usefixtures("untrained")
def test_an_interruption_keeps_what_is_finished(tmp_path):
    def build(initializer):
        if initializer == "ones":
            raise KeyboardInterrupt
        return studies.build()

    path = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        compare(build, ["zeros", "ones"], results=path)
    assert [
        json.loads(line).get("label") for line in path.read_text().splitlines()
    ] == [None, "zeros"]


@pytest.mark.usefixtures("untrained")
def test_nothing_is_printed_at_0(capsys):
    compare()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_a_line_is_printed_for_each_run(verbose, capsys, tmp_path):
    path = tmp_path / "runs.jsonl"
    compare(results=path)
    compare(compared=["ones", "zeros"], results=path, verbose=verbose)
    found, line = capsys.readouterr().out.splitlines()
    assert found == "1 runs found in the file, 1 to do"
    assert line.startswith("[1/1] zeros, seed 0: test accuracy ")


@pytest.mark.parametrize(("verbose", "has_bar"), [(0, False), (1, True), (2, False)])
def test_a_bar_is_shown_at_1_only(verbose, has_bar):
    console = Console(width=80, force_terminal=True, record=True, quiet=not verbose)
    with Reporter(3, 4, verbose=verbose, console=console) as reporter:
        assert reporter._bar.disable != has_bar


def test_the_time_left_counts_epochs():
    now = [100.0]
    console = Console(width=80, force_terminal=True, record=True, quiet=False)
    reporter = Reporter(3, 4, clock=lambda: now[0], console=console)
    task = Task("he_normal", "he_normal", 7, studies.build, None, "", 4, 8, None)
    with reporter:
        reporter.begin(task)
        assert reporter.left() == ""
        for epoch in range(4):
            now[0] += 2
            reporter.epoch()
            assert reporter.left() == f"about 0:00:{2 * (11 - epoch):02} left"
        shown = reporter._bar.tasks[0]
        assert shown.description == "he_normal, seed 7, epoch 4/4"
        assert (shown.completed, shown.total) == (4, 12)
        curves = {"test_loss": np.array([2.0, 1.5])}
        reporter.end(Run("he_normal", 7, curves, 8.0))
        reporter.end(Run("zeros", 7, error="E: x"))
    text = console.export_text()
    assert "[1/3] he_normal, seed 7: test loss 1.5 after 8.0 s, about 0:00:16" in text
    assert "[2/3] zeros, seed 7: failed, E: x, about 0:00:04 left" in text
