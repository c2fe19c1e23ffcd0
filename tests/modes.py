"""What the callbacks observe, by backend: the table that stands in the README.

`python tests/modes.py --write` writes it there. Every cell is held to be true by
test_modes.py on its backend: one that begins with ✓ by a fit of which all norms and
dead units are computed a second time, any other by showing what it says.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
MARKERS = "<!-- modes -->", "<!-- /modes -->"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
YES = "✓"


@dataclass(frozen=True)
class Row:
    """One feature and what becomes of it on each backend."""

    group: str
    feature: str
    tensorflow: str = YES
    jax: str = YES
    torch: str = YES

    def cell(self, backend):
        return getattr(self, backend)

    def is_observed(self, backend):
        return self.cell(backend).startswith(YES)


LAST = f"{YES} the last step of each execution"
PER_STEP = f"{YES} each step's own"
BEFORE = f"{YES} before clipping"
UNSCALED = f"{YES} unscaled"
MEAN = "NaN: a mean of several is clipped"
OUTSIDE = f"{YES} dead units: outside them"
ELSEWHERE = "only on TensorFlow"

ROWS = (
    Row("Training", "`run_eagerly=True`"),
    Row("Training", "`jit_compile=False`"),
    Row("Training", "`jit_compile=True`", torch=f"{YES} observed steps run eagerly"),
    Row("Training", "`steps_per_execution=2`", LAST, LAST, "refused by Keras"),
    Row("Training", "gradient accumulation", PER_STEP, PER_STEP, PER_STEP),
    Row("Training", "`clipvalue`, `clipnorm`, `global_clipnorm`", *[BEFORE] * 3),
    Row("Training", "`LossScaleOptimizer`, `loss_scale_factor`", *[UNSCALED] * 3),
    Row("Training", "`mixed_float16`, `mixed_bfloat16`"),
    Row("Training", "`use_ema=True`"),
    Row("Figures", "`clipped=True`"),
    Row("Figures", "`clipped=True`, gradient accumulation", *[MEAN] * 3),
    Row("Figures", "`updates=True`"),
    Row("Models", "Sequential"),
    Row("Models", "Functional"),
    Row("Models", "nested"),
    Row("Models", "shared layers"),
    Row("Models", "several inputs and outputs"),
    Row("Models", "subclassed"),
    Row("Models", "a `train_step` of your own, two optimizers (GAN)"),
    Row("Models", "frozen layers"),
    Row("Models", "convolutions"),
    Row("Models", "embeddings", f"{YES} sparse gradients"),
    Row("Models", "recurrent layers", *[OUTSIDE] * 3),
    Row("Data", "arrays"),
    Row("Data", "`tf.data`"),
    Row("Data", "generators"),
    Row("Data", "Keras's `PyDataset`"),
    Row("Data", "PyTorch's `DataLoader`"),
    Row("Data", "`sample_weight=`"),
    Row("Data", "`class_weight=`"),
    Row(
        "Devices",
        "`tf.distribute.MirroredStrategy`",
        f"{YES} of the whole batch",
        ELSEWHERE,
        ELSEWHERE,
    ),
    Row(
        "Devices",
        "… with clipping",
        f"{YES} each replica clips its own, as Keras does",
        ELSEWHERE,
        ELSEWHERE,
    ),
    Row(
        "Devices",
        "… with gradient accumulation",
        "fails in Keras",
        ELSEWHERE,
        ELSEWHERE,
    ),
    Row("Devices", "other strategies of replicas", "refused", ELSEWHERE, ELSEWHERE),
    Row(
        "Devices",
        "`keras.distribution.DataParallel`",
        f"{YES} on one device: Keras does not spread it",
        f"{YES} of the whole batch",
        "fails in Keras",
    ),
)


def table():
    """The rows in Markdown."""
    lines = [["", *BACKENDS.values()], ["---"] * (1 + len(BACKENDS))]
    group = None
    for row in ROWS:
        if row.group != group:
            group = row.group
            lines.append([f"**{group}**", *[""] * len(BACKENDS)])
        lines.append([row.feature, *map(row.cell, BACKENDS)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def split(text):
    """What stands in a text before, between and after the markers."""
    first, last = MARKERS
    before, rest = text.split(first)
    between, after = rest.split(last)
    return before + first, between, last + after


def write():
    """Puts the table into the README."""
    before, _, after = split(README.read_text(encoding="utf-8"))
    README.write_text(f"{before}\n{table()}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/modes.py --write")
    write()
