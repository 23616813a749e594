"""``daos://`` on a cluster of real processes."""

from __future__ import annotations

import signal

import dask.array as da
import numpy as np
import pytest
from daos_pool import REAL, double_only, environment, pool, start
from distributed import wait
from processes import PATIENCE, ProcessCluster, eventually, released

import daskps

pytestmark = pytest.mark.slow

__all__ = ["pool"]

X = np.arange(1 << 18, dtype="f8").reshape(512, 512)  # 2 MiB


def in_daos(pool):
    """What there is of objects."""
    return [*pool.chunks(), *pool.objects()]


def add_slowly(x, y):
    return x + y


@pytest.fixture
def cluster(pool):
    variables = environment()
    with ProcessCluster(scheduler=variables, worker=variables) as cluster:
        yield cluster
    assert pool.everything() == [], "the lease, too"


def test_a_program_on_a_daos_store_survives_a_worker(cluster, pool):
    with cluster.client() as client, daskps.proxy_graph(store=pool.url):
        # Blocks by reference, and large results.
        x = da.from_array(X, chunks=(256, 512))
        np.testing.assert_array_equal((x @ x.T).compute(), X @ X.T)
        assert in_daos(pool)
        future = client.submit(add_slowly, X, 1)
        result = future.result()
        np.testing.assert_array_equal(result, X + 1)
        result[0, 0] = 99  # an array that can be written to in plain Dask
        np.testing.assert_array_equal(future.result(), X + 1)

        # A worker is lost, and with it what it has computed.
        kept = client.persist(x + 1)
        wait(kept)
        cluster.workers[0].send_signal(signal.SIGKILL)
        cluster.workers[0].wait()
        np.testing.assert_array_equal(kept.compute(), X + 1)

        if not REAL:
            import pydaos

            # The agent of the node starts again.
            pydaos.restart_agent()
        np.testing.assert_array_equal(client.submit(add_slowly, X, 2).result(), X + 2)

        # A value of several chunks that is not an array.
        text = "é" * 2_000_000
        assert client.submit(len, text).result() == len(text)

        del kept, future, x
    with cluster.client() as client:
        assert released(client)
    assert eventually(lambda: not in_daos(pool))


def test_a_killed_clients_objects_leave_daos(cluster, pool):
    """Whatever it stored is deleted by the scheduler."""
    process = start(
        """
        import os, signal, sys, numpy as np, daskps
        from distributed import Client
        client = Client(sys.argv[1])
        with daskps.proxy_graph(store=sys.argv[2]):
            client.submit(np.sum, np.ones(1 << 18)).result()
            from daskps.client.link import ClusterLink
            (catalog,) = ClusterLink.of(client)._catalogs.values()
            handle = catalog.put([np.zeros(1 << 18)])  # not announced
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        cluster.address,
        pool.url,
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, err
    assert eventually(lambda: not in_daos(pool))


@double_only
def test_pydaos_is_missing_on_a_worker(pool):
    variables = environment()
    with (
        ProcessCluster(workers=1, scheduler=variables) as cluster,
        cluster.client(),
        pytest.raises(daskps.ConfigError, match="comes with DAOS and is not on PyPI"),
        daskps.proxy_graph(store=pool.url),
    ):
        pass


def test_a_worker_that_is_told_to_end(cluster, pool):
    """It closes, and takes with it what it has stored; its parent says so by SIGTERM."""
    with cluster.client() as client, daskps.proxy_graph(store=pool.url):
        future = client.submit(add_slowly, X, 1)
        np.testing.assert_array_equal(future.result(), X + 1)
        (address,) = client.who_has(future)[future.key]
        name = client.scheduler_info()["workers"][address]["name"]
        worker = cluster.workers[int(name.removeprefix("w"))]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) != 1
        np.testing.assert_array_equal(future.result(), X + 1)
