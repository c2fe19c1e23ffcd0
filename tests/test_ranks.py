"""Ranks over the examples' tasks: as SciPy has them, and as the guide tells them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FOLDER = Path(__file__).parent / "benchmarks"
# Task, whether lower is better, figures by start, rank of ours, what is said of it.
CASES = [
    ("ahead", False, {"a": [0.5, 0.51, 0.5], "recommended": [0.7, 0.72, 0.73]}, 1.0),
    ("chance", False, {"a": [0.7, 0.5, 0.6], "recommended": [0.5, 0.7, 0.58]}, 2.0),
    ("loss", True, {"a": [0.5, 0.6], "b": [9, 9], "recommended": [0.7, 0.81]}, 2.0),
    ("equal", False, {"a": [0.5, 0.6], "b": [0, 0], "recommended": [0.5, 0.6]}, 1.5),
    ("lost", True, {"a": [math.nan, 1], "recommended": [1e9, 1e9]}, 1.0),
    ("lone", False, {"a": [0.5], "recommended": [0.25]}, 2.0),
]
SAID = (
    *("+0.213, real", "−0.007, perhaps chance", "−0.205, real"),
    *("+0.000, no spread", "no number", "−0.250, one seed"),
)


@pytest.fixture
def ranks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import ranks

    return ranks


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.jsonl"
    for task, lower, values, _ in CASES:
        add(path, task, values, lower)
    return path


def add(path, task, values, lower=False, quick=False):
    """Writes what an example writes."""
    about = {"settings": {"quick": quick}, "task": task, "lower_is_better": lower}
    with path.open("a") as file:
        for start, figures in values.items():
            file.write(json.dumps({**about, "start": start, "values": figures}) + "\n")


def test_ranks_are_those_of_scipy(ranks, path):
    tasks = ranks.tasks_in([path])
    assert [task.name for task in tasks] == [name for name, *_ in CASES]
    for task, (_, lower, values, expected) in zip(tasks, CASES, strict=True):
        means = [np.mean(figures) * (1 if lower else -1) for figures in values.values()]
        oracle = stats.rankdata(np.nan_to_num(means, nan=np.inf))
        assert [task.rank(start) for start in values] == list(oracle)
        assert task.rank("recommended") == expected
    assert ranks.mean_rank(tasks, "recommended") == pytest.approx(9.5 / 6)


def test_a_difference_is_real_as_by_a_paired_test(ranks, path):
    tasks = ranks.tasks_in([path])
    assert tuple(ranks.task_row(task)[-1] for task in tasks) == SAID
    for task, said in zip(tasks[:3], SAID, strict=False):
        values = task.values
        p = stats.ttest_rel(values["a"], values["recommended"]).pvalue
        assert (p < 0.05) == said.endswith("real")
    assert "real on 2, to its disadvantage on 1" in ranks.summary(tasks)
    counts = {row[0]: (row[1], row[-1]) for row in ranks.mean_rows(tasks)}
    assert counts == {"recommended": ("6", ""), "a": ("6", "1, 1"), "b": ("2", "0, 1")}


def test_later_lines_replace_and_quick_ones_do_not_count(ranks, path):
    add(path, "ahead", {"a": [0.1], "recommended": [0.0]})
    add(path, "ahead", {"a": [0.1], "recommended": [9.0]}, quick=True)
    add(path, "quick only", {"a": [0.1], "recommended": [9.0]}, quick=True)
    tasks = ranks.tasks_in([path])
    assert len(tasks) == len(CASES)
    assert tasks[0].rank("recommended") == 2


def test_the_guide_shows_the_ranks_that_are_on_file(ranks, capsys):
    tasks = ranks.main([])
    table = capsys.readouterr().out.strip()
    assert ranks.BEGIN + table + "\n" + ranks.END in ranks.GUIDE.read_text()
    assert min(len(values) for task in tasks for values in task.values.values()) >= 1


def test_the_readme_tells_them_too(ranks):
    tasks = ranks.tasks_in([FOLDER / "results" / "ranks.jsonl"])
    ours, default = (ranks.mean_rank(tasks, s) for s in ("recommended", "default"))
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    told = f"Over the {len(tasks)} tasks in them the recommended start has a mean rank "
    assert f"{told}of {ours:.2f}, Keras's default {default:.2f}" in readme.replace(
        "\n", " "
    )


def test_write_puts_the_tables_between_the_marks(ranks, path, tmp_path, monkeypatch):
    guide = tmp_path / "GUIDE.md"
    guide.write_text(f"before\n{ranks.BEGIN}old\n{ranks.END}\nafter\n")
    monkeypatch.setattr(ranks, "GUIDE", guide)
    ranks.main([str(path), "--write"])
    text = guide.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith(ranks.END + "\nafter\n")
    assert "| lone | 0.250 | a 0.500 | 2 of 2 | −0.250, one seed |" in text
