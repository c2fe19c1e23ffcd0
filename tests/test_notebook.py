"""The notebook runs from top to bottom, and holds what it gives."""

import os
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "initialization_lab.ipynb"
MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def texts_of(notebook):
    outputs = [out for cell in code_of(notebook) for out in cell.outputs]
    return "\n".join(
        out.text if out.output_type == "stream" else out.data.get("text/plain", "")
        for out in outputs
    )


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    outputs = [out for cell in code_of(notebook) for out in cell.outputs]
    return sum("image/png" in out.get("data", {}) for out in outputs)


def test_it_holds_what_it_gave(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_of(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert pictures(notebook) == 11
    shown = texts_of(notebook)
    for words in ("symmetric", "vanishing", "MirroredOrthogonal", "fan_in=9", "seeds"):
        assert words in shown
    kinds = {out.output_type for cell in code_of(notebook) for out in cell.outputs}
    assert "error" not in kinds
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.tensorflow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # The kernel is a process of its own, in a folder of its own.
    root = str(NOTEBOOK.parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    fresh = nbformat.from_dict(notebook)
    for cell in code_of(fresh):
        cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=280, kernel_name="python3", resources=where).execute()
    assert pictures(fresh) == 11
    assert "symmetric" in texts_of(fresh)
