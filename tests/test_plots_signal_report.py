from types import SimpleNamespace

import numpy as np
import pytest

from keras_initlab import plots
from keras_initlab.probing import GradientSpread, LayerSignal, Spread

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

BLUE, VERMILION = "#0072B2", "#D55E00"


def of_std(std, zeros=0.5, not_finite=0):
    return Spread(100, 0.0, std, -1.0, 1.0, zeros, std, not_finite)


def row(index, before, after, gradient, **others):
    return LayerSignal(
        path=f"model/dense_{index}",
        kind="Dense",
        preactivation=of_std(before),
        output=after if isinstance(after, Spread) else of_std(after),
        gradient=None if gradient is None else GradientSpread(1.0, 0.0, gradient),
        **others,
    )


ROWS = [
    row(0, 1.0, 0.5, 1e-3, variance_preservation=0.9, units=8, dead_units=(1, 4)),
    row(1, 0.1, 0.05, 1e-1, variance_preservation=0.2, units=8),
    row(2, 0.0, of_std(np.nan, 0.0, 3), None),
]


def report(layers=ROWS, diagnosis=("The signal dies.", "b", "c", "d", "e")):
    found = SimpleNamespace(model_name="model", diagnosis=diagnosis)

    class Report(list):
        pass

    made = Report(layers)
    vars(made).update(vars(found))
    return made


def lines(axes):
    return {
        line.get_color(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.get_lines()
        if line.get_linestyle() in ("-", "--")
    }


def marks(axes, kind):
    return [m.get_ydata().tolist() for m in axes.get_lines() if m.get_marker() == kind]


def test_panels_show_the_figures_over_depth():
    figure = plots.signal_report(report(), "a title")
    signal, kept, gradient, shares = figure.axes
    assert lines(signal)[BLUE] == ([1.0, 0.1], [0, 1])
    assert lines(signal)[VERMILION] == ([0.5, 0.05], [0, 1])
    assert lines(kept)[BLUE] == ([0.9, 0.2], [0, 1])
    assert lines(gradient)[BLUE] == ([1e-3, 1e-1], [0, 1])
    assert all(axes.get_xscale() == "log" for axes in (signal, kept, gradient))
    widths = [bar.get_width() for bar in shares.patches]
    assert widths == [50, 50, 0, 25, 0, 0]
    assert figure.get_suptitle() == "a title"
    assert signal.get_ylim() == (2.5, -0.5)


def test_what_a_log_axis_cannot_show_is_marked():
    signal = plots.signal_report(report()).axes[0]
    assert marks(signal, "x") == [[2]]  # a std of 0
    assert marks(signal, ">") == [[2]]  # not finite


def test_the_diagnosis_stands_below():
    text = plots.signal_report(report()).get_supxlabel()
    assert text.splitlines() == ["The signal dies.", "b", "c", "and 2 more"]
    assert plots.signal_report(report(diagnosis=())).get_supxlabel() == (
        "nothing unusual"
    )


def test_layers_that_did_not_run_are_left_out():
    spare = LayerSignal("model/spare", "Dense")
    labels = plots.signal_report(report([*ROWS, spare])).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["dense_0", "dense_1", "dense_2"]
    with pytest.raises(ValueError, match="1 layers, none of which ran"):
        plots.signal_report(report([spare]))


def test_a_report_draws_itself():
    import keras

    import keras_initlab as initlab

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu")])
    figure = initlab.probe(model, np.ones((8, 4), "float32")).plot()
    assert figure.get_suptitle() == model.name
