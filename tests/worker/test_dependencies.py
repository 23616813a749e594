"""Large results that workers pass to each other go through shared memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
from distributed import Client, wait
from distributed.protocol.serialize import families
from processes import PATIENCE, ProcessCluster, eventually

import daskps
from daskps.messages import dependency_family, family
from daskps.references.results import register_reader
from daskps.stores import opened
from daskps.worker.plugin import WorkerStorePlugin

N = 1 << 17  # a MiB of numbers


@pytest.fixture
def workers(own_cluster):
    """A client, in a session, and the addresses of two workers."""
    with own_cluster.client() as client, daskps.proxy_graph():
        yield client, *client.scheduler_info()["workers"]


def made(value):
    return np.full(N, value)


def add_one(array):
    """Change an argument in place, and say where it lies."""
    array += 1
    return array[0], mapped_from_store(array)


def mapped_from_store(array):
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(x, 16) for x in line.split(maxsplit=1)[0].split("-"))
            if start <= address < end:
                return "daskps" in line
    return False


def first(array):
    return array[0]


def stored(cluster):
    """Objects in the cluster's stores."""
    return [
        name
        for directory in cluster.directories
        for name in os.listdir(directory)
        if not name.startswith(("free.", "owner.lock"))
    ]


def moved(client, here, there, function):
    """What a function makes of a result of another worker."""
    source = client.submit(made, 5, pure=False, workers=[here])
    wait(source)
    return source, client.submit(function, source, pure=False, workers=[there])


def test_a_dependency_comes_by_reference_into_an_array_of_its_own(workers, own_cluster):
    client, here, there = workers
    source, changed = moved(client, here, there, add_one)
    assert changed.result() == (6, True)
    assert client.submit(first, source, pure=False, workers=[here]).result() == 5
    assert len(stored(own_cluster)) == 1, "the sender stored it"
    del source, changed
    assert eventually(lambda: not stored(own_cluster)), "it goes with the result"


def test_small_dependencies_come_as_in_plain_dask(workers, own_cluster):
    client, here, there = workers
    source = client.submit(np.ones, 10, workers=[here])
    total = client.submit(np.sum, source, workers=[there])
    assert total.result() == 10
    assert not stored(own_cluster)


def test_dependencies_of_clients_without_a_session_come_by_reference(
    workers, own_cluster
):
    _, here, there = workers
    with Client(own_cluster.address, set_as_default=False) as plain:
        _, total = moved(plain, here, there, np.sum)
        assert total.result() == 5 * N


def test_what_was_received_outlives_its_sender():
    with ProcessCluster() as cluster, cluster.client() as client, daskps.proxy_graph():
        here, there = (
            client.submit(os.getpid, workers=[w], pure=False).result()
            for w in ("w0", "w1")
        )
        assert here != there
        source, kept = moved(client, "w0", "w1", np.asarray)
        wait(kept)
        cluster.workers[0].kill()
        cluster.workers[0].wait()
        assert eventually(lambda: len(client.scheduler_info()["workers"]) == 1)
        assert client.submit(np.sum, kept).result() == 5 * N
        del source
        # What it has stored is deleted some seconds later.
        assert eventually(lambda: not stored(cluster))


def break_reading():
    """Have the store fail on this worker, and count how often it is asked."""

    def read(name, key):
        read.asked += 1
        raise daskps.ObjectMissingError("broken for this test")

    read.asked = 0
    opened.read = read


def times_asked():
    return opened.read.asked


def test_a_worker_that_cannot_read_gets_results_as_in_plain_dask():
    with ProcessCluster() as cluster, cluster.client() as client, daskps.proxy_graph():
        client.submit(break_reading, workers=["w1"]).result()
        for _ in range(3):
            _, total = moved(client, "w0", "w1", np.sum)
            assert total.result() == 5 * N
        asked = client.submit(times_asked, workers=["w1"], pure=False).result()
        assert asked == 1, "it does not try again"


def test_results_that_are_not_to_be_stored_go_over_the_network():
    with (
        ProcessCluster() as cluster,
        cluster.client() as client,
        daskps.proxy_graph(results=False),
    ):
        source, changed = moved(client, "w0", "w1", add_one)
        assert changed.result() == (6, False)
        assert not stored(cluster)
        del source


def refuse(dask_worker):
    """What is left of a worker that could not open the store when it joined."""
    for plugin in dask_worker.plugins.values():
        if isinstance(plugin, WorkerStorePlugin):
            plugin._writer.close()
            plugin._writer = None
            for name in family(plugin.store), dependency_family(plugin.store):
                del families[name]
            register_reader(plugin.store)


def test_results_of_a_worker_that_cannot_open_the_store(own_cluster):
    with own_cluster.client() as client, daskps.proxy_graph():
        here, there = client.scheduler_info()["workers"]
        client.submit(first, made(1), workers=[there]).result()
        client.run(refuse, workers=[here])
        _, result = moved(client, here, there, first)
        assert result.result(timeout=PATIENCE) == 5
