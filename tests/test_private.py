"""Private names of Keras and its backends: where they are used, and if one is gone."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from test_imports import imports, module_of, sources

import keras_initlab
from keras_initlab import callbacks
from keras_initlab._keras import private

ROOM = Path(private.__file__).parent
# Names with an underscore that are documented: of named tuples, and of `sys`.
DOCUMENTED = {"_replace", "_getframe"}
# Put there by `replaced` or read by `vars`, beside what is read by `getattr`.
LIBRARIES = ("keras.src", "jax._src", "jaxlib", "tensorflow.python", "torch._")


def own_names(trees):
    """Every name with an underscore that our own sources define."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and is_set_on_self(node):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def is_set_on_self(node):
    return isinstance(node.ctx, ast.Store) and is_of_self(node)


def is_of_self(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def is_private(name):
    return name.isidentifier() and name[0] == "_" != name and name[1] != "_"


def named(tree):
    """`(name, is of self)` of every private attribute and string in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, is_of_self(node)
        elif isinstance(node, ast.Constant) and is_private(str(node.value)):
            yield node.value, False


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def in_private():
    """The names of other libraries that the one module gives access to."""
    tree = parsed(ROOM / "private.py")
    return {name for name, _ in named(tree)} - own_names([tree])


NAMES = sorted(in_private())


def elsewhere():
    return [path for path in sources() if not path.is_relative_to(ROOM)]


def offenders(tree, own):
    """Private names of other libraries in a source outside the room."""
    for name, is_ours in named(tree):
        is_known = name in own or name in DOCUMENTED
        if not is_ours and (name in NAMES or not is_known):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).startswith(LIBRARIES):
            yield node.value


def test_nothing_outside_the_room_names_them():
    trees = {path: parsed(path) for path in elsewhere()}
    own = own_names(trees.values())
    texts = {"_initializer", "_kernel", "_variables", "_units", "_shape", "_fraction"}
    texts |= {"_generators", "_observed_"}
    modules = {path.stem for path in elsewhere()}
    found = {
        f"{'.'.join(module_of(path))}: {name}"
        for path, tree in trees.items()
        for name in offenders(tree, own | texts | modules)
    }
    assert found == set()


def test_nothing_outside_the_room_imports_private_modules():
    found = [
        (".".join(module_of(path)), name)
        for path in elsewhere()
        for name, _ in imports(path)
        if name.startswith(LIBRARIES)
    ]
    assert found == []


def test_the_check_can_fail():
    text = "layer._flatten_layers()\ngetattr(x, '_jax_state')\nx._brand_new"
    tree = ast.parse(f"{text}\nx.startswith('keras.src.layers')")
    found = set(offenders(tree, set()))
    names = {"_flatten_layers", "_jax_state", "_brand_new"}
    assert found == names | {"keras.src.layers"}


def test_nothing_private_is_needed_to_import_the_module():
    tree = parsed(ROOM / "private.py")
    outer = [one for one in tree.body if not isinstance(one, ast.FunctionDef)]
    names = {name for one in outer for name, _ in named(one)} - own_names([tree])
    assert names == {"_trainable_variables", "_non_trainable_variables"}  # as text


GONE = """
import keras
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from keras.src.trainers import compile_utils
del compile_utils.CompileLoss, seed_generator.python_random
del global_state.GLOBAL_STATE_TRACKER
for name in {names}:
    for kind in (keras.Layer, keras.Model, keras.Sequential, keras.Operation,
                 keras.KerasTensor, keras.Variable, keras.optimizers.Optimizer):
        if name in vars(kind):
            delattr(kind, name)
import keras_initlab, keras_initlab.callbacks, keras_initlab.plots
from keras_initlab._keras import private
try:
    private.compile_loss("mse")
except RuntimeError as error:  # which `compare` raises for all its runs
    print(error)
"""


def test_the_package_imports_without_any():
    code = GONE.format(names=NAMES)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rule = "needs `keras.src.trainers.compile_utils.CompileLoss`, which is private"
    assert rule in done.stdout
    assert f"keras {keras.__version__} without it" in done.stdout


def network():
    hidden = [layers.Dense(4, "relu", name=f"hidden{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def watched(model):
    norms = callbacks.GradientNormLogger(every=1, clipped=True)
    dead = callbacks.DeadReLULogger(every=1)
    model.fit(X, X[:, :1], verbose=0, callbacks=[norms, dead])
    assert np.isfinite(norms.history["global_norm"]).all()


def compared(model):
    keras_initlab.compare(
        network, ["zeros"], 2 * ((X, X[:, :1]),), seeds=(0,), epochs=1, verbose=0
    )


FUNCTIONS = {
    "apply": lambda model: keras_initlab.recommend(model).apply(seed=0).undo(),
    "audit": keras_initlab.audit,
    "calibrate": lambda model: keras_initlab.calibrate(model, X, seed=0),
    "compare": compared,
    "fans": keras_initlab.fans,
    "fit": watched,
    "probe": lambda model: keras_initlab.probe(model, X, X[:, :1]),
    "recycle": lambda model: model.fit(
        X, X[:, :1], verbose=0, callbacks=[callbacks.DormantUnitRecycler(every=1)]
    ),
    "reinitialize": lambda model: keras_initlab.reinitialize(model, seed=0),
}


@pytest.fixture
def without(monkeypatch):
    """Takes a private name away from us, while Keras itself still has it."""

    def take(gone):
        def look_up(owner, name, *default):
            if name != gone:
                return getattr(owner, name, *default)
            if default:
                return default[0]
            raise AttributeError(name)

        monkeypatch.setattr(private, "getattr", look_up, raising=False)
        has = lambda owner, name: name != gone and hasattr(owner, name)  # noqa: E731
        monkeypatch.setattr(private, "hasattr", has, raising=False)

    return take


@pytest.mark.filterwarnings("ignore:.*ReLU units")
@pytest.mark.parametrize(
    "name", [*NAMES, "CompileLoss", "get_keras_mask", "python_random"]
)
def test_each_function_works_or_says_what_is_missing(without, name):
    without(name)
    for function in FUNCTIONS.values():
        model = network()
        before = [np.array(one) for one in model.get_weights()]
        told = missing_in(function, model)
        if told is not None:
            assert name in told
            assert "is private to" in told
            for was, now in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(was, now)


def missing_in(function, model):
    try:
        function(model)
    except RuntimeError as error:  # which `compare` raises for all its runs
        return str(error)
    return None
