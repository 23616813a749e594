"""Workers are not paused, nor started anew, for memory that is a store's."""

from __future__ import annotations

import os
import time

import dask
import numpy as np
import pytest
from distributed import wait
from processes import ProcessCluster, eventually

import daskps
from daskps.stores.files.own_memory import OwnMemory

MIB = 1 << 20
LIMIT = 512 * MIB
# Seven of them are more than a worker may have.
NBYTES = 96 * MIB


class SmallCluster(ProcessCluster):
    """One worker of four threads with little memory, under a nanny."""

    threads = 4
    options = f"--memory-limit {LIMIT}"

    def __init__(self, **kwargs):
        super().__init__(1, nanny=True, **kwargs)


@pytest.fixture(scope="module")
def small_cluster():
    with SmallCluster() as cluster:
        yield cluster


@pytest.fixture
def client(small_cluster):
    with small_cluster.client() as client:
        yield client


def state(dask_worker):
    """What a worker is: its process, resident set, own memory, and what Dask goes by."""
    watched = OwnMemory(os.getpid())
    resident = watched.resident()
    return {
        "pid": os.getpid(),
        "resident": resident,
        "own": resident - watched.of_stores(),
        "monitored": dask_worker.monitor.get_process_memory(),
        "said": dask_worker.monitor.recent()["memory"],
        "status": dask_worker.status.name,
    }


def ask(client):
    (answer,) = client.run(state).values()
    return answer


def is_mapped(array):
    """A view of the argument, all of which was read."""
    return array[1:] if array.any() else None


def holding(array, i):
    array.any()
    time.sleep(1)
    return i, os.getpid()


def written(array, value):
    array[:] = value
    return array[:1].copy()


def allocate(nbytes):
    kept = np.ones(nbytes, np.uint8)
    time.sleep(30)
    return kept[:1]


def test_many_mappings_of_one_object(client, small_cluster):
    """Seven results are views of one array: RSS counts it seven times."""
    before = ask(client)
    x = np.ones(NBYTES // 8)
    with daskps.proxy_graph():
        kept = dask.persist(*(dask.delayed(is_mapped)(x) for _ in range(7)))
        wait(kept)
        after = eventually(lambda: (now := ask(client))["resident"] > LIMIT and now)
        assert after, "the test maps too little"
        # For many rounds of the monitors.
        time.sleep(2)
        after = ask(client)
        assert after["pid"] == before["pid"]
        assert after["resident"] > LIMIT
        assert after["own"] < LIMIT / 2
        assert abs(after["monitored"] - after["own"]) < 32 * MIB
        assert eventually(lambda: ask(client)["said"] < LIMIT / 2)
        assert after["status"] == "running"
        del kept
    log = small_cluster.log("worker")
    assert "Pausing worker" not in log
    assert "memory budget" not in log


def test_what_the_dashboard_shows(client):
    """Managed and unmanaged memory add up, and what is mapped is in neither."""
    x = np.ones(NBYTES // 8)

    def memory(dask_scheduler):
        (worker,) = dask_scheduler.workers.values()
        m = worker.memory
        return m.process, m.managed, m.unmanaged, m.unmanaged_old, m.optimistic

    with daskps.proxy_graph():
        kept = dask.persist(*(dask.delayed(is_mapped)(x) for _ in range(3)))
        wait(kept)
        assert eventually(
            lambda: (
                client.run_on_scheduler(memory)[0] < ask(client)["resident"] - NBYTES
            )
        )
        process, managed, unmanaged, old, optimistic = client.run_on_scheduler(memory)
        assert process == managed + unmanaged
        assert min(managed, unmanaged, old) >= 0
        assert optimistic <= process
        del kept


def test_a_model_for_many_tasks(client):
    """Four threads map it at once."""
    before = ask(client)
    model = np.ones(2 * NBYTES // 8)
    with daskps.proxy_graph():
        tasks = [dask.delayed(holding)(model, i) for i in range(12)]
        done = dask.compute(*tasks)
    assert done == tuple((i, before["pid"]) for i in range(12))


def test_what_tasks_write_is_the_workers(client, small_cluster):
    """Private copies of pages count: here they are too many, as in plain Dask."""
    x = np.ones(NBYTES // 8)
    restarts = small_cluster.log("worker").count("memory budget")

    with daskps.proxy_graph():
        futures = client.map(written, [x] * 2, range(2), pure=False)
        assert [r[0] for r in client.gather(futures)] == [0, 1]
        held = client.submit(allocate, LIMIT, pure=False)
        assert eventually(
            lambda: small_cluster.log("worker").count("memory budget") > restarts
        )
        held.cancel()
    assert eventually(lambda: len(client.scheduler_info()["workers"]) == 1)


def test_a_worker_that_was_started_anew_is_watched_as_well(client):
    """Its nanny has the plugin already, which is given again."""
    x = np.ones(NBYTES // 8)
    client.restart()
    with daskps.proxy_graph():
        before = ask(client)
        kept = dask.persist(*(dask.delayed(is_mapped)(x) for _ in range(7)))
        wait(kept)
        assert eventually(lambda: ask(client)["resident"] > LIMIT)
        time.sleep(1)
        assert ask(client)["pid"] == before["pid"]
        del kept
