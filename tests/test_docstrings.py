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

pytestmark = pytest.mark.whole

RECORDS = {
    "ActivationStatistics",
    "Applied",
    "Audit",
    "Comparison",
    "CriticalPoint",
    "Fans",
    "Finding",
    "KernelAxes",
    "Recommendation",
    "SignalReport",
    "UnitEvent",
    "WidthsRecommendation",
}
WITHOUT_EXAMPLE = {keras_initlab.Comparison}  # `compare` has one, and makes it
DOORS = [
    keras_initlab,
    keras_initlab.initializers,
    keras_initlab.callbacks,
    keras_initlab.plots,
]


def modules():
    found = ["keras_initlab", "keras_initlab.callbacks"]
    # The callbacks lie in a folder of their own, which a walk from the top leaves out.
    for package in (keras_initlab, keras_initlab.callbacks):
        walked = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found += [info.name for info in walked]
    return list(dict.fromkeys(found))


def public():
    """Every public class and function, with the name users import it by."""
    for door in DOORS:
        for name in door.__all__:
            value = getattr(door, name)
            if inspect.isclass(value) or inspect.isfunction(value):
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


def is_record(value):
    """Whether users are handed it, and make none themselves."""
    return inspect.isclass(value) and "Args:" not in str(inspect.getdoc(value))


@pytest.mark.parametrize("value", list(public()))
def test_public_names_are_documented(value):
    text = inspect.getdoc(value)
    assert text
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    assert ">>>" in text or value in WITHOUT_EXAMPLE, "no example"
    if is_record(value):
        assert "Attributes:" in text, "nothing to read"
    else:
        assert "Args:" in text, "no arguments"
        assert "Raises:" in text, "no errors"


@pytest.mark.parametrize("value", list(public()))
def test_examples_of_public_names_are_among_those_that_run(value):
    assert value.__module__ in modules()


def test_what_needs_no_arguments_is_a_record():
    """So that an initializer or callback cannot pass for one."""
    classes = [one.values[0] for one in public() if is_record(one.values[0])]
    records = {one.__name__ for one in classes if not issubclass(one, Exception)}
    assert records == RECORDS
