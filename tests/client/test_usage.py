"""What ``daskps.usage`` says of the stores of a cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import numpy as np
import pytest
from distributed import Client
from processes import ProcessCluster, eventually

import daskps

pytestmark = pytest.mark.core

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def test_usage_shows_what_is_there(client):
    with daskps.proxy_graph():
        assert client.submit(np.sum, X).result() == X.sum()
        usage = daskps.usage()
        (row,) = [row for row in usage.values() if row["objects"]]
        assert row["store"] == "shm://"
        assert row["objects"] == usage.objects == 1
        assert row["bytes"] == usage.nbytes >= X.nbytes
        assert "shm://: 1 objects, 2.00 MiB" in repr(usage)


def test_usage_is_that_of_the_blocks_client(cluster, client):
    """Though another client, of another cluster, is the current one."""
    with ProcessCluster(workers=1) as another, another.client():
        with daskps.proxy_graph(client=client):
            future = client.submit(np.sum, X)
            assert daskps.usage().objects == 1
            with daskps.proxy_graph():
                assert daskps.usage().objects == 0, "the innermost block counts"
            assert future.result() == X.sum()
            del future
        assert daskps.usage().objects == 0


def test_usage_of_a_cluster_without_a_session_is_empty():
    with ProcessCluster(workers=1) as another, another.client() as client:
        assert client.submit(np.sum, X).result() == X.sum()
        usage = daskps.usage(client)
    assert usage == {}
    assert (usage.objects, usage.nbytes, usage.hits) == (0, 0, 0)
    assert repr(usage) == "no store is open"


def test_usage_counts_what_was_found_stored(client):
    with daskps.proxy_graph():
        futures = [client.submit(np.sum, X, initial=i) for i in range(4)]
        assert client.gather(futures) == [X.sum() + i for i in range(4)]
        usage = daskps.usage(client)
        assert (usage.objects, usage.hits) == (1, 3)
        assert "3 hits" in repr(usage)
        del futures


@pytest.fixture
def own_client(own_cluster):
    """Of a cluster on which no other test has left stores."""
    with own_cluster.client() as client:
        yield client


def test_usage_says_what_is_there_besides(own_client):
    """Results, what is kept, and warm memory: as much as there is in the directory."""
    with daskps.proxy_graph():
        future = own_client.submit(np.add, X, 1)
        assert (future.result() == X + 1).all()
        seen = []

        def complete():
            seen.append(daskps.usage())
            return any(row["results"] for row in seen[-1].values())

        # Workers that are too busy to answer within two seconds are left out.
        assert eventually(complete)
        usage = seen[-1]
        (row,) = [row for row in usage.values() if row["objects"]]
        assert row["results"] == 1
        assert row["result_bytes"] >= X.nbytes
        assert row["kept"] == row["bytes"]
        assert row["kept"] <= row["kept_at_most"]
        assert row["copies"] == 0
        counted = "bytes", "result_bytes", "warm", "copies"
        assert usage.total == sum(r[name] for r in usage.values() for name in counted)
        assert "1 results, 2.00 MiB" in repr(usage)
        del future

    def warm():
        usage = daskps.usage()
        return not usage.nbytes and sum(row["warm"] for row in usage.values())

    assert eventually(lambda: (warm() or 0) >= 2 * X.nbytes)
    assert daskps.usage().total >= 2 * X.nbytes
    assert "kept warm" in repr(daskps.usage())


def test_usage_says_how_much_room_is_left_and_why(own_client):
    with daskps.proxy_graph():
        (row,) = [row for row in daskps.usage().values() if row["store"] == "shm://"]
        assert 0 < row["warm_at_most"] < row["room"]
        assert "memory" in row["limit"] or "file system" in row["limit"]
        assert row["limit"] in repr(daskps.usage())


def test_usage_does_without_a_worker_that_does_not_answer():
    with (
        ProcessCluster(workers=2) as another,
        another.client() as client,
        daskps.proxy_graph(),
    ):
        assert client.submit(np.sum, X).result() == X.sum()
        os.kill(another.workers[0].pid, signal.SIGSTOP)
        try:
            assert daskps.usage(client).objects == 1
        finally:
            os.kill(another.workers[0].pid, signal.SIGCONT)


def test_usage_for_an_asynchronous_client_is_a_coroutine(cluster, client):
    async def main():
        async with Client(cluster.address, asynchronous=True) as other:
            return await daskps.usage(other)

    with daskps.proxy_graph():
        future = client.submit(np.sum, X)
        assert asyncio.run(main()).objects == 1
        assert future.result() == X.sum()
        del future


def test_usage_says_that_there_is_no_client():
    with pytest.raises(ValueError, match="client"):
        daskps.usage()


@pytest.mark.parametrize("other", ["tcp://127.0.0.1:8786", 1, dict])
def test_usage_of_what_is_no_client_is_an_error(other):
    with pytest.raises(TypeError, match=re.escape(repr(other))):
        daskps.usage(other)
