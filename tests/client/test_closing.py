"""A client is closed while another thread stores values for it.

What that thread stores no scheduler knows of, and the client is not there to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import threading
import warnings

import numpy as np
import pytest
from distributed import Client
from flaky_store import FlakyConnector
from processes import PATIENCE, catch_storing, eventually, objects_in, released

import daskps
from daskps.client import link
from daskps.stores import opened

X = np.arange(1 << 18, dtype="f8")  # 2 MiB
HUGE = 64 << 20  # elements: 512 MiB, long enough to be caught while it is stored


class Submitting:
    """A thread that submits a graph; its error."""

    def __init__(self, submit):
        self.error = None
        self._submit = submit
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self._submit()
        except BaseException as e:
            self.error = e.with_traceback(None)

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"


def test_closing_a_client_while_a_value_is_stored(cluster, client):
    own = cluster.client(set_as_default=False)
    huge = np.ones(HUGE)

    def submit():
        with daskps.proxy_graph(client=own):
            own.submit(np.sum, huge)

    with daskps.proxy_graph():
        mine = client.submit(np.sum, X)
        thread = Submitting(submit)
        assert catch_storing(cluster), "it was too fast"
        own.close()
        assert own.status == "closed"
        thread.join()
        assert isinstance(thread.error, daskps.ClusterError)
        assert "client was closed while" in str(thread.error)
        assert eventually(lambda: len(objects_in(cluster)) == 1)
        assert mine.result(timeout=PATIENCE) == X.sum()
        del mine
    assert released(client)
    assert eventually(lambda: not objects_in(cluster))


@pytest.mark.parametrize("answered", [True, False])
def test_closing_a_client_while_a_store_is_opened(
    cluster, client, monkeypatch, answered
):
    """Whether the opening fails, or ends with the client's event loop."""
    own = cluster.client(set_as_default=False)
    begun = threading.Event()
    plain = link.open_everywhere

    async def open_everywhere(client, *args):
        begun.set()
        while client.status == "running" or not answered:
            await asyncio.sleep(0.001)
        return await plain(client, *args)

    def submit():
        with daskps.proxy_graph(client=own):
            own.submit(np.sum, X)

    monkeypatch.setattr(link, "open_everywhere", open_everywhere)
    thread = Submitting(submit)
    assert begun.wait(PATIENCE)
    own.close()
    thread.join()
    assert isinstance(thread.error, daskps.ClusterError), thread.error
    assert "client was closed while a store was opened" in str(thread.error)


def test_closing_a_client_between_two_of_many_values(cluster, client):
    """Also those that were stored before the client was closed."""
    own = cluster.client(set_as_default=False)
    values = [np.full(4 << 20, i, "f8") for i in range(12)]  # 32 MiB each

    def submit():
        with daskps.proxy_graph(client=own):
            own.map(np.sum, values)

    thread = Submitting(submit)
    assert eventually(lambda: len(objects_in(cluster)) > 2)
    own.close()
    thread.join()
    assert isinstance(thread.error, daskps.ClusterError)
    assert eventually(lambda: not objects_in(cluster))


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.02])
def test_closing_a_client_at_any_moment_hangs_and_leaves_nothing(
    cluster, client, seconds
):
    """Wherever it is caught: an error or none, nothing hangs, and nothing is left."""
    for _ in range(8):
        own = cluster.client(set_as_default=False)
        begun = threading.Event()

        def submit(own=own, begun=begun):
            with daskps.proxy_graph(client=own):
                for i in range(100):
                    begun.set()
                    own.submit(np.sum, X + i, pure=False)

        thread = Submitting(submit)
        assert begun.wait(PATIENCE)
        threading.Event().wait(seconds)
        own.close()
        thread.join()
        assert "closed" in str(thread.error), thread.error
    assert eventually(lambda: not objects_in(cluster))


def test_closing_a_client_that_stores_in_the_users_own_store(
    cluster, client, tmp_path, monkeypatch
):
    connector = FlakyConnector(str(tmp_path))
    own = cluster.client(set_as_default=False)
    begun = threading.Event()
    put = FlakyConnector.put

    def slow_put(self, obj):
        begun.set()
        assert eventually(lambda: own.status != "running")
        return put(self, obj)

    def submit():
        with daskps.proxy_graph(connector, client=own):
            monkeypatch.setattr(FlakyConnector, "put", slow_put)
            own.submit(np.sum, X)

    thread = Submitting(submit)
    assert begun.wait(PATIENCE)
    own.close()
    thread.join()
    assert isinstance(thread.error, daskps.ClusterError), thread.error
    assert eventually(lambda: not glob.glob(str(tmp_path / "object-*")))


def test_closing_a_client_together_with_its_cluster():
    """The store's directory goes while values are written into it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a value could not be stored
        own = Client(
            n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False
        )
        begun = threading.Event()

        def submit():
            with daskps.proxy_graph(client=own):
                for i in range(100):
                    own.submit(np.sum, X + i, pure=False)
                    begun.set()

        thread = Submitting(submit)
        assert begun.wait(PATIENCE)
        own.close()
        thread.join()
        assert thread.error is not None


def test_a_closed_client_stores_nothing(cluster, client):
    own = cluster.client(set_as_default=False)
    with daskps.proxy_graph(client=own):
        assert own.submit(np.sum, X).result() == X.sum()
        own.close()
        with pytest.raises(Exception, match="closed"):
            own.submit(np.sum, X + 1)
        assert eventually(lambda: not objects_in(cluster))


def test_a_client_that_loses_its_connection_while_a_value_is_stored(cluster, client):
    """The scheduler has swept what it left, all but what was still being written."""
    huge = np.ones(HUGE)

    def submit():
        with daskps.proxy_graph():
            client.submit(np.sum, huge)

    thread = Submitting(submit)
    assert catch_storing(cluster), "it was too fast"
    comm = client.scheduler_comm
    client.loop.add_callback(comm.comm.abort)
    thread.join()
    assert isinstance(thread.error, daskps.ClusterError)
    assert "connection to the scheduler was lost" in str(thread.error)
    assert eventually(lambda: client.status == "running")
    assert eventually(lambda: not objects_in(cluster)), "the client lives on"
    with daskps.proxy_graph():
        assert client.submit(np.sum, X).result(timeout=PATIENCE) == X.sum()


def test_a_closed_client_keeps_no_copies(cluster, tmp_path):
    """Though it is not collected, nor the block left in which it was used."""
    with daskps.proxy_graph(FlakyConnector(str(tmp_path))):
        own = cluster.client(set_as_default=False)
        before = set(opened._stores)
        assert own.submit(np.add, X, 1).result()[1] == 2
        assert len(caches_used()) == 2, "in memory, and on disk"
        own.close()
        assert eventually(lambda: not caches_used())
        assert eventually(lambda: set(opened._stores) <= before)


def caches_used():
    """Directories of copies that this process keeps from being deleted."""
    used = set()
    for fd in glob.glob("/proc/self/fd/*"):
        with contextlib.suppress(FileNotFoundError):
            directory = os.path.dirname(os.readlink(fd))
            if os.path.basename(directory).startswith("daskps-cache-"):
                used.add(directory)
    return used
