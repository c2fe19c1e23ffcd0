from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from test_plots_gradient_norms import NORMS, STEPS, labels, legend, logger, meshes

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow

NAN = np.nan
VARIABLES = {
    f"model/dense/{name}": 10.0 ** np.random.default_rng(i).normal(size=5)
    for i, name in enumerate(("kernel", "bias"))
}


def test_it_is_layers_by_steps():
    figure = plots.gradient_heat_map(logger(), title="norms")
    (axes,) = figure.axes
    (mesh,) = meshes(axes)
    np.testing.assert_array_equal(mesh.get_array(), NORMS)
    assert isinstance(mesh.norm, LogNorm)
    np.testing.assert_allclose(mesh.get_clim(), [NORMS.min(), NORMS.max()])
    edges = mesh.get_coordinates()
    np.testing.assert_array_equal(edges[0, :, 0], [-5, 5, 15, 21.5, 26.5, 33.5])
    np.testing.assert_array_equal(edges[:, 0, 1], [-0.5, 0.5, 1.5, 2.5])
    assert axes.yaxis_inverted()
    assert labels(axes) == ["dense_0", "dense_1", "dense_2"]
    assert axes.get_ylabel() == "layer of model"
    assert axes.get_xlabel() == "step"
    assert axes.get_xlim() == (-5, 33.5)
    assert axes.get_title(loc="left") == "Gradient norm by layer"
    assert figure.get_suptitle() == "norms"


def test_it_may_be_variables_by_steps():
    (axes,) = plots.gradient_heat_map(logger(variables=VARIABLES), "variable").axes
    (mesh,) = meshes(axes)
    np.testing.assert_array_equal(mesh.get_array(), list(VARIABLES.values()))
    assert labels(axes) == ["kernel", "bias"]
    assert axes.get_ylabel() == "variable of model/dense"
    assert axes.get_title(loc="left") == "Gradient norm by variable"


def test_the_first_number_that_is_not_finite_is_marked(tmp_path):
    norms = NORMS.copy()
    norms[1, 2:] = NAN
    found = SimpleNamespace(path="model/dense_1", step=20)
    figure = plots.gradient_heat_map(logger(norms, first=found))
    (axes,) = figure.axes
    mesh, broken = meshes(axes)
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), np.isnan(norms))
    np.testing.assert_array_equal(
        ~np.ma.getmaskarray(broken.get_array()), np.isnan(norms)
    )
    assert legend(axes) == ["NaN or infinite", "first: dense_1, step 20"]
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "X"]
    assert [list(each) for each in cross.get_data()] == [[20], [1]]
    figure.savefig(tmp_path / "x.png")


def test_many_layers_at_one_step(tmp_path):
    norms = np.logspace(-9, 3, 80)[:, None]
    figure = plots.gradient_heat_map(logger(norms, steps=[7]))
    figure.savefig(tmp_path / "x.png")
    width, height = figure.get_size_inches()
    assert width < 10
    assert height < 8


def test_another_history_is_refused():
    with pytest.raises(ValueError, match=r"`by` must be one of.*by='unit'"):
        plots.gradient_heat_map(logger(), "unit")
    with pytest.raises(ValueError, match=r"GradientNormLogger.*Simple.*'step'\]"):
        plots.gradient_heat_map(SimpleNamespace(history={"step": STEPS}))
    with pytest.raises(ValueError, match=r"GradientNormLogger.*with \['global_norm'"):
        plots.gradient_heat_map(logger(), "variable")
    with pytest.raises(ValueError, match=r"observed training.*an empty history"):
        plots.gradient_heat_map(logger(np.zeros((0, 5))))
