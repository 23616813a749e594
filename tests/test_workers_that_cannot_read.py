"""Workers that cannot read from a store, for now or for good: no task fails for that.

Faults are injected by what a worker runs first, which wraps a function there.
"""

from __future__ import annotations

import contextlib
import textwrap
import time

import dask
import numpy as np
import pytest
from conftest import released
from distributed import wait
from processes import ProcessCluster

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB

# The worker's question to the scheduler how to open a store is lost: with an error, or
# without a word.
LOST = """
    import asyncio, os
    from distributed.core import PooledRPCCall

    original = PooledRPCCall.__getattr__
    asked = 0

    def lost(self, name):
        global asked
        call = original(self, name)
        if name != "daskps_store":
            return call

        async def ask(**kwargs):
            global asked
            asked += 1
            if asked <= {times} and not os.path.exists("{mended}"):
                {how}
            return await call(**kwargs)

        return ask

    PooledRPCCall.__getattr__ = lost
"""
HOW = {
    "error": 'raise OSError("Timed out trying to connect")',
    "silence": "await asyncio.sleep(3600)",
}
FOR_EVER = 10**9

# As on another host: the worker does not see the store's directory.
ELSEWHERE = """
    import os

    original = os.lstat

    def lstat(path, **options):
        if "daskps-" in str(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return original(path, **options)

    os.lstat = lstat
"""

# The store is open, but the worker fails to read, as with too many open files.
READS_FAIL = """
    import errno, os
    from daskps.stores.segments import SegmentConnector

    original = SegmentConnector.get

    def get(self, key):
        if not os.path.exists("{mended}"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return original(self, key)

    SegmentConnector.get = get
"""


@pytest.fixture
def mended(tmp_path):
    """A file that, once it exists, mends what was broken."""
    return tmp_path / "mended"


@pytest.fixture
def start(tmp_path, mended):
    """Start a cluster, some of whose workers are broken."""
    with contextlib.ExitStack() as stack:

        def start(*codes, read_timeout="20s", **values):
            cluster = Cluster(tmp_path, {"mended": mended, **values})
            stack.enter_context(cluster)
            # Of the client: workers are told.
            stack.enter_context(dask.config.set({"daskps.read-timeout": read_timeout}))
            for code in codes:
                cluster.add(code)
            return cluster, stack.enter_context(cluster.client())

        yield start


class Cluster(ProcessCluster):
    """Each worker may run something first, in which `values` are put."""

    def __init__(self, tmp_path, values):
        super().__init__(workers=0)
        self._path = tmp_path
        self._values = {"times": FOR_EVER, "how": HOW["error"], **values}

    def add(self, code, options=""):
        """Start a worker that runs some code first."""
        for name, value in self._values.items():
            code = code.replace("{" + name + "}", str(value))
        # Python runs sitecustomize.py when it starts.
        path = self._path / f"worker{len(self.workers)}"
        path.mkdir()
        (path / "sitecustomize.py").write_text(textwrap.dedent(code))
        self.add_worker({"PYTHONPATH": str(path)}, options)


GOOD = ""


def address(client, name):
    """Of the worker that was started as the n-th one, `name` being "w{n}"."""
    workers = client.scheduler_info(-1)["workers"].items()
    return next(a for a, worker in workers if worker["name"] == name)


def holders(client, futures):
    wait(futures)
    return {a for addresses in client.who_has(futures).values() for a in addresses}


def after(seconds, x):
    time.sleep(seconds)
    return float(x.sum())


def thirty_submits_and_twenty_mapped(client):
    """All right; the workers that have done them."""
    futures = [client.submit(after, 0.01, X + i) for i in range(30)]
    assert client.gather(futures) == [(X + i).sum() for i in range(30)]
    mapped = client.map(after, [0.01] * 20, [X - i for i in range(20)])
    assert client.gather(mapped) == [(X - i).sum() for i in range(20)]
    return holders(client, futures + mapped)


class TestTheQuestionIsLost:
    @pytest.mark.parametrize("how", HOW)
    def test_once_by_a_worker_that_joins(self, start, how):
        cluster, client = start(GOOD, how=HOW[how], times=1)
        with daskps.proxy_graph():
            cluster.add(LOST)
            client.wait_for_workers(2, timeout=30)
            assert len(thirty_submits_and_twenty_mapped(client)) == 2
        assert released(client)

    @pytest.mark.parametrize("how", HOW)
    def test_once_while_the_session_opens(self, start, how):
        _, client = start(LOST, GOOD, how=HOW[how], times=1)
        with daskps.proxy_graph():
            assert len(thirty_submits_and_twenty_mapped(client)) == 2

    def test_for_ever_by_a_worker_that_joins(self, start):
        cluster, client = start(GOOD)
        with daskps.proxy_graph():
            cluster.add(LOST)
            client.wait_for_workers(2, timeout=30)
            able = {address(client, "w0")}
            assert thirty_submits_and_twenty_mapped(client) == able

    def test_for_ever_while_the_session_opens(self, start, caplog):
        _, client = start(LOST, GOOD)
        with daskps.proxy_graph():
            assert "could not ask the scheduler" in caplog.text
            able = {address(client, "w1")}
            assert thirty_submits_and_twenty_mapped(client) == able

    def test_for_ever_by_all_while_the_session_opens(self, start):
        _, client = start(LOST, LOST)
        with (
            pytest.raises(daskps.ClusterError, match="could not ask the scheduler"),
            daskps.proxy_graph(),
        ):
            pytest.fail("the block must not be entered")

    def test_for_ever_by_all_that_join(self, start):
        cluster, client = start(read_timeout="2s")
        with daskps.proxy_graph("shm://"):
            for _ in range(2):
                cluster.add(LOST)
            client.wait_for_workers(2, timeout=30)
            futures = client.map(np.sum, [X + i for i in range(20)])
            for future in futures:
                error = future.exception(timeout=60)
                assert isinstance(error, daskps.ObjectMissingError)
                assert "could not ask the scheduler" in str(error)
            del future, futures, error

    def test_until_it_is_mended(self, start, mended):
        """The tasks wait meanwhile, whichever worker is able first."""
        cluster, client = start(read_timeout="60s")
        with daskps.proxy_graph("shm://"):
            for _ in range(2):
                cluster.add(LOST)
            client.wait_for_workers(2, timeout=30)
            futures = client.map(after, [0.01] * 20, [X + i for i in range(20)])
            time.sleep(2)
            assert {future.status for future in futures} == {"pending"}
            mended.touch()
            assert client.gather(futures) == [(X + i).sum() for i in range(20)]
            assert len(thirty_submits_and_twenty_mapped(client)) == 2
