"""The notebooks run, and print what is in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE, ROOT

nbformat = pytest.importorskip("nbformat", reason="it is in the extra 'docs' alone")
nbclient = pytest.importorskip("nbclient", reason="it is in the extra 'docs' alone")
pytest.importorskip("ipykernel", reason="it is in the extra 'docs' alone")

NOTEBOOKS = sorted(Path(ROOT, "docs", "notebooks").glob("*.ipynb"))


def printed(notebook: Any) -> list[str]:
    """By cell, what it printed and gave, as plain text."""
    return [
        "".join(map(as_text, cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def as_text(output: Any) -> str:
    assert output.output_type != "error", output
    if output.get("name") == "stderr":
        return ""  # what Dask logs on a machine that is slow
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    # The size of a graph depends on Dask, but for the data in it.
    return re.sub(r"\.\d+ MiB", " MiB", text)


def write(notebook: Any, path: Path) -> None:
    """Write what was printed, but for what was logged."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    nbformat.write(notebook, path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    # As a user has it: the tests' own threshold is a smaller one.
    monkeypatch.delenv("DASK_DASKPS__THRESHOLD", raising=False)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    expected = printed(notebook)
    nbclient.NotebookClient(
        notebook,
        timeout=5 * PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    if os.environ.get("DASKPS_WRITE_NOTEBOOKS"):
        write(notebook, path)
        return
    assert any(expected), HOW
    assert printed(notebook) == expected, HOW


HOW = "run DASKPS_WRITE_NOTEBOOKS=1 python -m pytest tests/docs/test_notebooks.py"
