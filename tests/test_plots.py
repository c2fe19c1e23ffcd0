import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow


class Logger:
    def __init__(self, first, last, dead):
        layers = {
            f"dense_{i}": np.array(pair)
            for i, pair in enumerate(zip(first, last, strict=False))
        }
        self.history = {
            "layers": layers,
            "dead_fraction": {
                f"dense_{i}": np.array([0.0, d]) for i, d in enumerate(dead)
            },
        }


HISTORIES = {"bad": {"val_accuracy": [0.1, 0.2]}, "good": {"val_accuracy": [0.5, 0.9]}}
LOGGERS = {
    "bad": Logger([1e-9, 1e-3, 1.0], [1e-8, 1e-2, 2.0], [0.0, 0.5, 1.0]),
    "good": Logger([1.0, 1.1, 1.2], [0.5, 0.6, 0.7], [0.0, 0.0, 0.25]),
}


def lines(axes):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def test_every_panel_shows_the_numbers():
    figure = plots.training_comparison(HISTORIES, LOGGERS, LOGGERS, title="t")
    assert isinstance(figure, Figure)
    curves, norms, dead = figure.axes
    np.testing.assert_allclose(lines(curves)["good: 0.900"], [0.5, 0.9])
    np.testing.assert_allclose(lines(norms)["bad, first step"], [1e-9, 1e-3, 1.0])
    np.testing.assert_allclose(lines(norms)["bad, last step"], [1e-8, 1e-2, 2.0])
    np.testing.assert_allclose(lines(dead)["bad"], [0.0, 50.0, 100.0])
    assert norms.get_yscale() == "log"


def test_panels_follow_what_was_given():
    assert len(plots.training_comparison(HISTORIES).axes) == 1
    assert len(plots.training_comparison(HISTORIES, LOGGERS).axes) == 2


def test_a_figure_can_be_saved(tmp_path):
    plots.training_comparison(HISTORIES, LOGGERS).savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_missing_metric_is_named():
    with pytest.raises(ValueError, match=r"metric='nope'.*'bad'.*val_accuracy"):
        plots.training_comparison(HISTORIES, metric="nope")


def test_no_history_is_refused():
    with pytest.raises(ValueError, match=r"must hold a history.*\{\}"):
        plots.training_comparison({})


@pytest.mark.slow
@pytest.mark.slow
def test_without_matplotlib_the_cure_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from keras_initlab import plots\n"
        "plots.training_comparison({'a': {'val_accuracy': [0.1]}})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert 'pip install "keras_initlab[plot]"' in result.stderr
