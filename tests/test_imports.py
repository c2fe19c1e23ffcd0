import ast
import functools
import graphlib
import importlib
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow_on_jax

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_initlab"
CALLBACKS = ROOT / "callbacks"

# Imports point down this list: a part may import parts of lower floors only.
FLOORS = {
    "_core": 0,
    "_keras": 1,
    "_activations": 2,
    "initializers": 3,
    "observing": 3,
    "inspection": 4,
    "_weights": 5,
    "calibration": 6,
    "plots": 6,
    "recommend": 7,
    "diagnosis": 8,
    "callbacks": 9,
    "_cli": 9,
    "probing": 9,
    "compare": 9,
    "__init__": 10,
    "__main__": 11,
}
PUBLIC = [
    "keras_initlab",
    "keras_initlab.calibration",
    "keras_initlab.callbacks",
    "keras_initlab.compare",
    "keras_initlab.diagnosis",
    "keras_initlab.initializers",
    "keras_initlab.inspection",
    "keras_initlab.plots",
    "keras_initlab.probing",
    "keras_initlab.recommend",
    "keras_initlab.observing",
]
# What loads only where it is used: {module: files that may import it}.
HEAVY = {
    "matplotlib": {"_style.py", "_figure.py"},
    "tensorflow": {"_backward_tensorflow.py", "_observe_tensorflow.py"},
    "jax": {
        "_backward_jax.py",
        "_observe_jax.py",
        "_pointwise.py",
        "_singular.py",
    },
    "torch": {"_backward_torch.py", "_observe_torch.py", "random.py"},
    "tensorboard": {"_tensorboard.py"},
    "distributed": set(),
    "sklearn": set(),
    "pandas": {"pandas.py"},
    "scipy": set(),
}
# Files that are themselves imported only where they are used.
LAZY = ("_observe_", "_figure.py")


def sources():
    return sorted([*PACKAGE.rglob("*.py"), *CALLBACKS.rglob("*.py")])


def module_of(path):
    """The dotted name under which a source file is imported."""
    if path.is_relative_to(CALLBACKS):
        inner = path.relative_to(CALLBACKS)
        parts = ["keras_initlab", "callbacks", *inner.with_suffix("").parts]
    else:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts


@functools.cache
def imports(path):
    """`(dotted name, is at module level)` of every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_of(path)[:-1]
    found = []

    def visit(node, is_top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, is_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                stem = [*base, *(child.module.split(".") if child.module else [])]
                found.extend(
                    (".".join([*stem, alias.name]), is_top) for alias in child.names
                )
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            visit(child, is_top and not inner)

    visit(tree, True)
    return found


def part_of(parts):
    return parts[1] if len(parts) > 1 else "__init__"


def test_imports_point_down():
    up = [
        f"{own} imports {other}"
        for path in sources()
        for own, other in steps_of(path)
        if FLOORS[other] >= FLOORS[own]
    ]
    assert up == []


def steps_of(path):
    """The imports of other parts in a file: `(its own part, the other)`."""
    own = part_of(module_of(path))
    names = [name.split(".") for name, _ in imports(path)]
    others = [part_of(parts) for parts in names if parts[0] == "keras_initlab"]
    return [(own, other) for other in others if other != own]


def test_parts_use_one_another_through_their_doors():
    """No package imports what another one keeps in a module with an underscore."""
    through_walls = [
        f"{'.'.join(module_of(path))}: {name}"
        for path in sources()
        for name, _ in imports(path)
        if _is_through_a_wall(module_of(path)[:-1], name.split("."))
    ]
    assert through_walls == []


def _is_through_a_wall(package, name):
    same = [one == other for one, other in zip(package, name, strict=False)]
    shared = [*same, False].index(False)
    is_ours = name[0] == "keras_initlab" and shared < len(package)
    return is_ours and any(one.startswith("_") for one in name[shared + 1 :])


def test_the_check_of_walls_can_fail():
    package = ["keras_initlab", "diagnosis"]
    for name, is_bad in {
        "keras_initlab.recommend._row": True,
        "keras_initlab._keras.kinds._axes": True,
        "keras_initlab.recommend._name": True,
        "keras_initlab.recommend": False,
        "keras_initlab._keras.kinds": False,
        "keras_initlab.diagnosis._signs": False,
    }.items():
        assert _is_through_a_wall(package, name.split(".")) == is_bad


@pytest.mark.parametrize("name", PUBLIC)
def test_public_packages_list_what_they_offer(name):
    module = importlib.import_module(name)
    assert all(hasattr(module, one) for one in module.__all__)
    assert not any(one.startswith("_") for one in module.__all__)
    text = pydoc.plain(pydoc.render_doc(module))
    assert all(one in text for one in module.__all__)


def test_every_package_without_an_underscore_is_public():
    found = {".".join(module_of(path)[:-1]) for path in sources()}
    assert {one for one in found if "._" not in one} == set(PUBLIC)


def test_every_part_has_a_floor():
    parts = {part_of(module_of(path)) for path in sources()}
    assert parts == set(FLOORS)


def test_the_package_never_imports_its_callbacks():
    for path in PACKAGE.rglob("*.py"):
        assert not any(
            name.startswith("keras_initlab.callbacks") for name, _ in imports(path)
        )


def test_no_cycle_within_a_part():
    files = {".".join(module_of(p)).removesuffix(".__init__"): p for p in sources()}
    graph = {}
    for own, path in files.items():
        names = [name for name, _ in imports(path) if name.startswith("keras_initlab.")]
        graph[own] = {n if n in files else n.rpartition(".")[0] for n in names}
        graph[own] -= {own}
    graphlib.TopologicalSorter(graph).prepare()  # raises where there is one


@pytest.mark.parametrize("module", sorted(HEAVY))
def test_heavy_modules_load_only_where_used(module):
    for path in sources():
        for name, is_top in imports(path):
            if name.split(".")[0] == module:
                assert path.name in HEAVY[module]
                assert not is_top or path.name.startswith(LAZY)


def test_the_reader_of_imports_sees_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "keras_initlab" / "observing" / "_x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from .._keras import kinds\nfrom . import _y\ndef f():\n    import jax\n"
    )
    assert imports(file) == [
        ("keras_initlab._keras.kinds", True),
        ("keras_initlab.observing._y", True),
        ("jax", False),
    ]


@pytest.mark.seconds
def test_importing_loads_nothing_that_only_some_need():
    modules = "keras_initlab, keras_initlab.callbacks, keras_initlab.plots"
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        f"import {modules}\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    optional = {"matplotlib", "sklearn", "pandas", "tensorboard", "scipy", "torch"}
    assert "keras_initlab" in output.split()
    assert optional.isdisjoint(output.split())
