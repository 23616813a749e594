"""A pool of DAOS for tests: a real one, or else the double in ``tests/helpers/doubles``.

The environment's ``DASKPS_TEST_DAOS`` names a real one, and a namespace in it, by its URL.
Each test has a namespace of its own, whose name begins like that one's. What pydaos cannot
delete stays: the empty dictionaries.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from processes import HERE, PATIENCE

DOUBLES = os.path.join(HERE, "doubles")
REAL = os.environ.get("DASKPS_TEST_DAOS")

#: For what is done to a pool, or shown of it, only in the double.
double_only = pytest.mark.skipif(REAL is not None, reason="only the double can do this")


@dataclass(frozen=True)
class DaosPool:
    """A namespace in a container, of which nobody else knows.

    Attributes
    ----------
    pool, container, namespace
        Their names.
    directory
        Where the double keeps the container; None: it is real.
    """

    pool: str
    container: str
    namespace: str
    directory: Path | None

    @property
    def names(self) -> tuple[str, str, str]:
        """Of the pool, the container, and the namespace."""
        return self.pool, self.container, self.namespace

    @property
    def url(self) -> str:
        """Of a store."""
        return f"daos://{self.pool}/{self.container}/{self.namespace}"

    def chunks(self) -> list[str]:
        """Keys of what there is of large objects."""
        return self._keys(self.namespace)

    def leases(self) -> list[str]:
        """Keys of leases."""
        keys = self._keys(f"{self.namespace}.daskps")
        return [key for key in keys if key.startswith("lease.")]

    def objects(self) -> list[str]:
        """Keys of objects."""
        keys = self._keys(f"{self.namespace}.daskps")
        return [key for key in keys if not key.startswith("lease.")]

    def everything(self) -> list[str]:
        """All keys, leases included."""
        return [*self.chunks(), *self.leases(), *self.objects()]

    def dictionary(self, name: str) -> Any:
        """A dictionary, as pydaos gives it; made if it is not there."""
        import pydaos

        container = pydaos.DCont(self.pool, self.container)
        try:
            return container.get(name)
        except pydaos.DObjNotFound:
            pass
        return container.dict(name)

    def _keys(self, name: str) -> list[str]:
        return sorted(self.dictionary(name))


@contextlib.contextmanager
def daos_pool(directory: Path) -> Iterator[DaosPool]:
    """A namespace, in a new pool of the double if there is no real one.

    For this process, and for those that it starts.
    """
    if REAL is not None:
        parts = urlsplit(REAL)
        container, namespace = parts.path.split("/")[1:]
        own = f"{namespace}-{secrets.token_hex(6)}"
        yield DaosPool(parts.netloc, container, own, None)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYDAOS_DOUBLE", str(directory))
        patch.setenv("PYTHONPATH", os.pathsep.join([DOUBLES, *_python_path()]))
        patch.syspath_prepend(DOUBLES)
        with pytest.MonkeyPatch.context() as once:
            # As daskps does, so that this process keeps its handler of SIGTERM.
            once.setenv("IPATH_NO_BACKTRACE", "1")
            once.setenv("HFI_NO_BACKTRACE", "1")
            import pydaos

        # Another one for each test: what a test before has left open in this process, such
        # as by an error that is kept, is in another directory.
        container = f"kvstore-{secrets.token_hex(4)}"
        pydaos.create_container("pool", container)
        yield DaosPool("pool", container, "ns", directory / "pool" / container)


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaosPool]:
    """A pool, and a namespace of this test's own."""
    with daos_pool(tmp_path_factory.mktemp("daos")) as pool:
        yield pool


@pytest.fixture
def pydaos(pool: DaosPool) -> Any:
    """The module."""
    import pydaos

    return pydaos


def environment() -> dict[str, str]:
    """For a cluster's processes: they find the double, and this pool."""
    if REAL is not None:
        return {}
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
