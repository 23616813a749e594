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

pytestmark = pytest.mark.slow

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


@pytest.fixture
def own_cluster():
    """For a test after which the worker is another process."""
    with SmallCluster() as cluster:
        yield cluster


def state(dask_worker):
    """What a worker is: its process, resident set, own memory, and what Dask goes by."""
    watched = OwnMemory(os.getpid())
    resident = watched.resident()
    return {
        "pid": os.getpid(),
        "resident": resident,
        "own": watched.own(),
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


def writing(array):
    """Have copies of all pages, for a while."""
    array[:] = 1
    time.sleep(30)


def ask_if_there(client):
    """The worker's process, unless there is none."""
    there = client.run(state, on_error="ignore").values()
    return next((s["pid"] for s in there), None)


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


def test_what_tasks_write_is_the_workers(own_cluster):
    """A worker that holds too much for itself is still started anew, whatever is mapped."""
    x = np.ones(NBYTES // 8)
    with own_cluster.client() as client, daskps.proxy_graph():
        kept = dask.persist(dask.delayed(is_mapped)(x))
        wait(kept)
        before = ask(client)
        model = np.ones(2 * NBYTES // 8)
        running = dask.persist(*(dask.delayed(writing)(model) for _ in range(4)))
        assert eventually(lambda: "memory budget" in own_cluster.log("worker"))
        del running, kept
        assert eventually(lambda: ask_if_there(client) not in (None, before["pid"]))


def test_a_worker_that_was_started_anew_is_watched_as_well(own_cluster):
    """Its nanny has the plugin already, which is given again."""
    x = np.ones(NBYTES // 8)
    with own_cluster.client() as client, daskps.proxy_graph():
        wait(dask.persist(dask.delayed(is_mapped)(x)))
        client.restart()
        before = ask(client)
        kept = dask.persist(*(dask.delayed(is_mapped)(x) for _ in range(7)))
        wait(kept)
        assert eventually(lambda: ask(client)["resident"] > LIMIT)
        time.sleep(1)
        assert ask(client)["pid"] == before["pid"]
        del kept
