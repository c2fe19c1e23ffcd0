"""Counts the cases of hostile input, and lists them by the public names they ask."""

from collections import Counter

import pytest

# Collected before anything is chosen: names, and the files that hold them.
COLLECTED = pytest.StashKey[dict[str, set[str]]]()

# What every class of a kind is asked elsewhere, with the class as its first parameter.
ASKED_IN_CONTRACT = (
    *("test_bad_arguments", "test_bad_arguments_of_a_callback", "test_bad_shapes"),
    *("test_bad_dtypes", "test_unknown_dtypes", "test_empty_shapes"),
    *("test_shapes_that_are_no_matrix", "test_any_kernel", "test_any_bias"),
)
_PROPERTY = "hostile"
_COLUMNS = 3


def names_of(item):
    """The public names that a test asks with hostile input."""
    names = [name for mark in item.iter_markers("hostile") for name in mark.args]
    is_contract = item.path.name == "test_contract.py"
    if is_contract and item.originalname in ASKED_IN_CONTRACT:
        kind = item.callspec.params["kind"]
        family = "callbacks" if ".callbacks" in kind.__module__ else "initializers"
        names.append(f"{family}.{kind.__name__}")
    return names


class HostileReport:
    """Registered in `conftest.py`; with workers, the process that reports counts."""

    def __init__(self):
        self.cases = {}  # by node id, as with workers a report may come twice

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        collected = {}
        for item in items:
            for name in names_of(item):
                item.user_properties.append((_PROPERTY, name))  # goes with the report
                collected.setdefault(item.path.name, set()).add(name)
        config.stash[COLLECTED] = collected

    def pytest_runtest_logreport(self, report):
        names = [value for key, value in report.user_properties if key == _PROPERTY]
        if names and report.when == "call" and not report.skipped:
            self.cases[report.nodeid] = names

    def pytest_terminal_summary(self, terminalreporter):
        if not self.cases:
            return
        counts = Counter(name for names in self.cases.values() for name in names)
        head = f"hostile input: {len(self.cases)} cases over {len(counts)} public names"
        terminalreporter.section(head, sep="-")
        texts = [f"{name} {count}" for name, count in sorted(counts.items())]
        width = max(map(len, texts)) + 2
        for start in range(0, len(texts), _COLUMNS):
            row = texts[start : start + _COLUMNS]
            terminalreporter.write_line("".join(f"{text:{width}}" for text in row))
        if terminalreporter.verbosity > 0:
            for nodeid, names in sorted(self.cases.items()):
                terminalreporter.write_line(f"{nodeid}: {', '.join(names)}")
