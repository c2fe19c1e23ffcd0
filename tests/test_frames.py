import sys

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_initlab.callbacks import (
    ActivationStatsLogger,
    DeadReLULogger,
    GradientNormLogger,
)

pytestmark = pytest.mark.slow_on_jax

KINDS = {
    "mean": "activation_mean",
    "std": "activation_std",
    "min": "activation_min",
    "max": "activation_max",
    "zero_share": "activation_zero_share",
    "preactivation_mean": "preactivation_mean",
    "preactivation_std": "preactivation_std",
    "variance_preservation": "variance_preservation",
}
LOGGERS = (GradientNormLogger, DeadReLULogger, ActivationStatsLogger)


@pytest.fixture(scope="module")
def fitted():
    """Loggers by class after two epochs of three steps, and what their logs got."""
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(6, "relu6", name="hidden")
    model = keras.Sequential(
        [keras.Input((4,)), hidden, keras.layers.Dense(2, name="out")], name="model"
    )
    model.compile("sgd", "mse")
    hidden.bias.assign([0, -100, 0, 100, 0, 0])
    found = {}
    for kind in LOGGERS:
        more = {"clipped": True, "updates": True} if kind is GradientNormLogger else {}
        rows = {}
        found[kind] = (kind(every=2, log_to=rows_into(rows), **more), rows)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    y = np.ones((12, 2), "float32")
    loggers = [logger for logger, _ in found.values()]
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=loggers)
    return found


def rows_into(rows):
    return lambda metrics, step: rows.__setitem__(step, metrics)


def expected(logger):
    """The columns that the history says the frame has, in their order."""
    history = logger.history
    if isinstance(logger, DeadReLULogger):
        kinds = {
            "dead_fraction": "dead_relu_fraction",
            "saturated_fraction": "saturated_fraction",
        }
        return named(history, kinds)
    columns = {"epoch": history["epoch"]}
    if isinstance(logger, ActivationStatsLogger):
        return columns | named(history, KINDS)
    for name, whole, layers in (
        ("grad_norm", "global_norm", "layers"),
        ("clipped_grad_norm", "clipped_global_norm", "clipped_layers"),
        ("update_ratio", "update_ratio", "update_ratios"),
    ):
        columns |= {name: history[whole]} | named(history, {layers: name})
    return columns


def named(history, kinds):
    return {
        f"{name}/{path}": values
        for kind, name in kinds.items()
        for path, values in history[kind].items()
    }


@pytest.mark.parametrize("kind", LOGGERS)
def test_the_frame_is_the_history(fitted, kind):
    pytest.importorskip("pandas")
    logger, _ = fitted[kind]
    frame, columns = logger.to_frame(), expected(logger)
    index = "epoch" if kind is DeadReLULogger else "step"
    assert frame.index.name == index
    np.testing.assert_array_equal(frame.index, logger.history[index])
    assert len(frame) == (2 if kind is DeadReLULogger else 4)
    assert list(frame.columns) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(frame[name], values, err_msg=name)


@pytest.mark.parametrize("kind", [GradientNormLogger, ActivationStatsLogger])
def test_columns_are_what_the_logs_got(fitted, kind):
    pytest.importorskip("pandas")
    logger, rows = fitted[kind]
    frame = logger.to_frame()
    assert list(rows) == list(frame.index) == [0, 2, 3, 4]
    for step, metrics in rows.items():
        assert set(metrics) == set(frame.columns) - {"epoch"}
        for name, value in metrics.items():
            np.testing.assert_equal(frame.loc[step, name], value)


def test_shares_of_dead_units_are_what_the_logs_got(fitted):
    pytest.importorskip("pandas")
    logger, rows = fitted[DeadReLULogger]
    frame = logger.to_frame()
    for epoch, metrics in enumerate(rows.values()):
        by_layer = {name: value for name, value in metrics.items() if "/" in name}
        assert frame.loc[epoch].to_dict() == by_layer
    dead, saturated = frame.iloc[0]
    assert dead >= 1 / 6  # the bias of -100
    assert saturated >= 1 / 6  # the bias of 100


@pytest.mark.parametrize("kind", LOGGERS)
def test_a_frame_before_training_is_empty(kind):
    pytest.importorskip("pandas")
    frame = kind().to_frame()
    assert len(frame) == 0
    assert frame.index.name == ("epoch" if kind is DeadReLULogger else "step")


@pytest.mark.parametrize("kind", LOGGERS)
def test_without_pandas_the_cure_is_named(fitted, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"without it.*keras_initlab\[frame\]"):
        fitted[kind][0].to_frame()


@pytest.mark.parametrize("kind", LOGGERS)
def test_a_logger_draws_itself(fitted, kind):
    figure = fitted[kind][0].plot()
    assert isinstance(figure, Figure)
    assert len(figure.axes) == (
        2 if kind is DeadReLULogger else 3 + (kind is not GradientNormLogger)
    )


@pytest.mark.parametrize("kind", LOGGERS)
def test_nothing_is_drawn_before_training(kind):
    with pytest.raises(ValueError, match=f"observed training.*{kind.__name__} with"):
        kind().plot()


@pytest.mark.parametrize("kind", LOGGERS)
def test_without_matplotlib_the_cure_is_named(fitted, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"without it.*keras_initlab\[plot\]"):
        fitted[kind][0].plot()
