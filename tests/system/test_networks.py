"""The network between a cluster and its store is cut, and comes back."""

from __future__ import annotations

import time

import dask
import numpy as np
import pytest
from distributed import wait
from processes import PATIENCE, Gate, ProcessCluster, eventually, objects_in, released
from remote_store import RemoteStore

import daskps
from daskps.stores.records import sweep_records

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


@pytest.fixture
def remote():
    remote = RemoteStore()
    yield remote
    remote.mend()
    left = eventually(lambda: not remote.objects) or list(remote.objects)
    remote.close()
    assert left is True, "objects are left"


def after(gate, x):
    return x.sum()


CUTS = pytest.mark.parametrize("how", ["refused", "silent"])


@pytest.mark.slow
@CUTS
def test_a_network_that_is_cut_for_ten_seconds_while_tasks_read(client, remote, how):
    with daskps.proxy_graph(remote.connector()):
        gate = client.submit(time.sleep, 0.5)
        futures = [client.submit(after, gate, X + i) for i in range(6)]
        assert eventually(lambda: len(remote.objects) == 6)
        remote.cut(how)
        time.sleep(10)
        remote.mend()
        assert client.gather(futures) == [(X + i).sum() for i in range(6)]
        del futures, gate


@CUTS
def test_a_network_that_is_cut_while_values_are_stored(client, remote, how):
    with daskps.proxy_graph(remote.connector(timeout=0.5)):
        remote.cut(how)
        with pytest.warns(UserWarning, match="sent inside the graph") as caught:
            futures = client.map(np.sum, [X, X + 1])
        assert len([w for w in caught if "could not be" in str(w.message)]) == 1
        remote.mend()
        assert client.gather(futures) == [X.sum(), (X + 1).sum()]
        del futures


@CUTS
def test_a_network_that_is_cut_while_a_result_is_fetched(client, remote, how):
    with daskps.proxy_graph(remote.connector(timeout=0.5)):
        future = client.submit(np.add, X, 1)
        wait(future)
        remote.cut(how)
        np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
        remote.mend()
        del future


@CUTS
def test_a_network_that_is_cut_while_objects_are_deleted(client, remote, how):
    """They go when the network is back."""
    with daskps.proxy_graph(remote.connector(timeout=0.5)):
        assert client.submit(np.sum, X).result() == X.sum()
        remote.cut(how)
    assert released(client)
    # Nobody has to wait for it meanwhile.
    assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3
    time.sleep(1)
    assert len(remote.objects) == 1
    remote.mend()
    assert eventually(lambda: not remote.objects)


@CUTS
def test_a_network_that_is_cut_for_good(client, remote, how):
    with (
        dask.config.set({"daskps.read-timeout": "1s"}),
        daskps.proxy_graph(remote.connector(timeout=0.5)),
    ):
        gate = Gate(client)
        future = client.submit(after, gate.future, X, key="the-task-on-the-network")
        assert eventually(lambda: remote.objects)
        remote.cut(how)
        gate.open()
        with pytest.raises(daskps.ObjectMissingError) as caught:
            future.result(timeout=PATIENCE)
        for word in ("object-", "daskps-", "the-task-on-the-network", "Check that"):
            assert word in str(caught.value)
        remote.mend()
        future.retry()
        assert future.result(timeout=PATIENCE) == X.sum()
        future.release()  # the error's traceback keeps it otherwise


def test_a_network_that_is_cut_while_the_cluster_closes(remote):
    """A store that never answers does not keep the scheduler from ending."""
    with ProcessCluster(workers=1) as cluster, cluster.client() as client:
        with daskps.proxy_graph(remote.connector(timeout=None)):
            assert client.submit(np.sum, X).result() == X.sum()
            remote.cut("silent")
            client.close()
        # One after the other: a worker that closes while its scheduler does may hang.
        for process in (*cluster.workers, cluster.scheduler):
            process.terminate()
            process.wait(PATIENCE)
    # It has left a record of what it could not delete.
    assert len(remote.objects) == 1
    remote.mend()
    assert len(sweep_records()) == 1


def test_other_stores_do_not_wait_for_one_that_does_not_answer(cluster, client, remote):
    """For the deletion of an object in a store that does not answer."""
    with daskps.proxy_graph(remote.connector(timeout=None)):
        assert client.submit(np.sum, X).result() == X.sum()
        remote.cut("silent")
    with daskps.proxy_graph():
        assert client.submit(np.sum, X).result() == X.sum()
        assert len(objects_in(cluster)) == 1
    assert eventually(lambda: not objects_in(cluster))
    assert len(remote.objects) == 1
