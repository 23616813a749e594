"""A pool of DAOS for tests: the double in ``tests/doubles``, or a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from processes import HERE

DOUBLES = os.path.join(HERE, "doubles")
CONTAINER = "daos://pool/kvstore"


@pytest.fixture
def pool(tmp_path_factory, monkeypatch) -> str:
    """A new pool of the double; the directory in which it keeps its container."""
    directory = tmp_path_factory.mktemp("daos")
    monkeypatch.setenv("PYDAOS_DOUBLE", str(directory))
    # For this process, and for those that it starts.
    monkeypatch.syspath_prepend(DOUBLES)
    monkeypatch.setenv("PYTHONPATH", DOUBLES)
    import pydaos

    pydaos.create_container("pool", "kvstore")
    return str(directory / "pool" / "kvstore")


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
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip() + err
