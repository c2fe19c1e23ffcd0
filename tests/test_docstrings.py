import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import keras_initlab
import keras_initlab.callbacks
import keras_initlab.plots

NEEDS_NO_EXAMPLE = {
    "ActivationStatistics",
    "Alert",
    "Applied",
    "CriticalPoint",
    "Fans",
    "KernelAxes",
    "SignalReport",
    "UnitEvent",
    "WidthsRecommendation",
}


def modules():
    walked = pkgutil.walk_packages(keras_initlab.__path__, "keras_initlab.")
    return ["keras_initlab", *(info.name for info in walked)]


def public():
    """Every public class and function, with the name users import it by."""
    inner = [keras_initlab.initializers, keras_initlab.callbacks, keras_initlab.plots]
    doors = [keras_initlab, *inner]
    for door in doors:
        for name, value in vars(door).items():
            if not name.startswith("_") and (
                inspect.isclass(value) or inspect.isfunction(value)
            ):
                yield pytest.param(value, id=f"{door.__name__}.{name}")


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    _, is_adapter, backend = name.partition("._observe_")
    if is_adapter and backend != keras.backend.backend():
        pytest.skip(f"imports the library of the {backend} backend")
    module = importlib.import_module(name)
    keras.utils.set_random_seed(0)
    globs = {**vars(module), "keras": keras, "np": np, "keras_initlab": keras_initlab}
    result = doctest.testmod(module, globs=globs, raise_on_error=False)
    assert result.failed == 0


@pytest.mark.parametrize("value", list(public()))
def test_public_names_are_documented(value):
    text = inspect.getdoc(value)
    assert text
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    is_record = value.__name__ in {
        *NEEDS_NO_EXAMPLE,
        "Recommendation",
        "Audit",
        "Comparison",
        "Finding",
    }
    if not is_error and not is_record:
        assert ">>>" in text, "no example"
        assert "Args:" in text, "no arguments"
        assert "Raises:" in text, "no errors"
