"""What stands in several of the project's files is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from processes import ROOT

import daskps
from daskps.versions import PROTOCOL

WRITTEN = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())
PROJECT, TOOLS = WRITTEN["project"], WRITTEN["tool"]
CITATION = yaml.safe_load(Path(ROOT, "CITATION.cff").read_text())
VERSIONS = Path(ROOT, "docs", "versions.md").read_text()
WORKFLOWS = sorted(Path(ROOT, ".github", "workflows").glob("*.yml"))
CI = Path(ROOT, ".ci", "run").read_text()


def test_the_version():
    assert CITATION["version"] == PROJECT["version"] == daskps.__version__
    minor = daskps.__version__.rpartition(".")[0]
    assert f"| {minor} | {PROTOCOL} |" in VERSIONS


def test_the_addresses():
    urls = PROJECT["urls"]
    assert CITATION["repository-code"] == urls["Source"]
    assert CITATION["url"] == urls["Documentation"]
    assert all(
        urls[name].startswith(urls["Source"]) for name in ("Issues", "Changelog")
    )
    assert urls["Source"] in Path(ROOT, "docs", "conf.py").read_text()


def test_the_oldest_dask():
    floor = re.search(r"^readonly FLOOR=(\S+)", CI, re.M)[1]
    assert f"distributed>={floor}" in PROJECT["dependencies"]
    assert f"from {floor} on" in VERSIONS
    assert (
        f"dask and distributed {floor} or later" in Path(ROOT, "README.md").read_text()
    )


def test_the_pythons():
    """Those that are classified are the oldest, and those on which tests run."""
    python = "Programming Language :: Python :: 3."
    classified = [c for c in PROJECT["classifiers"] if c.startswith(python)]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    newer = re.search(r"^readonly PYTHONS=\((.*)\)", CI, re.M)[1].split()
    expected = [oldest, *reversed(newer)]
    assert [c.rpartition(" ")[2] for c in classified] == expected


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_is_there(path):
    workflow = yaml.safe_load(path.read_text())
    runs = [
        s["run"] for j in workflow["jobs"].values() for s in j["steps"] if "run" in s
    ]
    named = re.findall(
        r"(?<![\w/.])(?:tests/\S+|\.ci/\S+|tests|docs)(?![\w.])", "\n".join(runs)
    )
    assert named
    assert all(Path(ROOT, name).exists() for name in named)


def test_one_workflow_does_what_ci_does():
    workflow = yaml.safe_load(Path(ROOT, ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["everything"]["steps"]
    assert steps[-1]["run"] == ".ci/run"


def test_the_readme_has_one_command_for_the_tests():
    """``.ci/run`` takes it from there."""
    readme = Path(ROOT, "README.md").read_text()
    pattern = r"^python3 -m venv .* -m pytest -n [0-9]+$"
    assert len(re.findall(pattern, readme, re.M)) == 1


def test_links_of_the_readme_where_it_is_shown_alone():
    """On the page of the package there are no files beside it."""
    readme = Path(ROOT, "README.md").read_text()
    beside = re.findall(r"\]\(([^)]+)\)", readme)
    for change in TOOLS["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"][
        "substitutions"
    ]:
        readme = re.sub(change["pattern"], change["replacement"], readme)
    alone = re.findall(r"\]\(([^)]+)\)", readme)
    source = PROJECT["urls"]["Source"]
    raw = source.replace("github.com", "raw.githubusercontent.com")
    for there, here in zip(beside, alone, strict=True):
        if there.startswith(("https://", "#")):
            assert here == there
        elif there.endswith(".svg"):
            assert here == f"{raw}/main/{there}"
        else:
            assert here == f"{source}/blob/main/{there}"
