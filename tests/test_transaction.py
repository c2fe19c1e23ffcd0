"""What must not stop half-way: signals wait, and errors are taken back."""

import contextlib
import signal
import threading

import keras
import numpy as np
import pytest
from interruptions import failing_assigns
from keras import layers, ops

from keras_initlab import calibrate, probe, recommend
from keras_initlab._core.transaction import assign_all, uninterrupted, within
from keras_initlab.callbacks import DormantUnitRecycler, _recycler


@contextlib.contextmanager
def handling(handler, number=signal.SIGINT):
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def variables(count=4):
    return [keras.Variable(np.full(3, float(number))) for number in range(count)]


def changes_of(given):
    olds = [ops.convert_to_numpy(one).copy() for one in given]
    return [(one, old, old + 10) for one, old in zip(given, olds, strict=True)]


def firsts(given):
    return [float(ops.convert_to_numpy(one)[0]) for one in given]


OLD, NEW = [0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0]


# --- Signals -------------------------------------------------------------------------


def test_a_signal_waits_until_the_end_and_comes_once():
    events = []
    with handling(lambda number, frame: events.append(number)):
        result = uninterrupted(
            lambda _: [interrupt(), interrupt(), events.append("done"), 5][-1]
        )
        assert events == ["done", signal.SIGINT]
        assert result == 5
        interrupt()  # handled as before
        assert len(events) == 3


def test_two_signals_are_both_handled_though_the_first_raises():
    def fail(number, frame):
        raise RuntimeError(str(number))

    seen = []
    with handling(fail), handling(lambda *_: seen.append(1), signal.SIGTERM):
        with pytest.raises(RuntimeError):
            uninterrupted(lambda _: (interrupt(), signal.raise_signal(signal.SIGTERM)))
        assert seen == [1]


def test_an_error_comes_before_the_signal_that_waits():
    def action(_):
        interrupt()
        raise ValueError("first")

    with pytest.raises(KeyboardInterrupt) as caught:
        uninterrupted(action)
    assert str(caught.value.__context__) == "first"


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_handlers_of_the_system_are_left_alone(handler):
    with handling(handler):
        uninterrupted(lambda _: signal.getsignal(signal.SIGINT) is handler or 1 / 0)
        assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_python_does_not_know_is_left_alone(monkeypatch):
    known, given = signal.getsignal, []
    monkeypatch.setattr(
        signal, "getsignal", lambda n: None if n == signal.SIGINT else known(n)
    )
    set_one = signal.signal
    monkeypatch.setattr(signal, "signal", lambda *a: given.append(a) or set_one(*a))
    uninterrupted(lambda _: None)
    assert signal.SIGINT not in [number for number, _ in given]


def test_a_handler_that_sets_another_one_is_obeyed():
    def other(number, frame):
        raise AssertionError("not called")

    with handling(lambda *_: signal.signal(signal.SIGINT, other)):
        uninterrupted(lambda tell: (interrupt(), tell()))
        assert signal.getsignal(signal.SIGINT) is other


def test_nested():
    events = []
    with handling(lambda *_: events.append("told")):
        uninterrupted(
            lambda _: (
                uninterrupted(lambda tell: (interrupt(), tell())),
                events.append("outer done"),
            )
        )
    assert events == ["outer done", "told"]


def test_in_another_thread_nothing_is_set():
    given, seen = variables(), []
    before = signal.getsignal(signal.SIGINT)

    def work():
        assign_all(changes_of(given))
        seen.append(uninterrupted(lambda _: signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert firsts(given) == NEW


def test_a_context_is_left_before_a_second_signal_is_handled():
    left = []

    @contextlib.contextmanager
    def slow():
        try:
            yield
        finally:
            interrupt()  # the second Ctrl-C, while the first is on its way
            left.append(1)

    with pytest.raises(KeyboardInterrupt):
        within([slow()], interrupt)
    assert left == [1]


# --- Writing -------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("numbers", [{0}, {3}, {1, 2}, {1, 2, 3, 4}, {2, 4, 6}])
def test_errors_while_writing_and_while_going_back(numbers, is_late):
    given = variables()
    text = f"assignment {min(numbers)}"
    with (
        failing_assigns(numbers, KeyboardInterrupt, is_late),
        pytest.raises(KeyboardInterrupt, match=text),
    ):
        assign_all(changes_of(given))
    assert firsts(given) == OLD
    assign_all(changes_of(given))
    assert firsts(given) == NEW


def test_a_signal_while_writing_is_taken_back():
    given = variables()

    def changes():
        for one in changes_of(given):
            interrupt()
            yield one

    with pytest.raises(KeyboardInterrupt):
        assign_all(changes())
    assert firsts(given) == OLD


def test_a_signal_whose_handler_does_not_raise_stops_nothing():
    given, seen = variables(), []
    with handling(lambda *_: seen.append(1)):
        assign_all(one for one in changes_of(given) if interrupt() is None)
    assert seen == [1]
    assert firsts(given) == NEW


def test_what_cannot_be_brought_back_is_named():
    given = variables()
    broken = given[1]

    def failing(value):
        keras.Variable.assign(broken, np.full(3, 7.0))
        raise RuntimeError("out of order")

    object.__setattr__(broken, "assign", failing)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        assign_all(changes_of(given))
    assert firsts(given) == [0.0, 7.0, 2.0, 3.0]
    assert caught.value.__notes__ == [
        f"These variables could not be brought back: {broken.path}."
    ]


def test_what_takes_no_values_at_all_is_as_it_was():
    given = variables()

    def failing(value):
        raise RuntimeError("read only")

    object.__setattr__(given[2], "assign", failing)
    with pytest.raises(RuntimeError, match="read only") as caught:
        assign_all(changes_of(given))
    assert firsts(given) == OLD
    assert not hasattr(caught.value, "__notes__")


def test_an_undo_that_is_interrupted_can_be_called_again():
    dense = [layers.Dense(4, "relu") for _ in range(5)]
    model = keras.Sequential([keras.Input((4,)), *dense])
    old = [ops.convert_to_numpy(one).copy() for one in model.variables]
    applied = recommend(model).apply(seed=0)
    new = [ops.convert_to_numpy(one).copy() for one in model.variables]
    kernel = model.layers[2].kernel

    def interrupted(value):
        vars(kernel).pop("assign", None)
        raise KeyboardInterrupt

    object.__setattr__(kernel, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        applied.undo()
    for one, value in zip(model.variables, new, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), value)
    applied.undo()
    for one, value in zip(model.variables, old, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), value)


# --- Callers -------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def test_a_recycler_notes_what_it_wrote_before_it_is_interrupted(monkeypatch):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)]
    )
    model.compile("adam", "mse")
    recycler = DormantUnitRecycler(0.99, every=1, seed=0)
    renew, written = _recycler.renew, []

    def signalled(*arguments):
        renew(*arguments)
        written.append(arguments)
        interrupt()

    monkeypatch.setattr(_recycler, "renew", signalled)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X[:, :1], batch_size=8, verbose=0, callbacks=[recycler])
    assert len(written) == 1
    history = recycler.history
    assert history["step"].tolist() == [0]
    assert len(history["recycled"][model.layers[0].path]) == 1


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a state of PyTorch's")
@pytest.mark.parametrize(
    "look", [probe, lambda model, x: calibrate(model, x, training=True)]
)
def test_the_generators_that_dropout_draws_from_are_the_same(look):
    import torch

    model = keras.Sequential(
        [keras.Input((6,)), layers.Dropout(0.5), layers.Dense(8), layers.Dense(1)]
    )
    before = torch.get_rng_state()
    look(model, X)
    assert torch.equal(torch.get_rng_state(), before)
