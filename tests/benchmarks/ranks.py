"""Ranks: where each start ends on the tasks of the examples.

Reads what the examples append to `--results`, one line a task and start with a figure
for each seed, and prints task by task what was reached, the rank of the recommended
start and whether its distance from the best of the others is real; then every start's
mean rank. What is on file was made by the examples as they are, but one seed of the
transformers:

    FILE=tests/benchmarks/results/ranks.jsonl
    KERAS_BACKEND=jax python examples/NAME.py --results $FILE
    python tests/benchmarks/ranks.py
    python tests/benchmarks/ranks.py --write

NAME is each example in turn but `gan_digits` and `sweep_on_dask`; all its settings, as
`--study`, and the backend are in the file, line by line: JAX, but TensorFlow for the
texts and PyTorch, which compiles nothing, for the transformers. A later line on the
same task and start replaces an earlier one, and `--quick` ones do not count. `--write`
puts the tables into `examples/GUIDE.md`.

The rank is 1 for the best mean, and equal means share theirs: a textbook that names
Keras's default is level with it. What ended without a number comes last. A difference
is real in the sense of `keras_initlab.compare`: paired over seeds, by Student's t at
95 %. Three seeds tell only large ones.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_initlab.compare._student import paired_difference

GUIDE = Path(__file__).parent.parent.parent / "examples" / "GUIDE.md"
BEGIN, END = "<!-- ranks -->\n", "<!-- /ranks -->"
OURS = "recommended"
TASKS = ("task", OURS, "others, the best first", "rank", "ahead by")
MEANS = ("start", "tasks", "mean rank", f"{OURS}'s there", "really behind, ahead")


@dataclass(frozen=True)
class Task:
    """What every start reached on one task.

    Attributes:
        name: what was learned.
        lower_is_better: as a loss is.
        values: `{start: figures, one a seed}`; NaN where there was none.
    """

    name: str
    lower_is_better: bool
    values: dict[str, np.ndarray]

    @property
    def order(self):
        """The starts, the best first."""
        return sorted(self.values, key=self.place)

    def place(self, start):
        mean = np.mean(self.values[start])
        return np.inf if np.isnan(mean) else (mean if self.lower_is_better else -mean)

    def rank(self, start):
        """1 for the best; starts that end equal share the mean of their ranks."""
        own = self.place(start)
        places = [self.place(other) for other in self.values]
        better = sum(place < own for place in places)
        return better + (1 + places.count(own)) / 2

    def lead(self, start, other):
        """By how much one start is better than another, paired over seeds."""
        sign = -1 if self.lower_is_better else 1
        return paired_difference(sign * self.values[start], sign * self.values[other])


def tasks_in(paths):
    """The tasks that files tell of, in their order."""
    found = {}
    for path in paths:
        for row in map(json.loads, path.read_text().splitlines()):
            if not row["settings"]["quick"]:
                found.setdefault(row["task"], {})[row["start"]] = row
    return [
        Task(
            name,
            next(iter(rows.values()))["lower_is_better"],
            {start: np.array(row["values"], float) for start, row in rows.items()},
        )
        for name, rows in found.items()
    ]


def mean_rank(tasks, start):
    return float(np.mean([task.rank(start) for task in tasks]))


# ---- what is shown --------------------------------------------------------------


def task_row(task):
    others = [start for start in task.order if start != OURS]
    told = ", ".join(f"{start} {shown(task, start)}" for start in others)
    rank = f"{task.rank(OURS):g} of {len(task.values)}"
    return (task.name, shown(task, OURS), told, rank, distance(task, others[0]))


def shown(task, start):
    mean = np.mean(task.values[start])
    return f"{mean:.3g}" if mean >= 1 else f"{mean:.3f}"


def distance(task, other):
    """Ours from the best of the others, and whether that is real."""
    lead = task.lead(OURS, other)
    if np.isnan(lead.mean):
        return "no number"
    number = f"{lead.mean:+.3f}".replace("-", "−")
    if lead.pairs == 1:
        return f"{number}, one seed"
    if np.isnan(lead.margin):
        return f"{number}, no spread"
    return f"{number}, {'real' if lead.is_real else 'perhaps chance'}"


def mean_rows(tasks):
    """A row a start: those of most tasks first, then those of the best mean rank."""
    starts = {start for task in tasks for start in task.values}
    rows = []
    for start in starts:
        own = [task for task in tasks if start in task.values]
        ranks = f"{mean_rank(own, start):.2f}", f"{mean_rank(own, OURS):.2f}"
        rows.append((start, str(len(own)), *ranks, against(own, start)))
    return sorted(rows, key=lambda row: (-int(row[1]), float(row[2]), row[0]))


def against(tasks, start):
    """On how many tasks ours is really behind a start, and really ahead of it."""
    if start == OURS:
        return ""
    leads = [task.lead(OURS, start) for task in tasks]
    real = [lead.mean for lead in leads if lead.is_real]
    return f"{sum(mean < 0 for mean in real)}, {sum(mean > 0 for mean in real)}"


def summary(tasks):
    first = sum(task.rank(OURS) == 1 for task in tasks)
    behind = [task for task in tasks if task.lead(OURS, best_other(task)).is_real]
    lost = sum(task.lead(OURS, best_other(task)).mean < 0 for task in behind)
    return (
        f"Mean rank of the recommended start over {len(tasks)} tasks: "
        f"{mean_rank(tasks, OURS):.2f}; first on {first}. Its distance from the best "
        f"of the others is real on {len(behind)}, to its disadvantage on {lost}."
    )


def best_other(task):
    return next(start for start in task.order if start != OURS)


def as_markdown(tasks):
    parts = [
        table(TASKS, map(task_row, tasks)),
        table(MEANS, mean_rows(tasks)),
        summary(tasks),
    ]
    return "\n\n".join(parts) + "\n"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(tasks):
    """Puts the tables into the guide."""
    before, _, rest = GUIDE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    GUIDE.write_text(before + BEGIN + as_markdown(tasks) + END + after)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).parent / "results" / "ranks.jsonl"
    parser.add_argument("files", nargs="*", type=Path, default=[default])
    parser.add_argument("--write", action="store_true", help="into the guide")
    options = parser.parse_args(arguments)
    tasks = tasks_in(options.files)
    if options.write:
        write(tasks)
    print(as_markdown(tasks))
    return tasks


if __name__ == "__main__":
    main()
