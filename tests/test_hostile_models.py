"""Every function that takes a model, on every hostile model: right, or clear."""

import contextlib
import json

import hostile
import keras
import matplotlib
import numpy as np
import pytest
from hostile_models import IS_JAX, MODELS, MineError, hosted

import keras_initlab as initlab
from keras_initlab import plots
from keras_initlab.diagnosis import KINDS
from keras_initlab.initializers import MatchPretrained
from keras_initlab.inspection import variable_paths

matplotlib.use("agg")
pytestmark = pytest.mark.filterwarnings(
    "ignore::keras_initlab.UnknownLayerWarning"  # of the custom layers here
)


def paths_of(model):
    """The paths of its variables, those that are equal told apart."""
    return {*variable_paths(model, model.variables)}


def is_json(report):
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert repr(report)


def is_drawn(model, applied):
    """Whether what was applied is finite, and undone to the last bit."""
    assert len({*applied.changed}) == len(applied.changed)
    written = [v for v in model.variables if v.path in {*applied.changed}]
    try:
        assert all(np.isfinite(hostile.to_array(one)).all() for one in written)
    finally:
        applied.undo()


def fans(model, x):
    found = initlab.fans(model)
    assert {*found} <= paths_of(model)
    assert all(min(one) >= 0 for one in found.values())


def recommend(model, x, policy="signal"):
    advice = initlab.recommend(model, policy)
    is_json(advice)
    assert len(advice) == len(initlab.fans(model))


def rules(model, x):
    recommend(model, x, "rules")


def apply(model, x):
    is_drawn(model, initlab.recommend(model).apply(seed=0, overwrite=True))


def calibrated(model, x):
    advice = initlab.recommend(model, "calibrated", data=x)
    is_drawn(model, advice.apply(seed=0, overwrite=True))


def audit(model, x):
    found = initlab.audit(model)
    is_json(found)
    kinds = {finding.kind for finding in found}
    assert kinds <= {*KINDS}
    floating = [v for v in model.variables if "float" in v.dtype]
    values = [hostile.to_array(v).astype("float64") for v in floating]
    assert ("not finite" in kinds) != all(np.isfinite(one).all() for one in values)


def probe(model, x):
    report = initlab.probe(model, x)
    is_json(report)
    assert report.examples == 4
    assert {layer.path for layer in report} or not initlab.fans(model)


def calibrate(model, x):
    is_drawn(model, initlab.calibrate(model, x, overwrite=True))


def reinitialize(model, x):
    applied = initlab.reinitialize(model, seed=0)
    is_drawn(model, applied)


def picture(function):
    def draw(model, x):
        figure = function(model, most=2)
        assert figure.axes

    return draw


def match_pretrained(model, x):
    assert 0 < MatchPretrained.from_kernel(model).std < np.inf


ENTRIES = {
    "fans": (fans, ["fans", "Fans"]),
    "recommend": (recommend, ["recommend", "Recommendation"]),
    "rules": (rules, ["recommend", "Recommendation"]),
    "apply": (apply, ["Recommendation", "Applied"]),
    "calibrated": (calibrated, ["recommend", "Applied"]),
    "audit": (audit, ["audit", "Audit", "Finding"]),
    "probe": (probe, ["probe", "SignalReport"]),
    "calibrate": (calibrate, ["calibrate", "Applied"]),
    "reinitialize": (reinitialize, ["reinitialize", "Applied"]),
    "plots.weights": (picture(plots.weights), ["plots.weights"]),
    "plots.weight_histograms": (
        picture(plots.weight_histograms),
        ["plots.weight_histograms"],
    ),
    "MatchPretrained": (match_pretrained, ["initializers.MatchPretrained"]),
}


def cases():
    for name, host in MODELS.items():
        for entry, (_, asked) in ENTRIES.items():
            pattern = host.refused.get("", host.refused.get(entry))
            marked = hostile.case(
                name, entry, pattern, asks=asked, id=f"{name}-{entry}"
            )
            # JAX compiles each operation for each shape.
            slow = [pytest.mark.slow] if IS_JAX and entry == "calibrated" else []
            yield pytest.param(
                *marked.values, marks=[*marked.marks, *slow], id=marked.id
            )


@pytest.mark.parametrize(("name", "entry", "pattern"), [*cases()])
def test_a_model_is_read_rightly_or_refused_clearly(name, entry, pattern):
    model, (function, _) = hosted(name), ENTRIES[entry]
    expected = contextlib.nullcontext()
    if pattern is not None:
        expected = pytest.raises((ValueError, MineError), match=f"(?s){pattern}")
    with hostile.left_as_it_was(model), expected:
        function(model, MODELS[name].x)


@hostile.asks("UnbuiltModelError", "NoKernelsError", "UnsupportedModelError")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("unbuilt", initlab.UnbuiltModelError),
        ("no kernels", initlab.NoKernelsError),
        ("raises", initlab.UnsupportedModelError),
    ],
)
def test_errors_are_of_their_own_kind(name, error):
    with pytest.raises(error, match=r"Received: model="):
        initlab.recommend(hosted(name))


@hostile.asks("StructureChangedError", "Recommendation", "Applied")
def test_a_model_that_has_changed_since():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    advice = initlab.recommend(model)
    applied = advice.apply(seed=0)
    model.add(keras.layers.Dense(2))
    for act in (advice.apply, applied.undo):
        with (
            hostile.left_as_it_was(model),
            pytest.raises(initlab.StructureChangedError, match="with other variables"),
        ):
            act()


@hostile.asks("TrainedWeightsError", "Recommendation", "calibrate")
def test_a_model_that_has_been_trained():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((4, 3), "float32")
    model.fit(x, x[:, :2], verbose=0)
    for act in (
        initlab.recommend(model).apply,
        lambda: initlab.calibrate(model, x),
    ):
        with (
            hostile.left_as_it_was(model),
            pytest.raises(initlab.TrainedWeightsError, match="has taken 1 steps"),
        ):
            act()


@hostile.asks("fans", "recommend", "audit", "reinitialize", "probe")
@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.timeout(900)
def test_ten_thousand_layers():
    hidden = [keras.layers.Dense(1, "relu") for _ in range(10_000)]
    model = keras.Sequential([keras.Input((1,)), *hidden])
    assert len(initlab.fans(model)) == 10_000
    assert len(initlab.recommend(model)) == 10_000
    initlab.audit(model)
    assert len(initlab.reinitialize(model, seed=0).changed) == 20_000
