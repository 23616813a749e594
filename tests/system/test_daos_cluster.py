"""``daos://`` on a cluster of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import dask.array as da
import numpy as np
import pytest
from daos_pool import CONTAINER, environment, pool, start
from distributed import wait
from processes import PATIENCE, ProcessCluster, eventually, released

import daskps

__all__ = ["pool"]

X = np.arange(1 << 18, dtype="f8").reshape(512, 512)  # 2 MiB
URL = f"{CONTAINER}/ns"


def in_daos(pool):
    """What is in the dictionaries, the lease aside."""
    return [
        name
        for dictionary in ("ns", "ns.daskps")
        for name in os.listdir(os.path.join(pool, dictionary))
        if not name.startswith("=lease")
    ]


def add_slowly(x, y):
    return x + y


@pytest.fixture
def cluster(pool):
    variables = environment()
    with ProcessCluster(scheduler=variables, worker=variables) as cluster:
        yield cluster
    assert os.listdir(os.path.join(pool, "ns")) == []
    assert os.listdir(os.path.join(pool, "ns.daskps")) == [], "the lease is left"


def test_a_program_on_a_daos_store_survives_a_worker(cluster, pool):
    import pydaos

    with cluster.client() as client, daskps.proxy_graph(store=URL):
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
        f"""
        import os, signal, sys, numpy as np, daskps
        from distributed import Client
        client = Client(sys.argv[1])
        with daskps.proxy_graph(store="{URL}"):
            client.submit(np.sum, np.ones(1 << 18)).result()
            from daskps.client.link import ClusterLink
            (catalog,) = ClusterLink.of(client)._catalogs.values()
            handle = catalog.put([np.zeros(1 << 18)])  # not announced
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        cluster.address,
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, err
    assert eventually(lambda: not in_daos(pool))


def test_pydaos_is_missing_on_a_worker(pool):
    variables = environment()
    with (
        ProcessCluster(workers=1, scheduler=variables) as cluster,
        cluster.client(),
        pytest.raises(daskps.ConfigError, match="comes with DAOS and is not on PyPI"),
        daskps.proxy_graph(store=URL),
    ):
        pass


REAL_POOL = """
    import sys
    import dask.array as da, numpy as np, daskps
    from distributed import Client

    if __name__ == "__main__":
        url = sys.argv[1]
        with daskps.open_store(url) as store:
            data = np.random.default_rng(0).integers(0, 256, 3_500_000, "u1")
            sizes = [0, 1, 1 << 20, data.nbytes]
            keys = [store.connector.put(data[:n].tobytes()) for n in sizes]
            for n, key in zip(sizes, keys):
                assert store.connector.exists(key)
                assert bytes(store.connector.get(key)) == data[:n].tobytes()
            found = store.connector.get_batch(keys)
            assert [memoryview(x).nbytes for x in found] == sizes
            for key in keys:
                store.connector.evict(key)
                assert not store.connector.exists(key)
                assert store.connector.get(key) is None
        with (
            Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client,
            daskps.proxy_graph(store=url, threshold="256 KiB"),
        ):
            values = np.random.default_rng(1).random((1024, 1024))
            x = da.from_array(values, chunks=(256, 1024))
            assert np.allclose((x @ x.T).compute(), values @ values.T)
            future = client.submit(np.add, values, 1)
            assert (future.result() == values + 1).all()
            assert daskps.usage(client).objects
        print("works")
"""


@pytest.mark.daos
@pytest.mark.skipif(
    "DASKPS_TEST_DAOS" not in os.environ,
    reason="DASKPS_TEST_DAOS does not name a namespace in a real pool, "
    "daos://pool/container/namespace",
)
def test_a_program_on_a_real_daos_pool(tmp_path):
    # Workers are spawned, and import the program.
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(REAL_POOL))
    done = subprocess.run(
        [sys.executable, str(path), os.environ["DASKPS_TEST_DAOS"]],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr
