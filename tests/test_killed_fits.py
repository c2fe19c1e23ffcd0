"""A fit that is killed leaves whole files, and goes on as it would unobserved."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import killed_fits
import pytest
from killed_fits import STEPS

PROGRAM = str(Path(killed_fits.__file__))


def rows_of(path):
    """The steps of a log of which every line must be whole."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    if path.suffix == ".jsonl":
        return [json.loads(line)["step"] for line in text.splitlines()]
    header, *rows = csv.reader(text.splitlines())
    assert {len(row) for row in rows} == {len(header)}
    assert all(float(cell) == float(cell) for row in rows for cell in row)
    return [int(row[header.index("step")]) for row in rows]


def logs_in(folder):
    return {one.name: rows_of(one) for one in folder.iterdir() if one.suffix in LOGS}


LOGS = (".csv", ".jsonl")


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_kills(folder, count, seconds):
    """How many steps each fit had made, and what became of it when it went on."""
    run("kill", folder, count, seconds)
    before = {one.name: logs_in(one) for one in folder.iterdir()}
    for logs in before.values():
        assert len(logs) == 5
        norms = logs["norms.jsonl"]
        assert norms == list(range(len(norms)))
        assert len(norms) - len(logs["norms.csv"]) in (0, -1)
    resumed = run("resume", folder)
    assert len(resumed) == count
    for row in resumed:
        assert row["same"], row
        if not row["error"]:  # of Keras, which was writing its own files
            check_appended(before[row["name"]], logs_in(folder / row["name"]), row)
    return [len(logs["norms.csv"]) for logs in before.values()], resumed


def check_appended(before, after, row):
    first = row["epoch"] * STEPS
    for name, steps in before.items():
        assert after[name][: len(steps)] == steps
    more = after["norms.csv"][len(before["norms.csv"]) :]
    assert more == list(range(first, first + 2 * STEPS))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_twice(tmp_path):
    check_kills(tmp_path, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_thirty_moments(tmp_path):
    steps, resumed = check_kills(tmp_path, 30, 3)
    assert len(set(steps)) > 10
    assert sum(not row["error"] for row in resumed) > 15
