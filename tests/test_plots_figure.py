import pickle
import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_initlab import plots

# Nothing here depends on the backend: once is enough.
pytestmark = pytest.mark.tensorflow


@pytest.fixture
def figure():
    return plots.weights({"a": np.eye(4)}, title="a title")


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_a_notebook_gets_a_picture(figure):
    data, shown = figure._repr_png_()
    inches = figure.get_size_inches()
    np.testing.assert_allclose(png_size(data), 150 * inches, atol=1)
    np.testing.assert_allclose([shown["width"], shown["height"]], 96 * inches, atol=1)


def test_ipython_finds_the_picture(figure):
    formatters = pytest.importorskip("IPython.core.formatters")
    bundle, about = formatters.DisplayFormatter().format(figure)
    assert {"image/png", "text/plain"} <= set(bundle)
    assert about["image/png"]["width"] == 240


def test_a_plain_figure_has_none():
    """What the subclass is there for."""
    assert not hasattr(Figure(), "_repr_png_")


def test_it_is_a_figure_like_any_other(figure, tmp_path):
    copy = pickle.loads(pickle.dumps(figure))
    assert copy.get_suptitle() == "a title"
    assert copy._repr_png_()[1] == figure._repr_png_()[1]
    assert isinstance(figure, Figure)
    for name in ("x.png", "x.svg", "x.pdf"):
        figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 3_000


def test_showing_leaves_pyplot_alone(figure):
    from matplotlib import pyplot

    figure._repr_png_()
    assert pyplot.get_fignums() == []
