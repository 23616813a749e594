"""What ``daskps.usage`` says of the stores of a cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys

import dask
import numpy as np
import pytest
from distributed import Client, wait
from processes import ProcessCluster, eventually

import daskps
from daskps.stores.traffic import Counts

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


def same(x):
    """Pass on what was given."""
    return x


def nbytes_of_files(cluster):
    """What the stores of a cluster take on this host: each file once."""
    files = {}
    for directory in cluster.directories:
        for entry in os.scandir(directory):
            if entry.name != "owner.lock":
                status = entry.stat()
                files[status.st_ino] = status.st_size
    return sum(files.values())


def test_a_result_that_is_what_it_was_given_takes_no_memory_twice(
    own_cluster, own_client
):
    """Its file has one more name."""
    with daskps.proxy_graph():
        future = own_client.submit(same, X)
        assert (future.result() == X).all()

        def complete():
            return sum(row["results"] for row in daskps.usage().values())

        assert eventually(complete)
        usage = daskps.usage()
        (row,) = [row for row in usage.values() if row["results"]]
        assert row["linked"] == row["bytes"]
        assert row["result_bytes"] == 0
        # What others have evicted meanwhile is kept for a while.
        assert eventually(lambda: daskps.usage().total == nbytes_of_files(own_cluster))
        del future


def done_since(before, client):
    """What was added to the counts of all stores."""
    after = totals(client)
    return {name: after[name] - before[name] for name in after}


def totals(client):
    rows = daskps.usage(client).values()
    return {name: sum(row[name] for row in rows) for name in Counts._fields}


def test_usage_says_what_was_done(own_client):
    with daskps.proxy_graph():
        before = totals(own_client)
        futures = [own_client.submit(np.sum, X, initial=i) for i in range(4)]
        assert own_client.gather(futures) == [X.sum() + i for i in range(4)]
        done = {}

        def told():
            done.update(done_since(before, own_client))
            return done["reads"]

        assert eventually(told)
        assert (done["puts"], done["found"]) == (1, 3)
        nbytes = daskps.usage().nbytes
        assert done["put_bytes"] == nbytes
        assert done["found_bytes"] == 3 * nbytes
        assert done["off_scheduler"] == 4 * nbytes
        assert done["put_seconds"] > 0
        assert done["reads"] == done["read_bytes"] / nbytes
        assert done["read_seconds"] > 0
        text = repr(daskps.usage())
        assert "3 found again" in text
        assert "kept off the scheduler" in text
        del futures
    assert eventually(lambda: done_since(before, own_client)["evictions"] == 1)


def test_what_another_process_did_is_known_without_asking_it(own_cluster, own_client):
    """Also after it has ended."""
    with daskps.proxy_graph():
        own_client.submit(np.sum, X).result()
        before = totals(own_client)
    code = (
        "import daskps, numpy as np; from distributed import Client\n"
        f"with Client('{own_cluster.address}') as client, daskps.proxy_graph():\n"
        "    client.submit(np.sum, np.ones(1 << 18)).result()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    done = done_since(before, own_client)
    assert (done["puts"], done["put_bytes"] >= X.nbytes) == (1, True)


def test_results_kept_off_the_scheduler_count(own_client):
    with daskps.proxy_graph():
        future = own_client.submit(np.add, X, 2)
        wait(future)
        before = totals(own_client)
        assert (future.result() == X + 2).all()
        assert eventually(
            lambda: done_since(before, own_client)["off_scheduler"] >= X.nbytes
        )
        done = done_since(before, own_client)
        assert done["reads"] == 1, "by this client"
        del future


class TestSession:
    def test_it_shows_what_this_process_did(self, own_client):
        with daskps.proxy_graph() as session:
            assert "puts" not in repr(session).partition("threshold")[0]
            assert own_client.submit(np.sum, X).result() == X.sum()
            text = repr(session)
        assert "1 objects kept, 2.00 MiB" in text
        assert re.search(r"\d+ puts, ", text)

    def test_it_shows_what_this_host_keeps(self, own_client):
        with dask.config.set({"daskps.cache-size": 0}), daskps.proxy_graph() as session:
            assert own_client.submit(np.sum, X).result() == X.sum()
            assert eventually(lambda: " kept warm" in repr(session))

    def test_a_notebook_shows_what_the_cluster_has(self, own_client):
        with daskps.proxy_graph() as session:
            future = own_client.submit(np.add, X, 1)
            assert (future.result() == X + 1).all()
            assert eventually(
                lambda: (
                    "Results</th><td style='text-align:left'>1, 2.00 MiB"
                    in session._repr_html_()
                )
            )
            html = session._repr_html_()
            for heading in ("Objects", "Copies", "Kept warm", "Puts", "Reads", "Room"):
                assert f">{heading}" in html
            del future

    def test_an_asynchronous_client_is_not_asked(self, cluster, client):
        async def main():
            async with (
                Client(cluster.address, asynchronous=True) as other,
                daskps.proxy_graph(client=other) as session,
            ):
                assert await other.submit(np.sum, X) == X.sum()
                return session._repr_html_()

        html = asyncio.run(main())
        assert "As this process knows it" in html
        assert "Puts" in html

    def test_a_cluster_that_does_not_answer_is_no_error(self):
        with (
            ProcessCluster(workers=1) as another,
            another.client() as client,
            daskps.proxy_graph() as session,
        ):
            assert client.submit(np.sum, X).result() == X.sum()
            os.kill(another.scheduler.pid, signal.SIGSTOP)
            try:
                assert "As this process knows it" in session._repr_html_()
            finally:
                os.kill(another.scheduler.pid, signal.SIGCONT)

    def test_a_clients_widget_has_its_session(self, cluster, client):
        with daskps.Client(cluster.address, set_as_default=False) as other:
            assert other.submit(np.sum, X).result() == X.sum()
            html = other._repr_html_()
            assert "Scheduler" in html
            assert "daskps session" in html
            assert "Kept off the scheduler" in html


def test_a_notebook_shows_usage(own_client):
    with daskps.proxy_graph():
        own_client.submit(np.sum, X).result()
        assert "shm://" in daskps.usage()._repr_html_()
        assert "Kept off the scheduler" in daskps.usage()._repr_html_()
        (row,) = daskps.usage().values()
        html = type(daskps.usage())({"one": row, "other": row})._repr_html_()
        assert html.count("(one)") == html.count("(other)") == 1, "of one URL"
