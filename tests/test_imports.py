import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_initlab"
CALLBACKS = ROOT / "callbacks"

# Imports point down this list: a part may import parts of lower floors only.
FLOORS = {
    "_errors": 0,
    "_arrays": 0,
    "_reports": 0,
    "_random": 0,
    "_unchanged": 1,
    "_paths": 1,
    "_seeds": 1,
    "_choosing": 1,
    "_files": 1,
    "_transaction": 1,
    "_pandas": 1,
    "_batch": 2,
    "_fans": 2,
    "_activations": 2,
    "initializers": 3,
    "_drawing": 3,
    "_writing": 3,
    "signal": 3,
    "_reinitialize": 5,
    "_origins": 3,
    "_trained": 4,
    "inspection": 4,
    "_theory": 4,
    "calibration": 5,
    "plots": 5,
    "recommend": 6,
    "audit": 7,
    "callbacks": 7,
    "_cli": 8,
    "probing": 8,
    "compare": 8,
    "__init__": 9,
    "__main__": 10,
}
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
    "torch": {"_backward_torch.py", "_observe_torch.py", "_random.py"},
    "tensorboard": set(),
    "distributed": set(),
    "sklearn": set(),
    "pandas": {"_pandas.py"},
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
                names = [] if child.module else [a.name for a in child.names]
                found.extend(
                    (".".join([*stem, *name.split(".")]), is_top)
                    for name in names or [""]
                )
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            visit(child, is_top and not inner)

    visit(tree, True)
    return [(name.strip("."), is_top) for name, is_top in found]


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


def test_every_part_has_a_floor():
    parts = {part_of(module_of(path)) for path in sources()}
    assert parts == set(FLOORS)


def test_the_package_never_imports_its_callbacks():
    for path in PACKAGE.rglob("*.py"):
        assert not any(
            name.startswith("keras_initlab.callbacks") for name, _ in imports(path)
        )


def test_no_cycle_within_a_part():
    graph = {}
    for path in sources():
        own = ".".join(module_of(path)).removesuffix(".__init__")
        graph[own] = {
            n for n, is_top in imports(path) if n.startswith("keras_initlab.")
        }
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
    file = tmp_path / "keras_initlab" / "signal" / "_x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from .._fans import fans\nfrom . import _y\ndef f():\n    import jax\n"
    )
    assert imports(file) == [
        ("keras_initlab._fans", True),
        ("keras_initlab.signal._y", True),
        ("jax", False),
    ]


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
