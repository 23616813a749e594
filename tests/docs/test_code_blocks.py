"""Every block of code on a page runs, or is read by what it is written for."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import dask
import pytest
import yaml
from processes import PATIENCE, ROOT

PAGES = [
    *(Path(ROOT, name) for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(Path(ROOT, "docs").glob("*.md")),
]
# Also in a list.
BLOCK = re.compile(
    r"^[ :]*```(?P<language>\S+)\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL
)

#: Pages whose code is a program as it stands; that of others runs after PREAMBLE.
WHOLE = ("README.md", "index.md", "quickstart.md")
PREAMBLE = """
import dask, dask.array as da, numpy as np, daskps
from distributed import Client, LocalCluster

client = Client({address!r})
x = da.from_array(np.random.default_rng(0).random((600, 600)), chunks=300)
session = daskps.proxy_graph()
"""
#: Below ``if __name__ == "__main__":``, as the page of the quickstart says.
PROGRAM = """
import sys

if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        exec(compile(f.read(), sys.argv[1], "exec"))
"""
#: Pages whose code needs what is not here: it is only compiled.
ELSEWHERE = {"daos.md": "a pool of DAOS"}
#: What stands for something else on a page.
EXAMPLES = {
    "tcp://scheduler:8786": "{address}",
    "/scratch/me": "{scratch}",
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of a page in some languages, without its indentation."""
    return [
        textwrap.dedent(found["code"])
        for found in BLOCK.finditer(page.read_text())
        if found["language"] in languages
    ]


def pages(*languages: str) -> list[Path]:
    """Those that have such code."""
    return [page for page in PAGES if blocks(page, *languages)]


def named(page: Path) -> str:
    return page.name


def test_all_languages_are_known():
    known = {"bash", "python", "text", "toml", "yaml", "{eval-rst}", "{toctree}"}
    languages = {
        found["language"]
        for page in PAGES
        for found in BLOCK.finditer(page.read_text())
    }
    assert languages <= known


def environment() -> dict[str, str]:
    """As a user has it, but for where things are kept."""
    changed = {"PYTHONPATH": ROOT, "PYTHONWARNINGS": "default"}
    kept = {k: v for k, v in os.environ.items() if k != "DASK_DASKPS__THRESHOLD"}
    return {**kept, **changed}


def run(program: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program; its output, and its errors after that."""
    path = directory / "program.py"
    path.write_text(program)
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )


def code_of(page: Path) -> list[str]:
    """The Python code of a page; of a session at a prompt, what was entered."""
    parser = doctest.DocTestParser()
    return [
        "".join(example.source for example in parser.get_examples(code))
        if code.startswith(">>>")
        else code
        for code in blocks(page, "python")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("python"), ids=named)
def test_python_runs(page, cluster, tmp_path):
    code = code_of(page)
    if page.name in ELSEWHERE:
        for block in code:
            ast.parse(block)
        return
    if page.name == "README.md":
        code = code[1:]  # a program by itself, which has a test of its own
    with cluster.client(set_as_default=False) as client:
        address = client.scheduler.address
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    text = "\n".join(code)
    for example, actual in EXAMPLES.items():
        text = text.replace(example, actual.format(address=address, scratch=scratch))
    if page.name not in WHOLE or page.name == "README.md":
        text = PREAMBLE.format(address=address) + text
    (tmp_path / "page.py").write_text(text)
    done = run(PROGRAM, tmp_path, "page.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_of_the_readme_prints_what_it_says(tmp_path):
    """Its first code is a program; then comes what it prints, with the warning."""
    readme = PAGES[0]
    example = blocks(readme, "python")[0]
    assert len(example.rstrip().splitlines()) <= 12
    warning, *lines = blocks(readme, "text")[0].splitlines()
    done = run(example, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == lines
    assert done.stderr.count("UserWarning: Sending large graph") == 1
    # To the nearest MiB: the graph's own size depends on Dask.
    assert re.sub(r"\.\d+ MiB", "", warning) in re.sub(r"\.\d+ MiB", "", done.stderr)


@pytest.mark.slow
def test_what_is_explained_is_as_its_page_says(tmp_path):
    page = Path(ROOT, "docs", "explain.md").read_text()
    shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(shown) > 5
    # Lines have the numbers that they have if a reader takes all of it.
    program = "".join(f"{code.rstrip()}; print({'=' * 9!r})\n" for code, _ in shown)
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    *printed, rest = done.stdout.split("=" * 9)
    assert not rest.strip()
    assert [p.strip() for p in printed] == [said.strip() for _, said in shown]


@pytest.mark.parametrize("page", pages("bash"), ids=named)
def test_commands_are_there(page):
    """Not that they do what they say, which takes long, but what they name."""
    for code in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
        for module in re.findall(r"python3? -m ([\w.]+)", code):
            assert module in ("build", "twine") or importlib.util.find_spec(module)
        for path in re.findall(r"(?<![\w./])(?:tests|docs|examples)/[\w./-]+", code):
            assert path == "docs/_build" or Path(ROOT, path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_markers_of_tests_are_there(page, pytestconfig):
    known = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    for names in re.findall(r"pytest[^`\n]* -m (\"[^\"]*\"|\w+)", page.read_text()):
        assert set(re.findall(r"\w+", names)) - {"or", "and", "not"} <= known, names


@pytest.mark.parametrize("page", pages("yaml"), ids=named)
def test_yaml_is_read(page):
    """If it is Dask's configuration, by its schema, too."""
    jsonschema = pytest.importorskip("jsonschema", reason="daskps does without it")
    schema = yaml.safe_load(Path(ROOT, "daskps/daskps-schema.yaml").read_text())
    for code in blocks(page, "yaml"):
        value = yaml.safe_load(code)
        if "daskps" in value:
            jsonschema.validate(value, schema)
            assert not value["daskps"].keys() - dask.config.get("daskps").keys()


@pytest.mark.parametrize("page", pages("toml"), ids=named)
def test_toml_is_read(page):
    for code in blocks(page, "toml"):
        assert tomllib.loads(code)
