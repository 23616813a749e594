"""The names that people may use."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import daskps

pytestmark = pytest.mark.core

# A name that is missing here, or there, is a decision to be made.
PUBLIC = [
    "Client",
    "ClusterError",
    "ConfigError",
    "DaskpsError",
    "ObjectMissingError",
    "StoreError",
    "StoreFullError",
    "__version__",
    "explain",
    "open_store",
    "optimize",
    "proxy",
    "proxy_graph",
    "usage",
]


def test_public_names():
    assert sorted(daskps.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_object_is_documented(name):
    value = getattr(daskps, name)
    if name == "__version__":
        assert value.count(".") >= 2
    else:
        assert inspect.getdoc(value)
        assert value.__doc__, "inherited, not its own"


def test_every_public_method_is_documented():
    for name in daskps.__all__:
        value = getattr(daskps, name)
        if inspect.isclass(value) and value.__module__.startswith("daskps"):
            for method in vars(value):
                if not method.startswith("_") and callable(vars(value)[method]):
                    assert inspect.getdoc(vars(value)[method]), f"{name}.{method}"


def test_every_error_is_a_daskps_error():
    errors = [getattr(daskps, n) for n in daskps.__all__ if n.endswith("Error")]
    assert len(errors) >= 6
    assert all(issubclass(error, daskps.DaskpsError) for error in errors)


def test_importing_prints_nothing_and_warns_of_nothing():
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:daskps", "-c", "import daskps"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "name", ["explanation.explaining", "testing.graphs", "stores.opening"]
)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(f"daskps.{name}")
    result = doctest.testmod(module, extraglobs={"daskps": daskps})
    assert result.attempted
    assert not result.failed


ERRORS = Path(__file__).parent.parent / "docs" / "errors.md"


def _logged() -> Iterator[str]:
    """What daskps logs for its users, as it is written in its code."""
    for path in Path(daskps.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
                and node.func.attr in ("info", "warning", "error")
            ):
                text = node.args[0]
                assert isinstance(text, ast.Constant), ast.unparse(node)
                yield text.value


def test_what_is_logged_is_explained():
    explained = " ".join(ERRORS.read_text().split())
    logged = set(_logged())
    assert len(logged) > 10
    for text in logged:
        # Longest piece between what is filled in, of which the page may leave out the end.
        piece = max(re.split("%[a-z]", text), key=len)
        words = piece.strip(" :,.").split()[:6]
        assert " ".join(words) in explained, text
