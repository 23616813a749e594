"""The notebooks run, and print what is in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE, ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted(Path(ROOT, "docs", "notebooks").glob("*.ipynb"))


def printed(notebook: Any) -> list[list[str]]:
    """By cell, what it printed and gave, as plain text."""
    return [
        [
            # Not names that change: addresses, ports, ids.
            re.sub(r"0x[0-9a-f]+|\d{4,}", "_", output.get("text") or as_text(output))
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def as_text(output: Any) -> str:
    assert output.output_type != "error", output
    return output.get("data", {}).get("text/plain", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    # As a user has it: the tests' own threshold is a smaller one.
    monkeypatch.delenv("DASK_DASKPS__THRESHOLD", raising=False)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    expected = printed(notebook)
    assert any(expected), f"{path.name} has no outputs: {HOW}"
    nbclient.NotebookClient(
        notebook,
        timeout=5 * PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    if os.environ.get("DASKPS_WRITE_NOTEBOOKS"):
        nbformat.write(notebook, path)
        return
    assert printed(notebook) == expected, HOW


HOW = "run DASKPS_WRITE_NOTEBOOKS=1 python -m pytest tests/docs/test_notebooks.py"
