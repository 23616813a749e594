"""A pool of DAOS for tests: the double in ``tests/helpers/doubles``, or a real one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import HERE, PATIENCE

DOUBLES = os.path.join(HERE, "doubles")
CONTAINER = "daos://pool/kvstore"


@contextlib.contextmanager
def daos_pool(directory: Path) -> Iterator[Any]:
    """A new pool of the double, with a container; gives the module ``pydaos``.

    For this process, and for those that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYDAOS_DOUBLE", str(directory))
        patch.setenv("PYTHONPATH", DOUBLES)
        patch.syspath_prepend(DOUBLES)
        import pydaos

        pydaos.create_container("pool", "kvstore")
        yield pydaos


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool; the directory in which the double keeps its container."""
    directory = tmp_path_factory.mktemp("daos")
    with daos_pool(directory):
        yield str(directory / "pool" / "kvstore")


def environment() -> dict[str, str]:
    """For a cluster's processes: they find the double, and this pool."""
    return {"PYTHONPATH": DOUBLES, "PYDAOS_DOUBLE": os.environ["PYDAOS_DOUBLE"]}


def start(code: str, *args: str) -> subprocess.Popen[str]:
    """Run some code in another process."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, *args: str) -> tuple[int, str]:
    """Run some code in another process; its exit status, and what it printed."""
    process = start(code, *args)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.strip() + err
